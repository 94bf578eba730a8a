"""What each choice of `kernels` costs on this processor, and the bits that it gives.

`python benchmarks/kernels.py` trains a small model in processes of their own, one thread each: with the processor's own
kernels, with those of `kernels: reproducible`, and with the latter without products in float32 (ATen's loops for
bfloat16). It prints the seconds of a step and a hash of the weights afterwards: processors agree where their hashes do.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time

from palimpsest.machine import facts
from palimpsest.runtime.kernels import REPRODUCIBLE

CHOICES = {"native": {}, "reproducible": REPRODUCIBLE, "AVX2, bfloat16 in loops": REPRODUCIBLE | {"LOOPS": "1"}}
SHAPE = {"hidden_size": 384, "layers": 4, "heads": 6, "mlp_size": 1024, "context": 256}


def measure(storage: str, steps: int) -> dict[str, object]:
    """In this process: the seconds of a step and a hash of the weights."""
    import torch

    from palimpsest.runtime import kernels
    from palimpsest.runtime.startup import import_transformers

    if "LOOPS" in os.environ:
        kernels.multiply_in_float32 = lambda: False  # type: ignore[assignment]
        sys.modules["palimpsest.runtime.startup"].multiply_in_float32 = lambda: False  # type: ignore[attr-defined]
    import_transformers(training=True)
    from palimpsest.corpus.embedded.generator import generate_corpus
    from palimpsest.models.checkpoint import store_weights
    from palimpsest.models.scratch import build_llama, train_tokenizer
    from palimpsest.models.sequences import corpus_sequences
    from palimpsest.training.schedule import Schedule
    from palimpsest.training.trainer import train

    torch.set_num_threads(1)
    corpus = generate_corpus(0, 4, 4, 2, 3, 2)
    tokenizer = train_tokenizer([*corpus.forget, *corpus.retain], 600)
    model = build_llama(tokenizer, SHAPE, seed=0)
    store_weights(model, torch.bfloat16 if storage == "bfloat16" else torch.float32)
    sequences = list(corpus_sequences(corpus, "forget", tokenizer, 128, True))
    start = time.perf_counter()
    train(model, sequences, tokenizer.pad_token_id, Schedule(1e-4, steps, storage=storage))
    seconds = (time.perf_counter() - start) / steps
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return {"seconds": seconds, "weights": digest.hexdigest()[:16]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--measure", choices=["bfloat16", "float32"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.measure, asked.steps)))
        sys.exit()
    machine = facts()
    print(f"{machine['processor']} ({' '.join(machine['instructions'])}), {asked.steps} steps, one thread")
    print("| kernels | weights | s a step | hash of the weights |\n|---|---|---|---|")
    for name, variables in CHOICES.items():
        for storage in ("bfloat16", "float32"):
            environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
            command = [sys.executable, __file__, "--measure", storage, "--steps", str(asked.steps)]
            made = json.loads(subprocess.check_output(command, env=environment, text=True).splitlines()[-1])
            print(f"| {name} | {storage} | {made['seconds']:.2f} | {made['weights']} |", flush=True)
