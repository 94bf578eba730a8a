"""Numbers below the retrained model, broken models and a PrivLeak without ground: nowhere without a word."""

import copy
import csv
import html
from pathlib import Path
from typing import Any

import pytest
from made_study import CONSTRAINED, find, knowledge, make_study, pages

from palimpsest.audit.cautions import cautions, meaning_of_a_minus, privleak_cautions
from palimpsest.audit.table import collect, write_csv
from palimpsest.tables.markdown import tables
from palimpsest.tables.recovery import recovery_table

MODELS = ("target", "retrain", *CONSTRAINED)
FORMATS = ("bf16", "bnb-int8", "bnb-nf4", "bnb-fp4", "rtn-int4")


def study_of(folder: Path, unlearned: Any, retrain: float = 0.45) -> dict[str, Any]:
    """A study whose retrained model guesses some of the forget set, so that there is something to lie below.

    unlearned: (precision) to (recall of the forget set, of the retain set)."""

    def know(model: str, precision: str) -> dict[str, float]:
        if model in CONSTRAINED:
            recall, utility = unlearned(precision)
            return {"verbmem": recall, "knowmem_forget": recall, "knowmem_retain": utility}
        base = knowledge(model, precision)
        return base | {"verbmem": retrain, "knowmem_forget": retrain} if model == "retrain" else base

    return make_study(folder, know, MODELS)


def test_models_below_the_retrained_one_are_damaged_not_forgetful(tmp_path: Path) -> None:
    study = study_of(tmp_path / "files", lambda precision: (0.0, 0.02))
    audit = collect(**study["records"])
    answer = audit["answer"]
    assert answer["retained_bf16"] < -50
    assert answer["regime"] == "damaged" and "Forgetting holds" not in answer["text"]
    assert "damaged or over-forgotten" in answer["text"] and "less than the retrained model knows" in answer["text"]
    for name in CONSTRAINED:
        assert name in answer["caution"]
    for name in FORMATS:
        assert name in answer["caution"] and f"% in {name}" in answer["text"]
    page = pages(study, audit, tmp_path).read_text()
    assert "Below 0: less than the retrained model knows; ‡ by more than 10 points: damaged or over-forgotten." in page
    assert page.count("‡") > len(FORMATS) * len(CONSTRAINED)
    assert "less than the retrained model knows" in tables(audit) and "may be broken" in tables(audit)
    write_csv(audit, tmp_path / "audit.csv")
    printed = recovery_table([tmp_path / "audit.csv"], [], 50.0, 10.0)
    assert "damaged or over-forgotten): ga_gdr (seed 1) in bf16, " in printed
    with open(tmp_path / "audit.csv", newline="") as file:
        assert float(next(csv.DictReader(file))["verbmem"]) > 0


def test_what_comes_back_from_below_counts_from_the_retrained_model_up(tmp_path: Path) -> None:
    def halfway(precision: str) -> tuple[float, float]:
        return (0.42 if precision == "rtn-int4" else 0.0), 0.6

    def back(precision: str) -> tuple[float, float]:
        return (0.85 if precision == "rtn-int4" else 0.0), 0.6

    answer = collect(**study_of(tmp_path / "halfway", halfway)["records"])["answer"]
    assert answer["recovery"]["rtn-int4"]["value"] > 50, "points, but no knowledge that the retrained model lacks"
    assert answer["regime"] == "damaged"
    answer = collect(**study_of(tmp_path / "back", back)["records"])["answer"]
    assert answer["regime"] == "recovers" and "% (less than the retrained model knows) of what" in answer["text"]


def test_a_format_that_breaks_the_models_is_named_and_the_others_are_judged(tmp_path: Path) -> None:
    def broken_in_four_bits(precision: str) -> tuple[float, float]:
        return (0.0, 0.02) if precision == "rtn-int4" else (0.5, 0.6)

    audit = collect(**study_of(tmp_path / "one", broken_in_four_bits)["records"])
    answer = audit["answer"]
    assert answer["regime"] == "holds" and "-" not in answer["text"].split("(")[0]
    assert "(in rtn-int4) lost more than 50 % of the target's utility" in answer["caution"]
    assert "(in rtn-int4): less than the retrained model knows" in answer["caution"]

    def ruined(precision: str) -> tuple[float, float]:
        return 0.45, 0.02

    answer = collect(**study_of(tmp_path / "all", ruined)["records"])["answer"]
    assert answer["regime"] == "damaged" and "All of them lost more than 50 % of the target's utility" in answer["text"]


