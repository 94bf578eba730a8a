"""TOFU's metrics and membership attacks as entries of params.yaml: of files as inference writes them, held to the rows
and aggregates of real runs, and a status where there is nothing to compare."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palimpsest.errors import PalimpsestError
from palimpsest.inference.files import ANSWERS, AnswerTokens, Response, write_answers, write_responses
from palimpsest.metrics import METRICS, score
from palimpsest.metrics.membership import relative_auc
from palimpsest.vocabulary import paraphrased_task, wrong_task

BOOTSTRAP = {"resamples": 200, "confidence": 0.9, "seed": 0}
SETTINGS: dict[str, dict[str, Any]] = {
    "truth_ratio": {"ending": True} | BOOTSTRAP,
    "forget_quality": {"ending": True},
    "model_utility": {"ending": True, "tokenizer": "stemmed"} | BOOTSTRAP,
    "mia_loss": BOOTSTRAP,
    "mia_zlib": BOOTSTRAP,
    "mia_min_k": {"min_k_ratio": 0.4} | BOOTSTRAP,
    "mia_min_k_plus_plus": {"min_k_ratio": 0.4} | BOOTSTRAP,
    "mia_reference": BOOTSTRAP,
    "mia_gradient_norm": BOOTSTRAP,
}


def scored(metric: str, model: Path, retrain: Path | None) -> dict[str, Any]:
    files = (folder and folder / "logprobs.parquet" for folder in (model, retrain))
    logprobs, control = files
    return dict(score(metric, SETTINGS[metric], model / "responses.jsonl", str(logprobs), control))


def one_token(task: str, number: int, loss: float) -> AnswerTokens:
    return AnswerTokens(task, number, [-loss], [1], [1], 0)


# what OpenUnlearning stored, as our inference would have written it: losses in float16, answers and responses


def of_oracle(results: dict[str, Any], folder: Path) -> Path:
    folder.mkdir()
    answers, responses = [], []
    sets = {"forget": "knowmem_forget", "retain": "knowmem_retain", "ra": "real_authors", "wf": "world_facts"}
    for short, task in sets.items():
        kinds = {"Q_A_Prob": task, "Q_A_PARA_Prob": paraphrased_task(task)}
        for name, ours in kinds.items():
            rows = results.get(f"{short}_{name}", {}).get("value_by_index", {}).values()
            answers += [one_token(ours, i, row["avg_loss"]) for i, row in enumerate(rows)]
        for i, row in enumerate(results.get(f"{short}_Q_A_PERT_Prob", {}).get("value_by_index", {}).values()):
            answers += [one_token(wrong_task(task, k), i, loss) for k, loss in enumerate(row["avg_loss"])]
        for i, row in enumerate(results.get(f"{short}_Q_A_ROUGE", {}).get("value_by_index", {}).values()):
            responses.append(Response(task, i, "?", row["ground_truth"], row["generation"]))
    write_answers(answers, folder / ANSWERS)
    write_responses(responses, folder / "responses.jsonl")
    return folder


@pytest.mark.parametrize("name", ["openunlearning-npo.json", "openunlearning-npo-4bit.json"])
def test_what_a_published_run_scored_comes_out_of_our_files(shared, tmp_path, name):
    results, control = (json.loads((shared / "oracle/tofu" / file).read_text()) for file in (name, CONTROL))
    model, retrain = of_oracle(results, tmp_path / "model"), of_oracle(with_true(control), tmp_path / "retrain")
    ratio = scored("truth_ratio", model, retrain)
    assert ratio["score"] / 100 == pytest.approx(results["forget_truth_ratio"]["agg_value"], rel=1e-12)
    assert ratio["n"] == 400 and ratio["ci"][0] < ratio["score"] < ratio["ci"][1]
    quality = scored("forget_quality", model, retrain)
    assert quality["score"] == pytest.approx(results["forget_quality"]["agg_value"], rel=1e-9)
    stored = [row["score"] for row in results["forget_truth_ratio"]["value_by_index"].values()]
    assert quality["per_example"] == pytest.approx(stored, rel=1e-13)
    utility = scored("model_utility", model, retrain)
    # probabilities were stored rounded to float16; ours come from the losses
    assert utility["score"] / 100 == pytest.approx(results["model_utility"]["agg_value"], rel=1e-4)
    assert utility["n"] == 617 and utility["ci"][0] < utility["score"] < utility["ci"][1]
    assert utility["parts"]["retain"]["rouge"] == pytest.approx(results["retain_Q_A_ROUGE"]["agg_value"], rel=1e-13)


CONTROL = "openunlearning-retain90.json"


def with_true(control: dict[str, Any]) -> dict[str, Any]:
    """The control's file has no losses of true answers, which its truth ratios do not need."""
    return control | {"forget_Q_A_Prob": control["forget_Q_A_PARA_Prob"]}


def test_the_retrained_control_against_itself(shared, tmp_path):
    control = with_true(json.loads((shared / "oracle/tofu" / CONTROL).read_text()))
    folder = of_oracle(control, tmp_path / "retrain")
    assert scored("forget_quality", folder, folder)["score"] == 1.0


