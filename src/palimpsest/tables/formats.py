"""One line per quantizer, for documents: `palimpsest tables formats results`; with `--against rtn-int4-g128`, by how
many points more or less each quantizer brings back than that one.

What the format is (bits, dead zone), what it does to forgetting (retained knowledge, rho) and what it costs
(perplexity, size, time). Needs the whole results folder, because the manifests and the cost of the quantized target
are not part of the audit.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from math import floor, log10
from pathlib import Path
from statistics import mean
from typing import Any

from palimpsest.artefacts import read_manifest, read_record
from palimpsest.audit.cautions import meaning_of_a_minus
from palimpsest.audit.records import has_retrain, index_study, read_audit, read_records
from palimpsest.audit.retained import Retained, Rules
from palimpsest.errors import PalimpsestError, choose
from palimpsest.quantizers import make_quantizer
from palimpsest.quantizers.grids.levels import zero_bin
from palimpsest.tables.by_model import average
from palimpsest.tables.markdown import number, table
from palimpsest.vocabulary import CONSTRAINED, CONTRAST, FULL, PERPLEXITY, REQUIRED_METRICS, TARGET, UNLEARNED

HEAD = [
    "quantizer",
    "backend",
    "bits per weight",
    "dead zone (share of the group's largest)",
    "retained, bfloat16 methods (%)",
    "recovery (points)",
    "rho",
    "retained, more precise weights (%)",
    "perplexity of the target",
    "MiB",
    "seconds",
    "peak MiB",
]


def formats(results: Path) -> list[dict[str, Any]]:
    """A record per precision, means over the seeds;
    retained and recovery are cells {"value", "ci", "status"} of the audit."""
    audit = read_audit(results / "audit.json")
    averages, seeds, headline = audit["averages"], audit["seeds"], audit["denominators"]["headline"]
    if CONSTRAINED not in averages:
        raise PalimpsestError(
            f"{results} has no method with a retain loss and bfloat16 weights, whose mean this table is of: "
            "`palimpsest tables audit` prints every method by itself."
        )
    rows = {(row["model"], row["precision"]): row for row in audit["over_seeds"]}
    target = next(row["model"] for row in audit["over_seeds"] if row["kind"] == TARGET)
    records = []
    for place, precision in enumerate(audit["precisions"]):
        group = {name: averages[name]["rows"][place] for name in averages}
        constrained = averages[CONSTRAINED]["models"]
        record = {
            "precision": precision,
            "negligible": audit["rules"]["negligible"],
            "retained": group[CONSTRAINED]["retained"][headline],
            "recovery": group[CONSTRAINED]["recovery"],
            "contrast": group[CONTRAST]["retained"][headline] if CONTRAST in group else None,
            "perplexity": rows[target, precision]["metrics"][PERPLEXITY],
        }
        if precision != FULL:
            record["rho"] = average([rows[model, precision]["rho"] for model in constrained])
            record |= _made(results, target, seeds, precision)
        records.append(record)
    return records


def files(manifests: Sequence[Mapping[str, Any]], costs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each quantized file, for the report:
    what proves it and what it cost, from its manifest and its cost record."""
    return [
        {
            "file": f"{manifest['model']}/seed{manifest['seed']}/{manifest['precision']}",
            "backend": f"{manifest['proof']['backend']} {manifest['proof']['backend_version']}",
            "bits_per_weight": manifest["proof"]["bits_per_weight"],
            "skipped_layers": manifest["proof"]["skipped_layers"],
            "codes_sha256": manifest["proof"]["codes_sha256"],
            "bytes": manifest["proof"]["bytes"],
            "device": manifest["device"] or "brought as it is",
            "seconds": cost["seconds"],
            "peak_mib": cost["peak_mib"],
            "device_peak_mib": cost["device_peak_mib"],
        }
        for manifest, cost in zip(manifests, costs, strict=True)
    ]


def _made(results: Path, model: str, seeds: Sequence[int], precision: str) -> dict[str, Any]:
    places = [f"{model}/seed{seed}/{precision}" for seed in seeds]
    manifests = [read_manifest(results / "quantized" / place) for place in places]
    costs = [read_record(results / f"cost/{place}.json") for place in places]
    settings = manifests[0]["settings"][f"quantizers/{precision}"]
    proof, quantizer = manifests[0]["proof"], make_quantizer(settings)
    grids = {kind: zero_bin(levels) for kind, levels in list(quantizer.level_tables().items())[1:]}
    return {
        "backend": f"{proof['backend']} {proof['backend_version']}",
        "bits_per_weight": proof["bits_per_weight"],
        "dead_zone": quantizer.dead_zone(),
        "dead_zone_range": quantizer.dead_zone_range(),
        "dead_zones_of_other_grids": grids,
        "zero_on_grid": quantizer.zero_on_grid,
        "mib": mean(manifest["proof"]["bytes"] for manifest in manifests) / (1 << 20),
        "seconds": mean(cost["seconds"] for cost in costs),
        "peak_mib": max(cost["peak_mib"] for cost in costs),
    }


def lines(records: Sequence[Mapping[str, Any]]) -> str:
    """The records as a Markdown table; what a precision does not have is left out."""
    cells = [cell for record in records for cell in (record["retained"], record["contrast"]) if cell]
    shown = [value for cell in cells for value in (cell["value"], *cell.get("by_seed", {}).values())]
    minus = meaning_of_a_minus(shown, max((record["negligible"] for record in records), default=0.0))
    return "\n\n".join([_noted(table(HEAD, [_line(record) for record in records])), *([minus] if minus else [])])


