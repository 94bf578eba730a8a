"""AutoGPTQ and AutoAWQ, the packages behind most published 4-bit checkpoints.
Archived upstream, so they run in an isolated environment.

Both compute in float16: the checkpoint, rounded to bfloat16 as for every format, is rounded once more, and the
dequantized matrices are products of a float16 scale and an integer, rounded to float16.
"""

import json
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from palimpsest.artefacts import read_json, write_json
from palimpsest.errors import PalimpsestError
from palimpsest.models.families import FAMILIES
from palimpsest.models.tensors import Float32, TensorFiles, open_checkpoint
from palimpsest.quantizers.base import (
    QuantizedMatrix,
    check_group_size,
    copy_tokenizer,
    matrix_shapes,
    module_bytes,
    row_factors,
    same_shape,
)
from palimpsest.quantizers.calibration import Calibrated, check_damping, check_number, check_positive
from palimpsest.quantizers.cost import note_device_peak
from palimpsest.quantizers.environments import installed_version, interpreter, run_logged
from palimpsest.quantizers.grids.levels import WITH_ZERO_POINTS, integer_levels
from palimpsest.quantizers.grids.packing import unpack_nibbles

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WORKER = Path(__file__).with_name("worker.py")
MARK = ".qweight"
SMOOTHING = "smoothing"
"""AutoAWQ's factors: a subfolder, out of sight of engines that load every safetensors file of a folder."""
BIASES = "biases.json"
"""The checkpoint's own biases: AutoGPTQ stores one for every layer."""
AWQ_ORDER = np.array([0, 4, 1, 5, 2, 6, 3, 7])
"""Where in its word AutoAWQ puts each of eight neighbouring outputs."""
TRIED = ("llama", "mistral", "qwen2")
REFUSES = dict.fromkeys(
    (kind for kind in FAMILIES if kind not in TRIED),
    f"of the families of its time it was tried on {', '.join(FAMILIES[kind].title for kind in TRIED)} alone",
)
ROPE = {"rope_type", "rope_theta", "partial_rotary_factor"}


