"""A fuzzer of the readers, by hand: `python tests/fuzz/fuzz.py --minutes 10 --folder /tmp/fuzz`.

Every kind of file in turn: one to three mutations, then a read with 512 MiB to spare and ten seconds. A finding is kept
in the folder, with the seed that makes it again; the last line counts executions. The valid files are built once.
"""

import argparse
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from mutate import KINDS, Case, build, mutated

SPARE = 512 << 20
SECONDS = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--folder", type=Path, required=True, help="where the valid files, the broken and findings lie")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    built = arguments.folder / "valid"
    if not built.exists():
        build(built, *small_model())
    cases = {kind: Case.of(kind, built, arguments.folder / "broken") for kind in KINDS}
    signal.signal(signal.SIGALRM, too_slow)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE, resource.RLIM_INFINITY))
    counts, findings = Counter[str](), Counter[str]()
    end, seed = time.monotonic() + 60 * arguments.minutes, arguments.seed
    while time.monotonic() < end:
        case = cases[KINDS[seed % len(KINDS)]]
        if found := run_once(case, seed, counts):
            findings[found.strip().splitlines()[-1]] += 1
            (arguments.folder / f"finding-{seed}-{case.kind}.txt").write_text(found)
        seed += 1
    for message, count in findings.most_common():
        print(f"{count} x {message}")
    total = sum(counts.values())
    print(f"{total} executions ({counts['read']} read, {counts['refused']} refused), {sum(findings.values())} findings")
    return bool(findings)


def run_once(case: Case, seed: int, counts: Counter[str]) -> str:
    """The traceback of a finding, or nothing."""
    choice = random.Random(seed)
    case.mend()
    for _ in range(choice.choice((1, 1, 1, 2, 3))):
        name = choice.choice(sorted(case.originals))
        case.write(name, mutated((case.folder / name).read_bytes(), name, choice))
    signal.alarm(SECONDS)
    try:
        counts[case.read()] += 1
    except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for, and kept
        counts["found"] += 1
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return ""


def too_slow(*_: Any) -> None:
    raise TimeoutError(f"more than {SECONDS} seconds")


def small_model() -> tuple[Any, Any]:
    from palimpsest.models.scratch import build_llama, train_tokenizer

    tokenizer = train_tokenizer(["A small text about a small town by the sea."], 280)
    shape = {"hidden_size": 64, "layers": 1, "heads": 2, "mlp_size": 128, "context": 64}
    return build_llama(tokenizer, shape, seed=0), tokenizer


if __name__ == "__main__":
    sys.exit(main())
