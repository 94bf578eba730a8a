"""What a run is going to take: steps, disk, memory and minutes, from its plan and the headers of its models.

Disk and memory follow from the sizes of the weights. Minutes are a guess within the factor UNSURE: the machine's speed
is measured for a moment, what else runs on it is not seen, and how soon a model ends its answers is not known.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from palimpsest.artefacts import MANIFEST
from palimpsest.corpus.corpus import Corpus
from palimpsest.corpus.layout import read_corpus
from palimpsest.corpus.sources import PATHS, load_corpus
from palimpsest.models.gguf import read_header
from palimpsest.models.tensors import open_checkpoint
from palimpsest.quantizers import make_quantizer
from palimpsest.vocabulary import FULL, TARGET

RUN, STARTUP, SMALL = 25.0, 1.0, 0.4
"""Seconds that a run takes beside its steps (Snakemake, and what steps import once), and those that a step takes before
it works: one that loads a model, and one that does not. Measured on two cores, as TOKEN was."""
TOKEN = 0.015
"""Seconds of Python for a token of a batch, which decide where the model is small."""
IMPORTS = {"gptq": 12.0, "awq": 12.0, "w8a8": 12.0, "microscale": 12.0, "rtn": 3.0, "gguf": 3.0}
"""Seconds that a backend's own packages take in each of its steps."""
UNSURE = 2
OVERHEAD, CALIBRATED = 0.5 * (1 << 30), 1.0 * (1 << 30)
"""Bytes of a process with torch beside its weights, and those that a backend which calibrates takes more."""
SCALES = 0.5
"""Bits of a weight that scales and zero points take, in most formats."""
HEAVY = ("train", "unlearn", "bring", "deployed", "quantize", "infer", "survival", "battery")
"""Rules that load a model."""


@dataclass(frozen=True)
class Price:
    """steps: by rule, of those to be done. disk, memory: bytes; seconds: of the whole run, one step after another. None
    where the models' sizes are not known before they are loaded."""

    steps: dict[str, int]
    disk: float | None
    memory: float | None
    seconds: float | None


def planned_steps(said: str) -> dict[str, int]:
    """Steps by rule, from what `snakemake --dry-run` prints; nothing where there is nothing to do."""
    table = re.search(r"^job +count\n[- ]+\n((?:\S+ +\d+\n)+)", said, re.MULTILINE)
    rows = [line.split() for line in table[1].splitlines()] if table else []
    return {name: int(count) for name, count in rows if name not in ("all", "total")}


def planned_corpus(block: Mapping[str, Any]) -> Corpus:
    """The corpus of the study in this folder, from its source, or as it was made where that is gone.

    block: `corpus` of params.yaml.
    """
    made = Path("results/corpus")
    gone = any(not Path(block["settings"][key]).exists() for key in PATHS if block["settings"].get(key))
    if gone and (made / MANIFEST).is_file():
        return read_corpus(made)
    return load_corpus(block["source"], block["settings"], block["subset"])


def price(params: Mapping[str, Any], corpus: Corpus, steps: Mapping[str, int]) -> Price:
    """Of a study whose models exist. steps: those that are planned (`planned_steps`)."""
    weights = count_weights(str(params["models"][TARGET]))
    if weights is None:
        return Price(dict(steps), None, None, None)
    copies = sum(count for rule, count in steps.items() if rule in ("train", "unlearn", "bring"))
    bits = [_bits(settings) for name, settings in params["quantizers"].items() if name != FULL]
    mean_bits = sum(bits) / len(bits) if bits else 0.0
    disk = weights * (2 * copies + mean_bits / 8 * (steps.get("quantize", 0) + steps.get("deployed", 0)))
    wide = 2 if params["inference"]["compute"] == "bfloat16" else 4
    backends = [settings["backend"] for name, settings in params["quantizers"].items() if name != FULL]
    imports = sum(IMPORTS.get(backend, 0.0) for backend in backends) / max(1, len(backends))
    seconds = _seconds(params["inference"], corpus, steps, weights, imports)
    more = CALIBRATED if any(IMPORTS.get(backend, 0.0) > IMPORTS["gguf"] for backend in backends) else 0.0
    return Price(dict(steps), disk, wide * weights * 1.2 + OVERHEAD + more, seconds)


