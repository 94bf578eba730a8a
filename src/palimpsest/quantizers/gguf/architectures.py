"""The families that can be written as GGUF: how llama.cpp calls their tensors, in which order it wants their rows,
which of their settings the file states, and which it has no words for.

After llama.cpp's own converter and its loader; the names are those of the `gguf` package, to which a test holds them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palimpsest.errors import PalimpsestError

LLAMA_BLOCK = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
GEMMA_BLOCK = LLAMA_BLOCK | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
LLAMA_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
Add = Callable[[Any, Any], None]
"""Adds what a file states of an architecture: (GGUFWriter, the configuration)."""


def interleaved(rows: int, heads: int) -> NDArray[np.intp]:
    """[rows] the checkpoint's row at each place of the GGUF file, for Llama's q_proj and k_proj.

    transformers turns the first half of a head's rows against the second half, llama.cpp each row against the next.
    """
    return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


def in_runs(rows: int, heads: int) -> NDArray[np.intp]:
    """[rows] the same for GPT-NeoX's query_key_value, which has the query, key and value of each head together:
    llama.cpp wants the queries of all heads, then their keys, then their values."""
    return np.arange(rows).reshape(heads, 3, -1).swapaxes(0, 1).reshape(-1)


@dataclass(frozen=True)
class Architecture:
    """name: llama.cpp's; prefix: of the decoder layers in a checkpoint; outer, block: llama.cpp's names by the
    checkpoint's, outside and inside a layer; order: by llama.cpp's name, how rows are put in order and which of the
    file's head counts says how many heads there are; offset_norms: whether norms are stored as 1 + their weight, as
    they are multiplied with; add: what the file states; check: refuses settings that llama.cpp would not compute with.
    """

    name: str
    add: Add
    check: Callable[[Any], str]
    prefix: str = "model.layers"
    outer: Mapping[str, str] = field(default_factory=lambda: LLAMA_OUTER)
    block: Mapping[str, str] = field(default_factory=lambda: LLAMA_BLOCK)
    order: Mapping[str, tuple[Callable[[int, int], NDArray[np.intp]], str]] = field(default_factory=dict)
    offset_norms: bool = False

    def gguf_name(self, name: str) -> str | None:
        """`model.layers.3.mlp.up_proj.weight` to `blk.3.ffn_up.weight`; None for a tensor that it does not have."""
        module, _, kind = name.rpartition(".")
        if module in self.outer:
            return f"{self.outer[module]}.{kind}"
        layer, _, rest = module.removeprefix(f"{self.prefix}.").partition(".")
        known = module.startswith(f"{self.prefix}.") and layer.isdigit() and rest in self.block
        return f"blk.{layer}.{self.block[rest]}.{kind}" if known else None

    def checkpoint_name(self, name: str) -> str:
        """The opposite of `gguf_name`; raises PalimpsestError for a tensor that the architecture does not have."""
        outer = {gguf: ours for ours, gguf in self.outer.items()}
        inner = {gguf: ours for ours, gguf in self.block.items()}
        match name.split("."):
            case [part, kind] if part in outer:
                return f"{outer[part]}.{kind}"
            case ["blk", layer, part, kind] if part in inner:
                return f"{self.prefix}.{layer}.{inner[part]}.{kind}"
        raise PalimpsestError(
            f"the GGUF file holds {name!r}, which is no tensor of a {self.name} model: quantize again."
        )


def _refuse(config: Any, key: str, wanted: tuple[Any, ...], why: str) -> str:
    """A clause for a message where the configuration has another value than llama.cpp computes with; "" where not."""
    found = getattr(config, key, wanted[0])
    return "" if found in wanted else f"{key} {found!r}, {why}"


def _gated(config: Any, rope_types: tuple[str, ...] = ("default",)) -> str:
    rope = config.rope_parameters["rope_type"]
    if rope not in rope_types:
        return f"rope_type {rope!r}, and backend 'gguf' knows {' and '.join(rope_types)}"
    return _refuse(config, "hidden_act", ("silu",), "llama.cpp computes with silu") or _refuse(
        config, "use_sliding_window", (False,), "of which llama.cpp knows nothing here"
    )


def _llama(config: Any) -> str:
    return _gated(config, ("default", "llama3"))


def _add_shape(writer: Any, config: Any) -> None:
    """What most configurations call alike, in the order in which it stands in the file."""
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(_context(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)


def _add_llama(writer: Any, config: Any) -> None:
    _add_shape(writer, config)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(_head_width(config))
    writer.add_value_length(_head_width(config))
    writer.add_rope_dimension_count(_head_width(config))
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _context(config: Any) -> int:
    """Positions. Of a sliding window llama.cpp knows in Gemma alone: elsewhere texts that it cuts off are too long."""
    window = None if hasattr(config, "query_pre_attn_scalar") else getattr(config, "sliding_window", None)
    return min(config.max_position_embeddings, window or config.max_position_embeddings)


def _head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _add_phi3(writer: Any, config: Any) -> None:
    rope = config.rope_parameters
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(_context(config))
    writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(int(rope.get("partial_rotary_factor", 1.0) * _head_width(config)))
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_sliding_window(config.sliding_window or 0)


def _gemma(config: Any, period: int, large: int) -> str:
    """period: every which layer looks at the whole text; large: layers of the one model whose attention llama.cpp
    scales by the width of the model rather than of a head."""
    heads = config.num_attention_heads
    scaled_by = config.hidden_size // heads if config.num_hidden_layers == large else config.head_dim
    kinds = ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(config.num_hidden_layers)]
    if list(config.layer_types) != kinds:
        return f"layer_types {config.layer_types}, where llama.cpp has every {period}th look at the whole text"
    return (
        _refuse(config, "hidden_activation", ("gelu_pytorch_tanh",), "llama.cpp computes with gelu_pytorch_tanh")
        or _refuse(config, "query_pre_attn_scalar", (scaled_by,), f"llama.cpp scales by {scaled_by}")
        or _refuse(config, "attention_bias", (False,), "for which the file has no tensors")
    )


def _gemma2(config: Any) -> str:
    rope = config.rope_parameters["rope_type"]
    return _gemma(config, 2, 46) or (f"rope_type {rope!r}, and backend 'gguf' knows default" * (rope != "default"))


def _gemma3(config: Any) -> str:
    wide, narrow = (config.rope_parameters[kind] for kind in ("full_attention", "sliding_attention"))
    if wide["rope_type"] not in ("default", "linear") or narrow["rope_type"] != "default":
        return (
            f"rope types {wide['rope_type']!r} and {narrow['rope_type']!r}, and backend 'gguf' knows default and linear"
        )
    softcaps = [
        _refuse(config, f"{name}_logit_softcapping", (None,), "of which llama.cpp knows nothing here")
        for name in ("attn", "final")
    ]
    return _gemma(config, 6, 62) or "".join(softcaps)


def _add_gemma(writer: Any, config: Any, rope_theta: float) -> None:
    _add_shape(writer, config)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope_theta)
    writer.add_sliding_window(config.sliding_window)


def _add_gemma2(writer: Any, config: Any) -> None:
    _add_gemma(writer, config, config.rope_parameters["rope_theta"])
    writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _add_gemma3(writer: Any, config: Any) -> None:
    from gguf import RopeScalingType

    wide, narrow = (config.rope_parameters[kind] for kind in ("full_attention", "sliding_attention"))
    _add_gemma(writer, config, wide["rope_theta"])
    writer.add_rope_freq_base_swa(narrow["rope_theta"])
    if wide["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(wide["factor"])


def _gpt_neox(config: Any) -> str:
    rope = config.rope_parameters["rope_type"]
    if rope != "default":
        return f"rope_type {rope!r}, and backend 'gguf' knows default"
    return _refuse(config, "hidden_act", ("gelu", "gelu_new", "gelu_fast"), "llama.cpp computes with GELU") or _refuse(
        config, "attention_bias", (True,), "and llama.cpp wants biases"
    )


def _add_gpt_neox(writer: Any, config: Any) -> None:
    rope = config.rope_parameters
    _add_shape(writer, config)
    writer.add_rope_dimension_count(int(rope.get("partial_rotary_factor", 1.0) * _head_width(config)))
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_parallel_residual(config.use_parallel_residual)
    writer.add_layer_norm_eps(config.layer_norm_eps)


def _gpt2(config: Any) -> str:
    return (
        _refuse(config, "activation_function", ("gelu_new", "gelu_pytorch_tanh"), "llama.cpp computes with gelu_new")
        or _refuse(config, "scale_attn_weights", (True,), "and llama.cpp scales attention")
        or _refuse(config, "scale_attn_by_inverse_layer_idx", (False,), "and llama.cpp scales all layers alike")
    )


def _add_gpt2(writer: Any, config: Any) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


_LLAMA = Architecture(
    "llama",
    _add_llama,
    _llama,
    order={"attn_q": (interleaved, "head_count"), "attn_k": (interleaved, "head_count_kv")},
)
ARCHITECTURES: dict[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Architecture("qwen2", _add_llama, _gated),
    "qwen3": Architecture("qwen3", _add_llama, _gated, block=LLAMA_BLOCK | HEAD_NORMS),
    "gemma2": Architecture("gemma2", _add_gemma2, _gemma2, block=GEMMA_BLOCK, offset_norms=True),
    "gemma3_text": Architecture("gemma3", _add_gemma3, _gemma3, block=GEMMA_BLOCK | HEAD_NORMS, offset_norms=True),
    "phi3": Architecture(
        "phi3", _add_phi3, _gated, block=LLAMA_BLOCK | {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}
    ),
    "gpt_neox": Architecture(
        "gptneox",
        _add_gpt_neox,
        _gpt_neox,
        "gpt_neox.layers",
        {"gpt_neox.embed_in": "token_embd", "gpt_neox.final_layer_norm": "output_norm", "embed_out": "output"},
        {
            "attention.query_key_value": "attn_qkv",
            "attention.dense": "attn_output",
            "mlp.dense_h_to_4h": "ffn_up",
            "mlp.dense_4h_to_h": "ffn_down",
            "input_layernorm": "attn_norm",
            "post_attention_layernorm": "ffn_norm",
        },
        {"attn_qkv": (in_runs, "head_count")},
    ),
    "gpt2": Architecture(
        "gpt2",
        _add_gpt2,
        _gpt2,
        "transformer.h",
        {
            "transformer.wte": "token_embd",
            "transformer.wpe": "position_embd",
            "transformer.ln_f": "output_norm",
            "lm_head": "output",
        },
        {
            "attn.c_attn": "attn_qkv",
            "attn.c_proj": "attn_output",
            "mlp.c_fc": "ffn_up",
            "mlp.c_proj": "ffn_down",
            "ln_1": "attn_norm",
            "ln_2": "ffn_norm",
        },
    ),
}
"""By model type."""


def architecture_in(path: Path, name: str) -> Architecture:
    """What a file calls its architecture; raises PalimpsestError for one that none of ARCHITECTURES is."""
    for architecture in ARCHITECTURES.values():
        if architecture.name == name:
            return architecture
    known = ", ".join(dict.fromkeys(each.name for each in ARCHITECTURES.values()))
    raise PalimpsestError(f"{path} is a GGUF file of a {name} model; those of {known} can be read.")
