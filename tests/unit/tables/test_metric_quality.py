"""Faithfulness and stability of metrics, from records as the score step writes them."""

import shutil

import pytest

from palimpsest.artefacts import Origin, write_record
from palimpsest.cli import main
from palimpsest.errors import PalimpsestError
from palimpsest.tables.metric_quality import KNOWN, qualities, stability

SCORES = {  # percent: probability, truth ratio; and an AUC, low where the model knows
    ("target", "bf16"): (90.0, 40.0, 0.02, [0.9, 0.8]),
    ("target", "rtn-int4"): (60.0, 50.0, 0.30, [0.6, 0.2]),
    ("retrain", "bf16"): (10.0, 70.0, 0.45, [0.1, 0.1]),
    ("retrain", "rtn-int4"): (12.0, 45.0, 0.50, [0.2, 0.1]),
    ("npo", "bf16"): (20.0, 80.0, 0.40, [0.3, 0.1]),
    ("npo", "rtn-int4"): (40.0, 60.0, 0.40, [0.5, 0.3]),
    ("ga", "bf16"): (30.0, 80.0, 0.40, [0.3, 0.3]),
    ("ga", "rtn-int4"): (10.0, 90.0, 0.70, [0.1, 0.1]),
}


def write(results, drop=()):
    for (model, precision), (probability, ratio, auc, rows) in SCORES.items():
        if model in drop:
            continue
        folder = results / "scores" / model / "seed0" / precision
        folder.mkdir(parents=True)
        common = {"model": model, "seed": 0, "precision": precision, "status": "ok", "n": 2}
        for metric, score in (("probability", probability), ("truth_ratio", ratio), ("mia_loss", -5.0)):
            record = common | {"metric": metric, "score": score, "per_example": rows, "auc": auc}
            write_record(folder / f"{metric}.json", Origin(), record, ())
        undefined = common | {"metric": "forget_quality", "score": None, "per_example": []}
        write_record(folder / "forget_quality.json", Origin(), undefined, ())
    kinds = {"target": "target", "retrain": "retrain"}
    models = [{"model": name, "kind": kinds.get(name, "unlearned")} for name in dict(SCORES.keys()) if name not in drop]
    write_record(results / "audit.json", Origin(), {"models": models, "settings": {}}, ())
    return results


def test_faithfulness_and_stability(tmp_path):
    found = {each.metric: each for each in qualities([write(tmp_path / "results")])}
    assert list(found) == ["probability", "truth_ratio", "mia_loss"], "what has no number is left out"
    assert found["probability"].faithfulness == 1.0
    # known: 0.6 and 0.5; unknown: 0.3 and 0.55, which one of the two pairs with 0.5 loses
    assert found["truth_ratio"].faithfulness == 0.75
    assert found["mia_loss"].faithfulness == 1.0
    assert found["probability"].records == [1.0, 0.875]
    assert found["probability"].kept == {"rtn-int4": [1.0, 0.5]}
    assert found["truth_ratio"].kept == {"rtn-int4": pytest.approx([1.0, 0.5])}
    assert found["mia_loss"].kept == {"rtn-int4": [1.0, 1.0]}


def test_without_a_retrained_model_there_is_stability_alone(tmp_path):
    found = {each.metric: each for each in qualities([write(tmp_path / "results", drop=("retrain",))])}
    assert found["probability"].faithfulness is None and found["probability"].kept["rtn-int4"] == [1.0, 0.5]


def test_the_command_prints_it(tmp_path, capsys):
    assert main(["tables", "metric-quality", str(write(tmp_path / "results"))]) == 0
    said = capsys.readouterr().out
    assert "| probability | 1.00 | 0.94 | 0.75 |" in said and "Models: 2 targets and 2 retrained ones" in said


def test_what_has_no_scores_is_refused(tmp_path):
    with pytest.raises(PalimpsestError, match=r"audit\.json does not exist"):
        qualities([tmp_path])
    shutil.rmtree(write(tmp_path / "results") / "scores")
    with pytest.raises(PalimpsestError, match="has no scores"):
        qualities([tmp_path / "results"])


@pytest.mark.parametrize(
    ("before", "after", "expected"), [(0.2, 0.4, 0.5), (0.4, 0.2, 1.0), (0.0, 0.0, 1.0), (0.0, 0.3, 0.0)]
)
def test_stability(before, after, expected):
    assert stability(before, after) == expected


def test_every_metric_of_forgetting_has_its_direction():
    from palimpsest.metrics import METRICS

    assert set(KNOWN) == set(METRICS) - {"utility", "perplexity", "model_utility"}
