"""What a CPU does in less time: Llama's layers without padding.

Sequences of a group are padded to one length, and a fifth of the rows that are multiplied are padding. Here the layers
get the real tokens alone, one below the other; attention alone sees padded sequences. Gradients of weights are added up
over the padded rows, whose part is zero, because an order without them would round otherwise: so the trained weights
have the bits of the usual way.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from palimpsest.models.tokens import Groups, Tokens, concatenate, flatten
from palimpsest.training.processes import rank_and_size

WORTH_IT = 1 / 16
"""Share of padding from which on a group is packed."""


def is_packed(model: Any) -> bool:
    """Whether the model is a Llama on a CPU, with nothing but its own layers, trained by one thread of one process:
    with several, how products are divided hangs on how many rows there are."""
    from transformers import LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    if type(model) is not LlamaForCausalLM or rank_and_size()[1] > 1 or torch.get_num_threads() > 1:
        return False
    config, inside = model.config, list(model.model.modules())
    linear = [module for module in inside if isinstance(module, nn.Linear)]
    inside.append(model.lm_head)
    return (
        all(weight.device.type == "cpu" for weight in model.parameters())
        and config._attn_implementation == "eager"
        and not model.is_gradient_checkpointing
        and config.attention_dropout == 0
        and config.hidden_act == "silu"
        and all(type(module) is nn.Linear and module.bias is None for module in (*linear, model.lm_head))
        and len(linear) == 7 * config.num_hidden_layers
        and type(model.model.norm) is LlamaRMSNorm
        and not any(
            "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks for module in inside
        )
    )


def forward(model: Any, groups: Groups, autocast: Callable[[], AbstractContextManager[None]]) -> tuple[Tokens, Tensor]:
    """As `models.tokens.forward`, of a model that `is_packed`; autocast: of its training."""
    parts = [_tokens(model, group, autocast) for group in groups]
    return concatenate(parts), torch.cat([group["index"] for group in groups])


def _tokens(model: Any, group: Mapping[str, Tensor], autocast: Callable[[], AbstractContextManager[None]]) -> Tokens:
    ids, labels, mask = group["input_ids"], group["labels"], group["mask"]
    real = mask.bool().reshape(-1)
    if (~real).sum() < WORTH_IT * len(real):
        return flatten(model(input_ids=ids, attention_mask=mask, use_cache=False).logits, labels, mask)
    around = flatten(ids[..., None], labels, mask)  # for the targets and the sequences
    with autocast():
        logits = _logits(model, ids, mask, _Places.of(real))
    return Tokens(logits.float(), around.targets, around.sequence, around.sequences)


@dataclass(frozen=True)
class _Places:
    """Where the rows of padded and of packed matrices come from. The last packed row is one of the padding, which
    stands for all of it: what depends on it is cut off, so that its gradient is zero.

    packed: [rows] of the padded matrix; padded: [batch * time] of the packed one.
    """

    packed: Tensor
    padded: Tensor

    @classmethod
    def of(cls, real: Tensor) -> "_Places":
        """real: [batch * time] bool."""
        found, rest = real.nonzero().squeeze(1), (~real).nonzero()[0]
        padded = torch.full((len(real),), len(found))
        padded[found] = torch.arange(len(found))
        return cls(torch.cat([found, rest]), padded)


def _logits(model: Any, ids: Tensor, mask: Tensor, places: _Places) -> Tensor:
    from transformers.masking_utils import create_causal_mask

    decoder = model.model
    states = decoder.embed_tokens(ids.reshape(-1)[places.packed])
    positions = torch.arange(ids.shape[1]).unsqueeze(0)
    like = states.detach().new_empty(1, 1, 1).expand(*ids.shape, states.shape[-1])
    causal: Any = create_causal_mask(
        config=model.config, inputs_embeds=like, attention_mask=mask, past_key_values=None, position_ids=positions
    )
    angles = [each[0][places.packed % ids.shape[1]].unsqueeze(1) for each in decoder.rotary_emb(like, positions)]
    for layer in decoder.layers:
        states = states + _attention(
            layer.self_attn, _norm(layer.input_layernorm, states, places), angles, causal, places
        )
        states = states + _mlp(layer.mlp, _norm(layer.post_attention_layernorm, states, places), places)
    return _linear(model.lm_head, _norm(decoder.norm, states, places), places)[:-1]


def _norm(module: Any, states: Tensor, places: _Places) -> Tensor:
    wide = states.to(torch.float32)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)
    return _Scaled.apply(wide.to(states.dtype), module.weight, places)  # type: ignore[no-any-return]


def _mlp(module: Any, states: Tensor, places: _Places) -> Tensor:
    opened = module.act_fn(_linear(module.gate_proj, states, places))
    return _linear(module.down_proj, opened * _linear(module.up_proj, states, places), places)


def _attention(module: Any, states: Tensor, angles: Any, causal: Tensor, places: _Places) -> Tensor:
    from transformers.models.llama.modeling_llama import eager_attention_forward

    projected = [_linear(each, states, places) for each in (module.q_proj, module.k_proj, module.v_proj)]
    query, key, value = (each.view(len(each), -1, module.head_dim) for each in projected)
    query, key = _Turned.apply(query, *angles), _Turned.apply(key, *angles)
    query, key, value = (
        _Taken.apply(each, places.padded, places.packed).view(-1, causal.shape[-1], *each.shape[1:]).transpose(1, 2)
        for each in (query, key, value)
    )
    mixed, _ = eager_attention_forward(module, query, key, value, causal, scaling=module.scaling)
    taken = _Taken.apply(mixed.reshape(len(places.padded), -1), places.packed, places.padded)
    return _linear(module.o_proj, taken, places)


def _linear(module: nn.Linear, inputs: Tensor, places: _Places) -> Tensor:
    weight = module.weight
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        inputs, weight = inputs.to(dtype), weight.to(dtype)  # type: ignore[assignment]
    return _Linear.apply(inputs, weight, places)  # type: ignore[no-any-return]


class _Taken(torch.autograd.Function):
    """Rows of a matrix; gradients go the other way."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, there: Tensor, back: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(back)
        return rows.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return gradient.index_select(0, *ctx.saved_tensors), None, None