def count_weights(source: str) -> int | None:
    """Of a checkpoint folder or a GGUF file, from its headers; None of what is not here."""
    place = Path(source)
    if place.is_file():
        return sum(prod(tensor.shape) for tensor in read_header(place).tensors)
    if not place.is_dir():
        return None
    with open_checkpoint(place) as tensors:
        return sum(prod(tensors.shape(name)) for name in tensors.names())


def lines(found: Price) -> list[str]:
    """The price in words."""
    if not found.steps:
        return ["Nothing to be done."]
    said = [f"{sum(found.steps.values())} steps: {', '.join(f'{n} {rule}' for rule, n in found.steps.items())}."]
    if found.disk is None or found.memory is None or found.seconds is None:
        return [*said, "What they take is not known before the models are here: give folders to see it."]
    low, high = (max(1, round(found.seconds / 60 * factor)) for factor in (1 / UNSURE, UNSURE))
    minutes = f"{low} to {high} minutes" if high > low else "a minute"
    return [
        *said,
        f"Disk: about {_size(found.disk)} (±10 %). Memory: about {_size(found.memory)} (±30 %). Time: {minutes} on "
        "this machine's processor with nothing else on it, one step at a time.",
    ]


def _seconds(
    inference: Mapping[str, Any], corpus: Corpus, steps: Mapping[str, int], weights: int, imports: float
) -> float:
    """imports: seconds, the mean over the formats."""
    heavy = sum(count for rule, count in steps.items() if rule in HEAVY)
    light = sum(steps.values()) - heavy
    operations, bandwidth = speed()
    size = inference["batch_size"]

    def generating(rows: int, tokens: int) -> float:
        batches = ceil(rows / size)
        work = 4 * weights / bandwidth + 2 * weights * min(size, max(rows, 1)) / operations
        return batches * tokens * (TOKEN + work)

    asked = generating(len(corpus.forget_qa) + len(corpus.retain_qa), inference["knowmem_tokens"])
    asked += generating(len(corpus.verbmem), inference["verbmem_tokens"])
    passages = [*corpus.privleak_forget, *corpus.privleak_retain, *corpus.privleak_holdout]
    passages += [f"{each.question} {each.answer}" for each in (*corpus.forget_qa, *corpus.retain_qa)]
    read = sum(2 * len(text.split()) for text in passages) * 2 * weights / operations
    quantizing = 16 * weights / bandwidth  # read, rounded and proven: a few passes over the weights
    return (
        RUN
        + STARTUP * heavy
        + SMALL * light
        + steps.get("infer", 0) * (asked + read)
        + sum(steps.get(rule, 0) for rule in ("quantize", "deployed", "survival")) * quantizing
        + steps.get("quantize", 0) * imports
    )


def speed() -> tuple[float, float]:
    """Of one core, a moment's measurement: operations a second of a product of float32 matrices, and bytes a second
    that are read from memory."""
    square = np.ones((512, 512), np.float32)
    square @ square  # wakes the library's threads
    started = time.perf_counter()
    for _ in range(4):
        square @ square
    operations = 4 * 2 * 512**3 / max(time.perf_counter() - started, 1e-6)
    long = np.ones(1 << 24, np.float32)
    started = time.perf_counter()
    long.sum()
    return operations, long.nbytes / max(time.perf_counter() - started, 1e-6)


def _bits(settings: Mapping[str, Any]) -> float:
    """Of a weight in the file."""
    return float(make_quantizer(settings).bits) + SCALES


def _size(count: float) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{max(1, round(count / (1 << 20)))} MiB"
