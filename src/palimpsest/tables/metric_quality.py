"""How good the metrics themselves are, from the scores of studies: whether each tells models that know the forget set
from models that do not, and whether it stays where a format or some relearning should change nothing.

As OpenUnlearning (arXiv 2506.12618, section 5) judges metrics. Faithfulness is an AUC: how likely a target shows more
than a retrained model, ties half. Stability in a format is the mean over the unlearned models of min(before / after,
1): 1 where none shows more in the format than in bf16. Stability under relearning is that of min(what the retrained
model gains / what the unlearned one gains, 1), both in bf16: 1 where an unlearned model learns the forget set no faster
than a model that never saw it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from palimpsest.artefacts import MANIFEST, read_json, read_record, verify_files
from palimpsest.attacks.kinds import BEFORE, RELEARN
from palimpsest.audit.records import read_audit
from palimpsest.errors import PalimpsestError
from palimpsest.metrics import score
from palimpsest.metrics.privleak import membership_auc
from palimpsest.tables.markdown import number, table
from palimpsest.vocabulary import (
    EXTRACTION,
    FULL,
    KNOWMEM,
    MEMORIZATION,
    PRIVLEAK,
    PROBABILITY,
    RETRAIN,
    TARGET,
    VERBMEM,
)


def _share(record: Mapping[str, Any]) -> float:
    return float(record["score"]) / 100


def _unlike(record: Mapping[str, Any]) -> float:
    return 1 - float(record["score"]) / 100


def _told_apart(record: Mapping[str, Any]) -> float:
    return 1 - float(record["auc"])


ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus", "reference", "gradient_norm")
MEMBERSHIP = tuple(f"mia_{name}" for name in ATTACKS)

KNOWN: dict[str, Callable[[Mapping[str, Any]], float]] = {
    **dict.fromkeys((VERBMEM, KNOWMEM, PROBABILITY, EXTRACTION, MEMORIZATION), _share),
    "truth_ratio": _unlike,
    "forget_quality": lambda record: 1 - float(record["score"]),
    **dict.fromkeys((PRIVLEAK, *MEMBERSHIP), _told_apart),
}
"""By metric of forgetting, what of its record grows with what the model knows: 0 to 1."""

BY_RECORD = (VERBMEM, KNOWMEM, PROBABILITY, EXTRACTION, MEMORIZATION)
"""Of these, those whose per_example grow with it."""


@dataclass
class Quality:
    """Of a metric. known, unknown: of targets and retrained models at every seed and precision. records: AUC of each
    pair of them between the single records. kept: the stability of every unlearned model, by precision, and by the name
    of the attack that relearns."""

    metric: str
    known: list[float] = field(default_factory=list)
    unknown: list[float] = field(default_factory=list)
    records: list[float] = field(default_factory=list)
    kept: dict[str, list[float]] = field(default_factory=dict)

    @property
    def faithfulness(self) -> float | None:
        """None where a study has no retrained model, or the metric no number there."""
        return 1 - membership_auc(self.unknown, self.known) if self.known and self.unknown else None


def qualities(results: Sequence[Path]) -> list[Quality]:
    """Of every metric of forgetting that the studies have scores of, in the order of KNOWN.

    results: folders of studies. Raises PalimpsestError for a folder without an audit, or without its scores.
    """
    kinds = {folder: _kinds(folder) for folder in results}
    scores = {folder: _scores(folder) for folder in results}
    relearned = {folder: _relearned(folder) for folder in results}
    found = []
    for metric, known in KNOWN.items():
        quality = Quality(metric)
        for folder, records in scores.items():
            mine = [record for record in records if record["metric"] == metric and record["score"] is not None]
            _add(quality, mine, known, kinds[folder])
            for attack, outcomes in relearned[folder].items():
                _add_relearned(quality, attack, outcomes, mine, folder)
        if quality.known or quality.kept:
            found.append(quality)
    return found


def _scores(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "scores").glob("*/seed*/*/*.json"))
    if not files:
        raise PalimpsestError(f"{folder} has no scores: give the results folder of a study that has run.")
    return [dict(read_record(file)) for file in files]


def _kinds(folder: Path) -> dict[str, str]:
    """Of every model of a study."""
    return {entry["model"]: entry["kind"] for entry in read_audit(folder / "audit.json")["models"]}


def _add(
    quality: Quality,
    records: Sequence[Mapping[str, Any]],
    known: Callable[[Mapping[str, Any]], float],
    kinds: Mapping[str, str],
) -> None:
    at = {(record["model"], record["seed"], record["precision"]): record for record in records}
    for (model, seed, precision), record in at.items():
        if kinds[model] == TARGET:
            quality.known.append(known(record))
            control = at.get((RETRAIN, seed, precision))
            if control is not None and quality.metric in BY_RECORD:
                quality.records.append(1 - membership_auc(control["per_example"], record["per_example"]))
        elif kinds[model] == RETRAIN:
            quality.unknown.append(known(record))
        elif precision != FULL and (before := at.get((model, seed, FULL))) is not None:
            quality.kept.setdefault(precision, []).append(stability(known(before), known(record)))


@dataclass(frozen=True)
class _Relearned:
    """What a relearned model said in bf16."""

    model: str
    seed: int
    responses: Path

    def known(self, before: Mapping[str, Any], results: Path) -> float | None:
        """By the metric of the record `before`, with its settings and the same retrained model to compare with."""
        metric = before["metric"]
        folder = self.responses.parent
        control = results / "infer" / RETRAIN / f"seed{self.seed}" / FULL / "logprobs.parquet"
        found: Mapping[str, Any] = score(
            metric,
            before["settings"][f"metrics/{metric}"],
            self.responses,
            folder / "logprobs.parquet",
            control if control.is_file() else None,
            absent=read_json(folder / MANIFEST).get("absent", ()),
        )
        return None if found["score"] is None else KNOWN[metric](found)


def _relearned(folder: Path) -> dict[str, list[_Relearned]]:
    """By the name of each attack that relearns before quantization, what came of it in bf16, at every seed."""
    file = folder / "attacks" / "attacks.json"
    rows = read_record(file)["rows"] if file.is_file() else []
    found: dict[str, list[_Relearned]] = {}
    for attack, model in dict.fromkeys(
        (row["attack"], row["model"])
        for row in rows
        if (row["kind"], row["when"], row["precision"]) == (RELEARN, BEFORE, FULL)
    ):
        for responses in sorted(folder.glob(f"attacked-infer/{model}+{attack}/seed*/{FULL}/responses.jsonl")):
            verify_files(responses.parent)
            seed = int(responses.parts[-3].removeprefix("seed"))
            found.setdefault(attack, []).append(_Relearned(model, seed, responses))
    return found


def _add_relearned(
    quality: Quality,
    attack: str,
    outcomes: Sequence[_Relearned],
    records: Sequence[Mapping[str, Any]],
    results: Path,
) -> None:
    at = {(record["model"], record["seed"]): record for record in records if record["precision"] == FULL}
    gains: dict[tuple[str, int], float] = {}
    for outcome in outcomes:
        before = at.get((outcome.model, outcome.seed))
        after = None if before is None or outcome.model == TARGET else outcome.known(before, results)
        if before is not None and after is not None:
            gains[outcome.model, outcome.seed] = after - KNOWN[quality.metric](before)
    for (model, seed), gain in gains.items():
        control = gains.get((RETRAIN, seed))
        if model != RETRAIN and control is not None:
            quality.kept.setdefault(attack, []).append(gain_stability(control, gain))


def gain_stability(control: float, gain: float) -> float:
    """min(what the retrained model gains / what the unlearned one does, 1); 1 where the unlearned one gains nothing."""
    return 1.0 if gain <= max(0.0, control) else max(0.0, control) / gain


def stability(before: float, after: float) -> float:
    """min(before / after, 1) of what a model shows; 1 where it shows nothing after."""
    return 1.0 if after <= before or after <= 0 else max(0.0, before) / after


def quality_table(results: Sequence[Path]) -> str:
    """A Markdown table, shares of 1: a line for each metric."""
    found = qualities(results)
    precisions = list(dict.fromkeys(name for quality in found for name in quality.kept))
    lines = [
        [
            quality.metric,
            number(quality.faithfulness, 2),
            number(mean(quality.records) if quality.records else None, 2),
            *(number(mean(quality.kept[name]) if name in quality.kept else None, 2) for name in precisions),
        ]
        for quality in found
    ]
    counts = max(((len(each.known), len(each.unknown)) for each in found), default=(0, 0))
    heads = ["metric", "faithfulness, models", "faithfulness, records", *(f"stability, {name}" for name in precisions)]
    note = f"Models: {counts[0]} targets and {counts[1]} retrained ones, counting every seed and precision."
    return f"{table(heads, lines)}\n\n{note}"
