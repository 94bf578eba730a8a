"""What rho says about recovery: two thresholds on rho, with the error rate that they had on studies where both were measured.

`python -m palimpsest.prediction STUDY_RESULTS... > src/palimpsest/prediction.json` reads each results folder's audit.json and
writes the table that `palimpsest survive` predicts from.

A pair is an unlearned model of a study at a quantized precision: rho, and the share of what was forgotten that came back,
(retained there - retained in bf16) / (100 - retained in bf16), retained being the mean over those of VerMem and KnowMem that had been
forgotten in bf16 by the audit's own rule; a model that had forgotten neither is left out, since it has little to recover.
*restored*: at least half of it; *kept*: recovery, the numerator, is at most the points that the study's audit calls negligible;
*partly*: between the two.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from importlib.resources import files
from itertools import combinations_with_replacement
from pathlib import Path
from statistics import mean
from typing import Any

from palimpsest.artefacts import read_json
from palimpsest.errors import PalimpsestError
from palimpsest.report.records import FULL, TARGET
from palimpsest.report.retained import HEADLINE

RESTORED, PARTLY, KEPT = "restored", "partly", "kept"
OUTCOMES = (RESTORED, PARTLY, KEPT)
"""In the order of growing rho."""
HALF = 0.5
TABLE = files("palimpsest") / "prediction.json"

Pair = dict[str, Any]
Thresholds = tuple[float, float]


def make_table(results: Sequence[Path | str]) -> dict[str, Any]:
    """The table of some studies' results folders: {"thresholds", "pairs", "errors", "error_rate", "held_out", ...}.

    errors: pairs that thresholds chosen without the pair's group get wrong. The groups (held_out) are targets, with all that was
    unlearned from each, where there are several, else models. Raises PalimpsestError when a folder has no audit.json or there are fewer than two groups.
    """
    pairs = gather(results)
    several = len({pair["target"] for pair in pairs}) > 1
    group = "target" if several else "unlearned"
    groups = {pair[group] for pair in pairs}
    if len(groups) < 2:
        raise PalimpsestError(
            f"{', '.join(map(str, results))} hold pairs of rho and recovery of {len(groups)} models: two are needed."
        )
    wrong = 0
    for held_out in groups:
        thresholds = choose_thresholds([pair for pair in pairs if pair[group] != held_out])
        wrong += count_errors([pair for pair in pairs if pair[group] == held_out], thresholds)
    low, high = choose_thresholds(pairs)
    return {
        "restored_below": low,
        "kept_from": high,
        "pairs": len(pairs),
        "errors": wrong,
        "error_rate": wrong / len(pairs),
        "held_out": "target" if several else "model",
        "groups": len(groups),
        "largest_parameters": max(pair["parameters"] for pair in pairs),
        "studies": sorted({pair["study"] for pair in pairs}),
        "measured": [{key: value for key, value in pair.items() if key != "quantizer"} for pair in pairs],
    }


def gather(results: Iterable[Path | str]) -> list[Pair]:
    """The pairs of several studies; a model that two of them made alike, bit for bit, counts once at each format."""
    found: dict[tuple[str, str], Pair] = {}
    for folder in results:
        for pair in read_pairs(Path(folder)):
            found.setdefault((pair["unlearned"], json.dumps(pair["quantizer"], sort_keys=True)), pair)
    return list(found.values())


def read_pairs(results: Path) -> list[Pair]:
    """Every unlearned model, seed and quantized precision of a study that has rho and recovery.

    target, unlearned: hashes of the two models' weights.
    """
    audit = read_json(results / "audit.json")
    models = {model["model"]: model for model in audit["models"]}
    target = next(model for model in audit["models"] if model["kind"] == TARGET)
    forgotten, negligible = (audit["rules"][name] for name in ("forgotten_below", "negligible"))
    retained = {
        (row["model"], row["seed"], row["precision"]): {
            metric: cell["value"] for metric, cell in row["retained"][HEADLINE].items() if metric != "mean"
        }
        for row in audit["rows"]
        if row["retained"]
    }
    pairs = []
    for row in audit["rows"]:
        if not row["survival"] or row["survival"]["rho"] is None:
            continue
        cells, cells_before = (retained[row["model"], row["seed"], name] for name in (row["precision"], FULL))
        lost = [metric for metric, value in cells_before.items() if value is not None and value < forgotten]
        if not lost or any(cells[metric] is None for metric in lost):
            continue
        there, before = (mean(values[metric] for metric in lost) for values in (cells, cells_before))
        pairs.append(
            {"study": _study(results), "parameters": models[row["model"]]["parameters"]}
            | {"target": _weights(target, row["seed"]), "unlearned": _weights(models[row["model"]], row["seed"])}
            | {"quantizer": audit["settings"]["quantizers"][row["precision"]]}
            | {key: row[key] for key in ("model", "weights", "seed", "precision")}
            | {"rho": row["survival"]["rho"], "recovered_share": (there - before) / (100 - before)}
            | {"forgotten": lost, "outcome": outcome(there, before, negligible)}
        )
    return pairs


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
    gaps = {(a + b) / 2: b - a for a, b in zip(ordered, ordered[1:], strict=False)}
    gaps |= {ordered[0] - 1: 0.0, ordered[-1] + 1: 0.0}  # none of an outcome

    def cost(thresholds: Thresholds) -> tuple[int, float]:
        return count_errors(pairs, thresholds), -sum(gaps[threshold] for threshold in thresholds)

    return min(combinations_with_replacement(sorted(gaps), 2), key=cost)


def count_errors(pairs: Iterable[Pair], thresholds: Thresholds) -> int:
    return sum(classify(pair["rho"], thresholds) != pair["outcome"] for pair in pairs)


def read_table() -> dict[str, Any] | None:
    """The packaged table; None where there is none yet."""
    return json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else None


def predict(rho: float | None, table: dict[str, Any]) -> dict[str, Any] | None:
    """{"outcome", "pairs_alike", "of_them"}: how many measured pairs lie in the same range of rho, and how many had this outcome."""
    if rho is None:
        return None
    thresholds = table["restored_below"], table["kept_from"]
    expected = classify(rho, thresholds)
    alike = [pair for pair in table["measured"] if classify(pair["rho"], thresholds) == expected]
    return {
        "outcome": expected,
        "pairs_alike": len(alike),
        "of_them": sum(pair["outcome"] == expected for pair in alike),
    }


def _study(results: Path) -> str:
    """`results` lies in the study's folder; the default study is the repository itself."""
    parts = results.absolute().parts
    return parts[parts.index("studies") + 1] if "studies" in parts else "default"


def _weights(model: dict[str, Any], seed: int) -> str:
    """A hash of the model's safetensors files, from those in the audit."""
    hashes = [value for name, value in sorted(model["files"][str(seed)].items()) if name.endswith(".safetensors")]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


if __name__ == "__main__":
    try:
        print(json.dumps(make_table(sys.argv[1:]), indent=1))
    except PalimpsestError as error:
        sys.exit(f"error: {error}")
