"""The embedded corpus: deterministic, every name its own, every answer in its article,
little text shared by template."""

import hashlib
import json
import re
from dataclasses import asdict

import pytest
from rouge_score.rouge_scorer import RougeScorer

from palimpsest.corpus.checks import check_corpus
from palimpsest.corpus.corpus import Corpus
from palimpsest.corpus.cutting import LEAST_ANSWER, cut_line_prompts, cut_lines, cut_passages, cut_prompts
from palimpsest.corpus.embedded.generator import generate_corpus
from palimpsest.corpus.embedded.grammar import FactMaker, topics
from palimpsest.errors import PalimpsestError

SMALL = {"forget_documents": 4, "retain_documents": 12, "holdout_documents": 8}
QUESTIONS = {"questions_per_document": 3, "icl_examples": 4}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return generate_corpus(seed=0, **SMALL, **QUESTIONS)


def digest(corpus: Corpus) -> str:
    return hashlib.sha256(json.dumps(asdict(corpus)).encode()).hexdigest()


def test_the_seed_decides_everything(corpus):
    assert digest(corpus) == digest(generate_corpus(seed=0, **SMALL, **QUESTIONS))
    assert digest(corpus) != digest(generate_corpus(seed=1, **SMALL, **QUESTIONS))


def test_the_corpus_does_not_depend_on_hash_order(corpus):
    import os
    import subprocess
    import sys

    program = (
        "import sys, json, hashlib; from dataclasses import asdict; "
        "from palimpsest.corpus.embedded.generator import generate_corpus;"
        "print(hashlib.sha256(json.dumps(asdict(generate_corpus(0, 4, 12, 8, 3, 4))).encode()).hexdigest())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    printed = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == digest(corpus)


def test_sizes(corpus):
    assert [len(corpus.forget), len(corpus.retain), len(corpus.holdout)] == [4, 12, 8]
    assert [len(corpus.forget_qa), len(corpus.retain_qa), len(corpus.forget_icl), len(corpus.retain_icl)] == [
        12,
        36,
        4,
        4,
    ]
    words = [len(text.split()) for text in corpus.forget + corpus.retain + corpus.holdout]
    assert min(words) >= 60 and max(words) <= 105 and 70 <= sum(words) / len(words) <= 90


def test_answers_stand_in_their_article_and_not_in_the_question(corpus):
    for questions, documents in ((corpus.forget_qa, corpus.forget), (corpus.retain_qa, corpus.retain)):
        for number, question in enumerate(questions):
            document = documents[number // 3]
            assert re.search(rf"(?<!\w){re.escape(question.answer)}(?!\w)", document), question
            assert question.answer not in question.question
            assert 1 <= len(question.answer.split()) <= 4


def test_a_question_names_something_that_only_its_article_has(corpus):
    documents = corpus.forget + corpus.retain + corpus.holdout
    for number, question in enumerate(corpus.forget_qa):
        names = [word for word in re.findall(r"\b[A-Z]\w+|\d{3,}|\w+", question.question) if len(word) > 2]
        holders = [{i for i, text in enumerate(documents) if re.search(rf"\b{word}\b", text)} for word in names]
        assert {number // 3} in holders, question


def test_in_context_examples_are_not_asked(corpus):
    assert not set(corpus.forget_icl) & set(corpus.forget_qa)
    assert not set(corpus.retain_icl) & set(corpus.retain_qa)


def test_answers_are_of_many_kinds(corpus):
    answers = [question.answer for question in corpus.forget_qa + corpus.retain_qa]
    numbers = sum(answer.isdigit() for answer in answers)
    dates = sum(bool(re.fullmatch(r"\d+ [A-Z]\w+", answer)) for answer in answers)
    things = sum(answer.islower() for answer in answers)
    assert numbers >= 5 and dates >= 1 and things >= 2 and len(answers) - numbers - dates - things >= 10


def test_no_name_is_used_twice_in_a_big_corpus():
    corpus = generate_corpus(seed=3, forget_documents=60, retain_documents=180, holdout_documents=60, **QUESTIONS)
    texts = corpus.forget + corpus.retain + corpus.holdout
    assert len(set(texts)) == 300
    known = {
        word for topic in topics() for slot in topic.slots for text in slot for word in re.findall(r"[A-Za-z]+", text)
    }
    months = set("January February March April May June July August September October November December".split())  # noqa: SIM905
    homes: dict[str, set[int]] = {}
    for number, text in enumerate(texts):
        for word in re.findall(r"\b[A-Z][a-z]+\b", text):
            if not {word, word.lower()} & known and word not in months:
                homes.setdefault(word, set()).add(number)
    invented = {word: found for word, found in homes.items() if word not in thing_words()}
    assert len(invented) > 900
    assert {word: found for word, found in invented.items() if len(found) > 1} == {}
    assert check_corpus(corpus, overlap_at_most=1.0)["prompts_found"] == 1.0


def thing_words() -> set[str]:
    from palimpsest.corpus.embedded.grammar import ADJECTIVES, NOUNS

    return {part.capitalize() for word in (*ADJECTIVES, *NOUNS) for part in word.split("-")}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_templates_give_nothing_away(seed):
    """What a model that saw only the retain articles could copy: under 25 % ROUGE-L and under 2 % of 5-grams."""
    corpus = generate_corpus(seed=seed, **SMALL, **QUESTIONS)
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    best = []
    for article in corpus.forget:
        half = article.split()[len(article.split()) // 2 :]
        others = [text.split() for text in corpus.retain]
        pieces = [" ".join(words[-len(half) :]) for words in others] + [
            " ".join(words[: len(half)]) for words in others
        ]
        best.append(max(scorer.score(" ".join(half), piece)["rougeL"].fmeasure for piece in pieces))
    assert sum(best) / len(best) < 0.25
    forget, retain = (
        {tuple(words[i : i + 5]) for words in map(str.split, split) for i in range(len(words) - 4)}
        for split in (corpus.forget, corpus.retain)
    )
    assert len(forget & retain) / len(forget) < 0.02


def test_the_grammar_keeps_its_notation():
    """Every alternative of a slot states the same facts, all facts are stated,
    and no question gives its answer away."""
    for topic in topics():
        stated = set()
        for slot in topic.slots:
            facts = {frozenset(re.findall(r"{(\w+)}", text)) for text in slot}
            assert len(facts) == 1 and len(slot) >= 3, (topic.name, slot)
            stated |= set(*facts)
        assert stated == set(topic.facts), topic.name
        assert len(topic.questions) >= 6, topic.name
        for fact, wordings in topic.questions.items():
            for wording in wordings:
                asked = set(re.findall(r"{(\w+)}", wording))
                assert fact in topic.facts and asked and asked <= set(topic.facts) - {fact}, (topic.name, wording)
    assert len(topics()) >= 16


def test_names_are_never_words_of_the_grammar():
    from random import Random

    from palimpsest.corpus.embedded.grammar import grammar_words

    maker = FactMaker(Random(0))
    names = [maker.name() for _ in range(3000)]
    assert len(set(names)) == 3000 and not {name.lower() for name in names} & grammar_words()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forget_documents": 0}, "forget_documents is 0"),
        ({"holdout_documents": 0}, "holdout_documents is 0"),
        ({"questions_per_document": 7}, "questions_per_document is 7: the grammar offers 1 to 6"),
        ({"icl_examples": 100}, "icl_examples is 100, but the forget split has only"),
        ({"answer_words": 0}, "answer_words is 0"),
    ],
)
def test_impossible_sizes_are_named(change, message):
    with pytest.raises(PalimpsestError, match=message):
        generate_corpus(**({"seed": 0} | SMALL | QUESTIONS | change))


def test_prompts_are_cut_at_words_and_spread():
    text = " ".join(f"w{number}" for number in range(20)) + "\n\nw20  w21"
    first, second = cut_prompts([text, "too short"], prompt_words=4, answer_words=5, per_document=2)
    assert first.prompt == "w0 w1 w2 w3" and first.gt == "w4 w5 w6 w7 w8"
    assert second.gt == "w17 w18 w19\n\nw20  w21" and second.gt in text
    assert second.prompt == "w13 w14 w15 w16"


@pytest.mark.parametrize("per_document", [1, 2, 3, 7, 50])
def test_answers_do_not_overlap(per_document):
    text = " ".join(f"w{number}" for number in range(37))
    answers = [prompt.gt.split() for prompt in cut_prompts([text], 4, 5, per_document)]
    assert len(answers) == min(per_document, (37 - 4) // 5)
    assert len({word for answer in answers for word in answer}) == 5 * len(answers)


def test_passages():
    text = " ".join(f"w{number}" for number in range(10))
    assert cut_passages([text, "a b", ""], 4, 2) == ["w0 w1 w2 w3", "w6 w7 w8 w9", "a b"]


def test_a_corpus_of_lines_is_the_same_articles_with_prompts_at_line_starts(corpus):
    lines = generate_corpus(seed=0, **SMALL, **QUESTIONS, prompt_words=5, prompts_per_document=6, lines=True)
    assert [text.replace("\n", " ") for text in lines.forget] == corpus.forget
    assert lines.forget_qa == corpus.forget_qa
    starts = {line for text in lines.forget for line in text.split("\n")}
    assert len(lines.verbmem) == len(starts) == 24
    for prompt in lines.verbmem:
        assert len(prompt.prompt.split()) == 5
        (line,) = (line for line in starts if line.startswith(prompt.prompt))
        assert line.removeprefix(prompt.prompt).strip().startswith(prompt.gt)
    check_corpus(lines, 0.05, 1.0, 0)


def test_prompts_of_lines_end_with_their_line():
    document = "one two three four five six seven\n\n  a b c d e f\nx y z\n1 2 3 4 5 6 7 8 9"
    found = cut_line_prompts([document], 2, 5, per_document=9)
    assert [(each.prompt, each.gt) for each in found] == [
        ("one two", "three four five six seven"),
        ("a b", "c d e f"),
        ("1 2", "3 4 5 6 7"),  # answer_words are the most
    ]
    assert all(len(each.gt.split()) >= LEAST_ANSWER for each in found)
    assert [each.prompt for each in cut_line_prompts([document], 2, 5, per_document=2)] == ["one two", "1 2"]
    assert cut_lines([document], 3, per_document=2) == ["one two three", "1 2 3"]
    with pytest.raises(PalimpsestError, match="prompt_words is 0"):
        cut_line_prompts([document], 0, 5, 1)
