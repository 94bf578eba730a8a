"""A checkpoint as an unquantized GGUF file, and the tensors of such a file as the checkpoint has them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from palimpsest.errors import PalimpsestError
from palimpsest.models.families import FAMILIES
from palimpsest.models.gguf import read_header
from palimpsest.models.layers import Layers, is_buffer, layers_of
from palimpsest.models.tensors import Float32, TensorFiles, open_checkpoint
from palimpsest.quantizers.gguf.architectures import ARCHITECTURES, architecture_in

ROPE_FACTORS = "rope_freqs.weight"
POSITIONS = "position_embd.weight"
ARCHITECTURE_KEY = "general.architecture"


def gguf_name(name: str, model_type: str = "llama") -> str | None:
    """llama.cpp's name for a tensor of a checkpoint; None for one that the architecture does not have."""
    return ARCHITECTURES[model_type].gguf_name(name)


class GGUFTensors:
    """The tensors of a GGUF file by the checkpoint's names, rows in the checkpoint's order, matrices [out, in]."""

    def __init__(self, path: Path) -> None:
        from gguf import GGUFReader

        read_header(path)
        self.path = path
        self._reader = GGUFReader(path)
        self._architecture = architecture_in(path, self._field(ARCHITECTURE_KEY))
        self._tensors = {
            self._architecture.checkpoint_name(tensor.name): tensor
            for tensor in self._reader.tensors
            if tensor.name != ROPE_FACTORS
        }

    @property
    def model_type(self) -> str:
        """As config.json calls it; of several that are one to llama.cpp (Llama, Mistral) the first."""
        return next(kind for kind, each in ARCHITECTURES.items() if each is self._architecture)

    def names(self) -> list[str]:
        return sorted(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(size) for size in self._tensors[name].shape[::-1])

    def kind(self, name: str) -> str:
        """The storage type, such as F32, BF16 or Q4_K."""
        return self._tensors[name].tensor_type.name

    def nbytes(self, name: str) -> int:
        return int(self._tensors[name].n_bytes)

    def rows(self, name: str) -> NDArray:
        """The tensor as it is stored: [rows, bytes] of blocks, or numbers."""
        tensor = self._tensors[name]
        part = tensor.name.split(".")[-2]
        if part not in self._architecture.order:
            return tensor.data
        order, heads = self._architecture.order[part]
        places = order(len(tensor.data), self._field(f"{self._architecture.name}.attention.{heads}"))
        return tensor.data[np.argsort(places)]

    def load(self, name: str) -> Float32:
        """An unquantized tensor, widened to float32."""
        stored, kind = self.rows(name), self.kind(name)
        if kind not in ("F32", "F16", "BF16"):
            raise PalimpsestError(f"{name} in {self.path} is {kind}, not BF16, F16 or F32: quantize again.")
        values = np.array(stored.view(ml_dtypes.bfloat16) if kind == "BF16" else stored, np.float32)
        return values - 1 if self._architecture.offset_norms and values.ndim == 1 else values

    def _field(self, key: str) -> Any:
        field = self._reader.fields.get(key)
        if field is None:
            raise PalimpsestError(f"{self.path} does not state {key}: quantize the checkpoint again.")
        return field.contents()


def write_unquantized(checkpoint: Path, path: Path) -> None:
    """Write the checkpoint to a GGUF file:
    matrices in bfloat16, vectors in float32 (which llama.cpp wants), both exact.

    Raises PalimpsestError for a model of another family than ARCHITECTURES, and for settings that the file cannot hold.
    """
    from gguf import GGML_QUANT_VERSION, GGUFWriter

    from palimpsest.quantizers.gguf.tokenizer import add_tokenizer

    config = _read_config(checkpoint)
    architecture = ARCHITECTURES[config.model_type]
    writer = GGUFWriter(path, architecture.name)
    architecture.add(writer, config)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    add_tokenizer(writer, checkpoint, config.vocab_size)
    try:
        with open_checkpoint(checkpoint) as files:
            layers = layers_of(files)
            tensors = list(_tensors(files, layers, config))
            for name, shape, _ in tensors:
                kind = _kind(name, shape)
                writer.add_tensor_info(name, shape, kind, int(np.prod(shape)) * kind.itemsize, _raw_type(kind))
            factors = _rope_factors(config)
            if factors is not None:
                writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for name, shape, source in tensors:
                values = _values(files, layers, source).astype(ml_dtypes.bfloat16).astype(_kind(name, shape))
                if architecture.offset_norms and values.ndim == 1:
                    values = values + np.float32(1)
                part = name.split(".")[-2]
                if part in architecture.order:
                    order, heads = architecture.order[part]
                    values = values[order(len(values), getattr(config, HEADS_IN_CONFIG[heads]))]
                writer.write_tensor_data(values)
            if factors is not None:
                writer.write_tensor_data(factors)
    finally:
        writer.close()


HEADS_IN_CONFIG = {"head_count": "num_attention_heads", "head_count_kv": "num_key_value_heads"}


def _read_config(checkpoint: Path) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    architecture = ARCHITECTURES.get(config.model_type)
    if architecture is None:
        raise PalimpsestError(f"{checkpoint} is a {config.model_type} model, which backend 'gguf' does not write.")
    if problem := architecture.check(config):
        raise PalimpsestError(f"{checkpoint} has {problem} ({architecture.name}): take another backend, such as rtn.")
    return config


def _tensors(files: TensorFiles, layers: Layers, config: Any) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """(name in the GGUF file, shape with matrices [out, in], name in the checkpoint)."""
    architecture = ARCHITECTURES[config.model_type]
    for source in files.names():
        module = source.removesuffix(".weight")
        tied = module in layers.heads and config.tie_word_embeddings
        if tied or is_buffer(source, files.shape(source)):
            continue
        name = architecture.gguf_name(source)
        if name is None:
            raise PalimpsestError(
                f"{files.folder} holds {source}, which llama.cpp's {FAMILIES[config.model_type].title} does not have."
            )
        yield name, layers.shape(files, module) if module in layers.linear else files.shape(source), source


def _values(files: TensorFiles, layers: Layers, source: str) -> Float32:
    module = source.removesuffix(".weight")
    return layers.load(files, module) if module in layers.linear else files.load(source)


def _kind(name: str, shape: tuple[int, ...]) -> np.dtype:
    """Positions are added to embeddings in float32, as vectors are."""
    return np.dtype(ml_dtypes.bfloat16 if len(shape) > 1 and name != POSITIONS else np.float32)


def _raw_type(kind: np.dtype) -> Any:
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType.F32 if kind == np.float32 else GGMLQuantizationType.BF16


def _rope_factors(config: Any) -> Float32 | None:
    """[head_dim / 2] what Llama 3.1 and later divide the rotary frequencies by; None where they are left alone."""
    if config.model_type != "llama" or config.rope_parameters["rope_type"] == "default":
        return None
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    plain = config.rope_parameters["rope_theta"] ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
    return (plain / LlamaRotaryEmbedding(config).inv_freq.double().numpy()).astype(np.float32)
