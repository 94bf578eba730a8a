"""TOFU's metrics, held to rows and aggregates of real runs, to all stored digits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palimpsest.errors import PalimpsestError
from palimpsest.metrics.tofu import (
    exact_memorization,
    extraction_strength,
    forget_quality,
    forget_truth_ratio,
    model_utility,
    normalised_probability,
    probability,
    truth_ratio,
    utility_truth_ratio,
)

RUNS = {
    "openunlearning-npo.json": (1.0973970510505411e-09, 0.6012451505166556, 0.54272674607819),
    "openunlearning-npo-4bit.json": (3.913229651378406e-08, 0.485066919319177, 0.5862570414918309),
}
"""Forget quality, model utility and forget truth ratio of each."""
SHORT = {"retain": "retain", "real_authors": "ra", "world_facts": "wf"}


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest, shared: Path) -> tuple[dict[str, Any], dict[str, Any], tuple[float, ...]]:
    """The results of a run, those of the retained control, and what must come out."""
    folder = shared / "oracle/tofu"
    control = json.loads((folder / "openunlearning-retain90.json").read_text())
    return json.loads((folder / request.param).read_text()), control, RUNS[request.param]


def column(results: dict[str, Any], metric: str, key: str) -> list[Any]:
    return [row[key] for row in results[metric]["value_by_index"].values()]


def ratios(results: dict[str, Any], split: str, right: str) -> np.ndarray:
    return truth_ratio(
        column(results, f"{split}_{right}", "avg_loss"), column(results, f"{split}_Q_A_PERT_Prob", "avg_loss")
    )


def test_rows(run):
    results, _, _ = run
    assert ratios(results, "forget", "Q_A_PARA_Prob") == pytest.approx(
        column(results, "forget_truth_ratio", "score"), rel=1e-14
    )
    for split in ("ra", "wf"):
        true, wrong = (column(results, f"{split}_Q_A_{name}", "prob") for name in ("Prob", "PERT_Prob"))
        stored = column(results, f"{split}_Q_A_Prob_normalised", "prob")
        assert normalised_probability(true, wrong) == pytest.approx(stored, rel=1e-14)
    losses = column(results, "forget_Q_A_Prob", "avg_loss")
    assert probability(losses) == pytest.approx(
        column(results, "forget_Q_A_Prob", "prob"), rel=2e-3
    )  # stored in bfloat16


def test_aggregates(run):
    results, control, (quality, utility, ratio) = run
    of_model, of_control = (column(each, "forget_truth_ratio", "score") for each in (results, control))
    assert forget_truth_ratio(of_model) == pytest.approx(ratio, rel=1e-13)
    assert forget_quality(of_model, of_control) == pytest.approx(quality, rel=1e-12)
    nine = {
        split: {
            "probability": results[f"{name}_Q_A_Prob" + ("" if name == "retain" else "_normalised")]["agg_value"],
            "rouge": results[f"{name}_Q_A_ROUGE"]["agg_value"],
            "truth_ratio": utility_truth_ratio(column(results, f"{name}_Truth_Ratio", "score")),
        }
        for split, name in SHORT.items()
    }
    assert model_utility(nine) == pytest.approx(utility, rel=1e-12)


@pytest.mark.parametrize(
    ("predicted", "true", "strength", "memorized"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0, 1.0),
        ([9, 2, 3, 4], [1, 2, 3, 4], 0.75, 0.75),
        ([1, 2, 3, 9], [1, 2, 3, 4], 0.0, 0.75),
        ([9, 2, 9, 4], [1, 2, 3, 4], 0.25, 0.5),
        ([9], [1], 0.0, 0.0),
    ],
)
def test_token_metrics(predicted, true, strength, memorized):
    assert extraction_strength(predicted, true) == strength
    assert exact_memorization(predicted, true) == memorized


def test_edges():
    assert forget_quality([0.5] * 10, [0.5] * 10) == 1.0
    assert forget_truth_ratio([0.0]) == 0.0 and forget_truth_ratio([1.0]) == pytest.approx(1)
    assert model_utility({split: {"probability": 0.5, "rouge": 0.0, "truth_ratio": 1.0} for split in SHORT}) == 0.0
    assert utility_truth_ratio([2.0, 0.0]) == 0.5
    with pytest.raises(PalimpsestError, match="not finite"):
        probability([float("nan")])
    with pytest.raises(PalimpsestError, match="no losses"):
        probability([])
    with pytest.raises(PalimpsestError, match="has no wrong answers"):
        truth_ratio([1.0], [[]])
    with pytest.raises(PalimpsestError, match="2 records and wrong answers for 1"):
        truth_ratio([1.0, 2.0], [[1.0]])
    with pytest.raises(PalimpsestError, match="at least two records"):
        forget_quality([1.0], [1.0, 2.0])
    with pytest.raises(PalimpsestError, match="2 predicted tokens for 1"):
        extraction_strength([1, 2], [1])
