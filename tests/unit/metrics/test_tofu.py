"""TOFU's metrics, held to rows and aggregates of real runs, to all stored digits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palimpsest.corpus.words import STEMMED
from palimpsest.errors import PalimpsestError
from palimpsest.metrics.membership import relative_auc
from palimpsest.metrics.privleak import membership_auc
from palimpsest.metrics.rouge import rouge_1, rouge_l
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
PROBABILITIES = ("forget_Q_A_Prob", "forget_Q_A_PARA_Prob", "retain_Q_A_Prob", "ra_Q_A_Prob", "wf_Q_A_Prob")
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
    for split in SHORT.values():
        right = "Q_A_PARA_Prob" if split == "retain" else "Q_A_Prob"
        assert ratios(results, split, right) == pytest.approx(
            column(results, f"{split}_Truth_Ratio", "score"), rel=1e-14
        )
    for split in ("ra", "wf"):
        true, wrong = (column(results, f"{split}_Q_A_{name}", "prob") for name in ("Prob", "PERT_Prob"))
        stored = column(results, f"{split}_Q_A_Prob_normalised", "prob")
        assert normalised_probability(true, wrong) == pytest.approx(stored, rel=1e-14)
    for name in PROBABILITIES:
        losses, stored = (column(results, name, key) for key in ("avg_loss", "prob"))
        assert [np.float16(value) for value in probability(losses)] == stored  # losses and probabilities are of float16


def test_rouge_of_every_response(run):
    results, _, _ = run
    for name in ("forget", *SHORT.values()):
        rows = results[f"{name}_Q_A_ROUGE"]["value_by_index"].values()
        for row in rows:
            answer, response = row["ground_truth"], row["generation"]
            ours = rouge_l(answer, response, STEMMED), rouge_1(answer, response, STEMMED)
            assert (ours[0].recall, ours[0].f1, ours[1].recall) == (
                row["rougeL_recall"],
                row["rougeL_f1"],
                row["rouge1_recall"],
            )
        recalls = [row["rougeL_recall"] for row in rows]
        assert np.mean(recalls) == results[f"{name}_Q_A_ROUGE"]["agg_value"]


def test_membership(run):
    results, _, _ = run
    attack = results["mia_min_k"]
    auc = membership_auc(
        *([row["score"] for row in attack[split]["value_by_index"].values()] for split in ("forget", "holdout"))
    )
    assert 1 - auc == pytest.approx(attack["auc"], rel=1e-15)  # theirs is high for what is known
    assert relative_auc(auc, 0.5) == pytest.approx(results["privleak"]["agg_value"], rel=1e-14)


@pytest.mark.parametrize("name", ["tofu-llama2-7b-full.json", "tofu-llama2-7b-retain90.json"])
def test_rows_of_the_paper_s_own_code(shared, name):
    """Stored in float32."""
    for rows in json.loads((shared / "oracle/tofu" / name).read_text()).values():
        table = {key: list(values.values()) for key, values in rows.items()}
        assert truth_ratio(table["avg_paraphrased_loss"], table["average_perturb_loss"]) == pytest.approx(
            table["truth_ratio"],
            rel=3e-5,  # without the EPSILON of OpenUnlearning, which shows where a right answer has 1e-5
        )
        exact = [
            np.exp(right - np.mean(wrong))
            for right, wrong in zip(table["avg_paraphrased_loss"], table["average_perturb_loss"], strict=True)
        ]
        assert exact == pytest.approx(table["truth_ratio"], rel=3e-6)  # of losses around 10, in float32
        if "normalized_gt_loss" in table:
            share = normalised_probability(
                probability(table["avg_gt_loss"]), [probability(each) for each in table["average_perturb_loss"]]
            )
            assert -np.log(share) == pytest.approx(table["normalized_gt_loss"], rel=3e-5)
        for (_, response, answer), *recalls in zip(
            table["generated_text"], table["rouge1_recall"], table["rougeL_recall"], strict=True
        ):
            assert [rouge_1(answer, response, STEMMED).recall, rouge_l(answer, response, STEMMED).recall] == recalls


def test_forget_quality_of_the_paper_s_own_models(shared):
    full, retain = (
        json.loads((shared / f"oracle/tofu/tofu-llama2-7b-{name}.json").read_text())["eval_log_forget.json"]
        for name in ("full", "retain90")
    )
    of = [list(each["truth_ratio"].values()) for each in (full, retain)]
    assert forget_quality(*of) < 1e-15 and forget_quality(of[1], of[1]) == 1
    assert forget_truth_ratio(of[0]) < forget_truth_ratio(of[1])  # the one that never saw them prefers neither


def test_aggregates(run):
    results, control, (quality, utility, ratio) = run
    for name in PROBABILITIES:
        assert np.mean(column(results, name, "prob")) == results[name]["agg_value"]
    for split in ("ra", "wf"):
        stored = results[f"{split}_Q_A_Prob_normalised"]["agg_value"]
        assert np.mean(column(results, f"{split}_Q_A_Prob_normalised", "prob")) == pytest.approx(stored, rel=1e-15)
    for split in SHORT.values():
        stored = results[f"{split}_Truth_Ratio"]["agg_value"]
        assert utility_truth_ratio(column(results, f"{split}_Truth_Ratio", "score")) == pytest.approx(stored, rel=1e-15)
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
