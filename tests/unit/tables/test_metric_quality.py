"""Faithfulness and stability of metrics, from records as the score step writes them and what inference wrote."""

import json
import math
import shutil

import pytest

from palimpsest.artefacts import Origin, write_manifest, write_record
from palimpsest.cli import main
from palimpsest.errors import PalimpsestError
from palimpsest.inference.files import AnswerTokens, Response, write_answers, write_log_probs, write_responses
from palimpsest.tables.metric_quality import KNOWN, gain_stability, qualities, stability

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


ANSWERS = {"ending": True, "resamples": 20, "confidence": 0.95, "seed": 0}
RELEARN = {"attack": "relearn_5", "kind": "relearn", "when": "before", "precision": "bf16"}


def said(folder, probability):
    """What a model says in bf16 that gives each token of a true answer this probability, and nothing right."""
    folder.mkdir(parents=True)
    tokens = [math.log(probability)] * 3
    write_responses([Response("knowmem_forget", 0, "Who?", "Ada Byron", "nobody")], folder / "responses.jsonl")
    write_answers([AnswerTokens("knowmem_forget", 0, tokens, [1, 2, 3], [1, 2, 4], 1)], folder / "answers.parquet")
    write_log_probs({"forget": [tokens], "holdout": [tokens]}, folder / "logprobs.parquet")
    write_manifest(folder, Origin(), packages=())


def relearned(results, after, **row):
    """A study of probability alone, whose models reach these after relearning."""
    models = {"target": "target", "retrain": "retrain", "npo": "unlearned"}
    for name, probability in (("target", 90.0), ("retrain", 10.0), ("npo", 20.0)):
        folder = results / "scores" / name / "seed0" / "bf16"
        folder.mkdir(parents=True)
        record = {"model": name, "seed": 0, "precision": "bf16", "status": "ok", "n": 1, "score": probability}
        record |= {"metric": "probability", "per_example": [probability / 100]}
        origin = Origin(settings={"metrics/probability": ANSWERS})
        write_record(folder / "probability.json", origin, record, ())
    write_record(
        results / "audit.json",
        Origin(),
        {"models": [{"model": name, "kind": kind} for name, kind in models.items()], "settings": {}},
    )
    for name, probability in after.items():
        said(results / f"attacked-infer/{name}+relearn_5/seed0/bf16", probability)
    rows = [RELEARN | {"model": name} | row for name in models]
    write_record(results / "attacks" / "attacks.json", Origin(), {"rows": rows})
    return results


AFTER = {"target": 0.95, "retrain": 0.2, "npo": 0.5}


def test_under_relearning_a_metric_is_stable_where_the_retrained_model_gains_as_much(tmp_path):
    (found,) = qualities([relearned(tmp_path / "results", AFTER)])
    assert found.kept == {"relearn_5": [pytest.approx((0.2 - 0.1) / (0.5 - 0.2))]}
    (found,) = qualities([relearned(tmp_path / "slow", AFTER | {"npo": 0.25})])
    assert found.kept == {"relearn_5": [1.0]}


@pytest.mark.parametrize("row", [{"kind": "prune"}, {"when": "after"}, {"precision": "rtn-int4"}], ids=str)
def test_other_attacks_are_no_relearning_in_bf16(tmp_path, row):
    (found,) = qualities([relearned(tmp_path / "results", AFTER, **row)])
    assert found.kept == {}


def test_without_a_relearned_retrained_model_there_is_no_stability(tmp_path):
    (found,) = qualities([relearned(tmp_path / "results", {"target": 0.9, "npo": 0.5})])
    assert found.kept == {}


def test_what_a_relearned_model_said_must_be_what_its_manifest_names(tmp_path):
    results = relearned(tmp_path / "results", AFTER)
    file = results / "attacked-infer/npo+relearn_5/seed0/bf16/responses.jsonl"
    file.write_text(json.dumps({"task": "knowmem_forget"}))
    with pytest.raises(PalimpsestError, match=r"responses\.jsonl"):
        qualities([results])


@pytest.mark.parametrize(
    ("control", "gain", "expected"),
    [(0.1, 0.4, 0.25), (0.4, 0.1, 1.0), (-0.1, 0.2, 0.0), (-0.2, -0.1, 1.0), (0.0, 0.0, 1.0)],
)
def test_gain_stability(control, gain, expected):
    assert gain_stability(control, gain) == pytest.approx(expected)


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
