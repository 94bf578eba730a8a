"""How long Snakemake takes to plan a large study:
`snakemake --dry-run` of many methods x formats x seeds, cold, for each corpus.

`python benchmarks/plan.py` plans 20 methods x 15 formats x 5 seeds for 3 corpora, each corpus a study in a folder of
its own. Methods and formats are those of the repository's params.yaml, copied under new names.
"""

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from palimpsest.study.params import read_params

ROOT = Path(__file__).parents[1]


def copies(blocks: dict[str, Any], count: int) -> dict[str, Any]:
    """That many blocks: the given ones, then copies of them with a number behind the name."""
    numbered = ((name, round_) for round_ in itertools.count() for name in blocks)
    return {f"{name}-{n}" if n else name: blocks[name] for name, n in itertools.islice(numbered, count)}


def plan(params: dict[str, Any], folder: Path) -> tuple[float, int]:
    """Seconds of a dry run, and jobs planned."""
    planned = params | {"verdict": None}  # its policy names formats of the default study
    (folder / "params.yaml").write_text(yaml.safe_dump(planned, sort_keys=False))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    started = time.monotonic()
    done = subprocess.run([*command, "--dry-run", "--quiet", "rules"], capture_output=True, text=True, cwd=ROOT)
    seconds = time.monotonic() - started
    total = re.search(r"^total\s+(\d+)", done.stdout + done.stderr, re.MULTILINE)
    if done.returncode or not total:
        raise SystemExit(f"the dry run failed: {(done.stdout + done.stderr)[-2000:]}")
    return seconds, int(total[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("methods", 20), ("formats", 15), ("seeds", 5), ("corpora", 3)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument(
        "--battery", action="store_true", help="with the battery of studies/paper-news for every model and format"
    )
    arguments = parser.parse_args()
    params = read_params(ROOT / "params.yaml")
    params["seeds"] = list(range(arguments.seeds))
    params["methods"] = copies(params["methods"], arguments.methods)
    unquantized = {"bf16": params["quantizers"].pop("bf16")}
    params["quantizers"] = unquantized | copies(params["quantizers"], arguments.formats)
    if arguments.battery:
        params["battery"] = read_params(ROOT / "studies/paper-news/params.yaml")["battery"]
        params["battery"] |= {"models": None, "precisions": None}
    all_seconds, all_jobs = 0.0, 0
    for corpus in range(arguments.corpora):
        params["corpus"]["settings"]["seed"] = corpus
        with tempfile.TemporaryDirectory() as folder:
            seconds, jobs = plan(params, Path(folder))
        print(f"corpus {corpus}: {jobs} steps planned in {seconds:.1f} s")
        all_seconds, all_jobs = all_seconds + seconds, all_jobs + jobs
    print(f"{all_jobs} steps in {all_seconds:.1f} s on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
