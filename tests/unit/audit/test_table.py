"""The audit: what is retained, recovered and answered, from the records of a made-up study."""

import copy
import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from made_study import (
    CONSTRAINED,
    PRECISIONS,
    RULES,
    WEIGHTS,
    find,
    knowledge,
    make_study,
    scores_of,
)

from palimpsest.audit.table import collect, headline_methods, write_csv
from palimpsest.errors import PalimpsestError


def test_retained_follows_each_denominator(study: dict, audit: dict) -> None:
    row = find(audit["rows"], model="ga_klr", precision="bnb-fp4")
    means = []
    for metric in ("verbmem", "knowmem"):
        mine, target, retrain = (
            scores_of(study, m, "bnb-fp4", metric)["score"] for m in ("ga_klr", "target", "retrain")
        )
        target_full, retrain_full = (scores_of(study, m, "bf16", metric)["score"] for m in ("target", "retrain"))
        expected = {
            "same_precision": 100 * (mine - retrain) / (target - retrain),
            "bf16": 100 * (mine - retrain_full) / (target_full - retrain_full),
            "ratio_bf16": 100 * mine / target_full,
            "ratio_same_precision": 100 * mine / target,
        }
        for name, value in expected.items():
            assert row["retained"][name][metric]["value"] == pytest.approx(value, abs=1e-9)
        means.append(expected["same_precision"])
    assert row["retained"]["same_precision"]["mean"]["value"] == pytest.approx(sum(means) / 2, abs=1e-9)
    full = find(audit["rows"], model="ga_klr", precision="bf16")["retained"]["same_precision"]["mean"]["value"]
    assert row["recovery"]["value"] == pytest.approx(sum(means) / 2 - full, abs=1e-9)


def test_average_is_over_the_named_methods_and_its_interval_is_paired(study: dict, audit: dict) -> None:
    average = find(audit["averages"]["utility_constrained"]["rows"], precision="rtn-int4")["retained"]["same_precision"]
    rows = [find(audit["rows"], model=m, precision="rtn-int4") for m in CONSTRAINED]
    assert average["value"] == pytest.approx(np.mean([r["retained"]["same_precision"]["mean"]["value"] for r in rows]))
    assert average["ci"][0] < average["value"] < average["ci"][1]

    def statistic(*columns: np.ndarray, axis: int = -1) -> np.ndarray:
        *models, target, retrain = (column.mean(axis=axis) for column in columns)
        return 100 * (np.mean(models, axis=0) - retrain) / (target - retrain)

    records = copy.deepcopy(study["records"])
    for record in records["scores"]:  # the same examples for both metrics leave one paired sample to hand to scipy
        if record["metric"] == "knowmem":
            twin = find(records["scores"], **{k: record[k] for k in ("model", "seed", "precision")}, metric="verbmem")
            record.update(twin | {"metric": "knowmem"})
    records["rules"] = RULES | {"resamples": 4000}
    ours = find(collect(**records)["averages"]["utility_constrained"]["rows"], precision="rtn-int4")["retained"][
        "same_precision"
    ]
    columns = [scores_of(study, m, "rtn-int4", "verbmem")["per_example"] for m in (*CONSTRAINED, "target", "retrain")]
    theirs = scipy.stats.bootstrap(
        columns,
        statistic,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(5),
    )
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    # The two metrics are resampled apart, so the mean of two equal ones has 1/sqrt(2) of the width of one.
    assert ours["ci"][1] - ours["ci"][0] == pytest.approx(width / 2**0.5, rel=0.1)


def test_answer_of_a_study_where_rounding_undoes_forgetting(audit: dict) -> None:
    answer = audit["answer"]
    assert answer["regime"] == "recovers" and answer["worst"] == "rtn-int4"
    assert (
        answer["text"].startswith("Quantization undoes forgetting")
        and "while bnb-int8 does not bring it back" in answer["text"]
    )
    assert "float32 weights (ga_gdr_fp32)" in answer["contrast"]
    full = find(audit["averages"]["utility_constrained"]["rows"], precision="bf16")["retained"]["same_precision"][
        "value"
    ]
    assert f"keep {full:.0f} %" in answer["text"]


