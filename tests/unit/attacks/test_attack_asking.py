"""Samples, paraphrases and first words: at strength zero the answers are inference's, and what each does beyond it."""

import copy
import json
from dataclasses import replace
from itertools import combinations

import pytest
import torch

from palimpsest.attacks.asking import ask_attacked, leak_at, paraphrased, prefixed, questions_of, read_paraphrases
from palimpsest.corpus.corpus import Question
from palimpsest.corpus.prompts import AS_MUSE, make_template
from palimpsest.errors import PalimpsestError
from palimpsest.inference.generation import generate
from palimpsest.models.sequences import corpus_sequences
from palimpsest.training.schedule import Schedule
from palimpsest.training.trainer import train

INFERENCE = {"verbmem_tokens": 4, "knowmem_tokens": 8, "in_context_examples": 0, "batch_size": 16}
METRIC = {"rouge": "rougeL_recall"}
TOFU = make_template({"template": "tofu", "system": None, "date": None})


@pytest.fixture(scope="module")
def knows(tiny):
    """The tiny model once it answers the forget questions."""
    model, tokenizer, corpus = tiny
    model = copy.deepcopy(model)
    train(model, corpus_sequences(corpus, "forget", tokenizer, 64, True), tokenizer.pad_token_id, Schedule(3e-3, 40))
    return model, tokenizer, corpus


def asked(knows, template=AS_MUSE, **attack):
    return ask_attacked(*knows, {"attack": attack, "inference": INFERENCE, "metric": METRIC}, template)


ZERO = [
    {"kind": "sample", "samples": 3, "temperature": 0.0, "leaks_at": 50.0, "seed": 1},
    {"kind": "paraphrase", "templates": ["{question}"], "file": None},
    {"kind": "prefix", "words": 0},
]


@pytest.mark.parametrize("attack", ZERO, ids=lambda attack: attack["kind"])
def test_at_strength_zero_the_answers_are_those_of_inference(knows, attack):
    model, tokenizer, corpus = knows
    plain = generate(model, tokenizer, questions_of(corpus, tokenizer, INFERENCE, AS_MUSE), 16)
    said, facts = asked(knows, **attack)
    assert said == plain
    assert facts["ids"] == list(range(len(corpus.forget_qa))) and sum(facts["per_example"]) > 1


@pytest.mark.parametrize("template", [AS_MUSE, TOFU], ids=["plain", "tofu"])
@pytest.mark.parametrize("words", [1, 2])
def test_first_words_are_the_tokens_of_training(tiny, words, template):
    _, tokenizer, corpus = tiny
    longer = [Question(each.question, f"{each.answer} of the old town") for each in corpus.forget_qa[1:]]
    corpus = replace(corpus, forget_qa=[Question("Who?", "Ada"), *longer])
    base = questions_of(corpus, tokenizer, INFERENCE, template)
    trained = corpus_sequences(corpus, "forget", tokenizer, 64, True, template)[-len(base) :]
    found = prefixed(base, corpus, tokenizer, words, template)
    assert 0 < len(found) <= len(base)
    for request in found:
        answer = corpus.forget_qa[request.id].answer
        whole = trained[request.id]
        given = list(request.tokens)
        assert whole[: len(given)] == given
        shown = tokenizer.decode(given[len(base[request.id].tokens) :]).split()
        assert shown == answer.split()[:words] and request.answer.split() == answer.split()[words:]
    assert {r.id for r in base} - {r.id for r in found} == {
        i for i, each in enumerate(corpus.forget_qa) if len(each.answer.split()) <= words
    }
    with pytest.raises(PalimpsestError, match="no answer has more than 99 words"):
        prefixed(base, corpus, tokenizer, 99, template)


def test_samples_are_drawn_by_their_seed_and_the_best_counts(knows):
    draw = {"kind": "sample", "samples": 6, "temperature": 1.0, "leaks_at": 50.0}
    (said, one), again, (otherwise, _) = (asked(knows, **draw, seed=seed) for seed in (0, 0, 7))
    assert (said, one) == again and said != otherwise and sum(one["per_example"]) > 1
    fewer = asked(knows, **(draw | {"samples": 1}), seed=0)[1]
    assert all(a >= b for a, b in zip(one["per_example"], fewer["per_example"], strict=True))
    assert list(one["leak_at"]) == ["1", "2", "4"]
    assert one["leak_at"]["1"] <= one["leak_at"]["2"] <= one["leak_at"]["4"]


def test_leak_at_k_is_the_share_of_choices_of_k_samples_with_a_leak():
    leaks = [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1] * 5]
    for k, share in leak_at([sum(each) for each in leaks], 5, 4).items():
        choices = [list(combinations(each, int(k))) for each in leaks]
        expected = sum(sum(any(c) for c in each) / len(each) for each in choices) / len(leaks)
        assert share == pytest.approx(100 * expected)


def test_each_way_of_asking_is_asked_and_a_file_must_have_every_question(tiny, tmp_path):
    _, tokenizer, corpus = tiny
    base = questions_of(corpus, tokenizer, INFERENCE, AS_MUSE)
    put = {"templates": ["Tell me: {question}", "{question} Say it."], "file": None}
    one, two = paraphrased(base, corpus, tokenizer, INFERENCE, AS_MUSE, put)
    question = corpus.forget_qa[0].question
    assert f"Tell me: {question}" in one[0].prompt and f"{question} Say it." in two[0].prompt
    assert [request.answer for request in one] == [request.answer for request in base]
    file = tmp_path / "other.jsonl"
    rows = [{"question": each.question, "paraphrased_question": f"So, {each.question}"} for each in corpus.forget_qa]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    (three,) = paraphrased(base, corpus, tokenizer, INFERENCE, AS_MUSE, {"templates": None, "file": str(file)})
    assert f"So, {question}" in three[0].prompt
    file.write_text(json.dumps(rows[1:]))
    with pytest.raises(PalimpsestError, match="has no paraphrase of the question"):
        paraphrased(base, corpus, tokenizer, INFERENCE, AS_MUSE, {"templates": None, "file": str(file)})


@pytest.mark.parametrize(
    ("text", "message"),
    [("[{", "neither JSON lines nor a JSON list"), ('{"question": "a"}', "record 1 needs"), ("[1]", "record 1 needs")],
)
def test_broken_files_of_paraphrases_are_refused(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(PalimpsestError, match=message):
        read_paraphrases(tmp_path / "a.json")
    with pytest.raises(PalimpsestError, match="does not exist"):
        read_paraphrases(tmp_path / "b.json")


def test_a_corpus_without_questions_is_refused(tiny):
    _, tokenizer, corpus = tiny
    with pytest.raises(PalimpsestError, match="the corpus has none: add questions"):
        questions_of(replace(corpus, forget_qa=[]), tokenizer, INFERENCE, AS_MUSE)


def test_the_model_is_left_as_it_was(knows):
    model = knows[0]
    config = model.generation_config
    weights = [weight.clone() for weight in model.parameters()]
    asked(knows, kind="sample", samples=2, temperature=1.0, leaks_at=50.0, seed=0)
    assert model.generation_config is config
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
