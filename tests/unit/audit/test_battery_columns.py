"""The utility battery in the audit and its tables."""

import copy
import csv
from pathlib import Path
from typing import Any

import pytest
from made_study import (
    CONSTRAINED,
    draw,
    find,
    make_study,
)

from palimpsest.audit.battery import attach
from palimpsest.audit.table import collect, write_csv
from palimpsest.errors import PalimpsestError
from palimpsest.report.page import render
from palimpsest.tables.markdown import tables


def battery(model: str, seed: int, precision: str, gen: float, stderr: float, **more: dict) -> dict[str, Any]:
    tasks = {"gen": {"n": 171, "score": gen, "stderr": stderr, "ids": [0]}}
    return {"model": model, "seed": seed, "precision": precision, "tasks": tasks | more}


def test_the_battery_is_in_the_tables_where_it_ran_and_nowhere_else(study: dict, audit: dict, tmp_path: Path) -> None:
    untouched = copy.deepcopy(audit)
    attach(untouched, [])
    assert untouched == audit
    table = copy.deepcopy(audit)
    flu = {"n": 50, "score": 573.3, "stderr": 4.0}
    attach(table, [battery("target", 1, "bf16", 28.7, 3.46, flu=flu), battery("ga_gdr", 1, "rtn-int4", 21.4, 3.14)])
    row = find(table["rows"], model="ga_gdr", precision="rtn-int4")
    assert row["battery"] == {"gen": {"score": 21.4, "stderr": 3.14, "n": 171}, "flu": None}
    assert not any(find(table["rows"], model="ga", precision="bf16")["battery"].values())
    write_csv(table, tmp_path / "audit.csv")
    lines = list(csv.DictReader((tmp_path / "audit.csv").read_text().splitlines()))
    line = find(lines, model="target", precision="bf16")
    assert (line["gen"], line["gen_stderr"], line["gen_n"], line["flu"]) == ("28.7", "3.46", "171", "573.3")
    assert find(lines, model="ga", precision="bf16")["gen"] == ""
    text = tables(table)
    assert "| model | precision | Gen | Flu |" in text and "| ga_gdr | rtn-int4 | 21.4 ± 3.1 (n = 171) | – |" in text
    assert "Utility battery" not in tables(audit)
    render(table, draw(table, tmp_path), [], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<h2>Utility battery</h2>" in page and "<td>28.7 ± 3.5 (n = 171)</td><td>573.3 ± 4.0 (n = 50)</td>" in page
    render(audit, draw(audit, tmp_path), [], tmp_path / "page.html")
    assert "Utility battery" not in (tmp_path / "page.html").read_text()


def test_the_battery_over_seeds(tmp_path: Path) -> None:
    models = ("target", "retrain", *CONSTRAINED)
    table = collect(**make_study(tmp_path, models=models, seeds=(1, 2))["records"])
    both = [battery("target", seed, "bf16", gen, stderr) for seed, gen, stderr in ((1, 20.0, 3.0), (2, 30.0, 4.0))]
    attach(table, [*both, battery("retrain", 1, "bf16", 25.0, 3.0)])
    assert find(table["over_seeds"], model="target", precision="bf16")["battery"]["gen"] == {
        "score": 25.0,
        "stderr": 3.5,
        "n": 171,
    }
    assert find(table["over_seeds"], model="retrain", precision="bf16")["battery"]["gen"] is None
    with pytest.raises(PalimpsestError, match=r"'gone', 1, 'bf16'.* has a battery record but no scores"):
        attach(table, [battery("gone", 1, "bf16", 1.0, 1.0)])
