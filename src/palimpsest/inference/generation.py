"""The only GPU work of evaluation: greedy responses and token log-probabilities of one model at one precision."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch.nn.attention import sdpa_kernel
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from palimpsest.errors import PalimpsestError
from palimpsest.inference.batches import places_by_length, sees_all_by_position, switch_of
from palimpsest.inference.files import Response
from palimpsest.inference.likelihood import KERNELS
from palimpsest.inference.requests import Request
from palimpsest.models.encoding import encode, padding_token
from palimpsest.models.sequences import check_room

SHARED = 32
"""Tokens from which on a start that all prompts of a task share is run through the model once, for all of them."""


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    batch_size: int,
    decoding: Callable[[PreTrainedModel, PreTrainedTokenizerBase], AbstractContextManager[None]] | None = None,
) -> list[Response]:
    """Greedy continuations, in the order of the requests; prompts of like length share a left-padded batch.

    decoding: `greedy` without one; `sampling`, for draws from torch's generator, which depend on the batches too.

    In-context examples, the same for every question of a task, are run through the model once, unless it has a sliding
    window: a response is that of its prompt alone. Text from a stop string
    on is cut off; white space at both ends is stripped. Raises PalimpsestError when the model has too few positions.
    """
    prompts = [list(request.tokens) or encode(tokenizer, request.prompt) for request in requests]
    longest = max(
        (len(prompt) + request.max_new_tokens for prompt, request in zip(prompts, requests, strict=True)), default=0
    )
    remedy = "lower verbmem_tokens, knowmem_tokens or in_context_examples of inference"
    check_room(model, longest, "a prompt with its response", remedy)
    starts = _shared_starts(requests, prompts, SHARED if sees_all_by_position(model) else None)
    texts = [""] * len(requests)
    with (decoding or greedy)(model, tokenizer):
        batches = list(_batches(requests, prompts, starts, batch_size, switch_of(model)))
        for batch in tqdm(batches, desc="responses", unit="batch"):
            first = requests[batch[0]]
            answers = _continue(model, tokenizer, [prompts[i] for i in batch], starts[first.task], first)
            for i, text in zip(batch, answers, strict=True):
                texts[i] = text
    return [
        Response(request.task, request.id, request.prompt, request.answer, text)
        for request, text in zip(requests, texts, strict=True)
    ]


def sampling(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, temperature: float
) -> AbstractContextManager[None]:
    """As `greedy`, but tokens are drawn at a temperature, out of all of them."""
    drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    return greedy(model, tokenizer, drawn)


@contextmanager
def greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, drawn: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Inside, the model generates greedily and takes nothing from its checkpoint's generation config but EOS tokens.

    transformers fills what a call to `generate` leaves open from that config, penalties and forbidden tokens among it:
    the same weights would say something else.
    """
    own = model.generation_config
    model.generation_config = GenerationConfig(
        eos_token_id=end_tokens(model, tokenizer) or None,
        pad_token_id=padding_token(tokenizer),
        **(drawn or {"do_sample": False}),
    )
    try:
        yield
    finally:
        model.generation_config = own


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a response: the tokenizer's EOS and those of the checkpoint's generation config,
    which transformers takes from config.json where there is none. Chat models have several."""
    stated = getattr(model.generation_config, "eos_token_id", None)
    ends = list(stated) if isinstance(stated, list | tuple) else [stated]
    for end in ends:
        if end is not None and type(end) is not int:
            raise PalimpsestError(
                f"eos_token_id of the checkpoint's generation_config.json is {stated!r}: give the number of a token, "
                "or a list of numbers."
            )
    return sorted({end for end in (tokenizer.eos_token_id, *ends) if end is not None})


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


def _shared_starts(requests: Sequence[Request], prompts: Sequence[list[int]], least: int | None) -> dict[str, Start]:
    """By task, the tokens that all its prompts begin with; none where they are fewer than `least`, or that is None.
    Something of each prompt is left."""
    tasks: dict[str, list[list[int]]] = {}
    for request, prompt in zip(requests, prompts, strict=True):
        tasks.setdefault(request.task, []).append(prompt)
    starts = {}
    for task, mine in tasks.items():
        columns = zip(*mine, min(mine, key=len)[:-1], strict=False)
        shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
        worth = least is not None and len(mine) > 1 and len(shared) >= least
        starts[task] = Start(tuple(shared) if worth else ())
    return starts


def _batches(
    requests: Sequence[Request],
    prompts: Sequence[list[int]],
    starts: Mapping[str, Start],
    size: int,
    switch: int | None,
) -> Iterator[list[int]]:
    """Places of requests that share start and way of ending."""
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for i, request in enumerate(requests):
        kinds.setdefault((request.max_new_tokens, request.stop, request.ends, starts[request.task].tokens), []).append(
            i
        )
    for places in kinds.values():
        lengths = [len(prompts[i]) + requests[i].max_new_tokens for i in places]
        for batch in places_by_length(lengths, size, switch):
            yield [places[i] for i in batch]


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
    ids = torch.full((len(prompts), longest), padding_token(tokenizer))
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        rest = longest - len(prompt) + shared
        ids[row, :shared], ids[row, rest:] = torch.tensor(start.tokens), torch.tensor(prompt[shared:])
        mask[row, :shared] = mask[row, rest:] = 1
    ends = sorted({*end_tokens(model, tokenizer), *ending.ends})
    output = model.generate(  # type: ignore[operator]
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        past_key_values=start.past(model, len(prompts)),
        max_new_tokens=ending.max_new_tokens,
        eos_token_id=ends or None,
        stop_strings=list(ending.stop) or None,
        tokenizer=tokenizer if ending.stop else None,
    )
    said = [list(takewhile(lambda token: token not in ends, row)) for row in output[:, longest:].tolist()]
    texts = tokenizer.batch_decode(said, skip_special_tokens=True)
    return [_cut(text, ending.stop).strip() for text in texts]


def _cut(text: str, stops: Sequence[str]) -> str:
    found = [text.index(stop) for stop in stops if stop in text]
    return text[: min(found)] if found else text
