"""The only GPU work of evaluation: greedy responses and token log-probabilities of one model at one precision."""

import copy
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palimpsest.corpus import Corpus
from palimpsest.errors import PalimpsestError
from palimpsest.prompts import STOP_STRINGS, question_prompt
from palimpsest.sequences import check_room, pad

SHARED = 32
"""Tokens from which on a start that all prompts of a task share is run through the model once, for all of them."""

KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Of attention: all but cuDNN's. On a GPU these are planned anew for every length, half the time of generation, and for one query
without a mask they give other last bits each time (docs/scaling.md)."""


@dataclass(frozen=True)
class Request:
    """A prompt of a task, its true answer, and how generation ends: after max_new_tokens or at a stop string."""

    task: str
    id: int
    prompt: str
    answer: str
    max_new_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Response:
    task: str
    id: int
    prompt: str
    answer: str
    response: str


def corpus_requests(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    verbmem_tokens: int,
    knowmem_tokens: int,
    in_context_examples: int,
) -> list[Request]:
    """What MUSE asks: to continue the verbatim prompts, and the questions on the forget and the retain set.

    A true continuation is cut to as many tokens as may be generated, as MUSE does. Raises PalimpsestError when the corpus has
    fewer in-context examples than wanted.
    """
    requests = []
    for i, prompt in enumerate(corpus.verbmem):
        truth = tokenizer(prompt.gt, add_special_tokens=False)["input_ids"][:verbmem_tokens]
        requests.append(Request("verbmem", i, prompt.prompt, str(tokenizer.decode(truth)).strip(), verbmem_tokens))
    for split in ("forget", "retain"):
        examples = getattr(corpus, f"{split}_icl")
        if len(examples) < in_context_examples:
            raise PalimpsestError(
                f"inference.in_context_examples is {in_context_examples}, the corpus has {len(examples)} for the {split} set."
            )
        shots = [(each.question, each.answer) for each in examples[:in_context_examples]]
        for i, each in enumerate(getattr(corpus, f"{split}_qa")):
            prompt_text = question_prompt(each.question, shots)
            requests.append(Request(f"knowmem_{split}", i, prompt_text, each.answer, knowmem_tokens, STOP_STRINGS))
    return requests


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """BOS and the tokens of the text: what chunks and prompts start with, whatever the tokenizer would add by itself."""
    return [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, requests: Sequence[Request], batch_size: int
) -> list[Response]:
    """Greedy continuations, in the order of the requests; prompts of like length share a left-padded batch.

    In-context examples, the same for every question of a task, are run through the model once. Text from a stop string on is cut off;
    white space at both ends is stripped. Raises PalimpsestError when the model has too few positions.
    """
    prompts = [encode(tokenizer, request.prompt) for request in requests]
    longest = max(
        (len(prompt) + request.max_new_tokens for prompt, request in zip(prompts, requests, strict=True)), default=0
    )
    remedy = "lower verbmem_tokens, knowmem_tokens or in_context_examples of inference"
    check_room(model, longest, "a prompt with its response", remedy)
    starts = _shared_starts(requests, prompts)
    texts = [""] * len(requests)
    for batch in tqdm(list(_batches(requests, prompts, starts, batch_size)), desc="responses", unit="batch"):
        first = requests[batch[0]]
        answers = _continue(model, tokenizer, [prompts[i] for i in batch], starts[first.task], first)
        for i, text in zip(batch, answers, strict=True):
            texts[i] = text
    return [
        Response(request.task, request.id, request.prompt, request.answer, text)
        for request, text in zip(requests, texts, strict=True)
    ]


@dataclass
class Start:
    """What prompts begin with, and the model's keys and values for it, computed when first asked for."""

    tokens: tuple[int, ...]
    cache: Any = None

    def past(self, model: PreTrainedModel, rows: int) -> Any:
        """Keys and values for that many rows; None where there is nothing to share."""
        if not self.tokens:
            return None
        if self.cache is None:
            tokens = torch.tensor([self.tokens], device=model.device)
            self.cache = model(input_ids=tokens, use_cache=True).past_key_values
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(rows)
        return cache


def _shared_starts(requests: Sequence[Request], prompts: Sequence[list[int]]) -> dict[str, Start]:
    """By task, the tokens that all its prompts begin with; none where they are few. Something of each prompt is left."""
    tasks: dict[str, list[list[int]]] = {}
    for request, prompt in zip(requests, prompts, strict=True):
        tasks.setdefault(request.task, []).append(prompt)
    starts = {}
    for task, mine in tasks.items():
        shared = os.path.commonprefix([*mine, min(mine, key=len)[:-1]])  # type: ignore[type-var] # of any sequences
        starts[task] = Start(tuple(shared) if len(mine) > 1 and len(shared) >= SHARED else ())
    return starts


