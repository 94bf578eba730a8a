"""One line per quantizer, for documents: `python -m palimpsest.report.formats results`.

What the format is (bits, dead zone), what it does to forgetting (retained knowledge, rho) and what it costs (perplexity, size,
time). Needs the whole results folder, because the manifests and the cost of the quantized target are not part of the audit.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from palimpsest.artefacts import read_json, read_manifest
from palimpsest.errors import one_line
from palimpsest.quantizers import make_quantizer
from palimpsest.report.markdown import number, table
from palimpsest.report.records import FULL, TARGET, read_audit
from palimpsest.report.retained import HEADLINE

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
    """A record per precision, means over the seeds; retained and recovery are cells {"value", "ci", "status"} of the audit."""
    audit = read_audit(results / "audit.json")
    averages, seeds = audit["averages"], audit["seeds"]
    rows = {(row["model"], row["precision"]): row for row in audit["over_seeds"]}
    target = next(row["model"] for row in audit["over_seeds"] if row["kind"] == TARGET)
    records = []
    for place, precision in enumerate(audit["precisions"]):
        group = {name: averages[name]["rows"][place] for name in averages}
        constrained = averages["utility_constrained"]["models"]
        record = {
            "precision": precision,
            "retained": group["utility_constrained"]["retained"][HEADLINE],
            "recovery": group["utility_constrained"]["recovery"],
            "contrast": group["contrast"]["retained"][HEADLINE] if "contrast" in group else None,
            "perplexity": rows[target, precision]["metrics"]["perplexity"],
        }
        if precision != FULL:
            record["rho"] = mean(rows[model, precision]["rho"] for model in constrained)
            record |= _made(results, target, seeds, precision)
        records.append(record)
    return records


def _made(results: Path, model: str, seeds: Sequence[int], precision: str) -> dict[str, Any]:
    places = [f"{model}/seed{seed}/{precision}" for seed in seeds]
    manifests = [read_manifest(results / "quantized" / place) for place in places]
    costs = [read_json(results / f"cost/{place}.json") for place in places]
    proof, quantizer = manifests[0]["proof"], make_quantizer(manifests[0]["settings"]["quantizer"])
    return {
        "backend": f"{proof['backend']} {proof['backend_version']}",
        "bits_per_weight": proof["bits_per_weight"],
        "dead_zone": quantizer.dead_zone(),
        "zero_on_grid": quantizer.zero_on_grid,
        "mib": mean(manifest["proof"]["bytes"] for manifest in manifests) / (1 << 20),
        "seconds": mean(cost["seconds"] for cost in costs),
        "peak_mib": max(cost["peak_mib"] for cost in costs),
    }


def lines(records: Sequence[Mapping[str, Any]]) -> str:
    """The records as a Markdown table; what a precision does not have is left out."""
    return table(HEAD, [_line(record) for record in records])


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
    below, above = record["dead_zone"]
    zone = f"±{above:.4f}" if abs(below - above) < 5e-5 else f"−{below:.4f} +{above:.4f}"
    zone += "" if record["zero_on_grid"] else ", anywhere"
    end = [number(record["mib"], 1), number(record["seconds"], 1), number(record["peak_mib"])]
    return [*start, number(record["bits_per_weight"], 2), zone, *middle, *end]


def _cell(cell: Mapping[str, Any] | None, signed: bool = False) -> str:
    """A value with its interval."""
    if cell is None or cell["value"] is None:
        return number(None)
    form = "{:+.0f}" if signed else "{:.0f}"
    interval = f" ({form.format(cell['ci'][0])} to {form.format(cell['ci'][1])})" if cell["ci"] else ""
    return form.format(cell["value"]) + interval


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m palimpsest.report.formats", description=__doc__)
    parser.add_argument("results", type=Path, help="the results folder of a study")
    arguments = parser.parse_args()
    with one_line():
        print(lines(formats(arguments.results)))


if __name__ == "__main__":
    main()
