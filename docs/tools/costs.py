"""What large models cost, in numbers: measured ones read from the outputs in docs/evidence, derived ones from sizes."""

import re
from functools import cache
from typing import Any

import yaml

from evidence import FOLDER, REPOSITORY

WEIGHTS = {"7 B": 6_738_415_616, "13 B": 13_015_864_320, "70 B": 68_976_648_192}
"""Parameters of Llama 2."""
BYTES = {
    ("bfloat16", "adamw-8bit"): (2, 2, 2),
    ("bfloat16", "adamw"): (2, 2, 4),
    ("float32", "adamw-8bit"): (4, 4, 2),
    ("bfloat16-stochastic", "adamw"): (2, 2, 8),
    ("float32", "adamw"): (4, 4, 8),
}
"""By `weights` and `optimizer` of a method: bytes of a weight, of its gradient, and of its two moments."""
METHODS = {"ga_gdr": "GA_GDR", "npo_klr": "NPO_KLR"}
KINDS = ("responses to verbatim prompts", "answers to questions", "log-probabilities", "scores, on the CPU", "all")
ROWS, LENGTH = 408, 2048
"""Of studies/paper-news: sequences of the forget set, of which a retain loss takes as many, and tokens of each."""


def memory_table() -> str:
    """GB of weights, gradients and moments while a model is unlearned, by how it is stored, as Markdown."""
    lines = [
        f"| weights | optimizer | bytes a weight | {' | '.join(WEIGHTS)} |",
        "|---|---|" + "---:|" * (1 + len(WEIGHTS)),
    ]
    for (weights, optimizer), parts in BYTES.items():
        cells = [f"{sum(parts) * count / 1e9:,.0f}" for count in WEIGHTS.values()]
        lines.append(f"| {weights} | {optimizer} | {sum(parts)} | {' | '.join(cells)} |")
    return "\n".join(lines)


@cache
def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


MEASURED = r"tokens/s, +(?P<ms>\d+) ms a step .*?MFU (?P<mfu>[\d.]+)%.*?peak (?P<peak>[\d.]+) GB"


@cache
def beside() -> dict[tuple[str, str], dict[str, float]]:
    """tokens (a second), ms (a step), mfu (percent) and peak (GB) of one GPU, by method and "plain" or "ours"."""
    found = re.finditer(
        rf"^ +(?P<method>\w+) +(?P<how>plain|ours) +(?P<tokens>\d+) {MEASURED}",
        _text("training-beside-transformers.txt"),
        re.MULTILINE,
    )
    return {(row["method"], row["how"]): _numbers(row) for row in found}


@cache
def sharded() -> dict[str, dict[str, float]]:
    """The same by method, of two GPUs that share a model, before training had fused kernels; peak is of a GPU."""
    found = re.finditer(
        rf"^ +(?P<method>\w+) +(?P<tokens>\d+) {MEASURED}", _text("training-7b-2gpus.txt"), re.MULTILINE
    )
    return {row["method"]: _numbers(row) for row in found}


def _numbers(row: re.Match) -> dict[str, float]:
    return {name: float(row[name]) for name in ("tokens", "ms", "mfu", "peak")}


def training(method: str, how: str) -> dict[str, float]:
    """Of one GPU: see `beside`."""
    return beside()[method, how]


def beside_table() -> str:
    """Training of 7 B on one GPU beside plain transformers, as Markdown."""
    lines = [
        "| method | tokens/s, plain | tokens/s, ours | times | MFU, ours | peak GB, plain | peak GB, ours |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for method, name in METHODS.items():
        plain, ours = beside()[method, "plain"], beside()[method, "ours"]
        times = f"{ours['tokens'] / plain['tokens']:.2f}"
        speed = f"{plain['tokens']:,.0f} | {ours['tokens']:,.0f} | {times}"
        lines.append(f"| {name} | {speed} | {ours['mfu']:.1f} % | {plain['peak']:.1f} | {ours['peak']:.1f} |")
    return "\n".join(lines)


def sharded_table() -> str:
    """Training of 7 B spread over two GPUs, as Markdown."""
    lines = ["| method | tokens/s of both | ms a step | MFU | peak GB of a GPU |", "|---|---:|---:|---:|---:|"]
    for method, name in METHODS.items():
        row = sharded()[method]
        cells = f"{row['tokens']:,.0f} | {row['ms']:,.0f} | {row['mfu']:.1f} % | {row['peak']:.1f}"
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


@cache
def evaluation(command: str = "--static --plain 10", file: str = "evaluation-7b.txt") -> dict[str, tuple[float, float]]:
    """By kind of work, seconds here and of a plain loop, as `python benchmarks/evaluation.py 7b COMMAND` printed."""
    part = _text(file).split(f"evaluation.py 7b {command}\n")[1].split("\n\n")[0]
    found = {}
    for kind in KINDS:
        row = re.search(rf"^ +{kind} +([\d.]+) s +plain +([\d.]+) s", part, re.MULTILINE)
        assert row, kind
        found[kind] = (float(row[1]), float(row[2]))
    return found


def evaluation_table() -> str:
    """Seconds of one evaluation of 7 B, as Markdown."""
    lines = ["| | seconds | plain loop | times |", "|---|---:|---:|---:|"]
    lines += [
        f"| {kind} | {ours:.1f} | {plain:.1f} | {plain / ours:.1f} |" for kind, (ours, plain) in evaluation().items()
    ]
    return "\n".join(lines)


@cache
def throughput(file: str, abreast: int = 1) -> dict[int, float]:
    """By number of GPUs, the seconds of all steps of `python benchmarks/throughput.py`."""
    found = re.findall(rf"^ +(\d) GPUs, {abreast} steps on each: ([\d.]+) s", _text(file), re.MULTILINE)
    assert found, f"docs/evidence/{file} has no run of {abreast} steps on each GPU"
    return {int(gpus): float(seconds) for gpus, seconds in found}


def gain(file: str, abreast: int = 1) -> str:
    """How many times the throughput of one GPU two have."""
    seconds = throughput(file, abreast)
    return f"{seconds[1] / seconds[2]:.1f}"


def paper_hours(part: str, size: str = "7 B") -> float:
    """Hours of one GPU that studies/paper-news takes for "unlearning" or "evaluation" (derived): tokens by the slower
    of two measured rates, seconds of a measured evaluation; another size in proportion to its weights."""
    methods, formats = _paper()["methods"].values(), _paper()["quantizers"]
    passes = sum(method["epochs"] * (2 if method["retain_loss"] else 1) for method in methods)
    rate = min(beside()[method, "ours"]["tokens"] for method in METHODS)
    files = (len(methods) + 2) * len(formats)  # of the target and the retrained model, too
    seconds = {"unlearning": passes * ROWS * LENGTH / rate, "evaluation": files * evaluation()["all"][0]}[part]
    return seconds / 3600 * WEIGHTS[size] / WEIGHTS["7 B"]


@cache
def _paper() -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "studies/paper-news/params.yaml").read_text(encoding="utf-8"))
