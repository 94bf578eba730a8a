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
from palimpsest.models.layers import decoder_matrices, turned_matrices

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
    places = {name: model.get_submodule(name.removesuffix(".weight")) for name in originals}
    turned = turned_matrices(model)
    if KINDS[adapter.kind]:
        _load_in_nf4(model, turned)
    settings = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.scale,  # type: ignore[arg-type]
        lora_dropout=adapter.dropout,
        target_modules=[name.removesuffix(".weight") for name in originals],
        fan_in_fan_out=bool(turned) and not KINDS[adapter.kind],  # in NF4 they are as linear layers have them
    )
    wrapped = get_peft_model(model, settings)
    yield wrapped
    layers: dict[str, Any] = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    for name, layer in layers.items():
        with torch.no_grad():
            delta = layer.get_delta_weight("default").detach().float().cpu()
            weight = originals[f"{name}.weight"]
            if KINDS[adapter.kind] and f"{name}.weight" in turned:
                delta = delta.T
            place = places[f"{name}.weight"]
            place.weight = nn.Parameter(weight.float() + delta)
            place.bias = layer.get_base_layer().bias
        model.set_submodule(name, place)


def _load_in_nf4(model: PreTrainedModel, turned: set[str]) -> None:
    """Replace the linear layers by bitsandbytes' NF4 ones, double-quantized as in the paper; the layers that were there
    keep no weights. turned: see `turned_matrices`."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name, weight in decoder_matrices(model).items():
        module: Any = model.get_submodule(name.removesuffix(".weight"))
        matrix = weight.detach().T.contiguous() if name in turned else weight.detach()
        packed = Linear4bit(
            matrix.shape[1],
            matrix.shape[0],
            bias=module.bias is not None,
            compute_dtype=torch.bfloat16,
            quant_type="nf4",
            device="meta",
        )
        packed.weight = Params4bit(matrix.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True)
        packed.bias = module.bias
        model.set_submodule(name.removesuffix(".weight"), packed.to(weight.device))
        module.weight = None
