"""How often guided.py ran a reader, and what it found, as rows of a table:

    pip install -c constraints.txt -e '.[fuzz]'
    python tests/fuzz/measured.py KIND ... --folder FOLDER --minutes 2.5 --csv docs/evidence/fuzz.csv

fuzzes one kind of mutate.KINDS after another, all of them without a KIND, each in a process of its own. A row takes the
place of an earlier one of its kind. The valid files are built in FOLDER where they are missing; a finding stays there.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from fuzz import small_model
from mutate import KINDS, build

sys.path.append(str(Path(__file__).parents[2] / "docs/tools"))
from rows import replace_rows

EXECUTIONS = re.compile(r"^stat::number_of_executed_units: +(\d+)$", re.MULTILINE)
"""What libFuzzer prints at the end, of a run with a finding too."""
FOUND = re.compile(r"^==\d+== ERROR: libFuzzer: ", re.MULTILINE)


def row_of(kind: str, seconds: float, printed: str) -> dict[str, str]:
    """What libFuzzer printed as a row. Raises LookupError where it does not say how often it ran the reader."""
    executions = EXECUTIONS.findall(printed)
    if len(executions) != 1:
        raise LookupError(f"the fuzzer of {kind} ended without its statistics")
    findings = len(FOUND.findall(printed))  # the first one ends a run
    return {"kind": kind, "minutes": f"{seconds / 60:.1f}", "executions": executions[0], "findings": str(findings)}


def fuzz(kind: str, folder: Path, minutes: float) -> dict[str, str]:
    """Run guided.py on a kind of files; what it prints goes to standard error, too."""
    options = [f"-max_total_time={60 * minutes:.0f}", "-print_final_stats=1"]
    command = [sys.executable, str(Path(__file__).with_name("guided.py").absolute()), kind, str(folder.absolute())]
    started, lines = time.monotonic(), []
    with subprocess.Popen([*command, *options], cwd=folder, stderr=subprocess.PIPE, text=True, errors="replace") as run:
        for line in run.stderr or ():
            sys.stderr.write(line)
            lines.append(line)
    return row_of(kind, time.monotonic() - started, "".join(lines))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="all without one")
    parser.add_argument("--folder", type=Path, required=True, help="where the valid files, the inputs and findings lie")
    parser.add_argument("--minutes", type=float, default=2.5, help="of each kind, by the clock")
    parser.add_argument("--csv", type=Path, required=True, help="where the rows go")
    asked = parser.parse_args()
    if unknown := set(asked.kinds) - set(KINDS):
        parser.error(f"no kind of files: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    if not (asked.folder / "valid").exists():
        build(asked.folder / "valid", *small_model())
    findings = 0
    for kind in asked.kinds or KINDS:
        row = fuzz(kind, asked.folder, asked.minutes)
        replace_rows(asked.csv, [row], "kind")
        findings += int(row["findings"])
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
