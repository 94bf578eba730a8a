"""lm-eval on a model that is already loaded:
each task of the battery as one of its own tasks, run and averaged by it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from torch.nn.attention import sdpa_kernel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palimpsest.battery import MEASURES
from palimpsest.battery.questions import Question
from palimpsest.battery.scores import factuality, ngram_entropy, truthfulness
from palimpsest.errors import PalimpsestError
from palimpsest.inference.generation import KERNELS, end_tokens, greedy
from palimpsest.models.encoding import encode, padding_token
from palimpsest.models.text import text_tokens


class OneBos(HFLM):
    """lm-eval's Hugging Face model with prompts encoded as everywhere in the project:
    they start as the model's texts do, with one BOS or with nothing.

    Its own `add_bos_token` only says whether the tokenizer may add what it is built to add: a tokenizer
    without a template adds nothing. Prompts that do not fit the model's context are errors; lm-eval would cut
    off their start, BOS included.
    """

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, *_: Any, **__: Any) -> list[int]:
        if add_special_tokens is False:
            return text_tokens(self.tokenizer, string)
        tokens = encode(self.tokenizer, string)
        self._check_length(len(tokens), self.max_length)
        return tokens

    def tok_batch_encode(
        self,
        strings: Sequence[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [encode(self.tokenizer, string) for string in strings]
        self._check_length(max(map(len, rows)), left_truncate_len or self.max_length)
        batch = self.tokenizer.pad({"input_ids": rows}, padding_side=padding_side, return_tensors="pt")
        return batch["input_ids"], batch["attention_mask"]

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **settings: Any) -> torch.Tensor:
        with greedy(self.model, self.tokenizer):
            output = super()._model_generate(context, max_length, stop, **settings)
            ended = torch.isin(output, torch.tensor(end_tokens(self.model, self.tokenizer), device=output.device))
        ended[:, : context.shape[1]] = False
        return output.masked_fill(ended.cumsum(1) > 0, padding_token(self.tokenizer))  # an end need not be special

    def _check_length(self, tokens: int, room: int) -> None:
        if tokens > room:
            raise PalimpsestError(
                f"a prompt of the battery has {tokens} tokens, the model has room for {room}: lower shots or "
                "max_new_tokens in battery.tasks, or delete the task."
            )


@sdpa_kernel(KERNELS)
def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Mapping[str, Sequence[Question]],
    tasks: Mapping[str, Mapping[str, Any]],
    batch_size: int,
) -> dict[str, dict[str, Any]]:
    """By task: "n", the "score" with its standard error "stderr" and what it is ("measure"), "measures" with all of
    these, values "per_example" of the score with their "ids", and "responses" where text was generated.

    questions: of `palimpsest.battery.questions.prepare`; tasks: settings by key. Everything is in percent (Flu: 100
    times bits), as the paper prints it; a standard error is the sample's standard deviation over the square root of n.
    Log-likelihoods are float32. Raises PalimpsestError for a tokenizer without an EOS token.
    """
    if tokenizer.eos_token_id is None:
        raise PalimpsestError(
            "the tokenizer has no EOS token, at which lm-eval ends answers: name one in its tokenizer_config.json "
            "(eos_token), or set battery to null."
        )
    lm = OneBos(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32")
    harness = {task: ConfigurableTask(config=_config(task, questions[task], tasks[task])) for task in tasks}
    found: Any = evaluate(lm, {"tasks": harness, "groups": {}, "group_map": {}})
    return {task: _record(task, found["results"][task], found["samples"][task], questions[task]) for task in tasks}


def _config(task: str, questions: Sequence[Question], settings: Mapping[str, Any]) -> dict[str, Any]:
    """lm-eval's description of a task: prompts as they are, no examples added."""
    config = {
        "task": task,
        "custom_dataset": lambda: {"test": Dataset.from_list(list(questions))},
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": "prompt",
        "metric_list": [
            {"metric": measure, "aggregation": "mean", "higher_is_better": True} for measure in MEASURES[task]
        ],
    }
    return config | KINDS[task](settings)


def _multiple_choice(_: Mapping[str, Any]) -> dict[str, Any]:
    return {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "right"}


def _truthful(_: Mapping[str, Any]) -> dict[str, Any]:
    def score(question: Question, results: Sequence[tuple[float, bool]]) -> dict[str, float]:
        return truthfulness(question, [log_likelihood for log_likelihood, _ in results])

    return {
        "output_type": "multiple_choice",
        "doc_to_choice": "choices",
        "doc_to_target": "best",
        "process_results": score,
    }


def _short_answer(settings: Mapping[str, Any]) -> dict[str, Any]:
    """An answer ends with its line: what a base model goes on to write is not part of it."""

    def score(question: Question, results: Sequence[str]) -> dict[str, float]:
        return factuality(question["answers"], results[0])

    return _generation(["\n"], settings) | {"doc_to_target": "answers", "process_results": score}


def _free_text(settings: Mapping[str, Any]) -> dict[str, Any]:
    def score(_: Question, results: Sequence[str]) -> dict[str, float]:
        return {"entropy": ngram_entropy(results[0])}

    return _generation([], settings) | {"doc_to_target": "id", "process_results": score}  # there is no right answer


def _generation(until: list[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    greedy = {"until": until, "do_sample": False, "max_gen_toks": settings["max_new_tokens"]}
    return {"output_type": "generate_until", "generation_kwargs": greedy}


KINDS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "gen": _multiple_choice,
    "tru": _truthful,
    "fac": _short_answer,
    "flu": _free_text,
}


def _record(
    task: str, results: Mapping[str, float], samples: Sequence[Mapping[str, Any]], questions: Sequence[Question]
) -> dict[str, Any]:
    measures = {
        name: {"score": 100 * results[f"{name},none"], "stderr": 100 * results[f"{name}_stderr,none"]}
        for name in MEASURES[task]
    }
    score = MEASURES[task][0]
    samples = sorted(samples, key=lambda sample: sample["doc_id"])
    record = {"n": len(samples), "measure": score, **measures[score], "measures": measures}
    record |= {"ids": [question["id"] for question in questions], "per_example": [100 * row[score] for row in samples]}
    if isinstance(samples[0]["filtered_resps"][0], str):
        record["responses"] = [sample["filtered_resps"][0] for sample in samples]
    return record
