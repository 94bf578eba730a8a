"""Results of a study of this project: score records and responses in its results folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palimpsest.artefacts import read_record
from palimpsest.audit.records import read_audit
from palimpsest.errors import PalimpsestError, choose
from palimpsest.inference.files import read_responses
from palimpsest.verdict.records import Measured, Values
from palimpsest.vocabulary import (
    FORGET_METRICS,
    FULL,
    KNOWMEM,
    KNOWMEM_FORGET,
    RETRAIN,
    TARGET,
    UNLEARNED,
    UTILITY,
    VERBMEM,
)

TASKS = {VERBMEM: VERBMEM, KNOWMEM: KNOWMEM_FORGET}


def unlearned_models(results: Path) -> list[str]:
    """The unlearned models of a study, in its order. Raises PalimpsestError where there is no audit."""
    audit = read_audit(results / "audit.json")
    return [model["model"] for model in audit["models"] if model["kind"] == UNLEARNED]


def read_study(results: Path, model: str, metrics: Sequence[str]) -> list[Measured]:
    """The named metrics of one unlearned model at every precision, with the study's target and retrained model.

    Raises PalimpsestError for a metric that no single record has, and for a score record that is missing or edited.
    """
    audit = read_audit(results / "audit.json")
    names = {entry["kind"]: entry["model"] for entry in audit["models"] if entry["kind"] in (TARGET, RETRAIN)}
    for metric in metrics:
        choose(dict.fromkeys(FORGET_METRICS), metric, "metric of a study")
    return [_measured(results, audit, model, names, metric) for metric in metrics]


def _measured(results: Path, audit: Mapping[str, Any], model: str, names: Mapping[str, str], metric: str) -> Measured:
    seeds, precisions = audit["seeds"], audit["precisions"]
    records = {
        (of, seed, at): read_record(results / f"scores/{of}/seed{seed}/{at}/{metric}.json")
        for of in (model, *names.values())
        for seed in seeds
        for at in precisions
    }
    ids = records[model, seeds[0], FULL]["ids"]
    for (of, seed, at), record in records.items():
        if record["ids"] != ids:
            raise PalimpsestError(f"{metric} of {of}, seed {seed}, at {at} rests on other records: score it again.")

    def values(of: str) -> dict[str, Values]:
        return {
            at: np.array([records[of, seed, at]["per_example"] for seed in seeds], dtype=np.float64)
            for at in precisions
        }

    return Measured(
        metric,
        [str(name) for name in ids],
        values(model),
        values(names[RETRAIN]),
        values(names[TARGET]),
        utility=_utility(results, model, names[TARGET], seeds, precisions),
        utility_of="the target in full precision",
        answers={at: _answers(results / f"infer/{model}/seed{seeds[0]}/{at}", metric, ids) for at in precisions},
        notes=[f"{len(ids)} records of {metric}, of {len(seeds)} seed(s), scored by ROUGE of greedy responses."],
    )


def _utility(
    results: Path, model: str, target: str, seeds: Sequence[int], precisions: Sequence[str]
) -> dict[str, float]:
    """Percent of the target's utility in full precision, by precision: the mean over seeds."""

    def mean(of: str, at: str) -> float | None:
        scores = [read_record(results / f"scores/{of}/seed{seed}/{at}/{UTILITY}.json")["score"] for seed in seeds]
        return None if None in scores else float(np.mean(scores))

    whole = mean(target, FULL)
    if not whole:
        return {}
    found = {at: mean(model, at) for at in precisions}
    return {at: 100 * value / whole for at, value in found.items() if value is not None}


def _answers(folder: Path, metric: str, ids: Sequence[int]) -> list[str]:
    """What the model said, in the order of ids; empty where the responses are not kept."""
    path = folder / "responses.jsonl"
    if not path.is_file():
        return [""] * len(ids)
    said = {row["id"]: row["response"] for row in read_responses(path, TASKS[metric])}
    return [str(said.get(name, "")) for name in ids]
