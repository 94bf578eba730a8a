"""A Llama checkpoint as an unquantized GGUF file, and its tensors' names and order in both directions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from palimpsest.errors import PalimpsestError
from palimpsest.models.gguf import read_header
from palimpsest.models.tensors import Float32, TensorFiles, open_checkpoint

ARCHITECTURE = "llama"
BLOCK_NAMES = {
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
OUTER_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
HEAD_COUNTS = {"attn_q": "head_count", "attn_k": "head_count_kv"}
"""The metadata key with the number of heads, for the matrices whose rows llama.cpp wants in another order."""
ROPE_FACTORS = "rope_freqs.weight"
RECOMPUTED = "rotary_emb.inv_freq"
"""Rotary frequencies, which old checkpoints store and every loader computes."""


def gguf_name(name: str) -> str | None:
    """`model.layers.3.mlp.up_proj.weight` to `blk.3.ffn_up.weight`; None for a tensor that Llama does not have."""
    module, _, kind = name.rpartition(".")
    if module in OUTER_NAMES:
        return f"{OUTER_NAMES[module]}.{kind}"
    prefix, _, rest = module.removeprefix("model.layers.").partition(".")
    known = module.startswith("model.layers.") and prefix.isdigit() and rest in BLOCK_NAMES
    return f"blk.{prefix}.{BLOCK_NAMES[rest]}.{kind}" if known else None


def checkpoint_name(name: str) -> str:
    """The opposite of `gguf_name`; raises PalimpsestError for a tensor that Llama does not have."""
    outer = {gguf: ours for ours, gguf in OUTER_NAMES.items()}
    inner = {gguf: ours for ours, gguf in BLOCK_NAMES.items()}
    match name.split("."):
        case [part, kind] if part in outer:
            return f"{outer[part]}.{kind}"
        case ["blk", layer, part, kind] if part in inner:
            return f"model.layers.{layer}.{inner[part]}.{kind}"
    raise PalimpsestError(f"the GGUF file holds {name!r}, which is no tensor of a Llama model: quantize again.")


def interleaved(rows: int, heads: int) -> NDArray[np.intp]:
    """[rows] the checkpoint's row at each place of the GGUF file, for q_proj and k_proj.

    transformers turns the first half of a head's rows against the second half, llama.cpp each row against the next.
    """
    return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


class GGUFTensors:
    """The tensors of a Llama GGUF file by the checkpoint's names, with its rows in the checkpoint's order."""

    def __init__(self, path: Path) -> None:
        from gguf import GGUFReader

        read_header(path)
        self.path = path
        self._reader = GGUFReader(path)
        self._tensors = {
            checkpoint_name(tensor.name): tensor for tensor in self._reader.tensors if tensor.name != ROPE_FACTORS
        }

    def names(self) -> list[str]:
        return sorted(self._tensors)

    def kind(self, name: str) -> str:
        """The storage type, such as F32, BF16 or Q4_K."""
        return self._tensors[name].tensor_type.name

    def nbytes(self, name: str) -> int:
        return int(self._tensors[name].n_bytes)

    def rows(self, name: str) -> NDArray:
        """The tensor as it is stored: [rows, bytes] of blocks, or numbers."""
        tensor = self._tensors[name]
        part = tensor.name.split(".")[-2]
        if part not in HEAD_COUNTS:
            return tensor.data
        heads = self._reader.fields[f"{ARCHITECTURE}.attention.{HEAD_COUNTS[part]}"].contents()
        return tensor.data[np.argsort(interleaved(len(tensor.data), heads))]

    def load(self, name: str) -> Float32:
        """An unquantized tensor, widened to float32."""
        stored, kind = self.rows(name), self.kind(name)
        if kind not in ("F32", "BF16"):
            raise PalimpsestError(f"{name} in {self.path} is {kind}, not BF16 or F32: quantize the checkpoint again.")
        return np.array(stored.view(ml_dtypes.bfloat16) if kind == "BF16" else stored, np.float32)


def write_unquantized(checkpoint: Path, path: Path) -> None:
    """Write the checkpoint to a GGUF file:
    matrices in bfloat16, vectors in float32 (which llama.cpp wants), both exact.

    Raises PalimpsestError for anything but a Llama model, and for settings of it that the file cannot hold.
    """
    from gguf import GGUFWriter

    from palimpsest.quantizers.gguf.tokenizer import add_tokenizer

    config = _read_config(checkpoint)
    writer = GGUFWriter(path, ARCHITECTURE)
    _add_architecture(writer, config)
    add_tokenizer(writer, checkpoint, config.vocab_size)
    try:
        with open_checkpoint(checkpoint) as files:
            tensors = list(_tensors(files, config))
            for name, shape, _ in tensors:
                kind = _kind(shape)
                writer.add_tensor_info(name, shape, kind, int(np.prod(shape)) * kind.itemsize, _raw_type(kind))
            factors = _rope_factors(config)
            if factors is not None:
                writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for name, shape, source in tensors:
                values = files.load(source).astype(ml_dtypes.bfloat16)
                part = name.split(".")[-2]
                if part in HEAD_COUNTS:
                    heads = config.num_attention_heads if part == "attn_q" else config.num_key_value_heads
                    values = values[interleaved(len(values), heads)]
                writer.write_tensor_data(values.astype(_kind(shape)))
            if factors is not None:
                writer.write_tensor_data(factors)
    finally:
        writer.close()


def _read_config(checkpoint: Path) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    if config.model_type != "llama":
        raise PalimpsestError(f"{checkpoint} is a {config.model_type} model: backend 'gguf' takes Llama models alone.")
    if config.hidden_act != "silu":
        raise PalimpsestError(
            f"{checkpoint} has hidden_act {config.hidden_act!r}, llama.cpp's Llama computes with silu: "
            "take another backend."
        )
    rope = config.rope_parameters["rope_type"]
    if rope not in ("default", "llama3"):
        raise PalimpsestError(
            f"{checkpoint} scales its rotary positions by rope_type {rope!r}: backend 'gguf' knows default and llama3."
        )
    return config


def _add_architecture(writer: Any, config: Any) -> None:
    from gguf import GGML_QUANT_VERSION

    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_quantization_version(GGML_QUANT_VERSION)


def _tensors(files: TensorFiles, config: Any) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """(name in the GGUF file, shape, name in the checkpoint)."""
    for source in files.names():
        tied = source == "lm_head.weight" and config.tie_word_embeddings
        if tied or source.endswith(RECOMPUTED):
            continue
        name = gguf_name(source)
        if name is None:
            raise PalimpsestError(f"{files.folder} holds {source}, which llama.cpp's Llama does not have.")
        yield name, files.shape(source), source


def _kind(shape: tuple[int, ...]) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if len(shape) > 1 else np.float32)


def _raw_type(kind: np.dtype) -> Any:
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType.F32 if kind == np.float32 else GGMLQuantizationType.BF16


def _rope_factors(config: Any) -> Float32 | None:
    """[head_dim / 2] what Llama 3.1 and later divide the rotary frequencies by; None where they are left alone."""
    if config.rope_parameters["rope_type"] == "default":
        return None
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    plain = config.rope_parameters["rope_theta"] ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
    return (plain / LlamaRotaryEmbedding(config).inv_freq.double().numpy()).astype(np.float32)
