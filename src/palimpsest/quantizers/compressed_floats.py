"""llm-compressor's formats without settings: 8-bit weights and activations (int8, fp8), 4-bit floats in small blocks (NVFP4, MXFP4)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from palimpsest.artefacts import read_json
from palimpsest.errors import PalimpsestError, choose
from palimpsest.quantizers.base import QuantizedMatrix, Quantizer, check_group_size, load_checkpoint, module_bytes
from palimpsest.quantizers.compressed import PACKAGES
from palimpsest.quantizers.compressed_stream import SCALE, compress_layers
from palimpsest.quantizers.levels import integer_levels
from palimpsest.quantizers.packing import unpack_nibbles
from palimpsest.tensors import Float32, TensorFiles, open_checkpoint, to_bfloat16

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The values of a code: sign, exponent, mantissa (OCP 8-bit floating point 1.0 and microscaling formats 1.0).
E2M1 = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)
E4M3 = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)  # two of them are NaN

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
    """Weights and activations in 8 bits: a scale for each output channel and, found while the model runs, for each token.

    format: `int8` (W8A8) or `fp8` (e4m3 numbers, FP8_DYNAMIC); llm-compressor's names in brackets.
    """

    formats: ClassVar[tuple[str, ...]] = ("int8", "fp8")
    bits = 8

    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str] = ()) -> dict[str, str]:
        activations = {"num_bits": 8, "type": WEIGHTS[self.format]["type"], "strategy": "token", "dynamic": True}
        return compress_layers(checkpoint, folder, {"weights": WEIGHTS[self.format], "input_activations": activations})

    def load(self, folder: Path, device: str, dtype: str = "bfloat16") -> "PreTrainedModel":
        """compressed-tensors' own modules, which round every layer's input to 8 bits, token by token.

        They multiply the rounded values as floating-point numbers. 8-bit kernels (as in vLLM) give the same products and sum them
        in another order. The weights are dequantized in bfloat16 whatever `dtype` is, activations are rounded in `dtype`.
        """
        import torch
        from transformers import CompressedTensorsConfig

        from palimpsest.models import store_weights

        self._check_folder(folder)
        settings = CompressedTensorsConfig(dequantize=True)  # when loaded, not in the first forward pass
        model = load_checkpoint(folder, quantization_config=settings, device_map={"": device})
        store_weights(model, getattr(torch, dtype))
        return model.eval()

    def levels(self) -> Float32:
        """int8: code / 127.5, as compressed-tensors sets the scale; fp8: number / 448, the largest that e4m3 has."""
        return integer_levels(8, divisor=127.5) if self.format == "int8" else _levels(E4M3)

    def _read_matrix(self, files: TensorFiles, module: str) -> QuantizedMatrix:
        stored, scales = files.stored(f"{module}.weight"), files.load(f"{module}{SCALE}")
        codes = stored if self.format == "int8" else _ranks(E4M3)[stored.view(np.uint8)]
        dequantized = to_bfloat16(stored.astype(np.float32) * scales)
        return QuantizedMatrix(module, codes, scales, None, dequantized, module_bytes(files, module))


@dataclass(frozen=True)
class Microscale(_Floats):
    """Weights as 4-bit floats (e2m1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives) with a rounded scale for each block.

    format: `nvfp4` (blocks of 16, scales in e4m3 times a float32 scale of the matrix; NVFP4A16) or
    `mxfp4` (blocks of 32, scales are powers of two; MXFP4A16).

    Query, key and value share the float32 scale, and so do gate and up, as the kernels that run them at once require.
    """

    formats: ClassVar[tuple[str, ...]] = ("nvfp4", "mxfp4")
    bits = 4

    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str] = ()) -> dict[str, str]:
        check_group_size(checkpoint, WEIGHTS[self.format]["group_size"], f"{self.format} has blocks of no other size")
        return compress_layers(checkpoint, folder, {"weights": WEIGHTS[self.format]})

    def levels(self) -> Float32:
        """e2m1 numbers / 6: what they are in units of the block's largest |w| when the block's scale is that over 6 exactly.

        Scales are rounded, so the unit is 6 scales, and what lies above it is cut off. In NVFP4 that is the largest |w| within
        1/16 (more in blocks whose largest |w| is below 1/28672 of the matrix's, where e4m3 is coarser). In MXFP4 it is 0.86 to
        1.71 times the largest |w|: a largest |w| of 3.5 to 7 scales gets the same power of two.
        """
        return _levels(E2M1)

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


def _levels(values: Float32) -> Float32:
    """The distinct numbers of a float format in ascending order, divided by the largest."""
    distinct = np.unique(values[np.isfinite(values)])
    return distinct / distinct[-1]


def _ranks(values: Float32) -> NDArray[np.int8]:
    """[codes] how many steps a code's number lies above (or, negative, below) zero; 0 and -0 are the same."""
    half = np.arange(len(values) // 2, dtype=np.int8)
    return np.concatenate([half, -half])
