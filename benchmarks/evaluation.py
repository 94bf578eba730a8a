"""Seconds that the four metrics of one model at one precision cost on a random Llama,
and what a plain loop over single prompts costs.

`python benchmarks/evaluation.py 7b` wants a GPU; `tiny` runs anywhere. The work is MUSE's: 100 verbatim prompts of
200 tokens, continued by 128; 100 questions on the forget and 100 on the retain set, 10 in-context examples before
each, answered in 32 tokens; log-probabilities of 100 forget and 100 holdout texts of 2,048 tokens. Words are random,
so nothing stops early. The plain loop (batch size 1, keys and values cached, examples run anew for every question,
as in the paper's released code) runs `--plain` of each kind and is extrapolated, after one of each untimed, and with
the same attention kernels.

Where the two part in a response, the gap between the plain loop's two best logits there is looked at: a gap within the
rounding of the arithmetic is a tie, which either may break in its own way; any other is counted as different.
"""

import argparse
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from random_llama import DEVICE, SHAPES, clock, peak_memory, random_llama
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedTokenizerFast

from palimpsest.corpus.prompts import STOP_STRINGS, question_prompt
from palimpsest.inference.files import Response, write_log_probs, write_responses
from palimpsest.inference.generation import KERNELS, generate
from palimpsest.inference.likelihood import split_log_probs, token_log_probs
from palimpsest.inference.requests import Request, encode
from palimpsest.metrics import score
from palimpsest.models.checkpoint import store_weights

RANDOM = random.Random(0)
VERBATIM, QUESTIONS, TEXTS, EXAMPLES = 100, 100, 100, 10
CACHES = {  # cache_implementation, disable_compile: on a GPU transformers compiles the steps of a static cache
    "the cache as before": (None, False),
    "a static cache": ("static", True),
    "a static cache and compiled steps": ("static", False),
    "the same, once compiled": ("static", False),
}
FIRST_WORD = 6
METRICS: dict[str, dict[str, Any]] = {
    "verbmem": {"rouge": "rougeL_f1"},
    "knowmem": {"rouge": "rougeL_f1"},
    "utility": {"rouge": "rougeL_f1"},
    "privleak": {"min_k_ratio": 0.4, "reference": "retrain"},
}
BOOTSTRAP = {"resamples": 2000, "confidence": 0.95, "seed": 0}


def word_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """A word is a token, so that responses tell tokens. transformers learns how tokens join from the word abcdef."""
    words = ["<s>", "</s>", "<pad>", "Question:", "Answer:", "abcdef", *(f"w{i}" for i in range(FIRST_WORD, size))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def words(count: int, vocabulary: int) -> str:
    return " ".join(f"w{RANDOM.randrange(FIRST_WORD, vocabulary)}" for _ in range(count))


def requests_of(vocabulary: int, length: int) -> list[Request]:
    """length: tokens of a text; prompts shrink with it."""
    share = length / 2048
    asked = [
        Request("verbmem", i, words(int(200 * share), vocabulary), words(8, vocabulary), int(128 * share))
        for i in range(VERBATIM)
    ]
    for task in ("knowmem_forget", "knowmem_retain"):
        shots = [(words(12, vocabulary), words(4, vocabulary)) for _ in range(EXAMPLES)]
        for i in range(QUESTIONS):
            prompt = question_prompt(words(RANDOM.randint(8, 16), vocabulary), shots)
            asked.append(Request(task, i, prompt, words(4, vocabulary), int(32 * share), STOP_STRINGS))
    return asked


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = clock()
    result = work()
    return clock() - started, result


@sdpa_kernel(KERNELS)
def plain_responses(model: Any, tokenizer: Any, requests: list[Request]) -> list[Any]:
    """What `generate` of transformers gives for each prompt by itself, with the logits of every step."""
    outputs = []
    for request in requests:
        ids = torch.tensor([encode(tokenizer, request.prompt)], device=model.device)
        outputs.append(
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=request.max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                return_dict_in_generate=True,
                output_logits=True,
            )
        )
    return outputs