class _Turned(torch.autograd.Function):
    """Rotary positions; rows [rows, heads, width], cos and sin [rows, 1, width]."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(cos, sin)
        ctx.dtype, half = rows.dtype, rows.shape[-1] // 2
        return rows * cos + torch.cat((-rows[..., half:], rows[..., :half]), -1) * sin

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        (cos, sin), half = ctx.saved_tensors, gradient.shape[-1] // 2
        straight, crossed = (gradient * cos).to(ctx.dtype), (gradient * sin).to(ctx.dtype)
        straight[..., :half] += crossed[..., half:]
        straight[..., half:] -= crossed[..., :half]
        return straight, None, None


class _Linear(torch.autograd.Function):
    """inputs [rows, columns] times the transposed weight."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, places: _Places) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(inputs, weight)
        ctx.places = places
        return functional.linear(inputs, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        inputs, weight = ctx.saved_tensors
        of_inputs = gradient @ weight if ctx.needs_input_grad[0] else None
        of_weight = None
        if ctx.needs_input_grad[1]:
            padded, given = (each.index_select(0, ctx.places.padded) for each in (inputs, gradient))
            of_weight = given.T @ padded
        return of_inputs, of_weight, None


class _Scaled(torch.autograd.Function):
    """Rows times a weight, element by element."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, places: _Places) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(rows, weight)
        ctx.places = places
        return weight * rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        rows, weight = ctx.saved_tensors
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (gradient * rows).index_select(0, ctx.places.padded).sum(0).to(weight.dtype)
        return (gradient * weight).to(rows.dtype), of_weight, None