def change(study: dict, tmp_path: Path, know: Any) -> dict[str, Any]:
    models = ("target", "retrain", *CONSTRAINED)
    return collect(**make_study(tmp_path / "other", know, models)["records"])


def test_answers_of_the_other_regimes(study: dict, tmp_path: Path) -> None:
    def holds(model: str, precision: str) -> dict[str, float]:
        return knowledge(model, "bf16")

    def weak_target(model: str, precision: str) -> dict[str, float]:
        return knowledge("retrain" if model == "target" else model, "bf16")

    def not_forgotten(model: str, precision: str) -> dict[str, float]:
        return knowledge("target" if model in CONSTRAINED else model, precision)

    def broken_quantized_target(model: str, precision: str) -> dict[str, float]:
        return knowledge("retrain" if precision != "bf16" else model, "bf16")

    cases = [
        (holds, "holds", "Forgetting holds"),
        (weak_target, "not-memorised", "did not memorise"),
        (not_forgotten, "not-forgotten", "did not forget in the first place"),
        (broken_quantized_target, "inconclusive", "no quantized target still knows"),
    ]
    for index, (know, regime, text) in enumerate(cases):
        answer = change(study, tmp_path / str(index), know)["answer"]
        assert (answer["regime"], text in answer["text"]) == (regime, True), answer
    few = copy.deepcopy(study["records"])
    for record in few["scores"]:
        if record["metric"] in ("verbmem", "knowmem"):
            keep = slice(0, 4)
            record |= {"ids": record["ids"][keep], "per_example": record["per_example"][keep]}
            record["score"] = 100 * float(np.mean(record["per_example"]))
    few["rules"] = RULES | {"negligible": 95.0}
    assert collect(**few)["answer"]["regime"] == "inconclusive"


def test_the_headline_leaves_out_what_has_no_retain_loss_more_precise_weights_or_a_cure() -> None:
    plain = {"forget_loss": "ga", "retain_loss": "gdr", "storage": "bfloat16"}
    methods = {
        "ga": plain | {"retain_loss": None},
        "ga_gdr": plain,
        "ga_gdr_float32": plain | {"storage": "float32"},
        "npo_klr": plain | {"forget_loss": "npo", "retain_loss": "klr"},
        "ga_gdr_lora": plain | {"adapter": {"rank": 8}},
        "ga_gdr_sure": plain | {"saliency": {"granularity": "module", "percentile": 90.0}},
        "ga_gdr_sam": plain | {"sharpness": 0.01},
    }
    assert headline_methods(methods) == ["ga_gdr", "npo_klr"]


def test_rank_correlation_is_scipys(audit: dict) -> None:
    record = audit["survival_against_recovery"]
    assert record["n"] == 7 * 4 and record["status"] == "ok"
    rho, recovery = ([point[key] for point in record["points"]] for key in ("rho", "recovery"))
    assert record["spearman"] == pytest.approx(scipy.stats.spearmanr(rho, recovery).statistic)
    assert record["spearman"] < -0.5


def test_broken_models_are_flagged(audit: dict) -> None:
    assert find(audit["rows"], model="ga", precision="bf16")["broken"]
    assert not find(audit["rows"], model="ga", precision="rtn-int4")["broken"], "rounding repaired it"
    assert not any(row["broken"] for row in audit["rows"] if row["model"] in ("target", "retrain", *CONSTRAINED))


def test_seeds_are_averaged_and_listed(tmp_path: Path) -> None:
    records = make_study(tmp_path, models=("target", "retrain", "ga_gdr"), seeds=(1, 2))["records"] | {
        "constrained": ["ga_gdr"]
    }
    audit = collect(**records)
    assert audit["seeds"] == [1, 2] and len(audit["rows"]) == 3 * 2 * 5
    both = [
        row["retained"]["same_precision"]["mean"]["value"]
        for row in audit["rows"]
        if row["model"] == "ga_gdr" and row["precision"] == "bnb-nf4"
    ]
    over = find(audit["over_seeds"], model="ga_gdr", precision="bnb-nf4")
    assert over["retained"]["same_precision"]["value"] == pytest.approx(np.mean(both))
    cell = find(audit["averages"]["utility_constrained"]["rows"], precision="bnb-nf4")["retained"]["same_precision"]
    assert cell["by_seed"] == {"1": pytest.approx(both[0]), "2": pytest.approx(both[1])}


