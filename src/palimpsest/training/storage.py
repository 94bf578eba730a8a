"""How weights are stored while they are trained: the choice that decides whether unlearning survives quantization.

`bfloat16`             weights in bfloat16, AdamW updates them in place: steps under half an ulp are lost
                       (what the paper did) and its moments are in bfloat16 too, unless the optimizer is
                       `adamw-float32-moments`
`float32`              float32 weights, rounded to bfloat16 once, when the model is saved
`bfloat16-stochastic`  weights in bfloat16, each step rounded up or down at random so that its expectation is exact
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from palimpsest.errors import PalimpsestError
from palimpsest.models.layers import as_stored
from palimpsest.models.tensors import open_checkpoint
from palimpsest.training.processes import rank_and_size
from palimpsest.training.sharding import local
from palimpsest.vocabulary import BFLOAT16, FLOAT32, STOCHASTIC

APART = 1_000_003
"""Between the seeds of two ranks: farther than the seeds of a study."""


def round_stochastically(values: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """float32 -> bfloat16, up with probability (value - floor) / ulp:
    the expectation is the value (Zamirai et al. 2020)."""
    noise = torch.randint(
        0, 1 << 16, values.shape, dtype=torch.int32, device=values.device, generator=generator
    )  # the 16 bits that bfloat16 cuts off
    bits = (values.contiguous().view(torch.int32) + noise).bitwise_and_(-(1 << 16))
    rounded = torch.where(values.isfinite(), bits.view(torch.float32), values)
    return rounded.to(torch.bfloat16)


class Float32MomentsAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) on bfloat16 weights with float32 moments;
    a step ends with one rounding.

    stochastic: that rounding is up or down at random, otherwise to the nearest: the two differ in nothing else. Of
    sharded weights each rank updates its own part, with random numbers of its own.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        seed: int = 0,
        stochastic: bool = True,
    ) -> None:
        if lr / (1 - betas[0]) > torch.finfo(torch.float32).max:
            raise PalimpsestError(f"learning_rate is {lr:g}: a step is more than a weight can hold, lower it.")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.seed, self.stochastic = seed, stochastic
        self.generators: dict[torch.device, torch.Generator] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure else None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step_one(weight, group)
        return loss

    def _step_one(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, weight = self.state[parameter], local(parameter)
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(weight, dtype=torch.float32)
            state["square"] = torch.zeros_like(weight, dtype=torch.float32)
        state["step"] += 1
        gradient = local(parameter.grad).float()  # type: ignore[arg-type]
        mean_decay, square_decay = group["betas"]
        state["mean"].lerp_(gradient, 1 - mean_decay)
        state["square"].lerp_(gradient.square(), 1 - square_decay)
        scale = (state["square"] / (1 - square_decay ** state["step"])).sqrt_().add_(group["eps"])
        exact = weight.float().mul_(1 - group["lr"] * group["weight_decay"])
        exact.addcdiv_(state["mean"], scale, value=-group["lr"] / (1 - mean_decay ** state["step"]))
        weight.copy_(round_stochastically(exact, self._generator(weight.device)) if self.stochastic else exact)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed + APART * rank_and_size()[0])
        return self.generators[device]


OptimizerRecipe = tuple[type[torch.optim.Optimizer], dict[str, Any]]


def adamw(lr: float, weight_decay: float, seed: int) -> OptimizerRecipe:
    """PyTorch's fused AdamW: one rounding of the weight a step, moments in the type of the weights."""
    return torch.optim.AdamW, {"lr": lr, "weight_decay": weight_decay, "fused": True}


def adamw_8bit(lr: float, weight_decay: float, seed: int) -> OptimizerRecipe:
    """bitsandbytes' AdamW with moments in 8 bits, blocks of 256
    (Dettmers et al. 2022, arXiv 2110.02861): 2 bytes a weight."""
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit, {"lr": lr, "weight_decay": weight_decay}


def float32_moments_adamw(lr: float, weight_decay: float, seed: int) -> OptimizerRecipe:
    """Rounds to the nearest as `adamw` does, with the moments that stochastic rounding has:
    tells the two causes apart."""
    return Float32MomentsAdamW, {"lr": lr, "weight_decay": weight_decay, "stochastic": False}


def stochastic_adamw(lr: float, weight_decay: float, seed: int) -> OptimizerRecipe:
    return Float32MomentsAdamW, {"lr": lr, "weight_decay": weight_decay, "seed": seed}


@dataclass(frozen=True)
class WeightStorage:
    """The type that weights have during training, and the optimizers that update them, the usual one first."""

    dtype: torch.dtype
    optimizers: dict[str, Callable[[float, float, int], OptimizerRecipe]]


WEIGHT_STORAGE = {
    BFLOAT16: WeightStorage(
        torch.bfloat16,
        {"adamw": adamw, "adamw-8bit": adamw_8bit, "adamw-float32-moments": float32_moments_adamw},
    ),
    FLOAT32: WeightStorage(torch.float32, {"adamw": adamw, "adamw-8bit": adamw_8bit}),
    STOCHASTIC: WeightStorage(torch.bfloat16, {"adamw": stochastic_adamw}),
}

SHARDED = ("adamw", "adamw-float32-moments")
"""Optimizers that update a part of a weight as they update the whole; moments in blocks of 256 are of whole weights."""


def check_comparable(model: PreTrainedModel, target: Path) -> None:
    """Raise PalimpsestError unless `saved_share` can compare the model with the files of `target`:
    asked before training, so that no trained model is lost to a comparison that cannot be made."""
    with open_checkpoint(target) as files:
        for name, weight in as_stored(model).items():
            found = files.shape(name) if name in files else None
            if found != tuple(weight.shape):
                raise PalimpsestError(
                    f"{target} has {name} of shape {found}, the model that is loaded from it {tuple(weight.shape)}: "
                    "what training changes could not be told. Save the checkpoint again with transformers."
                )


@torch.no_grad()
def saved_share(model: PreTrainedModel, target: Path) -> dict[str, float | None]:
    """What the rounding to bfloat16, in which a model is saved,
    leaves of the update that training made of `target`'s weights.

    rho: <bf16(W) - W0, W - W0> / <W - W0, W - W0>; None where nothing moved. moved_share and saved_share: of the
    weights that differ from the target's, before and after rounding. Adapters and float32 weights pass through this one
    rounding; weights in bfloat16 lose nothing here.
    """
    kept = update = moved = saved = total = 0.0
    device = "cuda" if torch.cuda.is_available() else None  # after sharded training they are in the host's memory
    with open_checkpoint(target) as files:
        for name, weight in as_stored(model).items():
            trained = weight.to(device or weight.device)
            start = torch.from_numpy(files.load(name)).to(trained.device)
            exact = (trained.float() - start).double()
            rounded = (trained.bfloat16().float() - start).double()
            kept += (rounded * exact).sum().item()
            update += exact.square().sum().item()
            moved += exact.count_nonzero().item()
            saved += rounded.count_nonzero().item()
            total += weight.numel()
    return {"rho": kept / update if update else None, "moved_share": moved / total, "saved_share": saved / total}
