"""Take a checkpoint that was unlearned elsewhere into the study, as it is; an adapter is merged into its base."""

from palimpsest.runtime.jobs import start_job
from palimpsest.runtime.startup import import_transformers

if __name__ == "__main__":
    job = start_job(snakemake)
    import_transformers()

from pathlib import Path
from typing import Any

import torch

from palimpsest.artefacts import Origin, hash_sources, verify_files
from palimpsest.models.asking import template_for
from palimpsest.models.brought import bring
from palimpsest.models.checkpoint import write_model
from palimpsest.models.families import check_taken
from palimpsest.models.likeness import Target
from palimpsest.vocabulary import CHECKPOINT, NOT_STATED, UNLEARNED


def bring_model(
    origin: Origin, settings: dict[str, Any], refused: dict[str, dict[str, str]], target: Path, folder: Path
) -> None:
    """settings: method, prompt and, as source, where the study has its target from, which lies in `target`; refused:
    what formats do not take. Nothing is computed but the merge of an adapter, and nothing said of the training."""
    verify_files(target)
    method, key = settings["method"], f"methods.{origin.key['model']}.{CHECKPOINT}"
    source, said = method[CHECKPOINT], settings["source"]
    brought = bring(source, key, Target(said if isinstance(said, str) else said[CHECKPOINT], target))
    check_taken(brought.network.config.model_type, refused, source)
    template_for(settings, brought.tokenizer, key)
    made = {"kind": UNLEARNED, "method": method, "storage": method.get("storage", NOT_STATED), "device": "cpu"}
    made |= {"training": None, "brought": brought.record, **hash_sources(source, brought.base)}
    if brought.record["as"] == "adapter":
        made["packages"] = ("torch", "transformers", "peft")
    write_model(folder, brought.network, brought.tokenizer, origin, **made)


if __name__ == "__main__":
    torch.set_num_threads(snakemake.threads)
    bring_model(
        job.origin,
        job.settings,
        snakemake.params.refused,
        Path(snakemake.input.target).parent,
        Path(snakemake.output[0]).parent,
    )
