"""The layers of a model by their role: which matrices a quantizer quantizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

from palimpsest.models.tensors import TensorFiles

if TYPE_CHECKING:
    from torch import nn

HEADS = ("lm_head",)

EMBEDDINGS = ("embed_tokens",)


def linear_layers(files: TensorFiles) -> Iterator[str]:
    """The module paths of a checkpoint's weight matrices in name order: embeddings left out, output head included.

    Every tensor of two or more dimensions counts, also one not called `weight` (fused experts),
    so that none is overlooked.
    """
    for name in files.names():
        module = name.removesuffix(".weight")
        if len(files.shape(name)) > 1 and not is_named(module, EMBEDDINGS):
            yield module


BUFFERS = ("inv_freq", "original_inv_freq", "masked_bias", "position_ids", "token_type_ids")
MASKS = ("bias", "mask", "causal_mask", "attn_mask")
"""Causal masks, [1, 1, positions, positions], under the names that GPT-2, GPT-NeoX, GPT-J and CodeGen store them."""


def is_buffer(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor of a checkpoint is no weight: rotary frequencies, masks, positions. Old checkpoints store them,
    every loader computes them anew."""
    last = name.rpartition(".")[2]
    return last in BUFFERS or (last in MASKS and len(shape) == 4)


def is_named(module: str, names: Sequence[str]) -> bool:
    """Whether the last part of a module path is one of `names`."""
    return module.rpartition(".")[2] in names


ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")

MLP = ("gate_proj", "up_proj", "down_proj")


def decoder_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of the linear layers but the output head, by name: what quantizers quantize."""
    from torch import nn

    head = model.get_output_embeddings()  # type: ignore[operator]
    return {
        f"{name}.weight": cast(nn.Parameter, module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
