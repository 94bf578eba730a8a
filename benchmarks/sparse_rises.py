"""How often the tests of a verdict err where nearly all records show the same, and what dense records lose by the cure.

Subjects rise or fall with a small probability, and else are exactly 0; their true mean is known. Printed as CSV: the
share of studies in which a one-sided test at 2.5 and at 5 % says above, or below, of the true mean itself, and the
share in which the 95 % interval holds it: once by estimated errors alone (`estimated`), once as verdicts do
(`verdict`), which know the range of a rise. `below` is the error that lets a model pass. Then the least rise that is
found in four studies of five, where all records, or some, rise by as much and noise.

Two CPU minutes: python benchmarks/sparse_rises.py > docs/evidence/sparse-rises.csv
"""

import argparse
import csv
import sys
from collections.abc import Callable

import numpy as np

from palimpsest.verdict.comparison import Mean, mean_of

RANGE = (-1.0, 1.0)
RESAMPLES = 400
KINDS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "positive": lambda random, shape: random.uniform(0.2, 1, shape),
    "whole": lambda _, shape: np.ones(shape),
    "both": lambda random, shape: random.choice([-1.0, 1.0], shape) * random.uniform(0.2, 1, shape),
}
"""What those that move move by. Falls alone are rises alone with `above` and `below` exchanged."""
MEANS = {"positive": 0.6, "whole": 1.0, "both": 0.0}
SIZES = [(20, 1), (40, 1), (40, 5), (100, 1), (500, 1)]
"""Subjects, and records of each."""


def simulated(random: np.random.Generator, kind: str, zero: float, shape: tuple[int, int], each: int) -> np.ndarray:
    """[seeds, subjects * each]; shape: seeds and subjects. Records of a subject move together, by half at least."""
    moves = (random.random(shape) >= zero) * KINDS[kind](random, shape)
    return np.repeat(moves, each, 1) * (1 if each == 1 else random.uniform(0.5, 1, (shape[0], shape[1] * each)))


def errors(random: np.random.Generator, kind: str, zero: float, shape: tuple[int, int], each: int, runs: int) -> None:
    truth = (1 - zero) * MEANS[kind] * (1 if each == 1 else 0.75)
    names = [str(subject) for subject in np.repeat(np.arange(shape[1]), each)] if each > 1 else None
    counts = {"estimated": np.zeros(5), "verdict": np.zeros(5)}
    for run in range(runs):
        values = simulated(random, kind, zero, shape, each)
        means = {
            "estimated": mean_of(values, names, RESAMPLES, run),
            "verdict": mean_of(values, names, RESAMPLES, run, RANGE),
        }
        for which, mean in means.items():
            above, below, (low, high) = mean.p_above(truth), mean.p_below(truth), mean.interval(0.95) or (0, 0)
            holds = low - 1e-12 <= truth <= high + 1e-12
            counts[which] += [above <= 0.025, below <= 0.025, above <= 0.05, below <= 0.05, holds]
    for which, count in counts.items():
        write(which, shape[0], shape[1], each, zero, kind, f"{shape[1] * (1 - zero ** shape[0]):.1f}", *(count / runs))


def found(random: np.random.Generator, subjects: int, zero: float, runs: int) -> None:
    """The least rise that is found at 2.5 % with 80 %, by trying: the same errors, moved by more and more."""
    noise = random.normal(0, 0.2, (runs, 1, subjects)) * (random.random((runs, 1, subjects)) >= zero)

    def power(rise: float, bounds: tuple[float, float]) -> float:
        tests: list[Mean] = [
            mean_of(np.clip(row + rise * (row != 0), -1, 1), None, RESAMPLES, run, bounds)
            for run, row in enumerate(noise)
        ]
        return float(np.mean([test.p_above(0) <= 0.025 for test in tests]))

    for which, bounds in (("estimated", (-np.inf, np.inf)), ("verdict", RANGE)):
        low, high = 0.0, 0.8
        for _ in range(8):
            middle = (low + high) / 2
            low, high = (low, middle) if power(middle, bounds) >= 0.8 else (middle, high)
        write(which, 1, subjects, 1, zero, "normal", f"{subjects * (1 - zero):.1f}", detectable=high)


def write(which: str, *row: object, detectable: float | None = None) -> None:
    cells = [f"{cell:.3f}" if isinstance(cell, np.floating) else cell for cell in row]
    csv.writer(sys.stdout).writerow([which, *cells, *([""] * 5 + [f"{detectable:.3f}"] if detectable else [""])])
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400, help="simulated studies of a row (a fifth for the least rise)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    header = "test,seeds,subjects,records_each,zero,kind,moved,above_2.5,below_2.5,above_5,below_5,covers,detectable"
    print(header)
    for seeds in (1, 4):
        for subjects, each in SIZES:
            for zero in (0.9, 0.95, 0.97, 0.995):
                for kind in KINDS:
                    errors(random, kind, zero, (seeds, subjects), each, arguments.runs)
    for subjects in (20, 50, 100):
        for zero in (0.0, 0.3, 0.6):
            found(random, subjects, zero, max(20, arguments.runs // 5))


if __name__ == "__main__":
    main()
