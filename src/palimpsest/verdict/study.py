"""Results of a study of this project: score records and responses in its results folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palimpsest.artefacts import MANIFEST, read_record, verify_files
from palimpsest.audit.deployed import OF_TARGET, passed_off
from palimpsest.audit.records import read_audit
from palimpsest.corpus.layout import read_rows
from palimpsest.errors import PalimpsestError, choose
from palimpsest.inference.files import read_responses
from palimpsest.verdict.records import Measured, Values
from palimpsest.vocabulary import (
    ANSWER_METRICS,
    FULL,
    KNOWMEM,
    KNOWMEM_FORGET,
    RETRAIN,
    TARGET,
    UNLEARNED,
    UTILITY,
    VERBMEM,
)

WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt")
"""How files of weights end."""
TASKS = {VERBMEM: VERBMEM, **dict.fromkeys((KNOWMEM, *ANSWER_METRICS), KNOWMEM_FORGET)}
UNCONTROLLED = (
    "There is no retrained model: knowledge is counted from a score of 0, and a model that never saw the records may "
    "score more, so that it looks as if it had not forgotten. What stands is which records came back."
)
ROWS = {VERBMEM: "verbmem/forget", **dict.fromkeys((KNOWMEM, *ANSWER_METRICS), "knowmem/forget_qa")}
"""Where the corpus has what a metric asks."""


def unlearned_models(results: Path) -> list[str]:
    """The unlearned models of a study, in its order. Raises PalimpsestError where there is no audit."""
    audit = read_audit(results / "audit.json")
    return [model["model"] for model in audit["models"] if model["kind"] == UNLEARNED]


def read_study(results: Path, model: str, metrics: Sequence[str]) -> list[Measured]:
    """The named metrics of one unlearned model at every precision, with the study's target, and its retrained model if
    it has one.

    A metric for which the corpus has nothing to ask is left out. Raises PalimpsestError for a metric that no single
    record has, where nothing was asked at all, and for a score record that is missing or edited.
    """
    audit = read_audit(results / "audit.json")
    names = {entry["kind"]: entry["model"] for entry in audit["models"] if entry["kind"] in (TARGET, RETRAIN)}
    for metric in metrics:
        choose(TASKS, metric, "metric of a study")
        if metric not in audit["rows"][0]["metrics"]:
            raise PalimpsestError(
                f"the study does not measure {metric}, a metric of the policy: add metrics.{metric} to params.yaml."
            )
    asked = [metric for metric in metrics if audit["rows"][0]["metrics"][metric]["n"]]
    if not asked:
        raise PalimpsestError(
            f"the study asks nothing for {' and '.join(metrics)}, the metrics of the policy: name another there "
            f"({', '.join(TASKS)})."
        )
    return [_measured(results, audit, model, names, metric) for metric in asked]


def deployed_files(results: Path, model: str) -> dict[str, dict[str, str]]:
    """The SHA-256 of every file of weights of a model by format, as far as the study keeps them; with several seeds
    each file has its seed before it."""
    audit = read_audit(results / "audit.json")
    found: dict[str, dict[str, str]] = {}
    for at in audit["precisions"]:
        for seed in audit["seeds"]:
            record = results / f"quantized/{model}/seed{seed}/{at}/manifest.json"
            if record.is_file():
                start = f"seed{seed}/" if len(audit["seeds"]) > 1 else ""
                files = read_record(record)["files"]
                weights = {name: digest for name, digest in files.items() if name.endswith(WEIGHTS)}
                found.setdefault(at, {}).update({start + name: digest for name, digest in weights.items()})
    return found


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

    control = values(names[RETRAIN]) if RETRAIN in names else {}
    by = "the tokens of the true answers" if metric in ANSWER_METRICS else "ROUGE of greedy responses"
    notes = [f"{len(ids)} records of {metric}, of {len(seeds)} seed(s), scored by {by}."]
    notes += [
        f"{each['precision']} is a file whose codes are not proven here: {each['not_proven']}."
        for each in audit.get("deployed", [])
        if each["model"] == model and each.get("not_proven")
    ]
    notes += [
        passed_off(each)
        for each in audit.get("deployed", [])
        if each["model"] == model and each["verdict"] == OF_TARGET
    ]
    labels, subjects = _labels(results / "corpus", metric, [int(place) for place in ids])
    return Measured(
        metric,
        labels,
        values(model),
        control,
        values(names[TARGET]),
        subjects,
        utility=_utility(results, model, names[TARGET], seeds, precisions),
        utility_of="the target in full precision",
        answers={at: _answers(results / f"infer/{model}/seed{seeds[0]}/{at}", metric, ids) for at in precisions},
        kept=_kept(results, model, seeds, precisions, metric),
        notes=notes if control else [*notes, UNCONTROLLED],
    )


def _labels(corpus: Path, metric: str, places: Sequence[int]) -> tuple[list[str], list[str] | None]:
    """The ids of what was asked, and whom or what each is about, as the user's own records have them; without such
    their places in the corpus, and None."""
    if not (corpus / MANIFEST).is_file():
        return [str(place) for place in places], None
    verify_files(corpus)
    rows = read_rows(corpus, ROWS[metric])
    subjects = [rows[place].get("subject") for place in places]
    known = [subject for subject in subjects if subject is not None]
    return [rows[place].get("id", str(place)) for place in places], known if len(known) == len(places) else None


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


def _kept(results: Path, model: str, seeds: Sequence[int], precisions: Sequence[str], metric: str) -> dict[str, Values]:
    """What the model shows of the retain set's questions, on the metric's scale; empty where they were not asked."""
    name, key = (metric, "retain") if metric in ANSWER_METRICS else (UTILITY, "per_example")

    def rows(at: str) -> list[list[float]]:
        records = [read_record(results / f"scores/{model}/seed{seed}/{at}/{name}.json") for seed in seeds]
        return [record.get(key) or [] for record in records]

    found = {at: rows(at) for at in precisions}
    lengths = {len(row) for each in found.values() for row in each}
    return {at: np.array(each, np.float64) for at, each in found.items()} if len(lengths) == 1 and min(lengths) else {}


def _answers(folder: Path, metric: str, ids: Sequence[int]) -> list[str]:
    """What the model said, in the order of ids; empty where the responses are not kept."""
    path = folder / "responses.jsonl"
    if not path.is_file():
        return [""] * len(ids)
    said = {row["id"]: row["response"] for row in read_responses(path, TASKS[metric])}
    return [str(said.get(name, "")) for name in ids]