@dataclass(frozen=True)
class Archived(Calibrated):
    """What the two share: where they run, the job they get and the grid."""

    bits: int
    group_size: int | None
    backend: ClassVar[str]
    environment: ClassVar[str | None] = "archived"
    refuses: ClassVar[Mapping[str, str]] = REFUSES
    sixteen_bits: ClassVar[str] = "float16"

    def check_checkpoint(self, checkpoint: Path) -> None:
        super().check_checkpoint(checkpoint)
        check_group_size(checkpoint, self.group_size, self._remedy())
        self._check_shapes(checkpoint)

    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str] = ()) -> dict[str, str]:
        assert self.environment
        self.check_family(checkpoint)
        check_group_size(checkpoint, self.group_size, self._remedy())
        self._check_shapes(checkpoint)
        python = interpreter(self.environment)
        copy_tokenizer(checkpoint, folder)
        stretches = self.encode(checkpoint, calibration)
        if (checkpoint / "generation_config.json").exists():
            shutil.copy(checkpoint / "generation_config.json", folder)
        with TemporaryDirectory() as draft:
            job, written = Path(draft, "job.json"), Path(draft, "result.json")
            content = {
                "backend": self.backend,
                "checkpoint": str(_for_transformers_4(checkpoint, Path(draft, "checkpoint"))),
                "folder": str(folder),
                "settings": self._settings(),
                "stretches": stretches,
                "result": str(written),
            }
            job.write_text(json.dumps(content), encoding="utf-8")
            offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
            # -I: neither PYTHONPATH nor the worker's folder, whose modules are named like packages,
            # is searched for imports
            run_logged([str(python), "-I", str(WORKER), str(job)], f"{self.backend} on {checkpoint}", offline)
            result = read_json(written)
        if result["device"] == "cuda":
            note_device_peak(result["device_peak_bytes"])
        return result["held"]

    def versions(self) -> dict[str, str]:
        assert self.environment
        return {package: installed_version(self.environment, package) for package in self.packages}

    def read(self, folder: Path) -> Iterator[QuantizedMatrix]:
        stored = read_json(folder / "config.json").get("quantization_config", {})
        asked = self._stored_settings()
        damping = {"damp_percent": asked["damp_percent"]} if "damp_percent" in asked else {}  # others may not state it
        if {key: stored.get(key, damping.get(key)) for key in asked} != asked:
            raise PalimpsestError(
                f"{folder} was quantized with {stored}, the settings say {asked}: quantize the checkpoint again."
            )
        with open_checkpoint(folder) as files:
            for module in [name.removesuffix(MARK) for name in files.names() if name.endswith(MARK)]:
                yield self._read_matrix(files, module)

    def load(self, folder: Path, device: str, dtype: str = "bfloat16") -> "PreTrainedModel":
        """As for the other formats, but with float16 for 16 bits: the packages know no other type."""
        return super().load(folder, device, "float16" if dtype == "bfloat16" else dtype)

    def levels(self) -> Float32:
        """Scale = range of the group, zero included / (2^bits - 1); a group centred on zero has these levels."""
        return integer_levels(self.bits, divisor=(2**self.bits - 1) / 2)

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """The settings in the backend's words."""

    @abstractmethod
    def _stored_settings(self) -> dict[str, Any]:
        """What config.json says of them."""

    @abstractmethod
    def _read_matrix(self, files: TensorFiles, module: str) -> QuantizedMatrix: ...

    @abstractmethod
    def _blocks(self, module: str) -> tuple[int, int]:
        """The numbers of outputs and inputs that the backend takes at a time."""

    def _remedy(self) -> str:
        return "give a divisor, or null for one scale per output channel"

    def _check_shapes(self, checkpoint: Path) -> None:
        """The backends would cut off what does not fill a word, or fail half-way."""
        for module, shape in matrix_shapes(checkpoint).items():
            blocks = self._blocks(module)
            if any(size % block for size, block in zip(shape, blocks, strict=True)):
                raise PalimpsestError(
                    f"{self.backend} takes {blocks[0]} outputs and {blocks[1]} inputs at a time, which do not "
                    f"divide the {shape[0]} and {shape[1]} of {module} in {checkpoint}: use gptq, awq or rtn."
                )


