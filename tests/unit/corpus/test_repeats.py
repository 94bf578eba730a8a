"""Corpora that void a metric are refused, with the rows that do it."""

from dataclasses import replace

import pytest

from palimpsest.corpus.checks import check_corpus
from palimpsest.corpus.corpus import Corpus, Prompt, Question
from palimpsest.corpus.embedded.generator import generate_corpus
from palimpsest.corpus.subset import once
from palimpsest.errors import PalimpsestError


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return generate_corpus(5, 4, 6, 4, 2, 2)


LONG = "On the third of May the river rose by two metres"
SIMILAR = {
    "forget questions are retain questions": (
        lambda c: {"forget_qa": c.retain_qa},
        r"row 0 of knowmem/retain_qa is also row 0 of knowmem/forget_qa: .* cannot be forgotten and kept.* has 12 such",
    ),
    "a retain question is a forget question in other letters": (
        lambda c: {"retain_qa": [*c.retain_qa, Question(f" {c.forget_qa[3].question.upper()}\n", "x")]},
        r"row 12 of knowmem/retain_qa is also row 3 of knowmem/forget_qa",
    ),
    "a retain question is a forget question in another form of Unicode": (
        lambda c: {
            "forget_qa": [*c.forget_qa, Question("Où est né l’auteur ?", "x")],
            "retain_qa": [*c.retain_qa, Question("Ou\u0300 est ne\u0301\u00a0l'\u200cauteur\u202f?", "x")],
        },
        r"row 12 of knowmem/retain_qa is also row 8 of knowmem/forget_qa",
    ),
    "a question twice": (
        lambda c: {"forget_qa": [*c.forget_qa, c.forget_qa[1]]},
        r"row 8 of knowmem/forget_qa is also row 1 of knowmem/forget_qa",
    ),
    "a prompt twice": (
        lambda c: {"verbmem": [*c.verbmem, c.verbmem[2]]},
        r"row \d+ of verbmem/forget is also row 2 of verbmem/forget",
    ),
    "privleak forget is holdout": (
        lambda c: {"privleak_forget": c.privleak_holdout},
        r"no 13-gram of privleak_forget occurs in the forget text: PrivLeak asks whether its passages were forgotten",
    ),
    "privleak holdout is forget": (
        lambda c: {"privleak_holdout": c.privleak_forget},
        r"13-grams of privleak_holdout .* also occur in forget",
    ),
    "privleak forget is retain": (
        lambda c: {"privleak_forget": c.privleak_retain},
        r"no 13-gram of privleak_forget occurs in the forget text",
    ),
    "some of privleak forget is retain": (
        lambda c: {"privleak_forget": [*c.privleak_forget, *c.privleak_retain]},
        r"13-grams of privleak_forget .* also occur in retain, .* takes those passages for forgotten ones",
    ),
    "some of privleak forget is holdout": (
        lambda c: {"privleak_forget": [*c.privleak_forget, c.privleak_holdout[0]]},
        r"13-grams of privleak_forget .* also occur in privleak_holdout",
    ),
    "privleak retain is holdout": (
        lambda c: {"privleak_retain": c.privleak_holdout},
        r"row 0 of privleak/holdout is also row 0 of privleak/retain: PrivLeak would compare a text with itself",
    ),
    "a passage twice": (
        lambda c: {"privleak_holdout": [*c.privleak_holdout, f"{c.privleak_holdout[1]}  "]},
        r"row \d+ of privleak/holdout is also row 1 of privleak/holdout",
    ),
    "a prompt with its continuation in it": (
        lambda c: {"forget": [*c.forget, f"{LONG}. {LONG}."], "verbmem": [*c.verbmem, Prompt(f"{LONG}.", LONG)]},
        r"row \d+ of verbmem/forget has its continuation in its prompt",
    ),
    "an example of the other split with an answer in it": (
        lambda c: {
            "forget_qa": [*c.forget_qa, Question("What did the river do?", LONG)],
            "retain_icl": [*c.retain_icl, Question("And the river?", f"Well: {LONG.lower()}!")],
        },
        r"entry 2 of retain_icl has the answer of entry 8 of forget_qa in it: an in-context example shows its answer",
    ),
}


@pytest.mark.parametrize("kind", SIMILAR)
def test_a_corpus_that_voids_a_metric_is_refused(corpus, kind):
    change, message = SIMILAR[kind]
    with pytest.raises(PalimpsestError, match=message):
        check_corpus(replace(corpus, **change(corpus)))


def test_a_benchmark_may_be_taken_as_it_is(corpus):
    twice = replace(corpus, forget_qa=[*corpus.forget_qa, corpus.forget_qa[1]])
    assert check_corpus(twice, repeats_at_most=1)["repeats"] == 1
    more = replace(twice, verbmem=[*corpus.verbmem, corpus.verbmem[0]])
    with pytest.raises(PalimpsestError, match=r"raise corpus.checks.repeats_at_most \(1\) .* \(it has 2 such rows\)"):
        check_corpus(more, repeats_at_most=1)


def test_short_answers_stand_in_many_texts(corpus):
    shown = replace(corpus, forget_icl=[*corpus.forget_icl, Question("Who?", corpus.forget_qa[0].answer)])
    assert check_corpus(shown)["scored_examples"] == 0
    refrain = replace(
        corpus, forget=[*corpus.forget, "la la la la la la"], verbmem=[*corpus.verbmem, Prompt("la la", "la la la la")]
    )
    assert check_corpus(refrain)["repeats"] == 0


def test_a_good_corpus_has_none(corpus):
    counts = check_corpus(corpus)
    assert counts["repeats"] == 0 and counts["privleak_forget_found"] == 1.0
    assert counts["overlap_privleak_forget_retain"] < 0.02 and counts["overlap_privleak_forget_privleak_holdout"] < 0.02


def test_documents_may_stand_twice_as_in_a_published_benchmark(corpus):
    check_corpus(replace(corpus, forget=[*corpus.forget, corpus.forget[0]]))


def test_a_subset_of_two_versions_of_an_article_has_each_prompt_once():
    prompts = [Prompt("a b", "c"), Prompt("A  b", "d"), Prompt("c", "d"), Prompt("a b", "c")]
    assert once(prompts) == [prompts[0], prompts[2]]
    assert once(["x", "y", "X ", "y"]) == ["x", "y"]
