"""Attacks in params.yaml: their names and settings, and which artefacts they ask for."""

import copy
from pathlib import Path

import pytest

from palimpsest.attacks.kinds import expanded_attacks
from palimpsest.errors import PalimpsestError
from palimpsest.study.attacked import Plan
from palimpsest.study.params import check_params, expanded, read_params

REPOSITORY = Path(__file__).parents[3]
SCHEMA = REPOSITORY / "workflow/schemas/params.schema.yaml"
PRUNE = {"kind": "prune", "when": "after", "share": [10.0, 30.0]}
RELEARN = {"kind": "relearn", "when": "before", "text": "forget", "steps": 5, "learning_rate": 1e-5}
RELEARN |= {"batch_size": None, "storage": "bfloat16"}
SAMPLE = {"kind": "sample", "samples": 4, "temperature": 1.0, "leaks_at": 50.0, "seed": 0}
PARAPHRASE = {"kind": "paraphrase", "templates": ["Say: {question}"], "file": None}


@pytest.fixture
def params():
    read = copy.deepcopy(read_params(REPOSITORY / "tests/tiny/params.yaml"))
    each = {"prune": PRUNE, "relearn": RELEARN, "sample": SAMPLE, "paraphrase": PARAPHRASE}
    return read | {
        "attacks": {"models": ["npo_klr"], "precisions": ["bf16", "rtn-int4"], "recovered_at": 50.0} | {"each": each}
    }


def test_a_list_of_strengths_is_an_attack_for_each():
    found = expanded_attacks({"prune": PRUNE, "first": {"kind": "prefix", "words": [0, 2]}})
    assert list(found) == ["prune_10", "prune_30", "first_0", "first_2"]
    assert found["prune_30"]["share"] == 30.0 and found["prune_30"]["family"] == "prune"
    with pytest.raises(PalimpsestError, match="makes an attack prune_10, of which there is one"):
        expanded_attacks({"prune": PRUNE, "prune_10": PRUNE | {"share": 10.0}})


def test_what_fits_is_taken_and_no_attack_asks_for_nothing(params):
    check_params(params, SCHEMA, "params.yaml")
    check_params(params | {"attacks": None}, SCHEMA, "params.yaml")
    plan = Plan(expanded(params | {"attacks": None}))
    assert plan.table == [] and plan.runs() == [] and plan.manifests == [] and plan.plain == []


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("prune", {"kind": "scrub"}, "scrub"),
        ("prune", {"share": 101.0}, "101"),
        ("relearn", {"words": 2}, "attacks.each.relearn has the key 'words', which relearn does not take"),
        ("relearn", {"text": "all"}, "all"),
        ("paraphrase", {"templates": ["no place"]}, "has no {question} in it"),
        ("paraphrase", {"file": "a.json"}, "null for the other"),
        ("paraphrase", {"templates": None}, "null for the other"),
        ("sample", {"samples": 0}, "samples"),
    ],
)
def test_what_does_not_fit_is_refused(params, name, edit, message):
    params["attacks"]["each"][name] = params["attacks"]["each"][name] | edit
    with pytest.raises(PalimpsestError, match=message):
        check_params(params, SCHEMA, "params.yaml")


def test_a_missing_key_and_unknown_names_are_refused(params):
    lacking = copy.deepcopy(params)
    del lacking["attacks"]["each"]["relearn"]["steps"]
    with pytest.raises(PalimpsestError, match=r"attacks.each.relearn lacks the key 'steps'"):
        check_params(lacking, SCHEMA, "params.yaml")
    for key in ("models", "precisions"):
        wrong = params | {"attacks": params["attacks"] | {key: ["nobody"]}}
        with pytest.raises(PalimpsestError, match=rf"attacks.{key} has 'nobody', which is none of"):
            check_params(wrong, SCHEMA, "params.yaml")


def test_attacked_models_have_names_and_the_controls_are_attacked_too(params):
    plan = Plan(expanded(params))
    assert plan.everyone == ["target", "retrain", "npo_klr"]
    assert plan.before == [f"{model}+relearn" for model in plan.everyone]
    assert plan.after == [f"{model}+rtn-int4+prune_{share}" for model in plan.everyone for share in (10, 30)]
    assert plan.asked == ["sample", "paraphrase"]
    runs = plan.runs()
    assert len(runs) == 3 * (2 * 1 + 1 * 2 + 2 * 2)  # prunings at one precision, relearning at two, asking at two
    assert not [run for run in runs if run["when"] == "after" and run["precision"] == "bf16"]
    (one,) = [r["folder"] for r in runs if (r["attack"], r["model"]) == ("prune_30", "npo_klr")]
    assert one == "results/attacked-infer/npo_klr+rtn-int4+prune_30/seed{seed}/bf16"
    params["models"]["retrain"] = None
    assert Plan(expanded(params)).everyone == ["target", "npo_klr"]
