"""torchao's weight-only integer formats, quantized and saved by transformers as torchao's flattened safetensors."""

import json
import struct
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from palimpsest.errors import PalimpsestError
from palimpsest.models.families import heads_of
from palimpsest.models.tensors import Float32, TensorFiles, open_checkpoint, to_bfloat16
from palimpsest.quantizers.base import (
    STACKED,
    QuantizedMatrix,
    Quantizer,
    check_group_size,
    copy_tokenizer,
    fingerprint,
    load_linear,
    module_bytes,
    same_shape,
)
from palimpsest.quantizers.calibration import check_number, check_positive
from palimpsest.quantizers.grids.levels import WITH_ZERO_POINTS, integer_levels
from palimpsest.quantizers.grids.packing import unpack_nibbles
from palimpsest.quantizers.grids.rounding import Rounded, in_groups, largest_magnitude, to_bfloat16_in_place

if TYPE_CHECKING:
    from torch import Tensor

MARK = "._weight_qdata"
INTX_BITS = (2, 3, 4, 5, 6, 7, 8)
INT8_SMALLEST = to_bfloat16(np.finfo(np.float32).eps.reshape(1))[0]
SMALLEST_NORMAL = np.finfo(np.float32).tiny  # of bfloat16 too
INT4_GROUPS = (32, 64, 128, 256)  # what the tinygemm kernel takes


class TorchAO(Quantizer):
    """What the formats share: transformers' loader, which quantizes layer by layer, and the file."""

    packages: ClassVar[tuple[str, ...]] = ("torchao", "transformers", "torch")
    refuses: ClassVar[Mapping[str, str]] = {"mixtral": STACKED}
    device: ClassVar[str] = "cpu"
    group_size: int | None

    @abstractmethod
    def _config(self) -> Any:
        """torchao's configuration."""

    @abstractmethod
    def _kind(self) -> tuple[str, str | None]:
        """torchao's names for the tensor and its type of codes, as the file states them."""

    @abstractmethod
    def _dequantize(self, weight: Any) -> "Tensor":
        """[out, in] the matrix that torchao computes with."""

    @abstractmethod
    def _read_matrix(self, files: TensorFiles, module: str, shape: tuple[int, int]) -> QuantizedMatrix: ...

    @property
    def needs_cuda(self) -> bool:
        return self.device == "cuda"

    def check_checkpoint(self, checkpoint: Path) -> None:
        super().check_checkpoint(checkpoint)
        check_group_size(checkpoint, self.group_size)

    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str] = ()) -> dict[str, str]:
        self.check_family(checkpoint)
        check_group_size(checkpoint, self.group_size)  # torchao leaves out, without a word, what it does not divide
        copy_tokenizer(checkpoint, folder)
        self._check_device()
        from torchao.utils import TorchAOBaseTensor
        from transformers import TorchAoConfig

        config = TorchAoConfig(self._config(), modules_to_not_convert=heads_of(checkpoint))
        model = load_linear(checkpoint, quantization_config=config, device_map={"": self.device})
        held = {
            name.removesuffix(".weight"): fingerprint(self._dequantize(weight))
            for name, weight in model.named_parameters()
            if isinstance(weight, TorchAOBaseTensor)
        }
        model.save_pretrained(folder)
        for path in folder.glob("*.safetensors"):
            sort_metadata(path)
        return held

    def read(self, folder: Path) -> Iterator[QuantizedMatrix]:
        with open_checkpoint(folder) as files:
            for module in [name.removesuffix(MARK) for name in files.names() if name.endswith(MARK)]:
                yield self._read_matrix(files, module, self._shape(files, module))

    @property
    def width_divisor(self) -> int:
        return self.group_size or 1

    def levels(self) -> Float32:
        """Scale = largest |w| / ((2^bits - 1) / 2)."""
        return integer_levels(self.bits, divisor=(2**self.bits - 1) / 2)

    def _check_device(self) -> None:
        """Raise PalimpsestError when this machine cannot run the format's kernels."""

    def _shape(self, files: TensorFiles, module: str) -> tuple[int, int]:
        """[out, in]; raises PalimpsestError when the matrix was quantized with other settings."""
        stored = json.loads(files.metadata(f"{module}{MARK}")[f"{module}.weight"])
        facts = stored["_data"]
        rows, columns = facts.get("shape", files.shape(f"{module}{MARK}"))
        found = stored["_type"], facts.get("target_dtype", {}).get("_data"), facts["block_size"]
        expected = *self._kind(), [1, self.group_size or columns]
        if found != expected:
            raise PalimpsestError(
                f"{module} in {files.folder} has (tensor, codes, block) {found}, the settings say {expected}: "
                "quantize the checkpoint again."
            )
        return rows, columns


