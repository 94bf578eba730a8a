"""A target that does not give the answers has none to forget: the audit says so, and gives no verdict on them."""

import json

import pytest
from made_study import RULES, knowledge, make_study, pages

from palimpsest.audit.reach import UNREACHED
from palimpsest.audit.table import collect

FLOORS = {"verbmem": 14.0, "knowmem": 45.0}
MODELS = ("target", "retrain", "ga_gdr", "ga_klr", "npo_gdr", "npo_klr")


def audit_of(folder, rules=None, seeds=(1,), **scored):
    """Of a study whose target, and what comes back of it, knows so much of a task."""

    def know(model, precision):
        found = knowledge(model, precision)
        for task, share in scored.items():
            found[task] = min(found[task], share)
        return found

    study = make_study(folder, know=know, models=MODELS, seeds=seeds)
    return study, collect(**study["records"] | {"rules": RULES | (rules or {"target_floor": FLOORS})})


@pytest.fixture(scope="module")
def unreached(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unreached")
    return folder, *audit_of(folder, knowmem_forget=0.3)


def test_a_target_that_answers_is_reached(tmp_path):
    study, audit = audit_of(tmp_path)
    assert {name: each["status"] for name, each in audit["reach"].items()} == {"verbmem": "ok", "knowmem": "ok"}
    assert all(each["floor"] == FLOORS[name] for name, each in audit["reach"].items())
    without = collect(**study["records"] | {"rules": RULES})
    assert without["reach"] == {} and without["answer"] == audit["answer"]
    assert without["rows"] == audit["rows"]
    assert "do not reach" not in pages(study, audit, tmp_path).read_text()


def test_questions_that_do_not_reach_the_target_are_named(unreached):
    folder, study, audit = unreached
    cell = audit["reach"]["knowmem"]
    assert cell["status"] == UNREACHED and cell["score"] < 45 and audit["reach"]["verbmem"]["status"] == "ok"
    sentence = (
        f"The questions do not reach the model: the target itself, before any unlearning, scores {cell['score']:.0f} % "
        "on its own questions in bf16, under the floor of 45 %, so no verdict on answers is possible (check "
        "prompt.template)."
    )
    assert sentence in audit["answer"]["caution"] + audit["answer"]["text"]
    page = pages(study, audit, folder).read_text().replace("\u00a0", " ")
    assert sentence in page
    assert json.dumps(audit["reach"])


def test_nothing_holds_and_nothing_is_known_where_nothing_is_asked(tmp_path):
    """Forgetting would hold in every format; of a target that gives no answers that says nothing."""

    def know(model, precision):
        return knowledge(model, "bf16") | ({"knowmem_forget": 0.3} if model == "target" else {})

    study = make_study(tmp_path, know=know, models=MODELS)
    holding = collect(**study["records"] | {"rules": RULES})
    audit = collect(**study["records"] | {"rules": RULES | {"target_floor": FLOORS}})
    assert holding["answer"]["regime"] in ("holds", "inconclusive", "not-memorised")
    assert audit["answer"]["regime"] == "not-reached"
    assert audit["answer"]["text"].startswith("No answer. The questions do not reach the model: the target itself")


def test_the_forget_text_that_was_never_learned(tmp_path):
    _, audit = audit_of(tmp_path, {"target_floor": FLOORS | {"verbmem": 30.0}}, verbmem=0.05, knowmem_forget=0.2)
    assert audit["answer"]["regime"] == "not-reached"
    assert "The passages do not reach the model" in audit["answer"]["text"]
    assert "scores" in audit["answer"]["text"] and "no verdict on the text is possible" in audit["answer"]["text"]


def test_the_worst_seed_counts(tmp_path):
    study = make_study(tmp_path, models=MODELS, seeds=(1, 2))
    for record in study["records"]["scores"]:
        if (record["model"], record["seed"], record["precision"], record["metric"]) == ("target", 2, "bf16", "knowmem"):
            record |= {"score": 44.0, "per_example": [0.44] * record["n"]}
    audit = collect(**study["records"] | {"rules": RULES | {"target_floor": FLOORS}})
    assert audit["reach"]["knowmem"] == {"score": 44.0, "floor": 45.0, "status": UNREACHED}