def test_a_seed_is_not_hidden_by_the_mean_over_seeds(audit: dict) -> None:
    changed = copy.deepcopy(audit)
    changed["rows"].append(copy.deepcopy(find(changed["rows"], model="ga_gdr", precision="bnb-nf4")) | {"seed": 2})
    changed["rows"][-1]["retained"]["same_precision"]["mean"]["value"] = -80.0
    assert cautions(audit, CONSTRAINED) == []
    assert cautions(changed, CONSTRAINED) == [
        "ga_gdr (in bnb-nf4): less than the retrained model knows of the forget set, by more than 10 points, "
        "which is damaged or over-forgotten."
    ]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([12.0, None, 0.0, -0.4], ""),
        ([3.0, -2.0], "Below 0: less than the retrained model knows."),
        (
            [-2.0, -10.1],
            "Below 0: less than the retrained model knows; by more than 10 points: damaged or over-forgotten.",
        ),
    ],
)
def test_a_minus_has_its_meaning(values: list[float | None], text: str) -> None:
    assert meaning_of_a_minus(values, 10.0) == text


def test_privleak_says_why_it_has_no_number_and_when_its_holdout_is_of_another_kind(
    study: dict, audit: dict, tmp_path: Path
) -> None:
    assert privleak_cautions(audit) == []
    records = copy.deepcopy(study["records"])
    for record in records["scores"]:
        if record["metric"] == "privleak" and record["precision"] == "rtn-int4":
            record |= {"score": None, "status": "undefined: AUC of the retrained model is 0 (why)", "auc_retrain": 0.0}
        elif record["metric"] == "privleak" and record["precision"] == "bnb-fp4":
            record |= {"auc_retrain": 0.93}
    changed = collect(**records)
    missing, far = privleak_cautions(changed)
    assert missing.startswith("PrivLeak has no number in rtn-int4: AUC of the retrained model is 0 (why). The holdout")
    assert "an AUC of 0.93 in bnb-fp4, far from the 0.5" in far
    assert far.startswith("PrivLeak rests on splits that differ by themselves")
    by_chance = copy.deepcopy(changed)
    for row in by_chance["rows"]:
        row["metrics"]["privleak"] |= (
            {"n_forget": 4, "n_holdout": 4} if "auc_retrain" in row["metrics"]["privleak"] else {}
        )
        if row["metrics"]["privleak"].get("auc_retrain") == 0.93:
            row["metrics"]["privleak"]["auc_retrain"] = 0.75
    assert privleak_cautions(by_chance)[1].startswith("PrivLeak may rest on splits that differ by themselves")
    assert "(by chance 0.32 to 0.68 with 20 and 20 texts)" in far  # 1.96 sqrt(41 / (12 x 20 x 20)) = 0.181
    page, markdown = html.unescape(pages(study, changed, tmp_path).read_text()), tables(changed)
    for sentence in (missing, far):
        assert sentence in page and sentence in markdown


def test_noise_of_one_metric_is_no_damage(tmp_path: Path) -> None:
    """A share of a small gap lies far off by chance: damage shows in the mean of both metrics."""
    columns = {"model": "a", "kind": "unlearned", "weights": "bfloat16", "seed": 0}
    rows = [
        columns | {"precision": name, "retained_same_precision_verbmem": -30.0, "retained_same_precision_knowmem": 12.0}
        for name in ("bf16", "int4")
    ]
    with open(tmp_path / "audit.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert "damaged" not in recovery_table([tmp_path / "audit.csv"], [], 50.0, 10.0)
    rows = [row | {"retained_same_precision_knowmem": 9.0} for row in rows]
    with open(tmp_path / "audit.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert "a (seed 0) in bf16 and int4." in recovery_table([tmp_path / "audit.csv"], [], 50.0, 10.0)