@dataclass(frozen=True)
class TorchAOInt8(TorchAO):
    """Int8WeightOnlyConfig: symmetric, to the nearest level.

    group_size: inputs that share a float32 scale, null for one scale per output channel.
    With groups torchao computes with the matrix in bfloat16. With one scale per channel it multiplies by the codes
    first and by the scale afterwards, so no dequantized matrix is ever rounded. In float32 the base class's `load`
    computes the same; in bfloat16 it rounds the matrix where torchao rounds the scale (2^-8 each).
    """

    group_size: int | None
    bits = 8

    def __post_init__(self) -> None:
        if self.group_size is not None:
            check_positive("group_size", self.group_size, " or null for one scale per output channel")

    def round(self, weights: Float32, largest: float = 0.0) -> Rounded:
        groups = in_groups(weights, self.group_size)
        scales = to_bfloat16_in_place(largest_magnitude(groups) / np.float32(127.5))
        np.maximum(scales, INT8_SMALLEST, out=scales)
        values = groups * (np.float32(1) / scales)[:, :, None]
        np.rint(values, out=values)
        np.clip(values, -128, 127, out=values)
        codes = values.astype(np.int8).reshape(weights.shape)
        values *= scales[:, :, None]
        return Rounded(codes, scales, self._rounded(values.reshape(weights.shape)), np.zeros(scales.shape, np.int8))

    def _rounded(self, values: Float32) -> Float32:
        return to_bfloat16(values) if self.group_size else values

    def _config(self) -> Any:
        from torchao.quantization import Int8WeightOnlyConfig, PerGroup, PerRow

        granularity = PerGroup(self.group_size) if self.group_size else PerRow()
        # the recommended inductor settings would lower the precision of every float32 product of the process
        return Int8WeightOnlyConfig(granularity=granularity, set_inductor_config=False)

    def _kind(self) -> tuple[str, str | None]:
        return "Int8Tensor", None

    def _dequantize(self, weight: Any) -> "Tensor":
        import torch

        return weight.dequantize() if self.group_size else weight.dequantize(torch.float32)

    def _read_matrix(self, files: TensorFiles, module: str, shape: tuple[int, int]) -> QuantizedMatrix:
        codes, scales, zero_points = _plain(files, module)
        groups = codes.reshape(*scales.shape, -1) - zero_points[:, :, None].astype(np.float32)
        dequantized = self._rounded((groups * scales[:, :, None]).reshape(shape))
        return QuantizedMatrix(module, codes, scales, zero_points, dequantized, module_bytes(files, module))


