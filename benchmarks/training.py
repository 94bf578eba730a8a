"""Unlearning steps on a random Llama: tokens per second, model FLOP utilisation and peak memory of each method.

`python benchmarks/training.py 7b` needs a GPU of 80 GB with gradient checkpointing, of 141 GB without; `tiny` runs anywhere. Steps are
those of `palimpsest.unlearning.unlearn`, from one optimizer step to the next, the first two left out. With `--gpus N` the model is
sharded over N processes, each with a GPU of its own (`tiny --gpus 2` runs without any): tokens per second are those of all together,
utilisation and memory are per GPU.

Operations per token, after the PaLM paper (arXiv 2204.02311, appendix B) with causal attention counted once: forward 2 N + 2 L d T,
backward twice that, less the weight gradients that a saliency mask saves; N are the weights in matrix products, L the layers, d the
width, T the length. Activations that gradient checkpointing computes again are not counted, nor is a reference.
"""

import argparse
import gc
import statistics

import torch
from random_llama import DEVICE, SHAPES, matmul_rate, peak_memory, random_llama
from timed_trainer import TimedTrainer

from palimpsest.errors import PalimpsestError
from palimpsest.saliency import Saliency, decoder_matrices
from palimpsest.training import Schedule
from palimpsest.unlearning import Objective, unlearn

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


def measure(method: str, arguments: argparse.Namespace) -> tuple[float, float, int, float]:
    """(seconds a step, floating-point operations a step, tokens a step, GB at the peak on the GPU that holds most)."""
    objective, saliency = METHODS[method]
    model = random_llama(arguments.shape, device=DEVICE if arguments.gpus == 1 else "cpu")
    generator = torch.Generator().manual_seed(0)
    forget, retain = (
        torch.randint(model.config.vocab_size, (arguments.batch_size, arguments.length), generator=generator).tolist()
        for _ in range(2)
    )
    schedule = Schedule(
        1e-5,
        arguments.steps,
        weights=arguments.weights,
        optimizer=arguments.optimizer,
        gradient_checkpointing=arguments.gradient_checkpointing,
    )
    outcome = unlearn(
        model, forget, retain, 0, objective, schedule, saliency, processes=arguments.gpus, trainer=TimedTrainer
    )
    times = outcome["times"][WARM_UP - 1 :]
    seconds = statistics.median(b - a for a, b in zip(times, times[1:], strict=False))
    tokens = arguments.batch_size * arguments.length * (2 if objective.retain else 1)
    multiplied = sum(weight.numel() for weight in decoder_matrices(model).values()) + model.lm_head.weight.numel()
    attention = 2 * model.config.num_hidden_layers * model.config.hidden_size * arguments.length
    trained = min(outcome["trained"], multiplied)
    return seconds, tokens * (4 * multiplied + 2 * trained + 3 * attention), tokens, outcome["peak"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--batch-size", type=int, default=2, help="forget sequences a step, and as many retain sequences"
    )
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--weights", default="bfloat16")
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--gpus", type=int, default=1, help="processes over which the model is sharded")
    arguments = parser.parse_args()
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    spec = next((rate for part, rate in SPEC.items() if part in name), None)
    measured = matmul_rate()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()  # other processes may use this GPU
    print(f"{name}, torch {torch.__version__}; bfloat16 matrix products {measured / 1e12:.3g} TFLOP/s measured", end="")
    print(f", {spec / 1e12:.0f} by the data sheet" if spec else "")
    settings = ("batch_size", "length", "steps", "weights", "optimizer", "gradient_checkpointing", "gpus")
    print(f"{arguments.shape}, seed 0; " + ", ".join(f"{key} {getattr(arguments, key)}" for key in settings))
    for method in arguments.methods:
        if DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            seconds, operations, tokens, peak = measure(method, arguments)
        except torch.OutOfMemoryError:
            held = f": {peak_memory():.1f} GB were held when memory ran out" if arguments.gpus == 1 else ""
            print(f"  {method:8s} does not fit{held}", flush=True)
        except PalimpsestError as error:
            print(f"  {method:8s} {error}", flush=True)
        else:
            rate = operations / seconds / arguments.gpus
            utilisation = f"{rate / spec:.1%} of the data sheet, " if spec else ""
            print(
                f"  {method:8s} {tokens / seconds:8.0f} tokens/s, {1000 * seconds:7.0f} ms a step, MFU {utilisation}"
                f"{rate / measured:.1%} of measured, peak {peak:.1f} GB",
                flush=True,
            )
        gc.collect()
        if DEVICE == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