def _noted(drawn: str) -> str:
    return drawn + ("\n\n[a to b]: least and greatest of the seeds" if "[" in drawn else "")


def differences(results: Path, reference: str) -> list[dict[str, Any]]:
    """Recovery at each quantized precision minus recovery at `reference`,
    by method and for the mean over the bfloat16 methods.

    Each record: {"models", "precision", "difference": a cell, "by_seed": points, a number per seed}. Paired: a resample
    draws the same examples for both precisions, so that "one behaves like the other" is an interval around 0, which two
    intervals that overlap do not show. Raises PalimpsestError when the study has no such precision.
    """
    audit = read_audit(results / "audit.json")
    quantized = [name for name in audit["precisions"] if name != FULL]
    choose(dict.fromkeys(quantized), reference, "precision to compare with:")
    names, seeds = [model["model"] for model in audit["models"]], audit["seeds"]
    unlearned = [model["model"] for model in audit["models"] if model["kind"] == UNLEARNED]
    scores = product(names, seeds, audit["precisions"], REQUIRED_METRICS)
    study = index_study(
        read_records(
            results / f"scores/{model}/seed{seed}/{name}/{metric}.json" for model, seed, name, metric in scores
        ),
        read_records(
            results / f"survival/{model}/seed{seed}/{name}.json"
            for model, seed, name in product(unlearned, seeds, quantized)
        ),
        [model | {"seed": seed} for model, seed in product(audit["models"], seeds)],
        has_retrain(audit["settings"]),
    )
    retained = Retained(study, Rules(**audit["rules"]))
    constrained = audit["averages"].get(CONSTRAINED)
    groups = {"mean of the bfloat16 methods": constrained["models"]} if constrained else {}
    records = []
    for label, models in (groups | {model: [model] for model in unlearned}).items():
        base = retained.recovery(models, seeds, reference)
        against = {seed: retained.recovery(models, [seed], reference)[0] for seed in seeds}
        for name in quantized:
            if name != reference:
                reasons = (retained.why_no_recovery(seeds, at) for at in (reference, name))
                cell = retained.cell(retained.recovery(models, seeds, name) - base, next(filter(None, reasons), ""))
                alone = [retained.recovery(models, [seed], name)[0] - against[seed] for seed in seeds]
                records.append({"models": label, "precision": name, "difference": cell, "by_seed": alone})
    return records


def difference_lines(records: Sequence[Mapping[str, Any]], reference: str) -> str:
    """The records as a Markdown table, a line for each quantizer."""
    columns = list(dict.fromkeys(record["models"] for record in records))
    cells = {
        (record["precision"], record["models"]): _cell(record["difference"], signed=True)
        + _ends(record["by_seed"], "{:+z.0f}")
        for record in records
    }
    precisions = dict.fromkeys(record["precision"] for record in records)
    rows = [[name, *(cells[name, column] for column in columns)] for name in precisions]
    return _noted(table([f"recovery minus that of {reference} (points)", *columns], rows))


def _ends(by_seed: Sequence[float | None], form: str) -> str:
    """The least and the greatest of several seeds; nothing where one has no number."""
    known = [value for value in by_seed if value is not None]
    return f" [{form.format(min(known))} to {form.format(max(known))}]" if len(known) == len(by_seed) > 1 else ""


def _line(record: Mapping[str, Any]) -> list[str]:
    start = [record["precision"], record.get("backend", "")]
    middle = [
        _cell(record["retained"]),
        _cell(record["recovery"], signed=True),
        number(record.get("rho"), 2),
        _cell(record["contrast"]),
        number(record["perplexity"], 2),
    ]
    if "backend" not in record:
        return [*start, "16", "", *middle, "", "", ""]
    zone = _zone(record["dead_zone"], record["dead_zone_range"]) + ("" if record["zero_on_grid"] else ", anywhere")
    others = (f"{_zone(each)} ({kind})" for kind, each in record["dead_zones_of_other_grids"].items())
    zone = "; ".join([zone, *others])
    end = [number(record["mib"], 1), number(record["seconds"], 1), number(record["peak_mib"])]
    return [*start, number(record["bits_per_weight"], 2), zone, *middle, *end]


def _zone(widths: Sequence[float], between: Sequence[float] = (1.0, 1.0)) -> str:
    """Half-widths below and above zero, one where they are equal;
    from lowest to highest where they vary from block to block."""
    below, above = (" to ".join(dict.fromkeys(_two_digits(width * factor) for factor in between)) for width in widths)
    return f"±{above}" if below == above else f"−{below} +{above}"


def _two_digits(value: float) -> str:
    """Two significant digits, without an exponent."""
    return f"{value:.{max(1 - floor(log10(value)), 0)}f}"


def _cell(cell: Mapping[str, Any] | None, signed: bool = False) -> str:
    """A value with its interval over the examples, and the least and the greatest of several seeds."""
    if cell is None or cell["value"] is None:
        return number(None)
    form = "{:+z.0f}" if signed else "{:z.0f}"
    interval = f" ({form.format(cell['ci'][0])} to {form.format(cell['ci'][1])})" if cell["ci"] else ""
    return form.format(cell["value"]) + interval + _ends(list(cell.get("by_seed", {}).values()), form)