def test_incomplete_and_inconsistent_records_are_named(study: dict) -> None:
    def without(part: str, drop: Any) -> dict[str, Any]:
        return study["records"] | {part: [record for record in study["records"][part] if not drop(record)]}

    def altered(part: str, **fields: Any) -> dict[str, Any]:
        first, *rest = study["records"][part]
        return study["records"] | {part: [first | fields, *rest]}

    first = study["records"]["scores"][0]
    cases = [
        (
            without("scores", lambda r: r["model"] == "ga" and r["metric"] == "utility"),
            "score 'utility' of 'ga', seed 1, bf16",
        ),
        (without("survival", lambda r: r["model"] == "npo"), "update survival of 'npo'"),
        (without("manifests", lambda r: r["kind"] == "retrain"), "one model of kind 'retrain'"),
        (without("manifests", lambda r: r["model"] == "npo"), "no model manifest"),
        (without("scores", lambda r: r["precision"] == "bf16"), "no model was scored at bf16"),
        (study["records"] | {"scores": [*study["records"]["scores"], first]}, "recorded twice"),
        (study["records"] | {"scores": [{k: v for k, v in first.items() if k != "n"}]}, "lacks 'n'"),
        (study["records"] | {"constrained": ["ga_gd"]}, "Did you mean 'ga_gdr'"),
        (study["records"] | {"rules": RULES | {"negligable": 1}}, "Did you mean 'negligible'"),
        (study["records"] | {"rules": {k: v for k, v in RULES.items() if k != "seed"}}, "lacks the rule 'seed'"),
        (altered("scores", score=12.0), "not 100 times the mean"),
        (altered("scores", ids=list(range(1, 25))), "different examples"),
    ]
    for records, message in cases:
        with pytest.raises(PalimpsestError, match=re.escape(message)):
            collect(**records)


def test_a_missing_survival_record_is_refused_unless_gaps_are_asked_for(study: dict, audit: dict, tmp_path) -> None:
    gone = {"model": "npo", "seed": 1, "precision": "rtn-int4"}
    kept = [record for record in study["records"]["survival"] if not gone.items() <= record.items()]
    assert len(kept) == len(study["records"]["survival"]) - 1
    records = study["records"] | {"survival": kept}
    with pytest.raises(PalimpsestError, match="update survival of 'npo', seed 1, rtn-int4 is missing"):
        collect(**records)
    table = collect(**records, survival_gaps=True)
    whole, row = find(audit["rows"], **gone), find(table["rows"], **gone)
    assert row == whole | {"survival": None} and whole["survival"]
    assert find(table["over_seeds"], model="npo", precision="rtn-int4")["rho"] is None
    assert [other for other in table["rows"] if other is not row] == [r for r in audit["rows"] if r is not whole]
    assert table["survival_against_recovery"]["n"] == audit["survival_against_recovery"]["n"] - 1
    write_csv(table, tmp_path / "audit.csv")
    with open(tmp_path / "audit.csv", newline="") as file:
        line = find(list(csv.DictReader(file)), model="npo", seed="1", precision="rtn-int4")
    assert line["rho"] == line["same_code_share"] == "" and line["recovery"]

    scores = [record for record in records["scores"] if not (gone | {"metric": "verbmem"}).items() <= record.items()]
    with pytest.raises(PalimpsestError, match="score 'verbmem' of 'npo', seed 1, rtn-int4 is missing"):
        collect(**records | {"scores": scores}, survival_gaps=True)


def test_csv_has_a_line_per_model_seed_and_precision(audit: dict, tmp_path: Path) -> None:
    write_csv(audit, tmp_path / "audit.csv")
    with open(tmp_path / "audit.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(WEIGHTS) * len(PRECISIONS)
    line = find(lines, model="ga_gdr", precision="bnb-fp4")
    row = find(audit["rows"], model="ga_gdr", precision="bnb-fp4")
    assert float(line["verbmem"]) == row["metrics"]["verbmem"]["score"]
    assert float(line["retained_same_precision_mean"]) == row["retained"]["same_precision"]["mean"]["value"]
    assert find(lines, model="target", precision="bf16")["recovery"] == ""
