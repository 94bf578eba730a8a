"""The text that a base is pretrained on, as tokens."""

import numpy as np
import pytest

from palimpsest.errors import PalimpsestError
from palimpsest.models.pretraining_text import check_vocabulary, encode, pieces, window_starts
from palimpsest.models.scratch import train_tokenizer

DOCUMENTS = [
    "The cat sat.\nThe dog ran.\n" * 40,
    "Élan vital",
    "A line without an end " * 30,
    "<p>So <s>old</s> text</p>",
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(DOCUMENTS, 300)


@pytest.mark.parametrize("size", [1, 10, 100, 10_000])
def test_pieces_are_the_document_and_end_with_lines(size):
    for document in DOCUMENTS:
        parts = list(pieces(document, size))
        assert "".join(parts) == document
        assert all(part.endswith("\n") for part in parts[:-1])


def test_a_row_of_tokens_is_the_documents_each_with_an_end(tokenizer):
    row = encode(DOCUMENTS, tokenizer)
    assert row.dtype == np.uint16
    ends = np.flatnonzero(row == tokenizer.eos_token_id)
    assert len(ends) == len(DOCUMENTS) and ends[-1] == len(row) - 1
    parts = np.split(row, ends + 1)[: len(DOCUMENTS)]
    assert [tokenizer.decode(part[:-1].tolist()) for part in parts] == DOCUMENTS
    whole = tokenizer(DOCUMENTS[1], add_special_tokens=False)["input_ids"]
    assert parts[1][:-1].tolist() == whole


def test_windows_lie_side_by_side_and_none_is_both_trained_on_and_held_out():
    train, held_out = window_starts(1000, 30, 0.1, seed=3)
    assert sorted([*train, *held_out]) == list(range(0, 33 * 30, 30))
    assert len(held_out) == 3
    again, other = window_starts(1000, 30, 0.1, seed=3), window_starts(1000, 30, 0.1, seed=4)
    assert again[1].tolist() == held_out.tolist() != other[1].tolist()
    assert len(window_starts(1000, 30, 0.001, seed=3)[1]) == 1


def test_a_text_too_short_to_train_on_or_to_learn_the_vocabulary_from_is_refused(tokenizer):
    with pytest.raises(PalimpsestError, match=r"has 50 tokens, 1 windows of 30, and held_out takes 1"):
        window_starts(50, 30, 0.1, seed=0)
    check_vocabulary(tokenizer, len(tokenizer))
    with pytest.raises(PalimpsestError, match=r"models.scratch.vocabulary asks for 9000"):
        check_vocabulary(tokenizer, 9000)
