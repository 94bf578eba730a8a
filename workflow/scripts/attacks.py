"""Collect what every attack brings back into results/attacks/attacks.json."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    job = start_job(snakemake)

from palimpsest.artefacts import write_record
from palimpsest.attacks.collect import collect

if __name__ == "__main__":
    found = collect(snakemake.params.runs, snakemake.params.seeds, job.settings)
    write_record(snakemake.output[0], job.origin, found, ("numpy", "rouge-score"))
