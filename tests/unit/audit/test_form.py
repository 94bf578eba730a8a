"""ROUGE that counts the answers' form is said to do so, with the probability beside it where it was measured."""

import copy

import pytest
from made_study import BOOTSTRAP, find, make_study

from palimpsest.audit.form import form_cautions
from palimpsest.audit.table import collect
from palimpsest.metrics import score

MODELS = ("target", "retrain", "ga_gdr")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"), models=MODELS)


@pytest.fixture
def audit(study):
    return copy.deepcopy(collect(**study["records"] | {"constrained": ["ga_gdr"]}))


def test_a_rouge_that_a_model_without_knowledge_does_not_get_needs_no_word(audit):
    assert form_cautions(audit) == []


def test_a_high_rouge_of_the_retrained_model_is_said(audit):
    find(audit["rows"], model="retrain", precision="bf16")["metrics"]["knowmem"]["score"] = 65.2
    (said,) = form_cautions(audit)
    assert said.startswith("KnowMem gives 65 of 100 to the retrained model, which never saw the forget set")
    assert said.endswith("(metrics.probability in params.yaml).")


def test_without_a_retrained_model_the_answers_of_other_records_are_held_against_the_responses(audit):
    audit["rows"] = [row for row in audit["rows"] if row["kind"] != "retrain"]
    cell = find(audit["rows"], model="target", precision="bf16")["metrics"]["knowmem"]
    assert 0 <= cell["shuffled"] < 40  # answers of random words have little in common
    assert form_cautions(audit) == []
    cell["shuffled"] = 58.0
    (said,) = form_cautions(audit)
    assert "58 of 100 to the target's responses when they are held against the answers of other records" in said


def test_the_probability_beside_it_is_measured_and_stands_in_the_sentence(study):
    settings = {"ending": False, **BOOTSTRAP}
    files = study["files"]
    records = study["records"] | {"constrained": ["ga_gdr"]}
    records["scores"] = records["scores"] + [
        {"model": model, "seed": seed, "precision": at}
        | score("probability", settings, **files[model, seed, at], retrain_logprobs=None)
        for model, seed, at in files
    ]
    audit = collect(**records)
    row = find(audit["rows"], model="retrain", precision="bf16")
    assert row["metrics"]["probability"]["score"] == pytest.approx(9.5, abs=0.5)  # 0.1 a token, and up to e^-0.1 less
    row["metrics"]["knowmem"]["score"] = 65.2
    assert form_cautions(audit)[0].endswith("it gives the target 81 of 100, and the retrained model 9.")
