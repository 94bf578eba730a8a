"""Seconds and memory of `palimpsest survive` on a synthetic pair of Llama checkpoints.

`python benchmarks/survive.py 54m` or `7b` (Llama-2's shapes, two checkpoints of 13 GB in a temporary folder, --folder
says where). `--layers N` takes only N of the layers: the seconds are then those of the slice, and are not scaled up
unless `--extrapolate` is given, which says so. Arguments after `--` go to the command, such as
`-- --quantizer rtn-int4,nvfp4`. `--csv docs/evidence/survive-cost.csv` writes what was measured as a row, in the place
of an earlier one of the same command.

The weights are N(0, 0.02) in bfloat16; the update moves those below 2^-8 by 0.0005, as bfloat16 training at 1e-5 does.
The command runs in a process of its own; `anonymous` is the peak of its own memory in MiB, `mapped` that of file-backed
pages, which the system can drop. Seconds by the clock count what other programs took of the processor meanwhile, so the
row has those of the processor, of all cores together.
"""

import argparse
import itertools
import json
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
import psutil
from numpy.typing import NDArray
from quantizers import INTERVAL, MIB, Memory, memory, tensors
from safetensors.numpy import save_file

from palimpsest.machine import facts

sys.path.append(str(Path(__file__).parents[1] / "docs/tools"))
from rows import replace_rows

PRESETS = {
    "54m": {"hidden": 1024, "mlp": 2816, "layers": 4, "heads": 16, "kv_heads": 16, "vocabulary": 8000},
    "7b": {"hidden": 4096, "mlp": 11008, "layers": 32, "heads": 32, "kv_heads": 32, "vocabulary": 32000},
}
REACH, SHIFT = 2.0**-8, 5e-4


class Cost(NamedTuple):
    """Of a run of the command; `processor` are seconds of all cores together, `peak` bytes."""

    seconds: float
    processor: float
    peak: Memory


def write_pair(target: Path, unlearned: Path, preset: dict[str, int]) -> int:
    """Write both checkpoints, one shard in memory at a time; returns the number of weights."""
    random, weight_map, total = np.random.default_rng(0), {}, 0
    for file, shapes in tensors(preset).items():
        shards: dict[Path, dict[str, NDArray]] = {target: {}, unlearned: {}}
        for name, shape in shapes.items():
            before, after = pair(random, shape)
            shards[target][name], shards[unlearned][name] = before, after
            total += before.size
        for folder, shard in shards.items():
            save_file(shard, folder / file)
        weight_map |= dict.fromkeys(shapes, file)
    for folder in (target, unlearned):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return total


def pair(random: np.random.Generator, shape: tuple[int, ...]) -> Iterator[NDArray]:
    if len(shape) == 1:
        return iter([np.ones(shape, ml_dtypes.bfloat16)] * 2)
    before = random.standard_normal(shape, dtype=np.float32)
    before *= 0.02
    before = before.astype(ml_dtypes.bfloat16)
    after = before.astype(np.float32)
    after += np.where(np.abs(after) < REACH, np.where(random.random(shape, dtype=np.float32) < 0.5, SHIFT, -SHIFT), 0)
    return iter([before, after.astype(ml_dtypes.bfloat16)])


def run(target: Path, unlearned: Path, arguments: list[str]) -> tuple[Cost, str]:
    """What the command costs, and what it prints."""
    start, before, peak = time.perf_counter(), processor_seconds(), Memory(0, 0)
    command = [sys.executable, "-m", "palimpsest", "survive", str(target), str(unlearned), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            peak = peak.largest(memory(watched))
            time.sleep(INTERVAL)
        output = process.stdout.read() if process.stdout else ""
    cost = Cost(time.perf_counter() - start, processor_seconds() - before, peak)
    if process.returncode:
        sys.exit(f"palimpsest survive failed with exit code {process.returncode}")
    return cost, output


def processor_seconds() -> float:
    """Of the processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def command_of(size: str, layers: int, passed: list[str]) -> str:
    part = ["--layers", str(layers)] if layers < PRESETS[size]["layers"] else []
    return shlex.join(["python", "benchmarks/survive.py", size, *part, *(["--", *passed] if passed else [])])


def row_of(command: str, weights: int, cost: Cost) -> dict[str, str]:
    return {
        "command": command,
        "weights_millions": f"{weights / 1e6:.0f}",
        "processor_seconds": f"{cost.processor:.1f}",
        "anonymous_mib": f"{cost.peak.anonymous / MIB:.0f}",
        "cores": str(psutil.cpu_count()),
        "processor": str(facts()["processor"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=PRESETS)
    parser.add_argument("--layers", type=int, help="take only so many layers")
    parser.add_argument("--extrapolate", action="store_true", help="also state the seconds that all layers would take")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--csv", type=Path, help="the table that gets a row")
    own = list(itertools.takewhile(lambda word: word != "--", sys.argv[1:]))
    options, passed = parser.parse_args(own), sys.argv[len(own) + 2 :]
    preset = PRESETS[options.size]
    layers = min(options.layers or preset["layers"], preset["layers"])
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        target, unlearned = Path(scratch, "target"), Path(scratch, "unlearned")
        target.mkdir()
        unlearned.mkdir()
        weights = write_pair(target, unlearned, preset | {"layers": layers})
        cost, output = run(target, unlearned, passed)
    print(output)
    part = "" if layers == preset["layers"] else f" (a slice: {layers} of {preset['layers']} layers)"
    print(f"{options.size}{part}: {weights / 1e6:,.0f} M parameters, {psutil.cpu_count()} cores")
    print(f"{cost.seconds:.1f} s, of the processor {cost.processor:.1f} s")
    print(f"{cost.peak.anonymous / MIB:,.0f} MiB anonymous, {cost.peak.mapped / MIB:,.0f} MiB mapped")
    if part and options.extrapolate:
        print(f"extrapolated to all layers, in proportion: {cost.seconds * preset['layers'] / layers:.0f} s")
    if options.csv:
        replace_rows(options.csv, [row_of(command_of(options.size, layers, passed), weights, cost)], "command")


if __name__ == "__main__":
    main()
