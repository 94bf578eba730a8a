"""As little gradient checkpointing as fits the GPU: layers keep their activations while there is room for them."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback
from transformers.modeling_layers import GradientCheckpointingLayer

from palimpsest.training.processes import rank_and_size

log = logging.getLogger(__name__)

MARGIN = 0.03
"""Of the GPU's memory, for what is allocated in pieces and for a while."""


def free_memory() -> int:
    """Bytes that this process could still take on its GPU."""
    return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def total_memory() -> int:
    """Bytes of the GPU."""
    return torch.cuda.mem_get_info()[1]


def chooses_by_memory(model: Any) -> bool:
    """Whether the model has a GPU of its own, and layers that can compute their activations again."""
    alone = torch.cuda.is_available() and rank_and_size()[1] == 1
    return alone and isinstance(model, PreTrainedModel) and bool(layers_of(model))


def state_bytes(optimizer: Any) -> int:
    """Of gradients, and of the moments that the optimizer makes in its first step."""

    def moments(weight: Tensor) -> int:
        if isinstance(optimizer, torch.optim.AdamW):
            return 2 * weight.element_size()
        return 2 if type(optimizer).__name__ == "AdamW8bit" else 8

    weights = [weight for group in optimizer.param_groups for weight in group["params"] if weight.requires_grad]
    return sum(weight.numel() * (weight.element_size() + moments(weight)) for weight in weights)


def layers_of(model: nn.Module) -> list[GradientCheckpointingLayer]:
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


class Activations:
    """Within: what each layer's forward pass keeps for the backward pass is counted, and given away."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = layers_of(model)
        self.weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        self.held: dict[int, Tensor] = {}  # alive until the layer ends, so that none has the place of another
        self.bytes: list[int] = []
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda packed: packed)
        self.handles: list[Any] = []

    def _pack(self, tensor: Tensor) -> None:
        self.held[tensor.untyped_storage().data_ptr()] = tensor.detach()

    def _end(self, *_: Any) -> None:
        kept = [tensor for place, tensor in self.held.items() if place not in self.weights]
        self.bytes.append(sum(tensor.untyped_storage().nbytes() for tensor in kept))
        self.held.clear()

    def __enter__(self) -> "Activations":
        for layer in self.layers:
            self.handles.append(layer.register_forward_pre_hook(lambda *_: self.held.clear()))
            self.handles.append(layer.register_forward_hook(self._end))
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.hooks.__exit__(*error)
        for handle in self.handles:
            handle.remove()
        self.held.clear()


def layers_to_recompute(layers: int, kept: Sequence[int], inputs: Sequence[int], room: int) -> int:
    """How many of the layers must compute their activations again.

    kept, inputs: bytes that a layer keeps with and without its activations, one for each pass whose activations are
    held at the same time; room: bytes for all of them. All layers, where even that does not suffice.
    """
    full, least = sum(kept), sum(inputs)
    if layers * full <= room:
        return 0
    # one layer at a time is computed again, in one of the passes
    missing = layers * full + max(kept) - room
    return min(layers, math.ceil(missing / max(1, full - least)))


class RecomputeAsNeeded(TrainerCallback):
    """Decides when training starts, by the largest batch that it may get."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        layers = layers_of(model)
        for layer in layers:
            layer.gradient_checkpointing = False
        passes, logits = self.trainer.largest_passes()
        kept, inputs = [], []
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        element = model.get_input_embeddings().weight.element_size()
        for groups in passes:
            with Activations(model) as found, torch.random.fork_rng(devices):
                self.trainer.decoder_pass(groups)
            kept.append(sum(found.bytes) // len(layers))
            inputs.append(sum(group["input_ids"].numel() for group in groups) * model.config.hidden_size * element)
        if self.trainer.fused:  # one pass after another
            kept, inputs = [max(kept)], [max(inputs)]
        room = free_memory() - state_bytes(getattr(optimizer, "optimizer", optimizer)) - logits
        room -= int(MARGIN * total_memory())
        number = layers_to_recompute(len(layers), kept, inputs, room)
        for layer in layers[:number]:
            layer.gradient_checkpointing = True
        if (least := len(layers) * sum(inputs) + max(kept)) > room:
            log.warning(
                "this training may run out of memory: it wants %.1f GB for activations, and %.1f GB of the GPU's %.1f "
                "are free for them: lower batch_size, or wait for what else runs there.",
                least / 1e9,
                room / 1e9,
                total_memory() / 1e9,
            )
        log.info(
            "%d of %d layers compute their activations again: one keeps %.2f GB, and %.1f GB are left for all of them",
            number,
            len(layers),
            sum(kept) / 1e9,
            room / 1e9,
        )
