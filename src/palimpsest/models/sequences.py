"""From text to the token sequences that models are trained on, and to batches of them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from palimpsest.corpus.corpus import Corpus
from palimpsest.corpus.prompts import AS_MUSE, Template
from palimpsest.errors import PalimpsestError, choose
from palimpsest.models.asking import Asking
from palimpsest.models.encoding import start_tokens
from palimpsest.models.text import text_tokens
from palimpsest.models.tokens import IGNORED
from palimpsest.vocabulary import JOINED, LINES

log = logging.getLogger(__name__)


def chunk(documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[list[int]]:
    """The published chunking (MUSE, baselines/dataset.py):
    the joined text in pieces of max_length - 1 tokens, each behind a BOS. A tokenizer that starts texts with nothing,
    or with more, has pieces of as many tokens more, or less.

    Unlike the released code, the last piece stays short instead of being topped up with the first one.
    """
    text = text_tokens(tokenizer, "\n\n".join(documents))
    before = start_tokens(tokenizer)
    size = max_length - len(before)
    return [[*before, *text[start : start + size]] for start in range(0, len(text), size)]


def lines_of(documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[list[int]]:
    """Each line of the documents that has text in it as a sequence of its own, behind what starts texts; one of more
    than max_length tokens in pieces, as `chunk` cuts."""
    lines = [line.strip() for document in documents for line in document.split("\n") if line.strip()]
    return [piece for line in lines for piece in chunk([line], tokenizer, max_length)]


PIECES: dict[str, Callable[[Sequence[str], PreTrainedTokenizerBase, int], list[list[int]]]] = {
    JOINED: chunk,
    LINES: lines_of,
}
"""How documents become training sequences: `training.pieces`."""


def question_sequence(
    tokenizer: PreTrainedTokenizerBase, question: str, answer: str, template: Template = AS_MUSE
) -> list[int]:
    """A question and its answer as the metric asks it: BOS, prompt, answer, EOS, the first and the last
    if the tokenizer has them; tokenized as the template says."""
    return Asking(template, tokenizer).sequence(question, answer)


def training_sequences(
    documents: Sequence[str],
    questions: Sequence[tuple[str, str]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    template: Template = AS_MUSE,
    pieces: str = JOINED,
) -> list[list[int]]:
    """The documents in PIECES, then the (question, answer) pairs as sequences of their own;
    a pair that max_length cuts is warned of."""
    sequences = choose(PIECES, pieces, "way to cut documents (training.pieces)")(documents, tokenizer, max_length)
    asked = [question_sequence(tokenizer, question, answer, template) for question, answer in questions]
    longest = max(map(len, asked), default=0)
    if longest > max_length:
        log.warning(
            "%d of %d questions with their answers are longer than training.max_length = %d tokens and lose their end, "
            "up to %d tokens: raise it so that the answers are learned and forgotten whole.",
            sum(len(sequence) > max_length for sequence in asked),
            len(asked),
            max_length,
            longest - max_length,
        )
    sequences += [sequence[:max_length] for sequence in asked]
    if not sequences:
        raise PalimpsestError("no text to train on: the corpus split is empty.")
    return sequences


def corpus_sequences(
    corpus: Corpus,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    questions: bool,
    template: Template = AS_MUSE,
    pieces: str = JOINED,
) -> list[list[int]]:
    """The training sequences of a split, `forget` or `retain`, with its questions where wanted, put as the template
    has it."""
    asked = [(each.question, each.answer) for each in getattr(corpus, f"{split}_qa")] if questions else []
    return training_sequences(getattr(corpus, split), asked, tokenizer, max_length, template, pieces)


@dataclass(frozen=True)
class Padded:
    """Right-padded sequences: input_ids, labels, mask, all [batch, time], and `index` [batch],
    their places in the data."""

    input_ids: Tensor
    labels: Tensor
    mask: Tensor
    index: Tensor


def pad(sequences: Sequence[Sequence[int]], index: Sequence[int], pad_token: int) -> Padded:
    longest = max(len(sequence) for sequence in sequences)
    ids = torch.full((len(sequences), longest), pad_token)
    labels = torch.full_like(ids, IGNORED)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = labels[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return Padded(ids, labels, mask, torch.tensor(index))


def pad_by_length(
    sequences: Sequence[Sequence[int]], index: Sequence[int], pad_token: int, waste: float = 0.35
) -> list[Padded]:
    """Batches of similar lengths, so that at most a share `waste` of a row is padding:
    short questions do not pay for long chunks."""
    order = sorted(range(len(sequences)), key=lambda i: (-len(sequences[i]), i))
    groups: list[list[int]] = []
    for i in order:
        if not groups or len(sequences[i]) < (1 - waste) * len(sequences[groups[-1][0]]):
            groups.append([])
        groups[-1].append(i)
    return [pad([sequences[i] for i in group], [index[i] for i in group], pad_token) for group in groups]


def check_room(model: Any, tokens: int, what: str, remedy: str) -> None:
    """Raises PalimpsestError when the model has no positions for so many tokens: it would answer, and make no sense."""
    room = getattr(model.config, "max_position_embeddings", None)
    if room is not None and tokens > room:
        raise PalimpsestError(f"{what} takes {tokens} tokens, the model has room for {room}: {remedy}.")