@dataclass(frozen=True)
class AutoGPTQ(Archived):
    """GPTQ (arXiv 2210.17323) by auto-gptq 0.7.1: its solver, layer by layer, its packing and its file.

    bits: 2, 3, 4 or 8; group_size: inputs that share a scale, null for one scale per output channel;
    symmetric: whether zero is the middle code; desc_act: columns in order of decreasing activation, so that a
    group's columns lie anywhere;
    damping: the share of the Hessian's mean diagonal that is added to it, between 0 and 1 (the authors': 0.01).
    The package packs zero points minus one, and a zero point of 0 (a group whose weights are all positive) spoils its
    neighbours: that is an error where it happens.
    """

    symmetric: bool
    desc_act: bool
    damping: float
    backend: ClassVar[str] = "auto-gptq"
    packages: ClassVar[tuple[str, ...]] = ("auto-gptq", "transformers", "torch")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("bits", self.bits, (2, 3, 4, 8), "give 2, 3, 4 or 8")
        if self.group_size is not None:
            check_positive("group_size", self.group_size, " or null for one scale per output channel")
        for key in ("symmetric", "desc_act"):
            if not isinstance(getattr(self, key), bool):
                raise PalimpsestError(f"{key} is {getattr(self, key)!r}: give true or false.")
        check_damping(self.damping)

    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str] = ()) -> dict[str, str]:
        held = super().quantize(checkpoint, folder, calibration)
        _sort_metadata(folder / "model.safetensors")
        with open_checkpoint(checkpoint) as files:
            write_json(folder / BIASES, [name for name in files.names() if name.endswith(".bias")])
        return held

    def unquantized(self, folder: Path, quantized: Set[str]) -> Iterator[tuple[str, Float32]]:
        """AutoGPTQ stores a bias with every packed layer,
        of zeros where the checkpoint has none: those are left out. A folder that others made does not say which."""
        real = read_json(folder / BIASES) if (folder / BIASES).exists() else None
        for name, values in super().unquantized(folder, quantized):
            own = values.any() if real is None else name in real
            if name.removesuffix(".bias") not in quantized or own:
                yield name, values

    def dead_zone_range(self) -> tuple[float, float]:
        return super().dead_zone_range() if self.symmetric else WITH_ZERO_POINTS

    def _settings(self) -> dict[str, Any]:
        return self._stored_settings() | {"static_groups": False, "true_sequential": True}

    def _stored_settings(self) -> dict[str, Any]:
        return {
            "bits": self.bits,
            "group_size": self.group_size or -1,
            "sym": self.symmetric,
            "desc_act": self.desc_act,
            "damp_percent": self.damping,
        }

    def _blocks(self, module: str) -> tuple[int, int]:
        return 32, 32

    def _read_matrix(self, files: TensorFiles, module: str) -> QuantizedMatrix:
        codes = self._unpack(files.load(f"{module}{MARK}").T)
        scales = np.ascontiguousarray(files.load(f"{module}.scales").T)
        zero_points = self._unpack(files.load(f"{module}.qzeros")).T.astype(np.int16) + np.int16(1)
        if not (self.desc_act and self.group_size) and self.bits != 3:
            zero_points &= np.int16(2**self.bits - 1)  # as the package's layer for groups in order does
        index = files.load(f"{module}.g_idx")
        same_shape(scales, zero_points)
        same_shape(codes[0], index)
        dequantized = to_float16(scales[:, index] * (codes - zero_points[:, index]))
        size = module_bytes(files, module)
        group_index = index if self.desc_act and self.group_size else None
        return QuantizedMatrix(module, codes, scales, zero_points, dequantized, size, group_index=group_index)

    def _unpack(self, words: NDArray[np.int32]) -> NDArray[np.uint8]:
        """[rows, words] to [rows, codes]: a row is a string of bits, lowest first,
        of which a code takes the next few."""
        words = np.ascontiguousarray(words)
        if self.bits == 8:
            return words.view(np.uint8)
        if self.bits == 4:
            return unpack_nibbles(words, np.arange(16, dtype=np.uint8), high_first=False)
        string = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little").reshape(len(words), -1, self.bits)
        return (string << np.arange(self.bits, dtype=np.uint8)).sum(2, dtype=np.uint8)


