"""How much of an unlearned model's update survives a quantizer, from the four folders of weights."""

from pathlib import Path
from typing import Any

from palimpsest.artefacts import write_json
from palimpsest.logs import start_logging
from palimpsest.quantizers import make_quantizer
from palimpsest.survival import measure_survival


def measure(key: dict[str, Any], quantizer: dict[str, Any], folders: list[Path], output: str) -> None:
    """folders: target, unlearned, quantized target, quantized unlearned."""
    write_json(output, key | measure_survival(*folders, make_quantizer(quantizer)))


if __name__ == "__main__":
    start_logging(snakemake.log[0])
    manifests = [
        snakemake.input.target,
        snakemake.input.unlearned,
        snakemake.input.quantized_target,
        snakemake.input.quantized_unlearned,
    ]
    wildcards = snakemake.wildcards
    measure(
        {"model": wildcards.model, "seed": int(wildcards.seed), "precision": wildcards.precision},
        snakemake.params.quantizer,
        [Path(manifest).parent for manifest in manifests],
        snakemake.output[0],
    )
