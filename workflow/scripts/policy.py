"""Fix the policy of the verdict, before there is anything to judge."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    job = start_job(snakemake)

from pathlib import Path

from palimpsest.artefacts import Origin, write_record
from palimpsest.verdict.fixed import fix


def fix_policy(origin: Origin, policy: str, record: str) -> None:
    write_record(record, origin, fix(Path(policy), Path(record)))


if __name__ == "__main__":
    fix_policy(job.origin, job.settings["policy"], snakemake.output[0])