@dataclass(frozen=True)
class AutoAWQ(Archived):
    """AWQ (arXiv 2306.00978) by autoawq 0.2.9:
    its search for factors and for clipping, its packing and its file (GEMM).

    bits: 4, all that the package packs; group_size: inputs that share a scale; zero_point: true, the only grid of this
    file. Each input channel is multiplied by a factor before rounding and the layer before divided by it
    (`compressed_awq` says more); then, but for queries and keys, the largest weights of a group are clipped where that
    lowers the layer's error. A group whose weights all lie on one side of zero loses the part beyond its own range: the
    package keeps zero points in 0..15.
    """

    zero_point: bool
    backend: ClassVar[str] = "autoawq"
    packages: ClassVar[tuple[str, ...]] = ("autoawq", "transformers", "torch")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("bits", self.bits, (4,), "autoawq packs 4 bits only; use gptq, awq or rtn for others")
        check_positive("group_size", self.group_size, f"; {self._remedy()}")
        if self.zero_point is not True:
            raise PalimpsestError(
                f"zero_point is {self.zero_point!r}: give true; autoawq fails without zero points in its GEMM format. "
                "awq has symmetric grids."
            )

    def read(self, folder: Path) -> Iterator[QuantizedMatrix]:
        if not (folder / SMOOTHING).is_dir():
            raise PalimpsestError(
                f"{folder} holds no {SMOOTHING} factors: quantize the checkpoint again, with autoawq."
            )
        with open_checkpoint(folder / SMOOTHING) as files:
            for matrix in super().read(folder):
                rows, columns = (
                    files.load(name) if (name := f"{matrix.name}.{side}") in files else None
                    for side in ("rows", "columns")
                )
                yield replace(matrix, row_factors=rows, column_factors=columns)

    def read_as_stored(self, folder: Path) -> Iterator[QuantizedMatrix]:
        """Without the factors: the matrices that the model of the file computes with, which are none of the
        checkpoint's."""
        return super().read(folder)

    def factors(self, folder: Path) -> dict[str, Float32]:
        return row_factors(folder / SMOOTHING)

    def dead_zone_range(self) -> tuple[float, float]:
        """As for other grids with zero points;
        the package takes the range as it is, so groups on one side of zero fall outside."""
        return WITH_ZERO_POINTS

    def _settings(self) -> dict[str, Any]:
        return {"w_bit": self.bits, "q_group_size": self.group_size, "zero_point": self.zero_point, "version": "gemm"}

    def _stored_settings(self) -> dict[str, Any]:
        settings = {"bits": self.bits, "group_size": self.group_size, "zero_point": self.zero_point}
        return settings | {"quant_method": "awq", "version": "gemm"}

    def _remedy(self) -> str:
        return "give a divisor of every layer's inputs (autoawq has no grid with one scale per output channel)"

    def _blocks(self, module: str) -> tuple[int, int]:
        """Eight outputs fill a word and packing takes 32 at a time; the search for clipping takes 64."""
        unclipped = any(part in module.rpartition(".")[2] for part in ("q_", "k_", "query", "key", "Wqkv"))
        return (32 if unclipped else 64), 1

    def _read_matrix(self, files: TensorFiles, module: str) -> QuantizedMatrix:
        codes, zero_points = (
            np.ascontiguousarray(_unpack_awq(files.load(f"{module}.{part}")).T) for part in ("qweight", "qzeros")
        )
        scales = np.ascontiguousarray(files.load(f"{module}.scales").T)
        same_shape(scales, zero_points)
        groups = codes.astype(np.float32).reshape(*scales.shape, -1) - zero_points[:, :, None]
        dequantized = to_float16(groups * scales[:, :, None]).reshape(codes.shape)
        return QuantizedMatrix(module, codes, scales, zero_points, dequantized, module_bytes(files, module))


def to_float16(values: NDArray) -> Float32:
    """Round to the nearest float16 (ties to even), kept in float32."""
    return values.astype(np.float16).astype(np.float32)


def _unpack_awq(words: NDArray[np.int32]) -> NDArray[np.uint8]:
    """[rows, words] to [rows, codes], eight codes to a word, in AutoAWQ's order."""
    codes = unpack_nibbles(np.ascontiguousarray(words), np.arange(16, dtype=np.uint8), high_first=False)
    return codes.reshape(len(words), -1, 8)[:, :, AWQ_ORDER].reshape(len(words), -1)


def _sort_metadata(path: Path) -> None:
    """Put the free-text metadata of a safetensors file in order, in place:
    the library writes several keys in random order."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(ordered) <= length  # the same content, without the padding
        file.seek(8)
        file.write(ordered.ljust(length))


def _for_transformers_4(checkpoint: Path, folder: Path) -> Path:
    """`folder` with links to the checkpoint's weights and its configuration in the terms of transformers 4.

    transformers 5 keeps the rotary embedding's settings in `rope_parameters`, which release 4 ignores: it would take
    its default frequencies. Raises PalimpsestError for settings that release 4 has no words for.
    """
    folder.mkdir()
    for path in checkpoint.iterdir():
        if path.name != "config.json" and path.is_file():
            (folder / path.name).symlink_to(path.resolve())
    config = read_json(checkpoint / "config.json")
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")
    rope = config.pop("rope_parameters", None)
    if rope:
        if "rope_theta" not in rope:
            raise PalimpsestError(
                f"{checkpoint / 'config.json'} has other rotary embeddings in other layers ({sorted(rope)}), which the "
                "archived quantizers do not know: use gptq or awq."
            )
        config |= {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope}
        if rope.get("rope_type", "default") != "default":
            config["rope_scaling"] = {
                key: value for key, value in rope.items() if key not in ROPE or key == "rope_type"
            }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
