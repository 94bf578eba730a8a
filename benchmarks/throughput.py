"""How many evaluation steps a host does per minute with one GPU and with all of them, through the workflow itself.

`python benchmarks/throughput.py 1b` makes a study whose target and retrained model are one random Llama, quantizes both three ways
and times Snakemake's `infer` steps (each a process that loads a file and writes responses and log-probabilities), first with `--resources gpu=N`
for all N GPUs, then with gpu=1. One step is run before, untimed, so that neither run is the first to read a file. Without a GPU (`tiny`) N
is `--gpus`, and steps run abreast on the CPU.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from random_llama import SHAPES, random_llama

from palimpsest.corpus.generator import generate_corpus
from palimpsest.models import train_tokenizer
from palimpsest.params import read_params

ROOT = Path(__file__).parents[1]
FORMATS = ("bnb-int8", "bnb-fp4", "bnb-nf4")
PRECISIONS = ("bf16", *FORMATS)
MODELS = ("target", "retrain")
DOCUMENTS = {"forget_documents": 20, "retain_documents": 20, "holdout_documents": 20}
INFERENCE = {
    "compute": "bfloat16",
    "batch_size": 32,
    "verbmem_tokens": 128,
    "knowmem_tokens": 32,
    "in_context_examples": 2,
    "logprob_tokens": 512,
}


def study(folder: Path, checkpoint: Path) -> dict[str, Any]:
    params = read_params(ROOT / "params.yaml")
    params["corpus"]["settings"] |= DOCUMENTS
    params["models"] |= dict.fromkeys(MODELS, str(checkpoint))
    params["quantizers"] = {name: params["quantizers"][name] for name in FORMATS}
    params["inference"] = INFERENCE
    params["report"]["precision"] = FORMATS[0]
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return params


def write_checkpoint(shape: str, params: dict[str, Any], folder: Path) -> None:
    corpus = generate_corpus(**params["corpus"]["settings"])
    random_llama(shape).save_pretrained(folder)
    train_tokenizer([*corpus.forget, *corpus.retain], SHAPES[shape]["vocab_size"]).save_pretrained(folder)


def snakemake(folder: Path, gpus: int, *targets: str) -> float:
    """Seconds that the targets took."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        *targets,
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--directory",
        str(folder),
    ]
    limits = ["--cores", str(max(gpus, os.cpu_count() or 1)), "--resources", f"gpu={gpus}"]
    started = time.monotonic()
    done = subprocess.run([*command, *limits], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"snakemake failed:\n{done.stdout[-3000:]}")
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--gpus", type=int, default=torch.cuda.device_count() or 2, help="how many to hold against one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        params = study(folder, folder / "checkpoint")
        write_checkpoint(arguments.shape, params, folder / "checkpoint")
        models = [f"results/models/{model}/seed0/manifest.json" for model in MODELS]
        files = [f"results/quantized/{model}/seed0/{name}/manifest.json" for model in MODELS for name in FORMATS]
        steps = [f"results/infer/{model}/seed0/{name}/manifest.json" for model in MODELS for name in PRECISIONS]
        snakemake(folder, arguments.gpus, *models, *files)
        snakemake(folder, 1, steps[0])
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        print(
            f"{name}, torch {torch.__version__}, {os.cpu_count()} cores; {arguments.shape}, {len(steps)} evaluation steps"
        )
        seconds = {}
        for gpus in (arguments.gpus, 1):
            shutil.rmtree(folder / "results/infer")
            seconds[gpus] = snakemake(folder, gpus, *steps)
            print(f"  gpu={gpus}: {seconds[gpus]:6.1f} s, {60 * len(steps) / seconds[gpus]:5.1f} steps a minute")
        print(f"  {seconds[1] / seconds[arguments.gpus]:.2f} times the throughput of one")


if __name__ == "__main__":
    main()
