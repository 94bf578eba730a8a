"""The tokens of true answers: their log-probabilities are the model's, alone or in a batch, and files keep them."""

import pytest
import torch

from palimpsest.corpus.prompts import TEXTS, Template
from palimpsest.errors import PalimpsestError
from palimpsest.inference.answers import answer_tokens, true_answers
from palimpsest.inference.files import AnswerTokens, read_answers, write_answers
from palimpsest.inference.requests import corpus_requests

TOFU = Template("tofu", TEXTS["tofu"])


@pytest.mark.parametrize("template", [Template(), TOFU], ids=lambda template: template.name)
def test_they_are_what_the_model_gives_each_answer_by_itself(tiny, template):
    model, tokenizer, corpus = tiny
    truths = true_answers(corpus, tokenizer, 30, 1, template)
    asked = [each for each in corpus_requests(corpus, tokenizer, 8, 30, 1, template) if each.task != "verbmem"]
    assert [(each.task, each.id) for each in truths] == [(each.task, each.id) for each in asked]
    found = answer_tokens(model, tokenizer, truths, 5)
    for truth, request, mine in zip(truths, asked, found, strict=True):
        assert truth.tokens[: truth.start] == request.tokens and truth.ending == 1
        assert tokenizer.decode(mine.true[:-1]).strip() == request.answer and mine.true[-1] == tokenizer.eos_token_id
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([truth.tokens])).logits[0, truth.start - 1 : -1]
        logs = logits.log_softmax(-1)
        expected = [float(row[token]) for row, token in zip(logs, mine.true, strict=True)]
        assert mine.log_probs == pytest.approx(expected, abs=1e-5)
        likeliest = logits.max(-1).values
        for row, token, top in zip(logits, mine.predicted, likeliest, strict=True):
            assert float(row[token]) == pytest.approx(float(top), abs=1e-5)


def test_an_answer_is_cut_to_what_may_be_generated_and_then_has_no_end(tiny):
    _, tokenizer, corpus = tiny
    whole, cut = true_answers(corpus, tokenizer, 50, 0), true_answers(corpus, tokenizer, 3, 0)
    assert {each.ending for each in whole} == {1}
    for long, short in zip(whole, cut, strict=True):
        length = len(long.tokens) - 1 - long.start
        assert short.ending == (length <= 3)
        assert short.tokens == long.tokens[: short.start + min(3, length) + short.ending]


def test_a_model_without_the_places_for_them_is_refused(tiny):
    model, tokenizer, corpus = tiny
    truths = true_answers(corpus, tokenizer, 50, 0)
    held = model.config.max_position_embeddings
    model.config.max_position_embeddings = 8
    try:
        with pytest.raises(PalimpsestError, match=r"a question with its answer .*lower inference\.knowmem_tokens"):
            answer_tokens(model, tokenizer, truths, 4)
    finally:
        model.config.max_position_embeddings = held


ROWS = [
    AnswerTokens("knowmem_forget", 1, [-0.5, -1.25], [4, 5], [4, 6], 1),
    AnswerTokens("knowmem_retain", 0, [-3.0], [2], [2], 0),
    AnswerTokens("knowmem_forget", 0, [-0.25, -2.0, -0.125], [1, 2, 3], [1, 2, 4], 0),
]


def test_files_keep_them_in_the_order_of_ids(tmp_path):
    write_answers(ROWS, tmp_path / "answers.parquet")
    assert read_answers(tmp_path / "answers.parquet", "knowmem_forget") == [ROWS[2], ROWS[0]]
    assert read_answers(tmp_path / "answers.parquet", "knowmem_retain") == [ROWS[1]]
    write_answers([], tmp_path / "none.parquet")
    assert read_answers(tmp_path / "none.parquet", "knowmem_forget") == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (AnswerTokens("a", 0, [-1.0], [2, 3], [2, 3], 0), "not as many numbers as tokens"),
        (AnswerTokens("a", 0, [-1.0], [2], [2], 1), "not as many numbers as tokens"),
        (AnswerTokens("a", 0, [], [], [], 0), "not as many numbers as tokens"),
        (AnswerTokens("a", 0, [float("nan")], [2], [2], 0), "NaN or infinite"),
    ],
)
def test_what_no_score_may_rest_on_is_refused(tmp_path, row, message):
    write_answers([row], tmp_path / "answers.parquet")
    with pytest.raises(PalimpsestError, match=message):
        read_answers(tmp_path / "answers.parquet", "a")
