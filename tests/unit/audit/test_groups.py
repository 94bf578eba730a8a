"""What was unlearned elsewhere is a group of its own, and the answer's where nothing else is averaged."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from made_study import CONSTRAINED, find, make_study, pages

from palimpsest.audit.table import collect, headline_methods
from palimpsest.errors import PalimpsestError
from palimpsest.tables.by_model import outcomes
from palimpsest.tables.markdown import tables
from palimpsest.tables.phase import draw_diagram

MODELS = ("target", "retrain", *CONSTRAINED)
FACTS = {"source": "/mine", "as": "checkpoint", "stored": ["F32"], "tokenizer": "the target's, equal to its own"}


def brought(study: dict[str, Any], storage: dict[str, str], constrained: list[str]) -> dict[str, Any]:
    """The records of a study in which the models named in `storage` were unlearned elsewhere."""
    records = deepcopy(study["records"]) | {"constrained": constrained}
    for manifest in records["manifests"]:
        name = manifest["model"]
        if name in storage:
            manifest |= {
                "storage": storage[name],
                "method": {"checkpoint": "/mine", "note": "<b>by hand</b>"},
                "training": None,
                "brought": FACTS,
                "given": {"models/target": "no", f"methods/{name}/checkpoint": "0123abcd"},
            }
    return records


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_study(tmp_path_factory.mktemp("small"), models=MODELS)


def test_the_headline_has_no_model_that_was_unlearned_elsewhere() -> None:
    plain = {"forget_loss": "ga", "retain_loss": "gdr", "storage": "bfloat16"}
    assert headline_methods(
        {"a": {"checkpoint": "x", "storage": "bfloat16"}, "b": {"checkpoint": "x"}, "c": plain}
    ) == ["c"]


@pytest.mark.parametrize(
    ("storage", "trained", "groups"),
    [
        (dict.fromkeys(CONSTRAINED, "not stated"), [], {"brought": CONSTRAINED}),
        (dict.fromkeys(CONSTRAINED, "float32"), [], {"brought": CONSTRAINED}),
        (
            {"ga_gdr": "float32", "ga_klr": "bfloat16", "npo_gdr": "not stated", "npo_klr": "bfloat16-stochastic"},
            [],
            {"brought": ["ga_klr", "npo_gdr"], "contrast": ["ga_gdr", "npo_klr"]},
        ),
        (
            {"npo_gdr": "not stated", "npo_klr": "float32"},
            CONSTRAINED[:2],
            {"utility_constrained": CONSTRAINED[:2], "brought": ["npo_gdr"], "contrast": ["npo_klr"]},
        ),
    ],
)
def test_groups(small: dict[str, Any], storage: dict[str, str], trained: list[str], groups: dict[str, Any]) -> None:
    audit = collect(**brought(small, storage, trained))
    assert {name: group["models"] for name, group in audit["averages"].items()} == groups
    assert audit["answer"]["regime"] == "recovers"


def test_numbers_and_answer_are_those_of_the_same_models_trained_here(small: dict[str, Any]) -> None:
    here = collect(**small["records"])
    there = collect(**brought(small, dict.fromkeys(CONSTRAINED, "bfloat16"), []))
    assert there["rows"] == here["rows"] and there["answer"] == here["answer"]
    assert there["averages"]["brought"]["rows"] == here["averages"]["utility_constrained"]["rows"]


def test_the_page_and_the_tables_claim_nothing_of_the_training(small: dict[str, Any], tmp_path: Path) -> None:
    audit = collect(**brought(small, dict.fromkeys(CONSTRAINED, "not stated"), []))
    entry = find(audit["models"], model="ga_gdr")
    assert entry["brought"] == FACTS | {"sha256": "0123abcd"} and entry["training"] == [None]
    page = pages(small, audit, tmp_path).read_text()
    assert "Brought as it is from /mine (SHA-256 of what lay there 0123abcd; weights stored as F32, read as bf" in page
    assert "&lt;b&gt;by hand&lt;/b&gt;" in page and "<b>by hand" not in page
    assert "This report claims nothing of that training" in page
    assert "unlearning method</strong> then trained" not in page and "Stated by who brought it" not in page
    assert "what was brought, the band" in page and "brought as they are (bar: mean)" in page
    found = outcomes(audit)
    assert {(each.storage, each.learning_rate, *each.steps) for each in found} == {("not stated", None, None)}
    with pytest.raises(PalimpsestError, match="no learning rate to draw by: every method was unlearned elsewhere"):
        draw_diagram(found, {}, tmp_path / "phase.svg")
    assert "**mean of ga_gdr, ga_klr, npo_gdr, npo_klr**" in tables(audit)
    adapter = {
        "source": "a",
        "as": "adapter",
        "kind": "DoRA",
        "rank": 8,
        "scale": 16,
        "base": "target",
        "tokenizer": "x",
    }
    entry |= {"brought": adapter | {"sha256": None}, "storage": "float32"}
    page = pages(small, audit, tmp_path).read_text()
    assert "from a (an adapter (DoRA, rank 8), merged into the target here)" in page
    assert "Stated by who brought it: weights in float32 while unlearning." in page
