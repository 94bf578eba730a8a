"""llm-compressor's formats without settings:
8-bit weights and activations (int8, fp8), 4-bit floats in small blocks (NVFP4, MXFP4)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from palimpsest.artefacts import read_json
from palimpsest.errors import PalimpsestError, choose
from palimpsest.models.tensors import Float32, TensorFiles, open_checkpoint, to_bfloat16
from palimpsest.quantizers.base import (
    QuantizedMatrix,
    Quantizer,
    check_group_size,
    check_reload,
    load_checkpoint,
    module_bytes,
    same_shape,
)
from palimpsest.quantizers.compressed.integers import PACKAGES
from palimpsest.quantizers.compressed.stream import SCALE, compress_layers
from palimpsest.quantizers.grids.levels import integer_levels
from palimpsest.quantizers.grids.packing import unpack_nibbles
from palimpsest.quantizers.grids.rounding import (
    BFLOAT16_EPSILON,
    Rounded,
    in_groups,
    largest_magnitude,
    ranks_between,
    round_symmetric,
    to_bfloat16_in_place,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The values of a code: sign, exponent, mantissa (OCP 8-bit floating point 1.0 and microscaling formats 1.0).
E2M1 = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)
E4M3 = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)  # two of them are NaN

with np.errstate(invalid="ignore", over="ignore"):
    _ALL_BFLOAT16 = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16).astype(np.float32)
    E4M3_CODES = _ALL_BFLOAT16.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
# Between neighbouring magnitudes of e2m1;
# halfway values go to the even code, so some borders lie just below the middle.
E2M1_BORDERS = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], np.float32)
E2M1_BORDERS[1::2] = np.nextafter(E2M1_BORDERS[1::2], np.float32(0))

SHARED_SCALES = (
    (re.compile(r"(.*(?:attn|attention))\.[qkv]_proj"), "qkv"),
    (re.compile(r"(.*mlp)\.(?:gate|up)_proj"), "gate_up"),
)

WEIGHTS: dict[str, dict[str, Any]] = {  # in the terms of compressed-tensors
    "int8": {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True},
    "fp8": {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True},
    "nvfp4": {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "symmetric": True}
    | {"scale_dtype": "torch.float8_e4m3fn"},
    "mxfp4": {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "symmetric": True}
    | {"scale_dtype": "torch.uint8"},
}


@dataclass(frozen=True)
class _Floats(Quantizer):
    """What the formats share: the reader's frame and the check of the folder."""

    format: str
    packages: ClassVar[tuple[str, ...]] = PACKAGES
    formats: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        choose(dict.fromkeys(self.formats), str(self.format), "format")

    def read(self, folder: Path) -> Iterator[QuantizedMatrix]:
        self._check_folder(folder)
        with open_checkpoint(folder) as files:
            for name in files.names():
                if name.endswith(SCALE):
                    yield self._read_matrix(files, name.removesuffix(SCALE))

    def _read_matrix(self, files: TensorFiles, module: str) -> QuantizedMatrix:
        raise NotImplementedError

    def _check_folder(self, folder: Path) -> None:
        settings = read_json(folder / "config.json").get("quantization_config", {})
        for group in settings.get("config_groups", {}).values():
            if any(group["weights"][key] != value for key, value in WEIGHTS[self.format].items()):
                raise PalimpsestError(
                    f"{folder} holds weights in the format {group['format']}, the settings say {self.format}: "
                    "quantize the checkpoint again."
                )


