"""What SURE's mask costs: seconds to make it, milliseconds a step to keep it, on a random Llama of some shape.

`python benchmarks/saliency.py 7b` needs about 45 GB on the GPU; 54m runs anywhere.
"""

import argparse

import torch
from random_llama import DEVICE, SHAPES, clock, random_llama

from palimpsest.models.layers import decoder_matrices
from palimpsest.unlearning.saliency import GRANULARITIES, Mask, Saliency


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--percentile", type=float, default=90.0)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    model = random_llama(arguments.shape)
    generator = torch.Generator(DEVICE).manual_seed(1)
    gradients = {
        name: torch.randn(weight.shape, device=DEVICE, generator=generator)
        for name, weight in decoder_matrices(model).items()
    }
    size = sum(weight.numel() for weight in model.parameters())
    print(f"{size / 1e9:.2f} B weights on {DEVICE}, seed 0, percentile {arguments.percentile:g}")
    for granularity in GRANULARITIES:
        model.requires_grad_(True)
        for weight in model.parameters():
            weight._post_accumulate_grad_hooks = None
            weight.grad = None
        started = clock()
        mask = Mask(model, gradients, Saliency(granularity, arguments.percentile))
        made = clock() - started
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        for weight in trained:
            weight.grad = torch.zeros_like(weight)
        for _ in range(3):
            work(mask, trained)
        started = clock()
        for _ in range(arguments.steps):
            work(mask, trained)
        step = (clock() - started) / arguments.steps
        facts = mask.summary()
        print(
            f"  {granularity:7s} {facts['kept_units']} of {facts['units']} units, {facts['kept_weights'] / size:.1%} "
            f"of weights: made in {made:.2f} s, {1000 * step:.1f} ms a step"
        )


def work(mask: Mask, trained: list[torch.nn.Parameter]) -> None:
    """What a step does for the mask: zero the gradients outside it, put the weights back."""
    for weight in trained:
        for hook in (weight._post_accumulate_grad_hooks or {}).values():  # type: ignore[attr-defined]
            hook(weight)
    mask.restore()


if __name__ == "__main__":
    main()
