"""A cold run of a study in a fresh folder:
wall time, peak memory of all its processes, CPU time by rule, and the answer.

`python benchmarks/default_study.py` runs in a temporary folder, with `--here` in the repository itself, where nothing
may have run yet and the results stay. The run uses all cores and takes as long as the study does.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]


def resident(process: psutil.Process) -> int:
    """Bytes of memory that a process and its descendants hold now."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def run(folder: Path) -> tuple[float, int]:
    """Run the study of `folder` cold; returns seconds and peak bytes."""
    started = time.monotonic()
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--cores", "all"]
    log_path = folder / "results/snakemake.log"
    log_path.parent.mkdir()
    with open(log_path, "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        peak = 0
        while process.poll() is None:
            peak = max(peak, resident(psutil.Process(process.pid)))
            time.sleep(2)  # looking at every process takes time from the study
    if process.returncode:
        raise SystemExit(f"the study failed: {log_path.read_text()[-2000:]}")
    return time.monotonic() - started, peak


def by_rule(folder: Path) -> dict[str, tuple[int, float]]:
    """Jobs and summed wall seconds of each kind of step, from Snakemake's benchmark files."""
    found: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    root = folder / "results/benchmarks"
    for path in root.rglob("*.tsv"):
        kind = path.relative_to(root).parts[0].removesuffix(".tsv")
        with open(path) as file:
            seconds = float(next(csv.DictReader(file, delimiter="\t"))["s"])
        found[kind] = found[kind][0] + 1, found[kind][1] + seconds
    return dict(found)


def report(folder: Path) -> None:
    if (folder / "results").exists():
        raise SystemExit(f"{folder / 'results'} exists: a cold run starts without it (make clean).")
    seconds, peak = run(folder)
    print(f"{seconds / 60:.1f} min wall on {os.cpu_count()} cores, peak memory {peak / 2**30:.1f} GiB")
    for kind, (jobs, total) in sorted(by_rule(folder).items(), key=lambda item: -item[1][1]):
        print(f"  {kind:12s} {jobs:4d} jobs {total:7.0f} s")
    print(json.loads((folder / "results/audit.json").read_text())["answer"]["text"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--here", action="store_true", help="run in the repository and keep the results")
    if parser.parse_args().here:
        report(ROOT)
        return
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(ROOT / "params.yaml", scratch)
        report(Path(scratch))


if __name__ == "__main__":
    main()
