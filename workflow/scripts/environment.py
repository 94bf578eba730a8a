"""Build the isolated environment of quantizers that cannot live in the project's own."""

from pathlib import Path

from palimpsest.quantizers.environments import build
from palimpsest.runtime.logs import start_logging

if __name__ == "__main__":
    start_logging(snakemake.log[0])
    build(Path(snakemake.input.requirements), Path(snakemake.output.ready).parent)
