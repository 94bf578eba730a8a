"""What an audit says its models keep of the forget knowledge, by each denominator, with intervals.

`python docs/tools/shares.py STUDY/results/audit.json > docs/evidence/STUDY-shares.csv` prints a line for each unlearned
model, and for each group of them that the audit averages, at each precision, by each denominator: the mean over models
and seeds in percent, its bootstrap interval over prompts and questions, and every seed.
"""

import sys
from pathlib import Path

import pandas as pd

from palimpsest.audit.records import read_audit
from palimpsest.vocabulary import BOTH, UNLEARNED


def shares(audit: dict) -> pd.DataFrame:
    """Columns: models (names, joined by ", "), precision, denominator, share, low, high, and "seed N" for each seed;
    all but the first three in percent."""
    lines = []
    for row in audit["over_seeds"]:
        if row["kind"] == UNLEARNED:
            for name, cell in row["retained"].items():
                lines.append(_line([row["model"]], row["precision"], name, cell) | _by_seed(audit, row, name))
    for group in filter(None, audit["averages"].values()):
        for row in group["rows"]:
            for name, cell in row["retained"].items():
                seeds = {f"seed {seed}": value for seed, value in cell["by_seed"].items()}
                lines.append(_line(group["models"], row["precision"], name, cell) | seeds)
    return pd.DataFrame(lines)


def _line(models: list[str], precision: str, denominator: str, cell: dict) -> dict:
    low, high = cell["ci"]
    said = {"models": ", ".join(models), "precision": precision, "denominator": denominator}
    return said | {"share": cell["value"], "low": low, "high": high}


def _by_seed(audit: dict, over: dict, denominator: str) -> dict:
    return {
        f"seed {row['seed']}": row["retained"][denominator][BOTH]["value"]
        for row in audit["rows"]
        if (row["model"], row["precision"]) == (over["model"], over["precision"])
    }


if __name__ == "__main__":
    shares(read_audit(Path(sys.argv[1]))).to_csv(sys.stdout, index=False, float_format="%.2f")