@dataclass(frozen=True)
class TorchAOIntx(TorchAO):
    """IntxWeightOnlyConfig, to the nearest level: what torchao exports to phones, and its 4 bits on a CPU.

    bits: 2 to 8, every code stored in a byte of its own; group_size: inputs that share a bfloat16 scale, null for one
    per output channel; symmetric: whether zero is always code 0 (else each group has a zero point).
    """

    bits: int
    group_size: int | None
    symmetric: bool

    def __post_init__(self) -> None:
        check_number("bits", self.bits, INTX_BITS, "give a whole number from 2 to 8")
        if self.group_size is not None:
            check_positive("group_size", self.group_size, " or null for one scale per output channel")
        if not isinstance(self.symmetric, bool):
            raise PalimpsestError(f"symmetric is {self.symmetric!r}: give true or false.")

    def dead_zone_range(self) -> tuple[float, float]:
        return super().dead_zone_range() if self.symmetric else WITH_ZERO_POINTS

    def round(self, weights: Float32, largest: float = 0.0) -> Rounded:
        """In bfloat16 throughout, the reciprocal of the scale included."""
        groups, lowest = in_groups(weights, self.group_size), np.float32(-(2 ** (self.bits - 1)))
        if self.symmetric:
            scales = to_bfloat16_in_place(largest_magnitude(groups) / np.float32((2**self.bits - 1) / 2))
            np.maximum(scales, SMALLEST_NORMAL, out=scales)
            zero_points = np.zeros_like(scales)
        else:
            low, high = np.minimum(groups.min(-1), 0), np.maximum(groups.max(-1), 0)
            scales = to_bfloat16_in_place(to_bfloat16_in_place(high - low) / np.float32(2**self.bits - 1))
            np.maximum(scales, SMALLEST_NORMAL, out=scales)
            zero_points = np.clip(lowest - np.rint(to_bfloat16_in_place(low / scales)), lowest, -lowest - 1)
        inverse = to_bfloat16_in_place(np.float32(1) / scales)
        values = to_bfloat16_in_place(groups * inverse[:, :, None])
        np.rint(values, out=values)
        values += zero_points[:, :, None]
        np.clip(values, lowest, -lowest - 1, out=values)
        codes = values.astype(np.int8).reshape(weights.shape)
        values -= zero_points[:, :, None]
        values *= scales[:, :, None]
        dequantized = to_bfloat16_in_place(values).reshape(weights.shape)
        return Rounded(codes, scales, dequantized, zero_points.astype(np.int8))

    def _config(self) -> Any:
        import torch
        from torchao.quantization import IntxWeightOnlyConfig, PerAxis, PerGroup
        from torchao.quantization.quant_primitives import MappingType

        granularity = PerGroup(self.group_size) if self.group_size else PerAxis(0)
        mapping = MappingType.SYMMETRIC if self.symmetric else MappingType.ASYMMETRIC
        return IntxWeightOnlyConfig(getattr(torch, f"int{self.bits}"), granularity, mapping)

    def _kind(self) -> tuple[str, str | None]:
        return "IntxUnpackedToInt8Tensor", f"int{self.bits}"

    def _dequantize(self, weight: Any) -> "Tensor":
        return weight.dequantize()

    def _read_matrix(self, files: TensorFiles, module: str, shape: tuple[int, int]) -> QuantizedMatrix:
        codes, scales, zero_points = _plain(files, module)
        groups = codes.reshape(*scales.shape, -1) - zero_points[:, :, None].astype(np.float32)
        dequantized = to_bfloat16(groups * scales[:, :, None]).reshape(shape)
        return QuantizedMatrix(module, codes, scales, zero_points, dequantized, module_bytes(files, module))


