"""What rho says about recovery: two thresholds on rho,
with the error rate that they had on studies where both were measured.

`palimpsest tables prediction STUDY_RESULTS... > src/palimpsest/survival/prediction.json` reads each results folder's
audit.json and writes the table that `palimpsest survive` predicts from. In place of a folder it takes an earlier
table, whose pairs it reads.

A pair is an unlearned model of a study at a quantized precision: rho, and the share of what was forgotten that came
back, (retained there - retained in bf16) / (100 - retained in bf16), retained being the mean over those of VerMem and
KnowMem that had been forgotten in bf16 by the audit's own rule; a model that had forgotten neither is left out, since
it has little to recover.
*restored*: at least half of it; *kept*: recovery, the numerator,
is at most the points that the study's audit calls negligible;
*partly*: between the two.

Each pair is also foretold by thresholds that are chosen without its group: without every pair whose target learned from
the same text (`corpus`), because such targets, of whatever seed or size, are not independent.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from itertools import pairwise
from math import log2
from pathlib import Path
from statistics import mean
from typing import Any

from palimpsest.artefacts import read_json, read_record
from palimpsest.errors import PalimpsestError
from palimpsest.models.records import refuse_other_versions
from palimpsest.survival.records import ErrorCounts, Prediction
from palimpsest.vocabulary import BFLOAT16, BOTH, FULL, HEADLINE, TARGET

RESTORED, PARTLY, KEPT = "restored", "partly", "kept"
OUTCOMES = (RESTORED, PARTLY, KEPT)
"""In the order of growing rho."""
HALF = 0.5
TABLE = files("palimpsest.survival") / "prediction.json"
VERSION = 2
ENOUGH = 10
"""Pairs in a range of rho from which a size class may speak for itself."""
NEAR = 0.1
"""Distance in rho of the pairs that `predict` counts as near."""
GROUPS = ("corpus", "target", "unlearned")
"""What is held out together: the first of these of which the pairs have several."""

Pair = dict[str, Any]
Thresholds = tuple[float, float]


def make_table(results: Sequence[Path | str]) -> dict[str, Any]:
    """The table of some studies' results folders, or of earlier tables.

    {"restored_below", "kept_from", "held_out", "groups", "largest_parameters", "studies"}, what `score` gives of all
    pairs, under "bfloat16" of those whose weights were bfloat16 while unlearning, under "sizes" by size class;
    "measured": the pairs. Raises PalimpsestError when a folder has no audit.json or there are fewer than two groups.
    """
    pairs = gather(results)
    group = foretell(pairs)
    low, high = choose_thresholds(pairs)
    return {
        "version": VERSION,
        "restored_below": low,
        "kept_from": high,
        **score(pairs),
        "held_out": "model" if group == "unlearned" else group,
        "groups": len({pair[group] for pair in pairs}),
        "bfloat16": score([pair for pair in pairs if pair["weights"] == BFLOAT16]),
        "sizes": [
            {"parameters": max(pair["parameters"] for pair in members)} | score(members)
            for _, members in sorted(by_size(pairs).items())
        ],
        "largest_parameters": max(pair["parameters"] for pair in pairs),
        "studies": sorted({pair["study"] for pair in pairs}),
        "measured": [{key: value for key, value in pair.items() if key != "quantizer"} for pair in pairs],
    }


def in_lines(table: Mapping[str, Any]) -> str:
    """The table as JSON with a line for each pair, so that a study more or less is a readable change of the file."""
    head = json.dumps({key: value for key, value in table.items() if key != "measured"}, indent=1).removesuffix("\n}")
    pairs = ",\n".join(f"  {json.dumps(pair)}" for pair in table["measured"])
    return f'{head},\n "measured": [\n{pairs}\n ]\n}}'


def foretell(pairs: Sequence[Pair]) -> str:
    """Put "foretold" into each pair: its outcome by thresholds chosen without its group.
    Returns the key that groups them.

    Raises PalimpsestError when there are fewer than two groups.
    """
    group = next((name for name in GROUPS if len({pair[name] for pair in pairs}) > 1), GROUPS[-1])
    if (found := len({pair[group] for pair in pairs})) < 2:
        raise PalimpsestError(f"the studies hold pairs of rho and recovery of {found} models: two are needed.")
    thresholds = thresholds_without(pairs, group)
    for pair in pairs:
        pair["foretold"] = classify(pair["rho"], thresholds[pair[group]])
    return group


def thresholds_without(pairs: Sequence[Pair], group: str) -> dict[str, Thresholds]:
    """By each value of the key `group`: the thresholds of all pairs but those that have it."""
    names = sorted({pair[group] for pair in pairs})
    return {name: choose_thresholds([pair for pair in pairs if pair[group] != name]) for name in names}


def count_errors(pairs: Sequence[Pair]) -> ErrorCounts:
    return {
        "pairs": len(pairs),
        "errors": sum(pair["foretold"] != pair["outcome"] for pair in pairs),
        "always_kept_errors": sum(pair["outcome"] != KEPT for pair in pairs),
    }


def score(pairs: Sequence[Pair]) -> dict[str, Any]:
    """`count_errors`, and how well rho ranks some pairs.

    auc_returned, auc_restored: the chance that rho is lower where something came back (was restored) than where it did
    not, ties half; None where all pairs, or none, are so.
    """
    aucs = {"auc_returned": _auc(pairs, (RESTORED, PARTLY)), "auc_restored": _auc(pairs, (RESTORED,))}
    return {**count_errors(pairs), **aucs}


def _auc(pairs: Sequence[Pair], outcomes: Sequence[str]) -> float | None:
    import scipy.stats

    so, others = (
        [pair["rho"] for pair in pairs if (pair["outcome"] in outcomes) == wanted] for wanted in (True, False)
    )
    if not so or not others:
        return None
    return float(scipy.stats.mannwhitneyu(others, so).statistic / (len(so) * len(others)))


def by_size(pairs: Iterable[Pair]) -> dict[int, list[Pair]]:
    """By size class: the power of two that is nearest to the number of parameters."""
    found: dict[int, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(round(log2(pair["parameters"])), []).append(pair)
    return found


def gather(results: Iterable[Path | str]) -> list[Pair]:
    """The pairs of several studies; a model that two of them made alike, bit for bit, counts once at each format."""
    found: dict[tuple[str, str], Pair] = {}
    for source in map(Path, results):
        for pair in _measured(source) if source.is_file() else read_pairs(source):
            format_ = json.dumps(pair["quantizer"], sort_keys=True) if "quantizer" in pair else pair["precision"]
            found.setdefault((pair["unlearned"], format_), pair)
    return list(found.values())


def _measured(table: Path) -> list[Pair]:
    """The pairs of an earlier table; raises PalimpsestError for a file that is none, or is of another version."""
    content = read_json(table)
    found = content.get("version") if isinstance(content, dict) else None
    if found != VERSION:
        raise PalimpsestError(
            f"{table} is no table of version {VERSION} (its version: {found}): "
            "make it anew, from the results folders of its studies."
        )
    pairs: list[Pair] = content["measured"]
    return pairs


def corpus_of(settings: Mapping[str, Any]) -> str:
    """Which text a study's models learned from, by its block `corpus`:
    two subsets of the same articles count as the same text."""
    source, details = settings["source"], dict(settings["settings"])
    if "path" in details:
        return f"{source} {Path(details['path']).name}"
    return f"{source} {hashlib.sha256(json.dumps(details, sort_keys=True).encode()).hexdigest()[:8]}"


def read_pairs(results: Path) -> list[Pair]:
    """Every unlearned model, seed and quantized precision of a study that has rho and recovery.

    target, unlearned: hashes of the two models' weights; corpus: see corpus_of.
    """
    audit = read_record(results / "audit.json")
    refuse_other_versions(audit["models"], results / "audit.json")
    models = {model["model"]: model for model in audit["models"]}
    target = next(model for model in audit["models"] if model["kind"] == TARGET)
    forgotten, negligible = (audit["rules"][name] for name in ("forgotten_below", "negligible"))
    retained = {
        (row["model"], row["seed"], row["precision"]): {
            metric: cell["value"] for metric, cell in row["retained"][HEADLINE].items() if metric != BOTH
        }
        for row in audit["rows"]
        if row["retained"]
    }
    pairs = []
    for row in audit["rows"]:
        if not row["survival"] or row["survival"]["rho"] is None:
            continue
        cells, cells_before = (retained[row["model"], row["seed"], name] for name in (row["precision"], FULL))
        compared = forgotten_and_returned(cells, cells_before, forgotten)
        if compared is None:
            continue
        lost, there, before = compared
        pairs.append(
            {"study": _study(results), "parameters": models[row["model"]]["parameters"]}
            | {"corpus": corpus_of(audit["settings"]["corpus"])}
            | {"target": _weights(target, row["seed"]), "unlearned": _weights(models[row["model"]], row["seed"])}
            | {"quantizer": audit["settings"]["quantizers"][row["precision"]]}
            | {"weights": row["storage"]}
            | {key: row[key] for key in ("model", "seed", "precision")}
            | {"rho": row["survival"]["rho"], "recovered_share": (there - before) / (100 - before)}
            | {"forgotten": lost, "outcome": outcome(there, before, negligible)}
        )
    return pairs


def forgotten_and_returned(
    there: Mapping[str, float | None], before: Mapping[str, float | None], forgotten_below: float
) -> tuple[list[str], float, float] | None:
    """The metrics that had been forgotten in bf16,
    and what is retained on average over them at a precision and in bf16 (percent).

    there, before: retained knowledge by metric.
    None where nothing had been forgotten, or what had is undefined at the precision.
    """
    lost = {metric: value for metric, value in before.items() if value is not None and value < forgotten_below}
    after = [value for metric in lost if (value := there[metric]) is not None]
    if not lost or len(after) < len(lost):
        return None
    return list(lost), mean(after), mean(lost.values())


def outcome(retained: float, before: float, negligible: float) -> str:
    """One of OUTCOMES. retained, before: percent, at the precision and in bf16; negligible: points."""
    if retained - before <= negligible:
        return KEPT
    return RESTORED if (retained - before) / (100 - before) >= HALF else PARTLY


def classify(rho: float, thresholds: Thresholds) -> str:
    low, high = thresholds
    return RESTORED if rho < low else PARTLY if rho < high else KEPT


def choose_thresholds(pairs: Sequence[Pair]) -> Thresholds:
    """The two thresholds with the fewest errors; where several have, those in the widest gaps between measured rho."""
    ordered = sorted({pair["rho"] for pair in pairs})
    gaps = {(a + b) / 2: b - a for a, b in pairwise(ordered)}
    gaps |= {ordered[0] - 1: 0.0, ordered[-1] + 1: 0.0}  # none of an outcome
    places = sorted(gaps)
    # errors of two thresholds: the pairs below the first that are not RESTORED, and so on,
    # each a difference of counts from below
    wrong = {name: [sum(p["rho"] < at and p["outcome"] != name for p in pairs) for at in places] for name in OUTCOMES}
    kept = [sum(p["outcome"] != KEPT for p in pairs) - count for count in wrong[KEPT]]
    best = min(
        (wrong[RESTORED][i] + wrong[PARTLY][j] - wrong[PARTLY][i] + kept[j], -gaps[places[i]] - gaps[places[j]], i, j)
        for i in range(len(places))
        for j in range(i, len(places))
    )
    return places[best[2]], places[best[3]]


def read_table() -> dict[str, Any] | None:
    """The packaged table; None where there is none yet."""
    return json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else None


def predict(rho: float | None, table: Mapping[str, Any], parameters: int) -> Prediction | None:
    """What was measured in the range of rho; near: within NEAR of it. None where rho is.

    of_models: the largest number of parameters in the size class nearest to `parameters` that has ENOUGH pairs in the
    range; None where none has, and all pairs speak.
    """
    if rho is None:
        return None
    thresholds = table["restored_below"], table["kept_from"]
    expected = classify(rho, thresholds)
    candidates = []
    for members in by_size(table["measured"]).values():
        size = max(pair["parameters"] for pair in members)
        if len(_in_range(members, expected, thresholds)) >= ENOUGH:
            candidates.append((abs(log2(size / parameters)), size, members))
    _, size, members = min(candidates, default=(0, None, table["measured"]), key=lambda each: each[0])
    alike = _in_range(members, expected, thresholds)
    return {
        "outcome": expected,
        "of_models": size,
        "alike": count_outcomes(alike),
        "near": count_outcomes(pair for pair in members if abs(pair["rho"] - rho) <= NEAR),
        **count_errors(members),
    }


def count_outcomes(pairs: Iterable[Pair]) -> dict[str, int]:
    """How many pairs came out how, in the order of OUTCOMES."""
    found = [pair["outcome"] for pair in pairs]
    return {name: found.count(name) for name in OUTCOMES}


def _in_range(pairs: Iterable[Pair], expected: str, thresholds: Thresholds) -> list[Pair]:
    return [pair for pair in pairs if classify(pair["rho"], thresholds) == expected]


def _study(results: Path) -> str:
    """`results` lies in the study's folder; the default study is the repository itself."""
    parts = results.absolute().parts
    return parts[parts.index("studies") + 1] if "studies" in parts else "default"


def _weights(model: dict[str, Any], seed: int) -> str:
    """A hash of the model's safetensors files, from those in the audit."""
    hashes = [value for name, value in sorted(model["files"][str(seed)].items()) if name.endswith(".safetensors")]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]
