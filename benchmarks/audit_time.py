"""How long `palimpsest audit` of a foreign checkpoint takes on this machine, cold.

`python benchmarks/audit_time.py --target T --unlearned U --tofu FOLDER --out FOLDER` audits the pair with the command's
own formats, on so many records of TOFU's forget01 to forget and of retain99 to keep, in a folder where nothing was made
before. It prints what it took, and with `--csv` writes it as one line: minutes on the clock and of the processor, what
other programs took of the processor meanwhile, and the largest process. `benchmarks/smollm2_gguf.py` makes a pair.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import psutil

from palimpsest.machine import facts
from palimpsest.study.price import count_weights


def write_records(asked: argparse.Namespace) -> dict[str, Path]:
    files = {}
    for split, name, count in (("forget", "forget01", asked.forget), ("retain", "retain99", asked.retain)):
        records = json.loads((asked.tofu / f"{name}.json").read_text())
        if len(records) < count:
            raise SystemExit(f"{asked.tofu / name}.json has {len(records)} records: ask for at most so many.")
        chosen = records[:: len(records) // count][:count]
        lines = [json.dumps({key: each[key] for key in ("question", "answer")}) for each in chosen]
        files[split] = asked.out / f"{split}.jsonl"
        files[split].write_text("\n".join(lines) + "\n")
    return files


def busy() -> float:
    """Seconds that all processes of the machine have taken of its processors."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system


def measure(asked: argparse.Namespace) -> dict[str, str]:
    asked.out.mkdir(parents=True)
    command = [sys.executable, "-m", "palimpsest", "audit", "--out", str(asked.out / "study")]
    models = {"target": asked.target, "unlearned": asked.unlearned}
    for option, path in (models | write_records(asked)).items():
        command += [f"--{option}", str(path.resolve())]
    if asked.formats:
        command += ["--formats", asked.formats]
    before, started = busy(), time.monotonic()
    done = subprocess.run(command)
    seconds, all_busy = time.monotonic() - started, busy() - before
    if done.returncode in (1, 64):
        raise SystemExit("the audit failed, see above: mend it, and give another --out.")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = used.ru_utime + used.ru_stime
    with open(asked.out / "study/results/audit.csv", newline="") as file:
        precisions = list(dict.fromkeys(row["precision"] for row in csv.DictReader(file)))
    weights = count_weights(str(asked.target)) or 0
    return {
        "weights_millions": f"{weights / 1e6:.0f}",
        "formats": " ".join(precisions[1:]),
        "forget_records": str(asked.forget),
        "retain_records": str(asked.retain),
        "minutes": f"{seconds / 60:.1f}",
        "processor_minutes": f"{own / 60:.1f}",
        "others_processor_minutes": f"{max(all_busy - own, 0) / 60:.1f}",
        "largest_process_gib": f"{used.ru_maxrss / 2**20:.1f}",
        "cores": str(os.cpu_count()),
        "processor": str(facts()["processor"]),
        "torch": version("torch"),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--unlearned", type=Path, required=True)
    parser.add_argument("--tofu", type=Path, required=True, help="folder with TOFU's JSON files")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--forget", type=int, default=40, help="records of forget01")
    parser.add_argument("--retain", type=int, default=60, help="records of retain99")
    parser.add_argument("--formats", default="", help="with commas; without it those of a new study")
    parser.add_argument("--csv", type=Path, help="where the line goes")
    given = parser.parse_args()
    if given.out.exists():
        parser.error(f"{given.out} exists: a cold run starts without it.")
    row = measure(given)
    for name, value in row.items():
        print(f"{name:>26}  {value}")
    if given.csv:
        with open(given.csv, "w", newline="") as table:
            writer = csv.DictWriter(table, list(row), lineterminator="\n")
            writer.writeheader()
            writer.writerow(row)
