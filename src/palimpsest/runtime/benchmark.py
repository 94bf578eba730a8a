"""What Snakemake's `benchmark:` measures of a step whose work is done in a fork of the warm process."""

import os
from pathlib import Path
from typing import Any

import psutil

from palimpsest.runtime.warm import VARIABLE


class Observed(psutil.Process):
    """A process whose descendants' work is done in forks of the warm process, which count as its descendants."""

    def children(self, recursive: bool = False) -> list[psutil.Process]:
        """As psutil's, and the forks."""
        found = super().children(recursive)
        folder = Path(os.environ.get(VARIABLE, "off"))
        for note in [folder / str(process.pid) for process in (self, *found)]:
            try:
                worker = psutil.Process(int(note.read_text()))
                found += [worker, *worker.children(recursive)]
            except (OSError, ValueError, psutil.Error):
                continue  # no fork, or it ended
        return found


def observe_forks(timer: Any) -> None:
    """Let the class that measures a step for `benchmark:` (snakemake.benchmark.BenchmarkTimer) see the fork that does its work."""
    begin = timer.__init__

    def __init__(self: Any, pid: int, *arguments: Any, **options: Any) -> None:
        begin(self, pid, *arguments, **options)
        self.main = Observed(pid)

    timer.__init__ = __init__
