"""From audits to thresholds on rho: outcomes, error rate without the held-out group, and refusals."""

import json
from pathlib import Path

import pytest

from palimpsest.errors import PalimpsestError
from palimpsest.prediction import (
    KEPT,
    PARTLY,
    RESTORED,
    choose_thresholds,
    classify,
    make_table,
    outcome,
    predict,
    read_table,
)


def audit(
    points: list[tuple[str, float, float, float]], seed: int = 0, parameters: int = 1000, target: str = "t"
) -> dict:
    """points: model, rho, retained in bf16 and at four bits. target: what tells its weights from another's."""

    def row(model: str, precision: str, retained: float | None, rho: float | None) -> dict:
        return {
            "model": model,
            "seed": seed,
            "precision": precision,
            "weights": "bfloat16",
            "retained": {"same_precision": {name: {"value": retained} for name in ("verbmem", "knowmem", "mean")}},
            "survival": None if precision == "bf16" else {"rho": rho},
        }

    rows = []
    for model, rho, before, after in points:
        rows += [row(model, "bf16", before, None), row(model, "int4", after, rho)]
    rows.append({"model": "target", "seed": seed, "precision": "int4", "retained": None, "survival": None})
    kinds = [("target", "target"), *((model, "unlearned") for model, *_ in points)]
    models = [
        {"model": model, "kind": kind, "parameters": parameters}
        | {"files": {str(seed): {"config.json": "same", "model.safetensors": f"{target}-{model}"}}}
        for model, kind in kinds
    ]
    rules = {"forgotten_below": 50.0, "negligible": 10.0}
    return {"models": models, "rows": rows, "rules": rules, "settings": {"quantizers": {"int4": {"backend": "rtn"}}}}


def save(folder: Path, content: dict) -> Path:
    folder.mkdir(parents=True)
    (folder / "audit.json").write_text(json.dumps(content))
    return folder


def test_an_outcome_is_the_share_of_what_was_forgotten():
    assert outcome(retained=60, before=20, negligible=10) == RESTORED  # 40 of 80
    assert outcome(retained=59, before=20, negligible=10) == PARTLY
    assert outcome(retained=30, before=20, negligible=10) == KEPT
    assert outcome(retained=5, before=20, negligible=10) == KEPT


def test_thresholds_lie_in_the_middle_of_the_widest_gaps_between_outcomes():
    pairs = [
        {"rho": rho, "outcome": name}
        for rho, name in ((0.0, RESTORED), (0.2, RESTORED), (0.4, PARTLY), (0.9, KEPT), (1, KEPT))
    ]
    low, high = choose_thresholds(pairs)
    assert low == pytest.approx(0.3) and high == pytest.approx(0.65)
    assert [classify(rho, (low, high)) for rho in (0.29, 0.31, 0.64, 0.66)] == [RESTORED, PARTLY, PARTLY, KEPT]
    only_kept = choose_thresholds([pair for pair in pairs if pair["outcome"] == KEPT])
    assert classify(-0.05, only_kept) == classify(5.0, only_kept) == KEPT


def test_errors_are_those_of_thresholds_chosen_without_the_held_out_model(tmp_path):
    points = [
        ("a", 0.0, 0.0, 90.0),
        ("b", 0.02, 0.0, 90.0),
        ("c", 0.9, 0.0, 5.0),
        ("d", 1.0, 0.0, 5.0),
        ("odd", 0.05, 0.0, 5.0),
    ]
    points.append(("remembers", 0.0, 80.0, 80.0))  # had not forgotten: says nothing
    table = make_table([save(tmp_path / "results", audit(points))])
    assert table["pairs"] == 5 and table["groups"] == 5 and table["held_out"] == "model"
    assert table["errors"] == 1 and table["error_rate"] == 0.2
    assert predict(0.02, table) == {"outcome": RESTORED, "pairs_alike": 2, "of_them": 2}
    assert predict(0.95, table) == {"outcome": KEPT, "pairs_alike": 3, "of_them": 3}
    assert predict(None, table) is None


def test_several_targets_are_held_out_with_all_that_was_unlearned_from_each(tmp_path):
    first = save(tmp_path / "results", audit([("a", 0.0, 0.0, 90.0), ("b", 1.0, 0.0, 0.0)]))
    second = audit([("a", 0.1, 0.0, 95.0), ("b", 0.8, 0.0, 0.0)], seed=1, parameters=5000, target="u")
    table = make_table([first, save(tmp_path / "studies/larger/results", second)])
    assert table["held_out"] == "target" and table["groups"] == 2 and table["errors"] == 0
    assert table["studies"] == ["default", "larger"] and table["largest_parameters"] == 5000


def test_a_model_that_two_studies_share_counts_once(tmp_path):
    first = save(tmp_path / "results", audit([("a", 0.0, 0.0, 90.0), ("b", 1.0, 0.0, 0.0)]))
    second = save(tmp_path / "studies/more/results", audit([("a", 0.0, 0.0, 90.0), ("c", 0.5, 0.0, 30.0)]))
    table = make_table([first, second])
    assert [pair["model"] for pair in table["measured"]] == ["a", "b", "c"] and table["held_out"] == "model"


def test_recovery_is_of_what_was_forgotten(tmp_path):
    """The answers were never forgotten: only the text can come back."""
    content = audit([("a", 0.0, 0.0, 90.0), ("b", 1.0, 0.0, 0.0)])
    for row in content["rows"]:
        if row["model"] == "a":
            row["retained"]["same_precision"]["knowmem"]["value"] = 100.0
    first, _ = make_table([save(tmp_path / "results", content)])["measured"]
    assert first["forgotten"] == ["verbmem"] and first["recovered_share"] == 0.9 and first["outcome"] == RESTORED


def test_too_little_is_refused(tmp_path):
    with pytest.raises(PalimpsestError, match="hold pairs of rho and recovery of 1 models"):
        make_table([save(tmp_path / "one", audit([("a", 0.0, 0.0, 90.0)]))])
    with pytest.raises(PalimpsestError, match="audit.json does not exist"):
        make_table([tmp_path / "nowhere"])


def test_the_packaged_table_is_what_its_pairs_give():
    table = read_table()
    if table is None:
        pytest.skip("no table is packaged yet")
    assert (table["restored_below"], table["kept_from"]) == choose_thresholds(table["measured"])
    assert table["pairs"] == len(table["measured"]) and 0 <= table["error_rate"] <= 1
