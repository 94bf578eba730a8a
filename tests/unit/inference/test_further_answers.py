"""Of questions with paraphrased and wrong answers, and of further sets: what is asked, and what is recorded of it."""

from dataclasses import replace

import pytest
import torch

from palimpsest.corpus.corpus import Corpus, RecordQuestion
from palimpsest.corpus.prompts import TEXTS, Template
from palimpsest.inference.answers import answer_tokens, gradient_norms, true_answers, with_gradients
from palimpsest.inference.files import read_answers, write_answers, zlib_size
from palimpsest.inference.requests import corpus_requests

TOFU = Template("tofu", TEXTS["tofu"])


@pytest.fixture
def corpus(tiny) -> Corpus:
    _, _, made = tiny
    forget = RecordQuestion("Who?", "She did.", id="0", paraphrased="It was she.", wrong=("He did.", "Nobody."))
    trained = RecordQuestion("When?", "Now.", id="0", asked=False)
    kept = RecordQuestion("Where?", "Here.", id="1", wrong=("There.",))
    others = {
        "holdout": [RecordQuestion("What?", "That.", id="0")],
        "world_facts": [RecordQuestion("How many?", "Two.", id="0", wrong=("Three.", "Four."))],
    }
    return replace(made, verbmem=[], forget_qa=[forget], retain_qa=[trained, kept], others=others)


@pytest.mark.parametrize("template", [Template(), TOFU], ids=lambda template: template.name)
def test_every_kind_of_answer_is_a_task_of_its_own(tiny, corpus, template):
    _, tokenizer, _ = tiny
    truths = true_answers(corpus, tokenizer, 30, 0, template)
    assert [(each.task, each.id, each.text) for each in truths] == [
        ("knowmem_forget", 0, "She did."),
        ("knowmem_forget/paraphrased", 0, "It was she."),
        ("knowmem_forget/wrong0", 0, "He did."),
        ("knowmem_forget/wrong1", 0, "Nobody."),
        ("knowmem_retain", 1, "Here."),
        ("knowmem_retain/wrong0", 1, "There."),
        ("holdout", 0, "That."),
        ("world_facts", 0, "Two."),
        ("world_facts/wrong0", 0, "Three."),
        ("world_facts/wrong1", 0, "Four."),
    ]
    assert {each.tokens[: each.start] for each in truths[:4]} == {truths[0].tokens[: truths[0].start]}
    asked = corpus_requests(corpus, tokenizer, 8, 30, 0, template)
    assert [(each.task, each.id) for each in asked] == [
        ("knowmem_forget", 0),
        ("knowmem_retain", 1),
        ("world_facts", 0),
    ]


def test_nothing_more_is_recorded_unless_it_is_asked_for(tiny, corpus, tmp_path):
    model, tokenizer, _ = tiny
    truths = true_answers(corpus, tokenizer, 30, 0)
    write_answers(answer_tokens(model, tokenizer, truths, 4), tmp_path / "a.parquet")
    found = read_answers(tmp_path / "a.parquet", "knowmem_forget")[0]
    assert (found.size, found.means, found.variances, found.gradient) == (None, None, None, None)


def test_the_spread_of_the_vocabulary_is_the_model_s(tiny, corpus, tmp_path):
    model, tokenizer, _ = tiny
    truths = true_answers(corpus, tokenizer, 30, 0)
    write_answers(answer_tokens(model, tokenizer, truths, 4, spread=True), tmp_path / "a.parquet")
    for truth in truths:
        (found,) = read_answers(tmp_path / "a.parquet", truth.task)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([truth.tokens])).logits[0, truth.start - 1 : -1].double()
        log_probs = logits.log_softmax(-1)
        means = (log_probs.exp() * log_probs).sum(-1)
        variances = (log_probs.exp() * log_probs.square()).sum(-1) - means.square()
        assert found.size == zlib_size(truth.text)
        assert found.means == pytest.approx(means.tolist(), rel=1e-5)
        assert found.variances == pytest.approx(variances.tolist(), rel=1e-3, abs=1e-6)


def test_gradients_are_those_of_the_answer_without_its_end(tiny, corpus, tmp_path):
    model, tokenizer, _ = tiny
    truths = true_answers(corpus, tokenizer, 30, 0)
    answers = with_gradients(model, truths, answer_tokens(model, tokenizer, truths, 4))
    write_answers(answers, tmp_path / "a.parquet")
    assert read_answers(tmp_path / "a.parquet", "world_facts")[0].gradient is None
    for task in ("knowmem_forget", "holdout"):
        (found,) = read_answers(tmp_path / "a.parquet", task)
        truth = next(each for each in truths if each.task == task)
        assert truth.ending == 1
        tokens = torch.tensor([truth.tokens[:-1]])
        labels = tokens.clone()
        labels[:, : truth.start] = -100
        model.zero_grad()
        model(input_ids=tokens, labels=labels).loss.backward()
        squares = sum(float(weight.grad.double().square().sum()) for weight in model.parameters())
        model.zero_grad()
        assert found.gradient == pytest.approx(squares**0.5, rel=1e-4)


def test_gradients_leave_the_model_as_it_was(tiny, corpus):
    model, tokenizer, _ = tiny
    first = next(model.parameters())
    first.requires_grad_(False)
    try:
        (norm,) = gradient_norms(model, true_answers(corpus, tokenizer, 30, 0)[:1])
        assert norm > 0 and not first.requires_grad and first.grad is None
    finally:
        first.requires_grad_(True)
