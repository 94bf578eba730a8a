"""What a GPU with liger-kernel installed does faster, for decoders built like Llama: norms, rotary positions and SwiGLU
in a kernel each; likelihoods without float32 logits (`models.head`); gradients that are added up where they are kept;
a gradient that is cut while AdamW reads it.

The numbers are those of the usual way up to rounding in the type of the weights; the same run gives the same bits.
Without a GPU, without liger-kernel, and for several processes nothing of this happens.
"""

import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from palimpsest.models.head import add_product
from palimpsest.training.adamw import KernelAdamW
from palimpsest.training.processes import rank_and_size
from palimpsest.training.storage import OptimizerRecipe

log = logging.getLogger(__name__)

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""model_type of those whose norms, rotary positions and MLPs are Llama's, and whose logits are the head's product."""


def is_fused(model: Any) -> bool:
    """Whether the kernels are there and fit the model."""
    config = getattr(model, "config", None)
    return (
        torch.cuda.is_available()
        and importlib.util.find_spec("liger_kernel") is not None
        and rank_and_size()[1] == 1
        and getattr(config, "model_type", None) in FAMILIES
        and getattr(config, "hidden_act", None) == "silu"
    )


@contextmanager
def kernels(model: nn.Module, wanted: bool) -> Iterator[None]:
    """The model with liger's kernels in its layers, and with an attention that adds up in the same order every time;
    on leaving it is as it was."""
    if not wanted:
        yield
        return
    from liger_kernel.transformers import liger_rotary_pos_emb

    logging.getLogger("liger_kernel").setLevel(logging.ERROR)  # it warns of backends that nothing asked for
    replaced = list(_replacements(model))
    homes = [vars(home) for home in {sys.modules[type(module).__module__] for module, _ in replaced}]
    rotaries = [home["apply_rotary_pos_emb"] for home in homes]
    for module, forward in replaced:
        module.forward = MethodType(forward, module)
    for home in homes:
        home["apply_rotary_pos_emb"] = liger_rotary_pos_emb
    log.info("training with the kernels of liger-kernel in %d norms and MLPs", len(replaced))
    try:
        with _same_every_time():
            yield
    finally:
        for home, rotary in zip(homes, rotaries, strict=True):
            home["apply_rotary_pos_emb"] = rotary
        for module, _ in replaced:
            del module.forward


def _replacements(model: nn.Module) -> Iterator[tuple[Any, Callable[..., Tensor]]]:
    """Modules, and what they do instead."""
    from liger_kernel.ops import LigerRMSNormFunction, LigerSiLUMulFunction

    def norm(module: Any, states: Tensor) -> Tensor:
        return LigerRMSNormFunction.apply(states, module.weight, module.variance_epsilon, 0.0, "llama", True)

    def mlp(module: Any, states: Tensor) -> Tensor:
        return module.down_proj(LigerSiLUMulFunction.apply(module.gate_proj(states), module.up_proj(states)))

    for module in model.modules():
        kind = type(module).__name__
        if kind.endswith("RMSNorm"):
            yield module, norm
        elif kind.endswith("MLP"):
            yield module, mlp


@contextmanager
def _same_every_time() -> Iterator[None]:
    """Attention with our kernel where it fits; elsewhere PyTorch's, told to add up in a fixed order in its backward
    pass, which it else does as it comes, and without cuDNN's, which does so even when told."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    before, cudnn = torch.get_deterministic_debug_mode(), torch.backends.cuda.cudnn_sdp_enabled()

    def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **settings: Any) -> Any:
        if torch.is_autocast_enabled(query.device.type):
            dtype = torch.get_autocast_dtype(query.device.type)
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        if mask is None and _fits_the_kernel(module, query, key, value, settings):
            from palimpsest.training.attention_kernel import CausalAttention

            scale = settings.get("scaling") or query.shape[-1] ** -0.5
            return CausalAttention.apply(query, key, value, scale).transpose(1, 2), None
        output = sdpa_attention_forward(module, query, key, value, mask, **settings)
        node = output[0].grad_fn
        while node is not None and not node.name().startswith("ScaledDotProduct"):
            node = node.next_functions[0][0] if node.next_functions else None
        if node is not None:
            node.register_prehook(lambda *_: torch.set_deterministic_debug_mode("error"))
            node.register_hook(lambda *_: torch.set_deterministic_debug_mode(before))
        return output

    ALL_ATTENTION_FUNCTIONS["sdpa"] = attention
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(cudnn)
        del ALL_ATTENTION_FUNCTIONS["sdpa"]
        torch.set_deterministic_debug_mode(before)


