"""May the files of this study ship? The step fails where the verdict on one of them is no pass."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    job = start_job(snakemake)

import logging
from pathlib import Path

from palimpsest.verdict.gate import pass_or_fail

log = logging.getLogger(__name__)


def gate(verdicts: list[str]) -> None:
    """verdicts: the manifest of each."""
    for line in pass_or_fail([Path(manifest).parent for manifest in verdicts]):
        log.info("%s", line)


if __name__ == "__main__":
    gate(list(snakemake.input.get("verdicts", [])))
