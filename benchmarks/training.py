"""Unlearning steps on a random Llama: tokens per second, model FLOP utilisation and peak memory of each method.

`python benchmarks/training.py 7b` needs a GPU of 80 GB; `tiny` runs anywhere. Steps are those of
`palimpsest.unlearning.unlearn.unlearn`, from one optimizer step to the next: the median, and the shortest and the
longest. Left out are the first two steps of each method and, before them all, some steps that bear what only the first
of a process costs. With `--gpus N` the model is sharded over N processes, each with a GPU of its own (`tiny --gpus 2`
runs without any): tokens per second are those of all together, utilisation and memory are per GPU.

Operations per token, after the PaLM paper (arXiv 2204.02311, appendix B) with causal attention counted once: forward
2 N + 2 L d T, backward twice that, less the weight gradients that a saliency mask saves; N are the weights in matrix
products, L the layers, d the width, T the length. Activations that gradient checkpointing computes again are not
counted, nor is a reference.
"""

import argparse
import gc
import statistics
from typing import NamedTuple

import torch
from random_llama import DEVICE, SHAPES, matmul_rate, peak_memory, random_llama
from timed_trainer import TimedTrainer

from palimpsest.errors import PalimpsestError
from palimpsest.models.layers import decoder_matrices
from palimpsest.training.schedule import Schedule
from palimpsest.unlearning.objective import Objective
from palimpsest.unlearning.saliency import Saliency
from palimpsest.unlearning.unlearn import not_sharded, unlearn

METHODS: dict[str, tuple[Objective, Saliency | None]] = {
    "ga": (Objective("ga"), None),
    "npo": (Objective("npo", settings={"beta": 0.1}), None),
    "ga_gdr": (Objective("ga", "gdr"), None),
    "npo_klr": (Objective("npo", "klr", settings={"beta": 0.1}), None),
    "sure": (Objective("ga", "gdr"), Saliency("module", 90.0)),
}
SPEC = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 operations per second in the maker's data sheet."""
WARM_UP = 2


class Measured(NamedTuple):
    """steps: seconds of each that counts; operations and tokens: of one; peak: GB on the GPU that holds most."""

    steps: list[float]
    operations: float
    tokens: int
    peak: float


def schedule_of(steps: int, arguments: argparse.Namespace) -> Schedule:
    return Schedule(
        1e-5,
        steps,
        storage=arguments.weights,
        optimizer=arguments.optimizer,
        gradient_checkpointing=arguments.gradient_checkpointing,
        processes=arguments.gpus,
    )


def measure(method: str, steps: int, arguments: argparse.Namespace) -> Measured:
    objective, saliency = METHODS[method]
    model = random_llama(arguments.shape, device=DEVICE if arguments.gpus == 1 else "cpu")
    generator = torch.Generator().manual_seed(0)
    forget, retain = (
        torch.randint(model.config.vocab_size, (arguments.batch_size, arguments.length), generator=generator).tolist()
        for _ in range(2)
    )
    schedule = schedule_of(steps, arguments)
    outcome = unlearn(model, forget, retain, 0, objective, schedule, saliency, trainer=TimedTrainer)
    seconds = outcome["seconds"][WARM_UP - 1 :]
    tokens = arguments.batch_size * arguments.length * (2 if objective.retain else 1)
    multiplied = sum(weight.numel() for weight in decoder_matrices(model).values()) + model.lm_head.weight.numel()
    attention = 2 * model.config.num_hidden_layers * model.config.hidden_size * arguments.length
    trained = min(outcome["trained"], multiplied)
    return Measured(seconds, tokens * (4 * multiplied + 2 * trained + 3 * attention), tokens, outcome["peak"])


def fitting(arguments: argparse.Namespace) -> list[str]:
    """The methods that can be measured; prints why another is left out."""
    methods = []
    for method in arguments.methods:
        objective, saliency = METHODS[method]
        unfit = not_sharded(objective, schedule_of(1, arguments), saliency, None) if arguments.gpus > 1 else []
        if unfit:
            print(f"  {method:8s} left out: {' and '.join(unfit)} cannot be sharded")
        else:
            methods.append(method)
    return methods


def line_of(found: Measured, gpus: int, measured: float, spec: float | None) -> str:
    """measured, spec: operations per second of one GPU in matrix products, as timed here and by the data sheet."""
    seconds = statistics.median(found.steps)
    rate = found.operations / seconds / gpus
    utilisation = f"{rate / spec:.1%} of the data sheet, " if spec else ""
    return (
        f"{found.tokens / seconds:8.0f} tokens/s, {1000 * seconds:7.0f} ms a step "
        f"({1000 * min(found.steps):.0f} to {1000 * max(found.steps):.0f}), MFU {utilisation}"
        f"{rate / measured:.1%} of measured, peak {found.peak:.1f} GB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--batch-size", type=int, default=2, help="forget sequences a step, and as many retain sequences"
    )
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--weights", default="bfloat16")
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument(
        "--gradient-checkpointing",
        action=argparse.BooleanOptionalAction,
        help="without either, as the GPU's memory asks for",
    )
    parser.add_argument("--gpus", type=int, default=1, help="processes over which the model is sharded")
    arguments = parser.parse_args()
    if arguments.steps <= WARM_UP:
        parser.error(f"--steps: the first {WARM_UP} do not count, so give more")
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    spec = next((rate for part, rate in SPEC.items() if part in name), None)
    measured = matmul_rate()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()  # other processes may use this GPU
    print(f"{name}, torch {torch.__version__}; bfloat16 matrix products {measured / 1e12:.3g} TFLOP/s measured", end="")
    print(f", {spec / 1e12:.0f} by the data sheet" if spec else "")
    settings = ("batch_size", "length", "steps", "weights", "optimizer", "gradient_checkpointing", "gpus")
    print(f"{arguments.shape}, seed 0; " + ", ".join(f"{key} {getattr(arguments, key)}" for key in settings))
    methods = fitting(arguments)
    for number, method in enumerate([*methods[:1], *methods]):
        if DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            found = measure(method, arguments.steps if number else WARM_UP + 1, arguments)
        except torch.OutOfMemoryError:
            held = f": {peak_memory():.1f} GB were held when memory ran out" if arguments.gpus == 1 else ""
            line = f"does not fit{held}"
        except PalimpsestError as error:
            line = str(error)
        else:
            line = line_of(found, arguments.gpus, measured, spec)
        if number:
            print(f"  {method:8s} {line}", flush=True)
        gc.collect()
        if DEVICE == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