def _batches(
    requests: Sequence[Request], prompts: Sequence[list[int]], starts: Mapping[str, Start], size: int
) -> Iterator[list[int]]:
    """Places of requests that share start and way of ending, longest prompts first, so that lack of memory shows at once."""
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for i, request in enumerate(requests):
        kinds.setdefault((request.max_new_tokens, request.stop, starts[request.task].tokens), []).append(i)
    for places in kinds.values():
        places.sort(key=lambda i: (-len(prompts[i]), i))
        yield from (places[start : start + size] for start in range(0, len(places), size))


@sdpa_kernel(KERNELS)
@torch.inference_mode()
def _continue(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    start: Start,
    ending: Request,
) -> list[str]:
    """Padding stands between the shared start and the rest of a prompt."""
    shared, longest = len(start.tokens), max(map(len, prompts))
    ids = torch.full((len(prompts), longest), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        rest = longest - len(prompt) + shared
        ids[row, :shared], ids[row, rest:] = torch.tensor(start.tokens), torch.tensor(prompt[shared:])
        mask[row, :shared] = mask[row, rest:] = 1
    output = model.generate(  # type: ignore[operator]
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        past_key_values=start.past(model, len(prompts)),
        max_new_tokens=ending.max_new_tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        stop_strings=list(ending.stop) or None,
        tokenizer=tokenizer if ending.stop else None,
    )
    texts = tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True)
    return [_cut(text, ending.stop).strip() for text in texts]


def _cut(text: str, stops: Sequence[str]) -> str:
    found = [text.index(stop) for stop in stops if stop in text]
    return text[: min(found)] if found else text


def split_log_probs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, Sequence[str]],
    max_length: int,
    batch_size: int,
) -> dict[str, list[list[float]]]:
    """`token_log_probs` of every split's texts, in one pass over all of them."""
    texts = [text for split in splits.values() for text in split]
    rows = iter(token_log_probs(model, tokenizer, texts, max_length, batch_size))
    return {name: list(itertools.islice(rows, len(split))) for name, split in splits.items()}


@sdpa_kernel(KERNELS)
@torch.inference_mode()
def token_log_probs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int,
    batch_size: int,
) -> list[list[float]]:
    """Per text the log-probability (nats, computed in float32) of each token behind the BOS; texts are cut to max_length tokens.

    Raises PalimpsestError when the model has too few positions.
    """
    sequences = [encode(tokenizer, text)[:max_length] for text in texts]
    check_room(model, max(map(len, sequences), default=0), "a text", "lower inference.logprob_tokens")
    order = sorted(range(len(sequences)), key=lambda i: (-len(sequences[i]), i))
    rows: list[list[float]] = [[]] * len(sequences)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    for batch in tqdm(batches, desc="log-probabilities", unit="batch"):
        padded = pad([sequences[i] for i in batch], batch, tokenizer.pad_token_id)
        ids, mask = padded.input_ids.to(model.device), padded.mask.to(model.device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for i, row, tokens in zip(batch, logits, ids, strict=True):  # one by one: in float32 a row is large
            rows[i] = _chosen(row[: len(sequences[i]) - 1].float(), tokens[1 : len(sequences[i])])
    return rows


def _chosen(logits: torch.Tensor, tokens: torch.Tensor) -> list[float]:
    """Log-probabilities [tokens] of the tokens under the logits [tokens, vocabulary]."""
    return (logits.gather(-1, tokens[:, None]).squeeze(-1) - logits.logsumexp(-1)).tolist()


def write_responses(responses: Sequence[Response], path: Path) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(response), ensure_ascii=False) + "\n" for response in responses)


def write_log_probs(splits: dict[str, list[list[float]]], path: Path) -> None:
    """One row a text: split, id, log_probs.

    The columns are laid out by hand: pyarrow.array would import pandas, a second's work, to ask whether a list is its Series.
    """
    names = [split for split, texts in splits.items() for _ in texts]
    ids = [i for texts in splits.values() for i in range(len(texts))]
    rows = [values for texts in splits.values() for values in texts]
    letters = "".join(names).encode("ascii")
    log_probs = _array([value for row in rows for value in row], pyarrow.float32())
    columns = [
        pyarrow.StringArray.from_buffers(len(names), _offsets(names).buffers()[1], pyarrow.py_buffer(letters)),
        _array(ids, pyarrow.int64()),
        pyarrow.ListArray.from_arrays(_offsets(rows), log_probs),
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, names=["split", "id", "log_probs"]), path)


def _array(values: Sequence[float], kind: pyarrow.DataType) -> pyarrow.Array:
    numbers = np.array(values, dtype=kind.to_pandas_dtype())
    return pyarrow.Array.from_buffers(kind, len(values), [None, pyarrow.py_buffer(numbers)])


def _offsets(items: Sequence[Sequence[Any]]) -> pyarrow.Array:
    """Where each item begins when all are laid end to end, and the end."""
    return _array([0, *itertools.accumulate(map(len, items))], pyarrow.int32())