def made(folder: Path, knows: float, seed: int, spread: bool = True, holdout: bool = True) -> Path:
    """What a model that knows the forget set by so much would leave: 30 answers of 6 tokens, the last of which ends."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    answers = []
    for task, gain in {"knowmem_forget": knows, **({"holdout": 0.0} if holdout else {})}.items():
        for i in range(30):
            nats = random.gamma(4.0, 0.5, 6) * (1 - gain)
            nats[-1] = 50.0 * (task == "holdout")  # would decide everything, did it count
            more = {"size": 40, "means": [-2.0] * 6, "variances": [1.0] * 6, "gradient": float(nats[:-1].mean())}
            answers.append(AnswerTokens(task, i, (-nats).tolist(), [1] * 6, [1] * 6, 1, **(more if spread else {})))
    write_answers(answers, folder / ANSWERS)
    write_responses([], folder / "responses.jsonl")
    return folder


ATTACKS = [name for name in METRICS if name.startswith("mia_")]


@pytest.mark.parametrize("metric", ATTACKS)
def test_attacks_tell_a_model_that_knows_from_one_that_does_not(tmp_path, metric):
    knows, naive, retrain = (made(tmp_path / str(i), gain, i) for i, gain in enumerate((0.9, 0.0, 0.0)))
    known, unknown = scored(metric, knows, retrain), scored(metric, naive, retrain)
    assert known["status"] == unknown["status"] == "ok"
    assert known["auc"] < 0.1 and abs(unknown["auc"] - 0.5) < 0.25
    assert known["score"] == pytest.approx(relative_auc(known["auc"], known["auc_retrain"])) and known["score"] < -80
    assert known["ci"][1] < unknown["ci"][0]
    assert known["ids"] == {"forget": list(range(30)), "holdout": list(range(30))}
    itself = scored(metric, retrain, retrain)
    assert itself["score"] == 0.0 and itself["ci"] == [0.0, 0.0]


@pytest.mark.parametrize("metric", ATTACKS)
def test_attacks_have_a_status_where_they_have_nothing_to_go_on(tmp_path, metric):
    model, without = made(tmp_path / "a", 0.5, 1), made(tmp_path / "b", 0.5, 2, holdout=False)
    bare = made(tmp_path / "c", 0.5, 3, spread=False)
    assert "models.retrain is null" in scored(metric, model, None)["status"]
    assert "no question stands for what no model saw" in scored(metric, without, without)["status"]
    found = scored(metric, bare, bare)
    if metric in ("mia_zlib", "mia_min_k_plus_plus", "mia_gradient_norm"):
        assert "inference recorded no" in found["status"] and found["score"] is None and found["ids"] == []
    else:
        assert found["status"] == "ok"


def test_an_auc_of_0_of_the_retrained_model_has_a_status(tmp_path):
    write = {"a": (1.0, 2.0), "b": (0.5, 3.0)}
    for name, (forget, holdout) in write.items():
        (tmp_path / name).mkdir()
        rows = [one_token("knowmem_forget", i, forget) for i in range(3)]
        write_answers([*rows, *(one_token("holdout", i, holdout) for i in range(3))], tmp_path / name / ANSWERS)
    found = scored("mia_loss", tmp_path / "a", tmp_path / "b")
    assert found["score"] is None and found["auc"] == 0.0 and "AUC of the retrained model is 0" in found["status"]


def test_other_questions_than_the_retrained_model_s_are_refused(tmp_path):
    model, retrain = made(tmp_path / "a", 0.5, 1), tmp_path / "b"
    retrain.mkdir()
    write_answers([one_token("knowmem_forget", 7, 1.0), one_token("holdout", 7, 1.0)], retrain / ANSWERS)
    with pytest.raises(PalimpsestError, match="answers to different questions of knowmem_forget"):
        scored("mia_loss", model, retrain)


def test_tofu_s_metrics_have_a_status_without_wrong_answers_or_world(tmp_path):
    model = made(tmp_path / "a", 0.5, 1)
    assert "no forget record has wrong answers" in scored("truth_ratio", model, model)["status"]
    assert "models.retrain is null" in scored("forget_quality", model, None)["status"]
    assert "fewer than two forget records have wrong answers" in scored("forget_quality", model, model)["status"]
    assert "no questions on retain" in scored("model_utility", model, model)["status"]
    rows = [one_token("knowmem_retain", 0, 1.0), one_token("knowmem_retain/wrong0", 0, 2.0)]
    write_answers(rows, model / ANSWERS)
    write_responses([Response("knowmem_retain", 0, "?", "a", "a")], model / "responses.jsonl")
    assert "no questions on real authors (corpus.settings.world)" in scored("model_utility", model, model)["status"]
    write_answers([*rows, one_token("real_authors", 0, 1.0)], model / ANSWERS)
    found = scored("model_utility", model, model)
    assert "no questions with wrong answers on real authors" in found["status"] and found["parts"] == {}


def test_the_token_that_ends_an_answer_counts_only_where_it_is_asked_to(tmp_path):
    tasks = {"knowmem_forget": -1.0, "knowmem_forget/paraphrased": -2.0, "knowmem_forget/wrong0": -3.0}
    rows = [AnswerTokens(task, i, [nats, -9.0], [1, 2], [1, 2], 1) for task, nats in tasks.items() for i in range(2)]
    (tmp_path / "a").mkdir()
    write_answers(rows, tmp_path / "a" / ANSWERS)
    files = tmp_path / "a" / "responses.jsonl", tmp_path / "a" / "logprobs.parquet", None
    without, with_end = (
        score("truth_ratio", {"ending": ending} | BOOTSTRAP, *files)["score"] for ending in (False, True)
    )
    assert without == pytest.approx(100 * np.exp(-1.0), rel=1e-6)
    assert with_end == pytest.approx(100 * np.exp(-0.5), rel=1e-4)