@dataclass(frozen=True)
class TorchAOInt4(TorchAO):
    """Int4WeightOnlyConfig in the tinygemm layout (`tile_packed_to_4d`),
    which takes an NVIDIA GPU of compute capability 8.

    group_size: inputs that share a bfloat16 scale and offset, 32, 64, 128 or 256.
    torchao's other layouts need kernels that are no dependency of it
    (plain: mslk) or have no safetensors (CPU: opaque).
    """

    group_size: int
    bits = 4
    device = "cuda"
    uses_gpu = True

    def __post_init__(self) -> None:
        check_number("group_size", self.group_size, INT4_GROUPS, f"give one of {list(INT4_GROUPS)}")

    @property
    def zero_on_grid(self) -> bool:
        return False

    def levels(self) -> Float32:
        """Scale = the group's range / 15, as for a group centred on zero.

        The grid starts at the group's smallest weight, so zero itself is seldom a level: the bin around zero keeps its
        width and is off centre, by less than half a step.
        """
        return super().levels()

    def round(self, weights: Float32, largest: float = 0.0) -> Rounded:
        """As on a GPU: every step in bfloat16, and a division by 15 is a product with 1/15."""
        groups = in_groups(weights, self.group_size)
        low, high = groups.min(-1), groups.max(-1)
        scales = to_bfloat16_in_place(to_bfloat16_in_place(high - low) * np.float32(1 / 15))
        np.maximum(scales, SMALLEST_NORMAL, out=scales)
        offsets = to_bfloat16_in_place(low + scales * 8)
        starts = to_bfloat16_in_place(offsets - scales * 8)
        values = to_bfloat16_in_place(groups - starts[:, :, None])
        values /= scales[:, :, None]
        np.rint(to_bfloat16_in_place(values), out=values)
        np.clip(values, 0, 15, out=values)
        codes = values.astype(np.uint8).reshape(weights.shape)
        values -= 8
        values *= scales[:, :, None]
        values += offsets[:, :, None]
        dequantized = to_bfloat16_in_place(values).reshape(weights.shape)
        return Rounded(codes, scales, dequantized, 8 - offsets / scales)

    def _config(self) -> Any:
        from torchao.quantization import Int4WeightOnlyConfig

        layout: Any = "tile_packed_to_4d"
        return Int4WeightOnlyConfig(self.group_size, int4_packing_format=layout, set_inductor_config=False)

    def _kind(self) -> tuple[str, str | None]:
        return "Int4TilePackedTo4dTensor", None

    def _check_device(self) -> None:
        import torch

        if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
            raise PalimpsestError(
                "backend 'torchao-int4' packs with CUDA kernels, and torch sees no GPU of compute capability 8.0 here: "
                "run this step on one, or use backend 'torchao-intx' (4 bits, symmetric) or 'rtn' on a CPU."
            )

    def _dequantize(self, weight: Any) -> "Tensor":
        """What the kernel makes of the identity: the tensor has no other dequantization."""
        import torch

        identity = torch.eye(weight.shape[1], dtype=torch.bfloat16, device=weight.device)
        return torch.nn.functional.linear(identity, weight).T

    def _read_matrix(self, files: TensorFiles, module: str, shape: tuple[int, int]) -> QuantizedMatrix:
        """The kernel computes (code - 8) * scale + offset with one rounding; padding is cut off."""
        rows, columns = shape
        codes = np.ascontiguousarray(untile(files.load(f"{module}{MARK}"))[:rows, :columns])
        both = files.load(f"{module}._weight_scale_and_zero")[: columns // self.group_size, :rows].transpose(2, 1, 0)
        scales, offsets = np.ascontiguousarray(both)
        groups = codes.reshape(*scales.shape, -1) - np.float32(8)
        dequantized = to_bfloat16(groups * scales[:, :, None] + offsets[:, :, None]).reshape(shape)
        size = module_bytes(files, module)
        return QuantizedMatrix(module, codes, scales, 8 - offsets / scales, dequantized, size)


def _plain(files: TensorFiles, module: str) -> tuple[np.ndarray, Float32, np.ndarray]:
    """Codes [out, in], scales [out, groups] and zero points [out, groups] of the formats with a byte per code."""
    codes, scales, zero_points = (files.load(f"{module}._weight_{part}") for part in ("qdata", "scale", "zero_point"))
    same_shape(scales, zero_points)
    return codes, scales, zero_points


def untile(words: np.ndarray) -> np.ndarray:
    """The codes of tinygemm's layout, as the tensor cores' fragments want them.

    words: [out / 8, in / 128, 32, 4] int32 of eight 4-bit codes. Lane t of the 32 holds row t // 4 and the columns
    around t % 4 * 2; word p the columns 32p to 32p + 31. In a word the four even columns come first, then the four odd
    ones, each of them at offsets 0, 8, 16 and 24. Returns [out, in] uint8.
    """
    tiles, spans = words.shape[:2]
    codes = unpack_nibbles(words, np.arange(16, dtype=np.uint8), high_first=False)
    # axes: tile, span of 128 columns, row, column pair, word, odd, offset 16, offset 8
    codes = codes.reshape(tiles, spans, 8, 4, 4, 2, 2, 2).transpose(0, 2, 1, 4, 6, 7, 3, 5)
    return codes.reshape(tiles * 8, spans * 128)


def sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in name order:
    it is written in random order, and equal models should be equal files."""
    with open(path, "r+b") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size))
