"""What must not change a number of the audit: the order of records, the names of models, a method more or less."""

import copy
import json
import random
from typing import Any

import pytest
from made_study import CONSTRAINED, WEIGHTS, find

from palimpsest.audit.table import collect
from palimpsest.errors import PalimpsestError
from palimpsest.tables.formats import formats
from palimpsest.tables.markdown import tables

NAMES = {name: f"x{place}-{name[::-1]}" for place, name in enumerate(WEIGHTS)}


def by_cell(audit: dict[str, Any]) -> dict[tuple[str, int, str], dict[str, Any]]:
    return {(row["model"], row["seed"], row["precision"]): row for row in audit["rows"]}


def without(study: dict[str, Any], model: str) -> dict[str, Any]:
    records = dict(study["records"])
    for part in ("scores", "survival", "manifests"):
        records[part] = [record for record in records[part] if record["model"] != model]
    return records


def test_the_order_of_records(study: dict, audit: dict) -> None:
    records = copy.copy(study["records"])
    for part in ("scores", "survival", "manifests"):
        records[part] = random.Random(part).sample(records[part], len(records[part]))
    shuffled = collect(**records)
    assert by_cell(shuffled) == by_cell(audit)
    for name in audit["averages"]:
        ours = {row["precision"]: row for row in shuffled["averages"][name]["rows"]}
        for row in audit["averages"][name]["rows"]:
            for denominator, cell in row["retained"].items():
                assert ours[row["precision"]]["retained"][denominator]["value"] == pytest.approx(cell["value"])


def test_the_names_of_models(study: dict, audit: dict) -> None:
    records = copy.deepcopy(study["records"])
    for part in ("scores", "survival", "manifests"):
        for record in records[part]:
            record["model"] = NAMES[record["model"]]
    records["constrained"] = [NAMES[name] for name in CONSTRAINED]
    renamed = collect(**records)
    back = {renamed_to: name for name, renamed_to in NAMES.items()}
    assert {
        (back[model], seed, precision): row | {"model": back[model]}
        for (model, seed, precision), row in by_cell(renamed).items()
    } == by_cell(audit)
    assert renamed["answer"]["regime"] == audit["answer"]["regime"]
    assert renamed["answer"]["text"] == audit["answer"]["text"], "the sentence names formats alone"


@pytest.mark.parametrize("model", ["ga", "npo", "ga_gdr_fp32"])
def test_a_method_more_changes_its_own_rows_alone(study: dict, audit: dict, model: str) -> None:
    fewer = collect(**without(study, model))
    assert by_cell(fewer) == {key: row for key, row in by_cell(audit).items() if key[0] != model}
    assert fewer["answer"]["text"] == audit["answer"]["text"]


def test_a_format_more_changes_its_own_rows_and_the_width_of_the_answers_intervals(study: dict, audit: dict) -> None:
    records = dict(study["records"])
    for part in ("scores", "survival"):
        records[part] = [record for record in records[part] if record["precision"] != "bnb-nf4"]
    fewer = collect(**records)
    assert by_cell(fewer) == {key: row for key, row in by_cell(audit).items() if key[2] != "bnb-nf4"}
    worst = (found["answer"]["recovery"]["rtn-int4"] for found in (fewer, audit))
    (low, high), (wider_low, wider_high) = (cell["ci"] for cell in worst)
    assert wider_low <= low and high <= wider_high


def test_a_study_without_a_method_to_average_has_tables_or_one_line(study: dict, tmp_path: Any) -> None:
    audit = collect(**study["records"] | {"constrained": []})
    assert "has no method with a retain loss" in audit["answer"]["text"]
    assert find(audit["over_seeds"], model="ga", precision="bf16") and "| ga |" in tables(audit)
    (tmp_path / "audit.json").write_text(json.dumps(audit))
    with pytest.raises(PalimpsestError, match="has no method with a retain loss and bfloat16 weights, whose mean"):
        formats(tmp_path)