def compare(plain: Any, response: str, tokenizer: Any, resolution: float) -> str:
    """identical, tie or different."""
    ours = tokenizer(response, add_special_tokens=False)["input_ids"]
    theirs = plain.sequences[0, -len(plain.logits) :].tolist()
    theirs = theirs[: theirs.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in theirs else theirs
    theirs = tokenizer(tokenizer.decode(theirs, skip_special_tokens=True), add_special_tokens=False)["input_ids"]
    if ours == theirs:
        return "identical"
    parting = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
    if parting is None:
        return "different"
    best = plain.logits[parting][0].float().topk(2).values
    return "tie" if best[0] - best[1] <= resolution * best[0].abs() else "different"


def evaluate(
    model: Any, tokenizer: Any, requests: list[Request], splits: dict[str, list[str]], arguments: argparse.Namespace
) -> tuple[dict[str, float], list[Response], dict[str, list[list[float]]]]:
    """Seconds by kind of work, as the workflow does it, and what came out."""
    verbatim, asked = requests[:VERBATIM], requests[VERBATIM:]
    took = {}
    took["responses to verbatim prompts"], responses = timed(
        lambda: generate(model, tokenizer, verbatim, arguments.batch_size)
    )
    took["answers to questions"], answers = timed(lambda: generate(model, tokenizer, asked, arguments.batch_size))
    took["log-probabilities"], rows = timed(
        lambda: split_log_probs(model, tokenizer, splits, arguments.length, arguments.batch_size)
    )
    return took, responses + answers, rows


def ask_again(model: Any, tokenizer: Any, requests: list[Request], batch_size: int, before: list[Response]) -> None:
    """Seconds of the verbatim prompts with each cache; the first is the one that is used."""
    for run, (cache, alone) in CACHES.items():
        model.generation_config.cache_implementation, model.generation_config.disable_compile = cache, alone
        seconds, others = timed(lambda: generate(model, tokenizer, requests, batch_size))
        same = sum(mine.response == other.response for mine, other in zip(before, others, strict=True))
        print(f"  again, {run}: {seconds:.1f} s for the verbatim prompts, {same} of {len(others)} responses the same")
    model.generation_config.cache_implementation = None


def store_and_score(responses: list[Response], rows: dict[str, list[list[float]]]) -> None:
    with TemporaryDirectory() as folder:
        responses_file, log_probs = Path(folder) / "responses.jsonl", Path(folder) / "logprobs.parquet"
        write_responses(responses, responses_file)
        write_log_probs(rows, log_probs)
        for metric, settings in METRICS.items():
            score(metric, settings | BOOTSTRAP, responses_file, log_probs, log_probs)


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--length", type=int, default=2048, help="tokens of a text; prompts and responses shrink with it"
    )
    parser.add_argument("--plain", type=int, default=10, help="prompts and texts of each kind that the plain loop runs")
    parser.add_argument(
        "--static",
        action="store_true",
        help="answer the verbatim prompts again, also with a static cache, without compiled steps and with them",
    )
    parser.add_argument(
        "--cudnn", action="store_true", help="let attention take cuDNN's kernels too, as torch does by itself"
    )
    parser.add_argument("--float32", action="store_true", help="compute in float32, where a tie is rare")
    return parser.parse_args()


def main() -> None:
    arguments = arguments_of()
    if arguments.cudnn:
        KERNELS.append(SDPBackend.CUDNN_ATTENTION)
    model = random_llama(arguments.shape).eval()
    if arguments.float32:
        store_weights(model, torch.float32)
    resolution = 2 * torch.finfo(model.dtype).eps
    vocabulary = model.config.vocab_size
    tokenizer = word_tokenizer(vocabulary)
    requests = requests_of(vocabulary, arguments.length)
    splits = {split: [words(arguments.length - 1, vocabulary) for _ in range(TEXTS)] for split in ("forget", "holdout")}
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    print(
        f"{name}, torch {torch.__version__}; "
        f"{arguments.shape}, {model.dtype}, seed 0, batch size {arguments.batch_size}"
    )
    generate(model, tokenizer, requests[:2], 2)  # the first call of everything is slow
    ours, responses, rows = evaluate(model, tokenizer, requests, splits, arguments)
    memory = peak_memory()
    if arguments.static:
        ask_again(model, tokenizer, requests[:VERBATIM], arguments.batch_size, responses[:VERBATIM])
    ours["scores, on the CPU"], _ = timed(lambda: store_and_score(responses, rows))

    count = arguments.plain
    kinds = {
        "responses to verbatim prompts": range(count),
        "answers to questions": range(VERBATIM, VERBATIM + count),
    }
    plain, verdicts = {"scores, on the CPU": ours["scores, on the CPU"]}, Counter[str]()
    plain_responses(model, tokenizer, [requests[places.start] for places in kinds.values()])  # slow, the first time
    for kind, places in kinds.items():
        seconds, outputs = timed(lambda places=places: plain_responses(model, tokenizer, [requests[i] for i in places]))
        plain[kind] = seconds / count * (VERBATIM if places.start == 0 else 2 * QUESTIONS)
        verdicts.update(
            compare(output, responses[i].response, tokenizer, resolution)
            for output, i in zip(outputs, places, strict=True)
        )
    seconds, lone = timed(lambda: token_log_probs(model, tokenizer, splits["forget"][:count], arguments.length, 1))
    plain["log-probabilities"] = seconds / count * 2 * TEXTS
    furthest = max(
        abs(a - b) for mine, its in zip(rows["forget"], lone, strict=False) for a, b in zip(mine, its, strict=True)
    )

    for kind, seconds in ours.items():
        print(f"  {kind:30s} {seconds:8.1f} s   plain {plain[kind]:8.1f} s   {plain[kind] / seconds:6.1f} times")
    total, loop = sum(ours.values()), sum(plain.values())
    print(f"  {'all':30s} {total:8.1f} s   plain {loop:8.1f} s   {loop / total:6.1f} times; peak {memory:.1f} GB")
    print(
        f"  of {verdicts.total()} responses: "
        + ", ".join(f"{verdicts[kind]} {kind}" for kind in ("identical", "tie", "different"))
    )
    print(f"  log-probabilities differ by at most {furthest:.2g} nats")


if __name__ == "__main__":
    main()