def _fits_the_kernel(module: Any, query: Tensor, key: Tensor, value: Tensor, settings: dict[str, Any]) -> bool:
    """Half precision, text without padding, heads of a size that fits its tiles."""
    causal = settings.get("is_causal")
    return (
        query.is_cuda
        and query.dtype == key.dtype == value.dtype
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[-1] in (64, 128)
        and 1 < query.shape[2] == key.shape[2]
        and all(tensor.stride(-1) == 1 for tensor in (query, key, value))
        and not settings.get("dropout")
        and (getattr(module, "is_causal", True) if causal is None else causal)
    )


@contextmanager
def added_gradients(model: Any) -> Iterator[None]:
    """The decoder's linear layers add their gradients up where they are kept: one product that reads and writes them,
    instead of a product, a sum and a second copy. For training alone: `torch.autograd.grad` finds nothing there."""
    head = model.get_output_embeddings()
    layers = [
        module
        for module in model.modules()
        if type(module) is nn.Linear and module is not head and module.bias is None and adds(module.weight)
    ]
    for layer in layers:
        layer.forward = MethodType(_add_linear, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def adds(weight: Any) -> bool:
    """Whether nothing asks to see a gradient before it is added."""
    return weight.requires_grad and not weight._post_accumulate_grad_hooks and not weight._backward_hooks


def _add_linear(layer: Any, inputs: Tensor) -> Tensor:
    if inputs.dtype != layer.weight.dtype or torch.is_autocast_enabled(inputs.device.type):
        return nn.functional.linear(inputs, layer.weight)
    return _AddLinear.apply(inputs, layer.weight)  # type: ignore[no-any-return]


class _AddLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(inputs)
        ctx.weight = weight  # itself: a saved tensor would be another object, without its gradient
        return nn.functional.linear(inputs, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        (inputs,) = ctx.saved_tensors
        flat = gradient.reshape(-1, gradient.shape[-1])
        of_inputs = gradient @ ctx.weight if ctx.needs_input_grad[0] else None
        with torch.no_grad():
            add_product(ctx.weight, flat, inputs.reshape(-1, inputs.shape[-1]))
        return of_inputs, None


def decoder_of(model: Any) -> Any:
    """The model without its output head, whose answer stands where logits are expected."""
    return lambda **inputs: SimpleNamespace(logits=model.get_decoder()(**inputs).last_hidden_state)


def optimizer_of(model: nn.Module, recipe: OptimizerRecipe) -> OptimizerRecipe:
    """The recipe, with a kernel in place of PyTorch's fused AdamW."""
    kind, settings = recipe
    fits = torch.cuda.is_available() and all(weight.is_contiguous() for weight in model.parameters())
    return (KernelAdamW, settings) if fits and kind is torch.optim.AdamW else recipe


def cut_while_stepping(optimizer: Any, gradients: list[Tensor], longest: float) -> Tensor:
    """The length of the gradient; the optimizer is told by how much to cut it, which saves a pass over it."""
    norm = torch.nn.utils.get_total_norm(gradients)
    optimizer.grad_scale = ((norm.float() + 1e-6) / longest).clamp_min(1.0)
    return norm


def is_cut_by(optimizer: Any) -> bool:
    """Whether the optimizer divides the gradient by its `grad_scale`."""
    return isinstance(optimizer, torch.optim.AdamW) and bool(optimizer.defaults.get("fused"))
