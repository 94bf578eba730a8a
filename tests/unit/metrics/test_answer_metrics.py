"""Probability, extraction strength and exact memorization of hand-made answers, against numbers worked out by hand."""

from math import exp

import pytest

from palimpsest.errors import PalimpsestError
from palimpsest.inference.files import AnswerTokens, write_answers
from palimpsest.metrics import score

SETTINGS = {"ending": False, "resamples": 50, "confidence": 0.95, "seed": 0}
ANSWERS = [
    # knows all but the second of four tokens: nothing in front of the third need be given, so half is extracted
    AnswerTokens("knowmem_forget", 0, [-0.1, -2.0, -0.1, -0.2, -9.0], [5, 0, 7, 8, 0], [5, 6, 7, 8, 1], 1),
    AnswerTokens("knowmem_forget", 1, [-1.0, -3.0], [5, 0], [5, 6], 0),
    AnswerTokens("knowmem_retain", 0, [-0.5, -0.5, -0.5], [5, 6, 1], [5, 6, 1], 1),
]


@pytest.fixture
def files(tmp_path):
    write_answers(ANSWERS, tmp_path / "answers.parquet")
    return tmp_path / "responses.jsonl", tmp_path / "logprobs.parquet", None


@pytest.mark.parametrize(
    ("metric", "expected", "retain"),
    [
        ("probability", [exp(-2.4 / 4), exp(-2.0)], [exp(-0.5)]),
        ("extraction_strength", [0.5, 0.0], [1.0]),
        ("exact_memorization", [0.75, 0.5], [1.0]),
    ],
)
def test_each_gives_a_record_its_number(files, metric, expected, retain):
    found = score(metric, SETTINGS, *files)
    assert found["per_example"] == pytest.approx(expected, abs=1e-6)
    assert found["retain"] == pytest.approx(retain, abs=1e-6)
    assert found["score"] == pytest.approx(50 * sum(expected), abs=1e-4)
    assert found["ids"] == [0, 1] and found["n"] == 2 and found["status"] == "ok"
    assert found["nats_per_token"] == pytest.approx([0.6, 2.0])


def test_with_what_ends_an_answer_the_last_token_counts(files):
    found = score("probability", SETTINGS | {"ending": True}, *files)
    assert found["per_example"] == pytest.approx([exp(-11.4 / 5), exp(-2.0)])
    assert score("exact_memorization", SETTINGS | {"ending": True}, *files)["per_example"] == [0.6, 0.5]
    assert score("extraction_strength", SETTINGS | {"ending": True}, *files)["per_example"] == [0.0, 0.0]


def test_a_corpus_without_questions_has_a_status(files):
    found = score("probability", SETTINGS, *files, absent=["forget_qa"])
    assert found["score"] is None and found["status"] == "undefined: no forget record has a question"


def test_files_of_an_older_run_are_asked_for_again(tmp_path):
    with pytest.raises(PalimpsestError, match=r"answers\.parquet does not exist: run inference"):
        score("probability", SETTINGS, tmp_path / "responses.jsonl", tmp_path / "logprobs.parquet", None)
