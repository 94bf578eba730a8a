"""What a CPU does in less time: Llama's layers without padding.

Sequences of a group are padded to one length, and a fifth of the rows that are multiplied are padding. Here the layers
get the real tokens alone, one below the other; attention alone sees padded sequences. Gradients of weights are added up
over the padded rows, whose part is zero, because an order without them would round otherwise: so the trained weights
have the bits of the usual way.
"""

from collections.abc import Callable, Mapping, Sequence
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
ROWS = 8
"""Packed rows are a multiple of these: a product with an odd number of rows may take a quarter more time."""


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
        logits = _logits(model, ids, mask, _Places.of(real, ids.shape[1]))
    return Tokens(logits.float(), around.targets, around.sequence, around.sequences)


@dataclass(frozen=True)
class _Places:
    """Where the rows of padded and of packed matrices come from. The packed rows after the real ones are one of the
    padding, which stands for all of it: what depends on it is cut off, so that its gradient is zero.

    packed: [rows] of the padded matrix; padded: [batch * time] of the packed one; time: tokens of a padded sequence;
    real: how many packed rows are real.
    """

    packed: Tensor
    padded: Tensor
    time: int
    real: int

    @classmethod
    def of(cls, real: Tensor, time: int) -> "_Places":
        """real: [batch * time] bool."""
        found, rest = real.nonzero().squeeze(1), (~real).nonzero()[0]
        padded = torch.full((len(real),), len(found))
        padded[found] = torch.arange(len(found))
        more = ROWS - len(found) % ROWS
        return cls(torch.cat([found, rest.expand(more)]), padded, time, len(found))

    def by_head(self, heads: int) -> tuple[Tensor, Tensor]:
        """Of matrices with a row for each head of a token: where the rows of the padded one, [batch, heads, time],
        come from, and those of the packed one, [rows, heads]."""
        head = torch.arange(heads)
        padded = self.padded.view(-1, 1, self.time) * heads + head.unsqueeze(1)
        sequence, place = self.packed // self.time, self.packed % self.time
        packed = (sequence.unsqueeze(1) * heads + head) * self.time + place.unsqueeze(1)
        return padded.reshape(-1), packed.reshape(-1)


def _logits(model: Any, ids: Tensor, mask: Tensor, places: _Places) -> Tensor:
    from transformers.masking_utils import create_causal_mask

    decoder, config = model.model, model.config
    states = decoder.embed_tokens(ids.reshape(-1)[places.packed])
    positions = torch.arange(ids.shape[1]).unsqueeze(0)
    like = states.detach().new_empty(1, 1, 1).expand(*ids.shape, states.shape[-1])
    causal: Any = create_causal_mask(
        config=config, inputs_embeds=like, attention_mask=mask, past_key_values=None, position_ids=positions
    )
    angles = [each[0][places.packed % ids.shape[1]].unsqueeze(1) for each in decoder.rotary_emb(like, positions)]
    heads = {number: places.by_head(number) for number in (config.num_attention_heads, config.num_key_value_heads)}
    for layer in decoder.layers:
        states = states + _attention(
            layer.self_attn, _norm(layer.input_layernorm, states, places), angles, causal, places, heads
        )
        states = states + _mlp(layer.mlp, _norm(layer.post_attention_layernorm, states, places), places)
    (logits,) = _linear([model.lm_head], _norm(decoder.norm, states, places), places)
    return logits[: places.real]


def _norm(module: Any, states: Tensor, places: _Places) -> Tensor:
    if states.dtype != torch.float32:
        return _Norm.apply(states, module.weight, module.variance_epsilon, places)  # type: ignore[no-any-return]
    # here autograd adds the two parts of the gradient to that of the layer's sum one after the other
    wide = states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)
    return _Scaled.apply(wide, module.weight, places)  # type: ignore[no-any-return]


def _mlp(module: Any, states: Tensor, places: _Places) -> Tensor:
    gate, up = _linear([module.gate_proj, module.up_proj], states, places)
    (down,) = _linear([module.down_proj], module.act_fn(gate) * up, places)
    return down


def _attention(
    module: Any, states: Tensor, angles: Any, causal: Tensor, places: _Places, heads: Mapping[int, Any]
) -> Tensor:
    from transformers.models.llama.modeling_llama import repeat_kv

    projected = _linear([module.q_proj, module.k_proj, module.v_proj], states, places)
    query, key, value = (each.view(len(each), -1, module.head_dim) for each in projected)
    query, key = _Turned.apply(query, *angles).to(value.dtype), _Turned.apply(key, *angles)
    query, key, value = (
        _Taken.apply(each.reshape(-1, module.head_dim), *heads[each.shape[1]]).view(
            -1, each.shape[1], places.time, module.head_dim
        )
        for each in (query, key, value)
    )
    groups = module.num_key_value_groups
    turned = repeat_kv(key, groups).to(value.dtype).transpose(2, 3)
    if groups == 1:  # as the usual way has it in memory, which decides the order in which MKL adds up
        turned = turned.contiguous()
    mixed = _Mixed.apply(query, turned, repeat_kv(value, groups), causal, module.scaling)
    padded, packed = heads[query.shape[1]]
    taken = _Taken.apply(mixed.reshape(-1, module.head_dim), packed, padded)
    (out,) = _linear([module.o_proj], taken.view(len(places.packed), -1), places)
    return out