@dataclass(frozen=True)
class EightBit(_Floats):
    """Weights and activations in 8 bits: a scale for each output channel
    and, found while the model runs, for each token.

    format: `int8` (W8A8) or `fp8` (e4m3 numbers, FP8_DYNAMIC); llm-compressor's names in brackets.
    """

    formats: ClassVar[tuple[str, ...]] = ("int8", "fp8")
    refuses: ClassVar[Mapping[str, str]] = {
        "mixtral": "transformers cannot load experts that are saved one by one, to run them with rounded activations"
    }
    bits = 8

    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str] = ()) -> dict[str, str]:
        self.check_checkpoint(checkpoint)
        activations = {"num_bits": 8, "type": WEIGHTS[self.format]["type"], "strategy": "token", "dynamic": True}
        return compress_layers(checkpoint, folder, {"weights": WEIGHTS[self.format], "input_activations": activations})

    def load(self, folder: Path, device: str, dtype: str = "bfloat16") -> "PreTrainedModel":
        """compressed-tensors' own modules, which round every layer's input to 8 bits, token by token.

        They multiply the rounded values as floating-point numbers. 8-bit kernels (as in vLLM) give the same
        products and sum them in another order. The weights are dequantized in bfloat16 whatever `dtype` is,
        activations are rounded in `dtype`.
        """
        import torch
        from transformers import CompressedTensorsConfig

        from palimpsest.models.checkpoint import store_weights

        self._check_folder(folder)
        settings = CompressedTensorsConfig(dequantize=True)  # when loaded, not in the first forward pass
        model = load_checkpoint(folder, quantization_config=settings, device_map={"": device})
        store_weights(model, getattr(torch, dtype))
        check_reload(self, folder, lambda name: model.get_parameter(f"{name}.weight"))
        return model.eval()

    def round(self, weights: Float32, largest: float = 0.0) -> Rounded:
        """Weights only: what is done to activations needs data."""
        if self.format == "int8":
            return round_symmetric(weights, 8, None)
        scales = to_bfloat16_in_place(largest_magnitude(weights)[:, None] / np.float32(448))
        scales[scales == 0] = BFLOAT16_EPSILON
        values = to_bfloat16_in_place(weights / scales)
        np.clip(values, -448, 448, out=values)
        stored = _to_e4m3(values)
        values = E4M3[stored]
        values *= scales
        return Rounded(_ranks(E4M3)[stored], scales, to_bfloat16_in_place(values))

    def levels(self) -> Float32:
        """int8: code / 127.5, as compressed-tensors sets the scale; fp8: number / 448, the largest that e4m3 has."""
        return integer_levels(8, divisor=127.5) if self.format == "int8" else _levels(E4M3)

    def _read_matrix(self, files: TensorFiles, module: str) -> QuantizedMatrix:
        stored, scales = files.stored(f"{module}.weight"), files.load(f"{module}{SCALE}")
        same_shape(stored[:, :1], scales)
        codes = stored if self.format == "int8" else _ranks(E4M3)[stored.view(np.uint8)]
        dequantized = to_bfloat16(stored.astype(np.float32) * scales)
        return QuantizedMatrix(module, codes, scales, None, dequantized, module_bytes(files, module))


