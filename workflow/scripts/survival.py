"""How much of an unlearned model's update survives a quantizer, from the four folders of weights."""

from pathlib import Path
from typing import Any

from palimpsest.artefacts import MANIFEST, provenance, verify_files, write_json
from palimpsest.quantizers import make_quantizer
from palimpsest.runtime.jobs import key_of
from palimpsest.runtime.logs import start_logging
from palimpsest.survival.measure import measure_survival


def measure(key: dict[str, Any], quantizer: dict[str, Any], folders: list[Path], output: str, code: list[str]) -> None:
    """folders: target, unlearned, quantized target, quantized unlearned."""
    for folder in folders:
        verify_files(folder)
    made_by = provenance([folder / MANIFEST for folder in folders], code)
    write_json(output, key | measure_survival(*folders, make_quantizer(quantizer)) | made_by)


if __name__ == "__main__":
    start_logging(snakemake.log[0])
    manifests = [
        snakemake.input.target,
        snakemake.input.unlearned,
        snakemake.input.quantized_target,
        snakemake.input.quantized_unlearned,
    ]
    measure(
        key_of(snakemake.wildcards),
        snakemake.params.quantizer,
        [Path(manifest).parent for manifest in manifests],
        snakemake.output[0],
        list(snakemake.input.code),
    )
