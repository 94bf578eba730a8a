"""The text that a base is pretrained on: a tokenizer trained on it, and all of it as one row of tokens."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from palimpsest.errors import PalimpsestError

TOKENS = "tokens.npy"
"""The row of tokens in the folder of the tokenized text."""

PIECE = 100_000
"""Characters that are tokenized at a time, about: what the tokenizer notes of a token takes 100 times its memory."""


def pieces(document: str, size: int = PIECE) -> Iterator[str]:
    """A document in parts of about `size` characters, cut behind line ends, where words end too."""
    start = 0
    while start < len(document):
        cut = document.find("\n", start + size) + 1 or len(document)
        yield document[start:cut]
        start = cut


def encode(documents: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> NDArray[np.uint16 | np.uint32]:
    """[tokens] of all documents in a row, each followed by EOS; two bytes a token where the vocabulary allows it."""
    kind = np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32
    end = np.array([tokenizer.eos_token_id], kind)
    rows: list[NDArray] = []
    stream = _with_ends(documents)
    while parts := list(islice(stream, 64)):
        texts = [part for part, _ in parts]
        plain = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]  # `</s>` is text
        for ids, (_, last) in zip(plain, parts, strict=True):
            rows += [np.array(ids, kind), end] if last else [np.array(ids, kind)]
    return np.concatenate(rows) if rows else np.array([], kind)


def _with_ends(documents: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """The pieces of each document, and whether the document ends there."""
    for document in documents:
        *body, last = pieces(document)
        yield from ((piece, False) for piece in body)
        yield last, True


def window_starts(tokens: int, length: int, held_out: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the windows begin that are trained on, and those that are held out: `length` tokens each, side by side,
    drawn at random by `seed`. What is left at the end of the text is in none.

    held_out: their share of all windows, at least one window. Raises PalimpsestError when none is left to train on.
    """
    number = tokens // length
    kept = max(1, round(held_out * number))
    if number <= kept:
        raise PalimpsestError(
            f"the text of models.pretraining has {tokens} tokens, {number} windows of {length}, and held_out takes "
            f"{kept}: give more text, or lower held_out or models.scratch.context."
        )
    order = np.random.default_rng(seed).permutation(number) * length
    return np.sort(order[kept:]), np.sort(order[:kept])


def read_tokens(folder: Path) -> NDArray[np.uint16 | np.uint32]:
    """The row of tokens of a folder of tokenized text, mapped from the file."""
    return np.load(folder / TOKENS, mmap_mode="r")


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, wanted: int) -> None:
    """Raises PalimpsestError when the text was too short to learn the vocabulary from."""
    if len(tokenizer) != wanted:
        raise PalimpsestError(
            f"the text of models.pretraining gave a vocabulary of {len(tokenizer)}, models.scratch.vocabulary asks for "
            f"{wanted}: give more text, or lower vocabulary."
        )