@dataclass(frozen=True)
class Microscale(_Floats):
    """Weights as 4-bit floats (e2m1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives)
    with a rounded scale for each block.

    format: `nvfp4` (blocks of 16, scales in e4m3 times a float32 scale of the matrix; NVFP4A16) or
    `mxfp4` (blocks of 32, scales are powers of two; MXFP4A16).

    Query, key and value share the float32 scale, and so do gate and up, as the kernels that run them at once require.
    """

    formats: ClassVar[tuple[str, ...]] = ("nvfp4", "mxfp4")
    bits = 4

    def check_checkpoint(self, checkpoint: Path) -> None:
        super().check_checkpoint(checkpoint)
        check_group_size(checkpoint, WEIGHTS[self.format]["group_size"], f"{self.format} has blocks of no other size")

    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str] = ()) -> dict[str, str]:
        self.check_checkpoint(checkpoint)
        return compress_layers(checkpoint, folder, {"weights": WEIGHTS[self.format]})

    @property
    def needs_largest(self) -> bool:  # type: ignore[override]
        return self.format == "nvfp4"

    @property
    def width_divisor(self) -> int:
        return int(WEIGHTS[self.format]["group_size"])

    def round(self, weights: Float32, largest: float = 0.0) -> Rounded:
        """largest: for nvfp4, the largest |w| of the matrix and of those that share its scale (`shared_scale`)."""
        groups = in_groups(weights, self.width_divisor)
        if self.format == "nvfp4":
            whole = _global_scale(largest)
            scales = to_bfloat16_in_place(largest_magnitude(groups) / np.float32(6)) * whole
            stored = np.clip(scales, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
            stored[stored == 0] = 0.125  # compressed-tensors' smallest scale, so that nothing is divided by zero
            scales = stored / whole
        else:
            scales = _powers_of_two(largest_magnitude(groups))
        values = groups / scales[:, :, None]
        signs = np.signbit(values)
        np.abs(values, out=values)
        ranks = ranks_between(values, E2M1_BORDERS)
        codes = np.where(signs, -ranks.view(np.int8), ranks.view(np.int8))
        np.take(E2M1, ranks, out=values, mode="clip")
        np.negative(values, out=values, where=signs)
        values *= scales[:, :, None]
        shape = weights.shape
        return Rounded(codes.reshape(shape), scales, to_bfloat16_in_place(values).reshape(shape))

    def levels(self) -> Float32:
        """e2m1 numbers / 6: what they are in units of the block's largest |w|
        when the block's scale is that over 6 exactly.

        Scales are rounded, so the unit is 6 scales, and what lies above it is cut off. In NVFP4 that is the largest |w|
        within 1/16 (more in blocks whose largest |w| is below 1/28672 of the matrix's, where e4m3 is coarser). In MXFP4
        it is 0.86 to 1.71 times the largest |w|: a largest |w| of 3.5 to 7 scales gets the same power of two.
        """
        return _levels(E2M1)

    def dead_zone_range(self) -> tuple[float, float]:
        """See `levels`."""
        return (15 / 16, 17 / 16) if self.format == "nvfp4" else (6 / 7, 6 / 3.5)

    def _read_matrix(self, files: TensorFiles, module: str) -> QuantizedMatrix:
        packed, scales = files.stored(f"{module}.weight_packed"), files.load(f"{module}{SCALE}")
        if self.format == "nvfp4":
            scales = scales / files.load(f"{module}.weight_global_scale")
        else:
            scales = np.ldexp(np.float32(1), scales.astype(np.int32) - 127)
        codes = unpack_nibbles(packed, _ranks(E2M1), high_first=False)
        values = unpack_nibbles(packed, E2M1, high_first=False)
        blocks = values.reshape(*scales.shape, -1)  # a view: changed in place below
        blocks *= scales[:, :, None]
        return QuantizedMatrix(module, codes, scales, None, to_bfloat16(values), module_bytes(files, module))


def shared_scale(module: str) -> str:
    """A name for the set of matrices that share NVFP4's float32 scale:
    query, key and value, or gate and up, or the matrix alone."""
    for pattern, name in SHARED_SCALES:
        if found := pattern.fullmatch(module):
            return f"{found[1]}.{name}"
    return module


def _global_scale(largest: float) -> np.float32:
    """448 * 6 / largest |w|, in bfloat16 and in two steps (torch multiplies by the reciprocal)."""
    limited: Float32 = np.array([max(largest, float(np.finfo(np.float32).tiny))], np.float32)
    whole = to_bfloat16(to_bfloat16(np.float32(1) / limited) * np.float32(448 * 6))
    return whole[0] if np.isfinite(whole[0]) else np.float32(1)


def _powers_of_two(largest: Float32) -> Float32:
    """MXFP4's scales: largest |w| to a power of two, up from 1.75 times one, over 4; at least 2^-127."""
    exponents = (largest.view(np.uint32) + np.uint32(1 << 21)) >> np.uint32(23)
    return np.ldexp(np.float32(1), np.maximum(exponents.astype(np.int32) - 2, 0) - 127)


def _to_e4m3(values: Float32) -> NDArray[np.uint8]:
    """The codes of numbers that bfloat16 holds, by a table of all of them."""
    return E4M3_CODES[values.view(np.uint32) >> np.uint32(16)]


def _levels(values: Float32) -> Float32:
    """The distinct numbers of a float format in ascending order, divided by the largest."""
    distinct = np.unique(values[np.isfinite(values)])
    return distinct / distinct[-1]


def _ranks(values: Float32) -> NDArray[np.int8]:
    """[codes] how many steps a code's number lies above (or, negative, below) zero; 0 and -0 are the same."""
    half = np.arange(len(values) // 2, dtype=np.int8)
    return np.concatenate([half, -half])
