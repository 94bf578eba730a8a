"""What benchmarks and commands of the project printed or wrote: costs, spreads, and runs of the fuzzer."""

import re
from functools import cache

import pandas as pd

from evidence import places
from palimpsest.tables.seeds import seeds_table


@cache
def format_costs() -> pd.DataFrame:
    """The table of a 1 B model in quantizers-cost.txt: seconds of two cores, MiB on disk, bits a weight, by format."""
    text = (places.FOLDER / "quantizers-cost.txt").read_text(encoding="utf-8").split("\n\n")[0]
    found = re.findall(r"^([a-z]\S+)((?: +[\d.]+){8})$", text, re.MULTILINE)
    rows = [(name, *map(float, numbers.split())) for name, numbers in found]
    columns = ["precision", "seconds", "quantize", "prove", "peak", "above", "mapped", "disk", "bits"]
    return pd.DataFrame(rows, columns=columns)


def kernels_table() -> str:
    """What `benchmarks/kernels.py` printed on each processor, as Markdown."""
    rows = pd.read_csv(places.FOLDER / "kernels.csv", dtype=str)
    head = "| processor | torch | kernels | weights | seconds a step | hash of the weights |"
    return "\n".join(
        [head, "|---|---|---|---|---:|---|", *(f"| {' | '.join(row)} |" for row in rows.itertuples(index=False))]
    )


def between_seeds_table() -> str:
    """How far the seeds of studies/all-quantizers-gpu lie apart, as `palimpsest tables recovery --between-seeds` has
    it."""
    return seeds_table([places.FOLDER / "all-quantizers-gpu.csv"])


def fuzzed(column: str) -> str:
    """Of docs/evidence/fuzz.csv: how many kinds of files, or the sum of a column over them. Raises ValueError where a
    kind has a finding, for the page says that there is none."""
    rows = pd.read_csv(places.FOLDER / "fuzz.csv")
    if rows.findings.any():
        raise ValueError("docs/evidence/fuzz.csv has findings: the page that says otherwise is to be written anew")
    return f"{len(rows) if column == 'kind' else rows[column].sum():,.0f}"


def survive_costs_table() -> str:
    """What `benchmarks/survive.py --csv` wrote of time and memory, as Markdown."""
    heads = ["command", "weights, M", "seconds of the processor", "memory of its own, MiB", "machine"]
    lines = [f"| {' | '.join(heads)} |", "|---|---:|---:|---:|---|"]
    for row in pd.read_csv(places.FOLDER / "survive-cost.csv", dtype=str).itertuples():
        measured = f"{row.weights_millions} | {row.processor_seconds} | {row.anonymous_mib}"
        lines.append(f"| `{row.command}` | {measured} | {row.cores} cores, {row.processor} |")
    return "\n".join(lines)


def printed(name: str, *left_out: str) -> str:
    """A table of docs/evidence, as the command of `palimpsest tables` printed it, but for some columns."""
    lines = (places.FOLDER / name).read_text(encoding="utf-8").splitlines()
    heads = [cell.strip() for cell in lines[0].split("|")]
    if missing := set(left_out).difference(heads):
        raise LookupError(f"docs/evidence/{name} has no column {missing.pop()}")
    dropped = {heads.index(head) for head in left_out}
    return "\n".join(
        "|".join(cell for place, cell in enumerate(line.split("|")) if place not in dropped or line[:1] != "|")
        for line in lines
    )
