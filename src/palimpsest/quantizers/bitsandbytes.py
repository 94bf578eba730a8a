"""bitsandbytes: LLM.int8() (arXiv 2208.07339) and blockwise 4-bit floats, FP4 and NF4 (QLoRA, arXiv 2305.14314)."""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from palimpsest.artefacts import read_json
from palimpsest.errors import PalimpsestError, choose
from palimpsest.models.families import heads_of
from palimpsest.models.tensors import Float32, TensorFiles, open_checkpoint, to_bfloat16
from palimpsest.quantizers.base import (
    STACKED,
    QuantizedMatrix,
    Quantizer,
    check_reload,
    copy_tokenizer,
    fingerprint,
    load_checkpoint,
    matrix_shapes,
    module_bytes,
    same_shape,
)
from palimpsest.quantizers.grids.levels import FLOAT_LEVELS, integer_levels
from palimpsest.quantizers.grids.packing import unpack_nibbles
from palimpsest.quantizers.grids.rounding import (
    Rounded,
    largest_magnitude,
    ranks_between,
    to_bfloat16_in_place,
    to_float16,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

PACKAGES = ("bitsandbytes", "transformers", "torch")
REFUSES = {
    "falcon": "transformers gives torch's own linear layers to it, and Falcon's are of a class of their own",
    "mixtral": STACKED,
}
WEIGHTS_PER_SCALE = 64
SMALLEST = np.float32(1e-38)  # what bitsandbytes divides by in a block of zeros
RECIPROCAL_127 = np.float32(7.874015718698502e-3)  # as bitsandbytes writes it in int8_vectorwise_dequant


def _quantize(
    checkpoint: Path, folder: Path, settings: dict[str, Any], dequantize: Callable[[Any], "Tensor"]
) -> dict[str, str]:
    """dequantize: from a quantized weight as bitsandbytes holds it to the matrix that it computes with."""
    copy_tokenizer(checkpoint, folder)
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(llm_int8_skip_modules=heads_of(checkpoint), **settings)
    model = load_checkpoint(checkpoint, quantization_config=config, device_map={"": "cpu"})
    held = {
        name: fingerprint(dequantize(module.weight))
        for name, module in model.named_modules()
        if type(module).__module__.startswith("bitsandbytes.")
    }
    model.save_pretrained(folder)
    return held


def _dequantize_int8(weight: Any) -> "Tensor":
    from bitsandbytes.functional import int8_vectorwise_dequant

    codes = weight.CB if weight.CB is not None else weight.data
    return int8_vectorwise_dequant(codes.cpu(), weight.SCB.cpu())


def _dequantize_4bit(weight: Any) -> "Tensor":
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state)


