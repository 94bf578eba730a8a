"""Build the isolated environment of quantizers that cannot live in the project's own."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    start_job(snakemake)

from pathlib import Path

from palimpsest.quantizers.environments import build

if __name__ == "__main__":
    build(Path(snakemake.input.requirements), Path(snakemake.output.ready).parent)
