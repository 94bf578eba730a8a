"""Unlearning steps here and on plain transformers, side by side: GA_GDR and NPO_KLR on the same random Llama.

`python benchmarks/beside_transformers.py 7b` needs one GPU of 80 GB; `tiny` runs anywhere. Each side of each method is
a process of its own, `--rounds` of them one after another. Plain transformers is its Trainer with gradient
checkpointing (of all layers) and fused AdamW, a compute_loss of a few lines (forget and retain pass, one backward pass)
and, for NPO_KLR, a second model as the reference. Ours is `palimpsest.unlearning.unlearn.unlearn` as a study runs it.
Both have bfloat16 weights and random tokens of full length.

Printed are medians (shortest to longest) of the steps after the first two; MFU counts the operations that
benchmarks/training.py counts, against the data sheet.
"""

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

import torch
from random_llama import DEVICE, SHAPES, mark, peak_memory, random_llama, seconds_between

from palimpsest.models.layers import decoder_matrices
from palimpsest.training.schedule import Schedule
from palimpsest.unlearning.objective import Objective

METHODS = {"ga_gdr": Objective("ga", "gdr"), "npo_klr": Objective("npo", "klr", settings={"beta": 0.1})}
SPEC = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
WARM_UP = 2


def tokens_of(vocabulary: int, arguments: argparse.Namespace) -> tuple[list[list[int]], list[list[int]]]:
    generator = torch.Generator().manual_seed(0)
    shape = arguments.batch_size, arguments.length
    forget, retain = (torch.randint(vocabulary, shape, generator=generator).tolist() for _ in range(2))
    return forget, retain


def ours(model: Any, method: str, arguments: argparse.Namespace) -> list[float]:
    from timed_trainer import TimedTrainer

    from palimpsest.unlearning.unlearn import unlearn

    forget, retain = tokens_of(model.config.vocab_size, arguments)
    schedule = Schedule(1e-5, arguments.steps, storage="bfloat16")
    return unlearn(model, forget, retain, 0, METHODS[method], schedule, trainer=TimedTrainer)["seconds"]


def plain(model: Any, method: str, arguments: argparse.Namespace) -> list[float]:
    from torch.nn import functional
    from transformers import Trainer, TrainerCallback, TrainingArguments

    forget, retain = tokens_of(model.config.vocab_size, arguments)
    reference = random_llama(arguments.shape).eval().requires_grad_(False) if method == "npo_klr" else None
    marks: list[Any] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(mark())

    class PlainTrainer(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            forget, retain = inputs["forget"], inputs["retain"]
            passes = model(input_ids=forget, labels=forget), model(input_ids=retain, labels=retain)
            if reference is None:
                return passes[1].loss - passes[0].loss
            with torch.no_grad():
                before = reference(input_ids=forget), reference(input_ids=retain)

            def log_probs(logits: Any) -> Any:
                shifted = logits[:, :-1].float().transpose(1, 2)
                return -functional.cross_entropy(shifted, forget[:, 1:], reduction="none").sum(1)

            ratio = log_probs(passes[0].logits) - log_probs(before[0].logits)
            npo = -2 / 0.1 * functional.logsigmoid(-0.1 * ratio).mean()
            now, then = (each.logits[:, :-1].flatten(0, 1).float().log_softmax(-1) for each in (passes[1], before[1]))
            return npo + functional.kl_div(now, then, log_target=True, reduction="batchmean")

    settings = TrainingArguments(
        output_dir=arguments.scratch,
        num_train_epochs=arguments.steps,
        per_device_train_batch_size=arguments.batch_size,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        learning_rate=1e-5,
        optim="adamw_torch_fused",
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=DEVICE == "cpu",
    )
    rows = [{"forget": torch.tensor(a), "retain": torch.tensor(b)} for a, b in zip(forget, retain, strict=True)]
    PlainTrainer(model=model, args=settings, train_dataset=rows, callbacks=[Clock()]).train()  # type: ignore[arg-type]
    return seconds_between(marks)


def one_side(arguments: argparse.Namespace) -> None:
    """In a process of its own: what it measured, as the last line of its output."""
    import tempfile

    model = random_llama(arguments.shape)
    with tempfile.TemporaryDirectory() as arguments.scratch:
        seconds = {"ours": ours, "plain": plain}[arguments.side](model, arguments.methods[0], arguments)[WARM_UP - 1 :]
    weights = sum(weight.numel() for weight in decoder_matrices(model).values()) + model.lm_head.weight.numel()
    attention = 2 * model.config.num_hidden_layers * model.config.hidden_size * arguments.length
    tokens = 2 * arguments.batch_size * arguments.length
    found = {"seconds": seconds, "tokens": tokens, "operations": tokens * (6 * weights + 3 * attention)}
    digest = sum(weight.detach().double().sum().item() for weight in model.parameters())
    print(json.dumps(found | {"peak": peak_memory(), "digest": digest}))


def measured(side: str, method: str, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, arguments.shape, "--side", side, "--methods", method]
    for name in ("batch-size", "length", "steps"):
        command += [f"--{name}", str(getattr(arguments, name.replace("-", "_")))]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{side} {method} failed:\n{ended.stderr[-3000:]}")
    for line in ended.stderr.splitlines():
        if "layers compute" in line:
            print(f"    {line.rpartition('memory:')[2]}")
    return json.loads(ended.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--batch-size", type=int, default=2, help="forget sequences a step, and as many retain ones")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--side", choices=("ours", "plain"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.steps <= WARM_UP:
        parser.error(f"--steps: the first {WARM_UP} do not count, so give more")
    if arguments.side:
        import logging

        logging.basicConfig(level=logging.INFO)
        one_side(arguments)
        return
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    spec = next((rate for part, rate in SPEC.items() if part in name), None)
    print(f"{name}, torch {torch.__version__}; {arguments.shape}, bfloat16 weights, {arguments.batch_size} + ", end="")
    print(f"{arguments.batch_size} sequences of {arguments.length}, {arguments.steps} steps, seed 0")
    for method in arguments.methods:
        rates = {}
        for side in ("plain", "ours"):
            runs = [measured(side, method, arguments) for _ in range(arguments.rounds)]
            steps = [seconds for run in runs for seconds in run["seconds"]]
            median, run = statistics.median(steps), runs[0]
            rates[side] = run["tokens"] / median
            share = f", MFU {run['operations'] / median / spec:.1%}" if spec else ""
            again = (
                f", same bits in {len(runs)} runs" if len({each["digest"] for each in runs}) == 1 < len(runs) else ""
            )
            print(
                f"  {method:8s} {side:6s} {rates[side]:8.0f} tokens/s, {1000 * median:7.0f} ms a step "
                f"({1000 * min(steps):.0f} to {1000 * max(steps):.0f}){share}, peak {run['peak']:.1f} GB{again}",
                flush=True,
            )
        print(f"  {method:8s} ours / plain: {rates['ours'] / rates['plain']:.2f}", flush=True)


if __name__ == "__main__":
    main()
