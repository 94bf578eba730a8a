"""What Snakemake's `benchmark:` says of a step whose work is done in a fork of the warm process,
which is no child of the step's own."""

import json
import os
from pathlib import Path
from typing import Any

from palimpsest.runtime.warm import USAGE, VARIABLE


def count_forks(timer: Any) -> None:
    """Let the class that measures a step (snakemake.benchmark.BenchmarkTimer) take what its fork used,
    as the system counted it.

    Snakemake looks at a step's processes now and then; of a fork the system's own account is exact: CPU time and the
    largest memory, what it shares with the warm process included. The other columns are NA.
    """
    end = timer.cancel

    def cancel(self: Any) -> None:
        end(self)
        _take_usage(self.pid, self.bench_record)

    timer.cancel = cancel


def _take_usage(pid: int, record: Any) -> None:
    """pid: of the step's process, or of the shell around it; record: Snakemake's BenchmarkRecord."""
    file = Path(os.environ.get(VARIABLE, "off")) / USAGE.format(pid)
    if not file.is_file():
        return
    used = json.loads(file.read_text())
    file.unlink()
    record.data_collected = True
    record.cpu_time, record.cpu_usage = used["seconds"], 100 * used["seconds"]
    record.max_rss = used["peak_kib"] / 1024
    for unknown in ("max_vms", "max_uss", "max_pss", "io_in", "io_out"):
        setattr(record, unknown, None)