@dataclass(frozen=True)
class BitsAndBytesInt8(Quantizer):
    """Weights and activations in 8 bits, row by row; activation columns with an entry above the threshold in 16 bits.

    outlier_threshold: 6.0 in the paper; 0.0 turns the 16-bit columns off.
    """

    outlier_threshold: float
    packages: ClassVar[tuple[str, ...]] = PACKAGES
    refuses: ClassVar[Mapping[str, str]] = REFUSES
    bits = 8

    def __post_init__(self) -> None:
        if isinstance(self.outlier_threshold, bool) or not isinstance(self.outlier_threshold, (int, float)):
            raise PalimpsestError(f"outlier_threshold is {self.outlier_threshold!r}: give a number, such as 6.0.")
        if not 0 <= self.outlier_threshold < math.inf:
            raise PalimpsestError(f"outlier_threshold is {self.outlier_threshold}: give a finite number of at least 0.")

    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str] = ()) -> dict[str, str]:
        self.check_checkpoint(checkpoint)
        settings = {"load_in_8bit": True, "llm_int8_threshold": float(self.outlier_threshold)}
        return _quantize(checkpoint, folder, settings, _dequantize_int8)

    def load(self, folder: Path, device: str, dtype: str = "bfloat16") -> "PreTrainedModel":
        """The backend's own modules: activations are quantized too, so dense weights would be another model."""
        stored = read_json(folder / "config.json").get("quantization_config", {}).get("llm_int8_threshold")
        if stored != self.outlier_threshold:
            raise PalimpsestError(
                f"{folder} was quantized with outlier_threshold {stored}, the settings say {self.outlier_threshold}: "
                "quantize the checkpoint again."
            )
        import torch

        # bitsandbytes warns in every matrix product that bfloat16 activations pass through float16
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        model = load_checkpoint(folder, dtype, device_map={"": device}).eval()
        for weight in model.parameters():  # a head that has another name in the file keeps the file's type
            if weight.is_floating_point():
                weight.data = weight.data.to(getattr(torch, dtype))
        check_reload(self, folder, lambda name: _dequantize_int8(model.get_submodule(name).weight))
        return model

    def read(self, folder: Path) -> Iterator[QuantizedMatrix]:
        with open_checkpoint(folder) as files:
            for module in _modules(files, ".SCB"):
                codes = files.load(f"{module}.weight")
                largest = files.load(f"{module}.SCB").reshape(-1, 1)
                same_shape(codes[:, :1], largest)
                dequantized = codes * largest
                dequantized *= RECIPROCAL_127
                size = module_bytes(files, module)
                yield QuantizedMatrix(module, codes, largest * RECIPROCAL_127, None, dequantized, size)

    def round(self, weights: Float32, largest: float = 0.0) -> Rounded:
        """On a CPU; the CUDA kernel may differ by a code where a weight is halfway between two."""
        halves = to_float16(weights)  # as bitsandbytes does first
        largest_of_row = largest_magnitude(halves)[:, None]
        with np.errstate(divide="ignore"):
            factors = 1 / largest_of_row * np.float32(127)  # in two steps, as torch divides a number by a tensor
        factors[largest_of_row == 0] = 0
        halves *= factors
        np.rint(halves, out=halves)
        codes = halves.astype(np.int8)
        halves *= largest_of_row
        halves *= RECIPROCAL_127
        return Rounded(codes, largest_of_row * RECIPROCAL_127, halves)

    def levels(self) -> Float32:
        """[255]: the largest |w| of a row is code 127 or -127, and -128 is not used."""
        return integer_levels(8, divisor=127)[1:]