def _linear(modules: Sequence[nn.Linear], inputs: Tensor, places: _Places) -> tuple[Tensor, ...]:
    """Of each module, of the same inputs."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else inputs.dtype
    return _Linear.apply(inputs, places, dtype, *(module.weight for module in modules))  # type: ignore[no-any-return]


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
        straight, crossed = rows * cos, rows * sin.roll(half, -1)
        straight[..., :half] -= crossed[..., half:]
        straight[..., half:] += crossed[..., :half]
        return straight

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        (cos, sin), half = ctx.saved_tensors, gradient.shape[-1] // 2
        straight, crossed = (gradient * cos).to(ctx.dtype), (gradient * sin).to(ctx.dtype)
        straight[..., :half] += crossed[..., half:]
        straight[..., half:] -= crossed[..., :half]
        return straight, None, None


class _Mixed(torch.autograd.Function):
    """What attention makes of query and value, [batch, heads, time, width] each, and the turned key, [batch, heads,
    width, time], as transformers' eager one does: weights in float32, products in the type of the query. causal: what
    is added to the scores, [batch, 1, time, time].
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, causal: Tensor, scaling: float) -> Tensor:  # type: ignore[override]
        scores = (query @ key).mul_(scaling) + causal
        weights = functional.softmax(scores, dim=-1, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, weights)
        ctx.scaling = scaling
        return weights.to(query.dtype) @ value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        query, key, value, weights = ctx.saved_tensors
        of_value = weights.to(query.dtype).transpose(2, 3) @ gradient
        of_weights = (gradient @ value.transpose(2, 3)).float()
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, torch.float32)
        of_scores = of_scores.to(query.dtype).mul_(ctx.scaling)
        return of_scores @ key.transpose(2, 3), query.transpose(2, 3) @ of_scores, of_value, None, None


class _Linear(torch.autograd.Function):
    """inputs [rows, columns] times each of the transposed weights, in dtype."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, places: _Places, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        ctx.dtype, ctx.places = inputs.dtype, places
        ctx.types = [weight.dtype for weight in weights]
        given, *used = (each.to(dtype) for each in (inputs, *weights))
        ctx.save_for_backward(given, *used)
        return tuple(functional.linear(given, weight) for weight in used)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # type: ignore[override]
        given, *weights = ctx.saved_tensors
        of_inputs = None
        if ctx.needs_input_grad[0]:  # the last first, as autograd would add up one module after another
            for gradient, weight in reversed(list(zip(gradients, weights, strict=True))):
                part = (gradient @ weight).to(ctx.dtype)
                of_inputs = part if of_inputs is None else of_inputs.add_(part)
        padded = given.index_select(0, ctx.places.padded)
        of_weights = [
            (gradient.index_select(0, ctx.places.padded).T @ padded).to(dtype) if wanted else None
            for gradient, dtype, wanted in zip(gradients, ctx.types, ctx.needs_input_grad[3:], strict=True)
        ]
        return of_inputs, None, None, *of_weights


class _Norm(torch.autograd.Function):
    """RMSNorm of rows in half precision. Its gradient is autograd's in half the passes over float32 rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, epsilon: float, places: _Places) -> Tensor:  # type: ignore[override]
        wide = rows.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
        normed = wide.mul_(scale).to(rows.dtype)
        ctx.save_for_backward(rows, weight, scale, normed)
        ctx.places = places
        return weight * normed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        rows, weight, scale, normed = ctx.saved_tensors
        of_weight = _of_scale(ctx, gradient, normed, weight)
        given, wide = (gradient * weight).to(rows.dtype).float(), rows.float()
        of_mean = (given * wide).sum(-1, keepdim=True).mul_(-0.5).mul_(scale.pow(3))
        of_rows = given.mul_(scale).add_(wide.mul_(of_mean.div_(wide.shape[-1]).mul_(2)))
        return of_rows.to(rows.dtype), of_weight, None, None


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
        return (gradient * weight).to(rows.dtype), _of_scale(ctx, gradient, rows, weight), None


def _of_scale(ctx: Any, gradient: Tensor, rows: Tensor, weight: Tensor) -> Tensor | None:
    """The gradient of the weight by which rows are multiplied, element by element."""
    if not ctx.needs_input_grad[1]:
        return None
    return (gradient * rows).index_select(0, ctx.places.padded).sum(0).to(weight.dtype)
