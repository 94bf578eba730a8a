"""LoRA and QLoRA (arXiv 2106.09685, 2305.14314) through peft, and their merge into the weights that are quantized.

The trained difference B A is added to the target's own weights in float32, also for QLoRA, whose 4-bit base is for
training only: what is saved is the target plus the adapter, rounded to bfloat16 once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from palimpsest.errors import PalimpsestError, choose
from palimpsest.models.layers import decoder_matrices

KINDS = {"lora": False, "qlora": True}


@dataclass(frozen=True)
class Adapter:
    """kind: lora, or qlora (the base in NF4 while training); rank;
    scale: LoRA's alpha, the difference is scale / rank x B A;
    dropout: of the adapter's input, 0 to 1."""

    kind: str
    rank: int
    scale: float
    dropout: float

    def __post_init__(self) -> None:
        choose(KINDS, self.kind, "adapter kind")
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise PalimpsestError(
                f"adapter has rank {self.rank} and dropout {self.dropout}: give at least 1, and 0 to below 1."
            )


@contextmanager
def adapted(model: PreTrainedModel, adapter: Adapter | None) -> Iterator[nn.Module]:
    """The model with adapters on every linear layer but the output head;
    on leaving they are merged into the model, in float32.

    Nothing but the adapters is trainable. Without an adapter it is the model itself.
    """
    if adapter is None:
        yield model
        return
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    originals = {name: weight.detach().to("cpu", copy=True) for name, weight in decoder_matrices(model).items()}
    if KINDS[adapter.kind]:
        _load_in_nf4(model)
    settings = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.scale,  # type: ignore[arg-type]
        lora_dropout=adapter.dropout,
        target_modules=[name.removesuffix(".weight") for name in originals],
    )
    wrapped = get_peft_model(model, settings)
    yield wrapped
    layers: dict[str, Any] = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    for name, layer in layers.items():
        with torch.no_grad():
            weight = originals[f"{name}.weight"]
            merged = weight.float() + layer.get_delta_weight("default").detach().float().cpu()
            base = layer.get_base_layer()
            linear = nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
            linear.weight = nn.Parameter(merged)
            linear.bias = base.bias
        model.set_submodule(name, linear)


def _load_in_nf4(model: PreTrainedModel) -> None:
    """Replace the linear layers by bitsandbytes' NF4 ones, double-quantized as in the paper."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name, weight in decoder_matrices(model).items():
        module = model.get_submodule(name.removesuffix(".weight"))
        packed = Linear4bit(
            module.in_features,  # type: ignore[arg-type]
            module.out_features,  # type: ignore[arg-type]
            bias=module.bias is not None,
            compute_dtype=torch.bfloat16,
            quant_type="nf4",
            device="meta",
        )
        packed.weight = Params4bit(
            weight.detach().cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True
        )
        packed.bias = module.bias  # type: ignore[assignment]
        model.set_submodule(name.removesuffix(".weight"), packed.to(weight.device))