@dataclass(frozen=True)
class BitsAndBytes4bit(Quantizer):
    """Weights in blocks of 64 with one float32 scale, the block's largest |w|.

    levels: `fp4` (what `load_in_4bit=True` alone means) or `nf4`.
    double_quantization: store the scales in 8 bits themselves.

    The base class's `load` gives bitsandbytes' reference arithmetic on every machine. Its own module does not: on CPUs
    with AVX512-BF16 it repacks the weights and rounds their scales to bfloat16, and so computes with other matrices.
    """

    grid: str = field(metadata={"key": "levels"})
    double_quantization: bool
    packages: ClassVar[tuple[str, ...]] = PACKAGES
    refuses: ClassVar[Mapping[str, str]] = REFUSES
    bits = 4

    def __post_init__(self) -> None:
        choose(FLOAT_LEVELS, str(self.grid), "levels of backend 'bnb-4bit'")
        if not isinstance(self.double_quantization, bool):
            raise PalimpsestError(f"double_quantization is {self.double_quantization!r}: give true or false.")

    def check_checkpoint(self, checkpoint: Path) -> None:
        super().check_checkpoint(checkpoint)
        _check_widths(checkpoint)

    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str] = ()) -> dict[str, str]:
        self.check_checkpoint(checkpoint)
        settings = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": self.grid,
            "bnb_4bit_use_double_quant": self.double_quantization,
            "bnb_4bit_compute_dtype": "bfloat16",
        }
        return _quantize(checkpoint, folder, settings, _dequantize_4bit)

    def read(self, folder: Path) -> Iterator[QuantizedMatrix]:
        with open_checkpoint(folder) as files:
            for module in _modules(files, ".weight.absmax"):
                yield self._read_matrix(files, module)

    def round(self, weights: Float32, largest: float = 0.0) -> Rounded:
        """On a CPU; the CUDA kernels have borders of their own, so a weight next to one may get the level beside it."""
        if self.double_quantization:
            raise PalimpsestError(self.why_not_round())
        order = np.argsort(self.levels(), kind="stable")  # FP4's codes are not in the order of their values
        values = self.levels()[order]
        flat = weights.reshape(-1)
        whole = flat.size - flat.size % WEIGHTS_PER_SCALE
        blocks, rest = flat[:whole].reshape(-1, WEIGHTS_PER_SCALE), flat[whole:]
        scales = largest_magnitude(blocks)
        scaled = np.empty_like(flat)
        np.multiply(
            blocks, (1 / np.maximum(scales, SMALLEST))[:, None], out=scaled[:whole].reshape(-1, WEIGHTS_PER_SCALE)
        )
        if rest.size:  # a short last block is divided instead of multiplied
            last = np.maximum(largest_magnitude(rest), SMALLEST)
            np.divide(rest, last, out=scaled[whole:])
            scales = np.append(scales, last)
        ranks = ranks_between(scaled, (values[:-1] + values[1:]) / np.float32(2))
        np.take(values, ranks, out=scaled, mode="clip")  # clip: nothing lies outside, and no copy is made
        scaled[:whole].reshape(-1, WEIGHTS_PER_SCALE)[:] *= scales[: whole // WEIGHTS_PER_SCALE, None]
        scaled[whole:] *= scales[whole // WEIGHTS_PER_SCALE :]
        codes = ranks if self.grid == "nf4" else order.astype(np.uint8)[ranks]
        return Rounded(codes.reshape(weights.shape), scales, to_bfloat16_in_place(scaled).reshape(weights.shape))

    def why_not_round(self) -> str:
        return "double quantization takes the mean of a matrix's scales first" if self.double_quantization else ""

    def is_zero(self, rounded: Rounded) -> np.ndarray:
        """FP4's level of 0.0052 counts as zero, as in `dead_zone`."""
        below, above = self.dead_zone()
        dead = (-below < self.levels()) & (self.levels() < above)
        return np.take(dead, rounded.codes, mode="clip")

    def levels(self) -> Float32:
        return FLOAT_LEVELS[self.grid]

    def _read_matrix(self, files: TensorFiles, module: str) -> QuantizedMatrix:
        name = f"{module}.weight.quant_state.bitsandbytes__{self.grid}"
        if name not in files:
            raise PalimpsestError(
                f"{module} in {files.folder} does not have {self.grid} levels: quantize the checkpoint again."
            )
        state = json.loads(files.load(name).tobytes())
        if state["dtype"] != "bfloat16":
            raise PalimpsestError(
                f"{module} in {files.folder} dequantizes to {state['dtype']}: quantize a bfloat16 checkpoint."
            )
        scales = files.load(f"{module}.weight.absmax")
        if "nested_offset" in state:
            scales = _unnest(files, module, scales, state)
        packed = files.load(f"{module}.weight").reshape(-1)
        rows, columns = state["shape"]
        codes = unpack_nibbles(packed, np.arange(16, dtype=np.uint8), high_first=True)[: rows * columns]
        values = unpack_nibbles(packed, files.load(f"{module}.weight.quant_map"), high_first=True)[: rows * columns]
        values *= _spread(scales, state["blocksize"], values.size)
        shape = (rows, columns)
        dequantized, size = to_bfloat16(values).reshape(shape), module_bytes(files, module)
        return QuantizedMatrix(module, codes.reshape(shape), scales, None, dequantized, size)


def _check_widths(checkpoint: Path) -> None:
    """Raise PalimpsestError for a width whose rows bitsandbytes' CPU kernel (0.50.2)
    dequantizes with other rows' scales.

    Found by trying widths of 1 to 399:
    those divisible by 16 and not by the block of 64 are wrong, where a matrix has more than a block.
    """
    for module, (rows, width) in matrix_shapes(checkpoint).items():
        if width % 16 == 0 and width % WEIGHTS_PER_SCALE and rows * width > WEIGHTS_PER_SCALE:
            raise PalimpsestError(
                f"{module} in {checkpoint} has {width} inputs, a multiple of 16 but not of {WEIGHTS_PER_SCALE}, "
                "which bitsandbytes dequantizes wrongly on a CPU: use rtn, hqq or another backend for this model."
            )


def _unnest(files: TensorFiles, module: str, codes: np.ndarray, state: dict[str, Any]) -> Float32:
    """The block scales behind double quantization: 8-bit codes with scales of their own, minus their mean."""
    table, largest = (files.load(f"{module}.weight.{part}") for part in ("nested_quant_map", "nested_absmax"))
    return table[codes] * _spread(largest, state["nested_blocksize"], codes.size) + np.float32(state["nested_offset"])


def _spread(scales: Float32, block: int, size: int) -> Float32:
    """[size] the scale of every element; the last block may be short."""
    return np.repeat(scales, block)[:size]


def _modules(files: TensorFiles, mark: str) -> list[str]:
    return [name.removesuffix(mark) for name in files.names() if name.endswith(mark)]
