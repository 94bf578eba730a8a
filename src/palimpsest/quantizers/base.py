"""What a quantizer hands over: a deployable folder, the model that runs from it, and its weights as NumPy arrays."""

import hashlib
import shutil
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial, wraps
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from palimpsest.artefacts import read_json
from palimpsest.errors import PalimpsestError, first_line
from palimpsest.models.families import check_known, model_type
from palimpsest.models.layers import family_of, is_buffer, layers_of
from palimpsest.models.quantized import reject_quantized
from palimpsest.models.tensors import Float32, TensorFiles, open_checkpoint
from palimpsest.quantizers.grids.levels import zero_bin
from palimpsest.quantizers.grids.rounding import Rounded

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Item = TypeVar("Item")
STACKED = "all experts of a layer are one tensor in memory, which it leaves as it is"
"""Why a backend refuses Mixtral."""
TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "chat_template*",
)


@dataclass(frozen=True)
class QuantizedMatrix:
    """One quantized weight matrix as its file stores it.

    name: module path, such as `model.layers.0.self_attn.q_proj`.
    codes: [out, in], int8 or uint8; signed integers of an integer grid, the index into `levels()` of a 4-bit float
    grid, or how many levels away from zero (compressed-tensors' floats).
    scales: float32; [out, groups], or [blocks] where blocks run through the matrix row by row (bitsandbytes 4-bit).
    zero_points: [out, groups], subtracted from the codes; whole numbers, or float32 where the backend puts zero between
    codes (HQQ, tinygemm); None where the file has none, as for most symmetric grids.
    minimums: [out, groups], float32, subtracted from code * scale (GGUF's K-quants); None for the other formats.
    group_index: [in], the group of each column, where a group's columns do not lie together (AutoGPTQ's order by
    activation); None where groups are runs of equal length.
    bits: of a code, in formats that mix matrices of several widths; None where the quantizer's `bits` holds.
    dequantized: [out, in], bit for bit the matrix that the backend computes with.
    stored_bytes: of the file that hold codes, scales, zero points and minimums.
    row_factors [out], column_factors [in]: what the backend multiplied the checkpoint's matrix by before rounding, to
    be undone by a neighbouring layer (AWQ); None for the methods that leave the matrix as it is.
    """

    name: str
    codes: NDArray[np.integer]
    scales: Float32
    zero_points: NDArray[np.integer] | Float32 | None
    dequantized: Float32
    stored_bytes: int
    row_factors: Float32 | None = None
    column_factors: Float32 | None = None
    minimums: Float32 | None = None
    group_index: NDArray[np.integer] | None = None
    bits: int | None = None

    @property
    def effective(self) -> Float32:
        """[out, in] the dequantized matrix in the coordinates of the checkpoint,
        where it stands for the original one."""
        matrix = self.dequantized
        if self.row_factors is not None:
            matrix = matrix / self.row_factors[:, None]
        if self.column_factors is not None:
            matrix = matrix / self.column_factors[None, :]
        return matrix


BROKEN = (
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RecursionError,
    MemoryError,
    struct.error,
    SafetensorError,
)
"""What a reader meets in a file of which some bytes are others than its backend wrote."""


def guarded(read: Callable[..., Iterator[Item]]) -> Callable[..., Iterator[Item]]:
    """A reader of quantized folders, whose every error is one that names the folder."""

    @wraps(read)
    def whole(self: "Quantizer", folder: Path, *rest: Any) -> Iterator[Item]:
        try:
            yield from read(self, folder, *rest)
        except BROKEN as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise PalimpsestError(
                f"{folder} cannot be read as {self.packages[0]} writes it ({reason}): quantize the checkpoint again."
            ) from error

    return whole


def same_shape(first: NDArray, second: NDArray) -> None:
    """Raise ValueError, which a guarded reader turns into its error, for two that NumPy would spread over each other:
    in a broken file, to any size."""
    if first.shape != second.shape:
        raise ValueError(f"{list(first.shape)} and {list(second.shape)} do not belong together")


def from_unquantized(quantize: Callable[..., dict[str, str]]) -> Callable[..., dict[str, str]]:
    """A backend's `quantize`, which refuses a checkpoint that is quantized already: it would round codes."""

    @wraps(quantize)
    def whole(self: "Quantizer", checkpoint: Path, *rest: Any, **named: Any) -> dict[str, str]:
        reject_quantized(checkpoint)
        return quantize(self, checkpoint, *rest, **named)

    return whole


class Quantizer(ABC):
    """One backend with its settings. Subclasses are frozen dataclasses whose fields are the keys of a params block.

    Every quantizer starts from the checkpoint in bfloat16, the format in which the unquantized model is deployed:
    a float32 checkpoint is rounded first.
    """

    def __init_subclass__(cls) -> None:
        """Every backend takes unquantized checkpoints alone, and its readers are guarded, without a word of its own."""
        super().__init_subclass__()
        if "quantize" in vars(cls):
            cls.quantize = from_unquantized(vars(cls)["quantize"])  # type: ignore[method-assign]
        for name in ("read", "unquantized"):
            if name in vars(cls):
                setattr(cls, name, guarded(vars(cls)[name]))

    packages: ClassVar[tuple[str, ...]]
    """The packages whose versions decide the result; the first is the backend."""

    @property
    def imports(self) -> tuple[str, ...]:
        """The modules of `packages` that the project's own environment imports;
        the warm process of a run does so beforehand."""
        return () if self.environment else tuple(package.replace("-", "_") for package in self.packages)

    environment: ClassVar[str | None] = None
    """The isolated environment, workflow/envs/NAME.txt, that the backend needs; None: the project's own."""

    bits: int
    """Bits of a code."""

    @property
    def calibration_text(self) -> str | None:
        """Which text the backend feeds through the model:
        one of calibration.TEXTS, or None where it looks at weights alone."""
        return None

    uses_gpu: ClassVar[bool] = False
    """Whether `quantize` works on a GPU where there is one:
    its step then asks for one, and those of other formats see none."""

    sixteen_bits: ClassVar[str] = "bfloat16"
    """The type in which the backend stores what it leaves unquantized: `bfloat16` or `float16`."""

    refuses: ClassVar[Mapping[str, str]] = {}
    """Families that the backend does not quantize, by model type, and why; it takes every other one of
    palimpsest.models.families, which tests/golden/test_families.py tries."""

    needs_largest: ClassVar[bool] = False
    """Whether `round` must be told the largest |w| of the matrix and of those that share a scale with it."""

    @property
    def width_divisor(self) -> int:
        """What the input width of every layer must be divisible by."""
        return 1

    @property
    def zero_on_grid(self) -> bool:
        """Whether every group has a level at zero.
        Where it lies anywhere between two levels, no weight is safe from a flip."""
        return True

    @property
    def needs_cuda(self) -> bool:
        """Whether `quantize` can run on a CUDA device alone."""
        return False

    def check_family(self, checkpoint: Path) -> None:
        """Raise PalimpsestError for a model of a family that the backend does not take. Reads config.json alone."""
        kind = model_type(checkpoint)
        if kind is None:
            return
        check_known(kind, checkpoint)
        if kind in self.refuses:
            raise PalimpsestError(
                f"{checkpoint} is a model of type {kind!r}, which {self.packages[0]} does not quantize here: "
                f"{self.refuses[kind]}. Use rtn, which takes it, or another of the backends that `palimpsest families` "
                "lists for it."
            )

    def check_checkpoint(self, checkpoint: Path) -> None:
        """Raise PalimpsestError where the shapes or the configuration of a checkpoint do not fit the settings.

        Planning asks it of models whose shape is known (palimpsest.study.fit), so that nothing is trained for a format
        which then refuses it; `quantize` checks the same. Reads headers and config.json alone.
        """
        self.check_family(checkpoint)
        with open_checkpoint(checkpoint):
            return

    @abstractmethod
    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str]) -> dict[str, str]:
        """Quantize `checkpoint` with the backend
        and save weights, configuration and tokenizer to `folder` in its format.

        calibration: texts for backends that need some, in order; the others ignore them.
        Returns the `fingerprint` of each dequantized matrix as the backend held it in memory, by module: what
        is read back from the file must have the same. Raises PalimpsestError when the checkpoint is missing or
        does not fit the settings.
        """

    @abstractmethod
    def read(self, folder: Path) -> Iterator[QuantizedMatrix]:
        """Yield the quantized matrices in name order, one in memory at a time. Imports NumPy only."""

    def round(self, weights: Float32, largest: float = 0.0) -> Rounded:
        """The arithmetic of `quantize` and `read` without files:
        what the backend makes of some rows of a matrix, bit for bit.

        weights: [rows, in] float32 that bfloat16 holds exactly, finite and contiguous; whole rows from the top of a
        matrix, a multiple of 64 unless they reach its end (bitsandbytes' blocks run on from row to row).
        largest: see `needs_largest`. Raises PalimpsestError where the weights alone do not decide the result.
        """
        raise PalimpsestError(self.why_not_round())

    def why_not_round(self) -> str:
        """Why `round` cannot be had from weights alone; empty where it can."""
        if type(self).round is not Quantizer.round:
            return ""
        if self.calibration_text is not None:
            return f"backend {self.packages[0]!r} rounds by what calibration text does to the layers' inputs"
        return (
            f"backend {self.packages[0]!r} searches for its scales or zero points, "
            "which only the backend itself repeats"
        )

    def is_zero(self, rounded: Rounded) -> NDArray[np.bool_]:
        """[rows, in] which weights were rounded to the zero level: those inside the dead zone of their own block."""
        return rounded.dequantized == 0

    def why_not_proven(self, folder: Path) -> str:
        """Why the codes of a quantized folder cannot be read; empty where they can, as in all that is made here."""
        return ""

    def versions(self) -> dict[str, str]:
        """The version of each of `packages`, wherever the backend is installed."""
        return {package: version(package) for package in self.packages}

    @abstractmethod
    def levels(self) -> Float32:
        """[codes] the values that codes stand for, in units of the block's largest |w| (zero point at zero)."""

    def level_tables(self) -> dict[str, Float32]:
        """`levels` by the backend's name of the grid, in formats whose file has matrices on several;
        the grid of most comes first."""
        return {"": self.levels()}

    def dead_zone(self) -> tuple[float, float]:
        """How far below and above zero a weight may lie and still be rounded to zero,
        in units of the block's largest |w|.

        Nominal where `zero_on_grid` is false:
        the bin has this width and lies off centre, from group to group elsewhere.
        """
        return zero_bin(self.levels())

    def dead_zone_range(self) -> tuple[float, float]:
        """(lowest, highest): between which multiples of `dead_zone` that of a single block lies.

        Other than 1 where a block's scale does not follow from its largest |w| alone:
        scales rounded to a coarse grid, zero points.
        """
        return 1.0, 1.0

    @guarded
    def unquantized(self, folder: Path, quantized: Set[str]) -> Iterator[tuple[str, Float32]]:
        """Yield (name, values) of the tensors outside the `quantized` modules:
        embeddings, norms, biases, the output head."""
        with open_checkpoint(folder) as files:
            for name in files.names():
                module = name.rpartition(".")[0]  # of tensors that are called W_q or _weight_scale rather than weight
                of_quantized = name.partition(".weight")[0] in quantized or module in quantized
                if not of_quantized or name.endswith(".bias"):
                    yield name, files.load(name)

    def factors(self, folder: Path) -> dict[str, Float32]:
        """By what the backend multiplied each row of tensors that `unquantized` yields, by name;
        none for most methods."""
        return {}

    def load(self, folder: Path, device: str, dtype: str = "bfloat16") -> "PreTrainedModel":
        """The model of `folder` on `device`, in evaluation mode, with the dequantized matrices as dense weights.

        For formats that quantize weights only, this is the backend's own arithmetic (dequantize to bfloat16,
        then multiply) with the dequantization done once instead of in every forward pass. It needs neither the
        backend nor its kernels.
        dtype: what the products are computed in; float32 keeps the same weights and leaves only the sums more exact.
        """
        from palimpsest.models.dense import load_dense

        matrices = ((matrix.name, matrix.dequantized) for matrix in self.read(folder))
        return load_dense(folder, matrices, partial(self.unquantized, folder), device, dtype)


def fingerprint(matrix: "Float32 | Tensor") -> str:
    """SHA-256 of a matrix's values in float32, row by row; -0 counts as 0."""
    values = matrix if isinstance(matrix, np.ndarray) else matrix.detach().float().cpu().numpy()
    return hashlib.sha256(np.ascontiguousarray(values + np.float32(0)).data).hexdigest()


def check_reload(quantizer: Quantizer, folder: Path, matrix_of: "Callable[[str], Tensor]") -> None:
    """Raise PalimpsestError unless the backend's own modules, loaded from `folder`, hold what `read` finds in the file.

    matrix_of: a module's dequantized matrix by its name. The first module is looked at: a format that is read otherwise
    than it is loaded differs in every one.
    """
    matrices = quantizer.read(folder)
    first = next(matrices, None)
    if first is None:
        raise PalimpsestError(f"{folder} holds no quantized matrix: quantize the checkpoint again.")
    if fingerprint(matrix_of(first.name)) != fingerprint(first.dequantized):
        raise PalimpsestError(
            f"{first.name} as {quantizer.packages[0]} loads it from {folder} is not the matrix in the file: use the "
            "versions in constraints.txt, or quantize the checkpoint again."
        )


def module_bytes(files: TensorFiles, module: str) -> int:
    """Bytes of every tensor of a module but its bias."""
    names = [name for name in files.names() if name.startswith(f"{module}.") and not name.endswith(".bias")]
    return sum(files.stored(name).nbytes for name in names)


def row_factors(folder: Path) -> dict[str, Float32]:
    """What `Quantizer.factors` gives for the two AWQ backends, from MODULE.rows in their folder of factors."""
    with open_checkpoint(folder) as files:
        modules = [name.removesuffix(".rows") for name in files.names() if name.endswith(".rows")]
        return {f"{module}.{part}": files.load(f"{module}.rows") for module in modules for part in ("weight", "bias")}


def check_group_size(
    checkpoint: Path, group_size: int | None, remedy: str = "give a divisor, or null for one scale per output channel"
) -> None:
    """Raise PalimpsestError when the group size does not divide the input width of every layer
    that will be quantized."""
    for module, (_, width) in matrix_shapes(checkpoint).items():
        if group_size is not None and width % group_size:
            raise PalimpsestError(
                f"group_size {group_size} does not divide the {width} inputs of {module} in {checkpoint}: {remedy}."
            )


def matrix_shapes(checkpoint: Path) -> dict[str, tuple[int, ...]]:
    """[out, in] of each layer that is quantized, by module; stacked experts, which have three dimensions, left out."""
    with open_checkpoint(checkpoint) as files:
        layers = layers_of(files)
        shapes = {module: layers.shape(files, module) for module in layers.linear}
    return {module: shape for module, shape in shapes.items() if len(shape) == 2}


def load_checkpoint(checkpoint: Path, dtype: str = "bfloat16", **settings: Any) -> "PreTrainedModel":
    """Load a local safetensors checkpoint in evaluation mode; never from a hub, never with remote code.

    Of a folder in compressed-tensors each linear layer is torch's, as it was when it was saved; see `load_linear`.
    """
    with open_checkpoint(checkpoint):  # raises the clear error before transformers looks elsewhere
        return _class_of(checkpoint).from_pretrained(
            checkpoint,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **settings,
        )


def load_linear(checkpoint: Path, dtype: str = "bfloat16", **settings: Any) -> "PreTrainedModel":
    """`load_checkpoint`, with each linear layer as torch has it, which is all that most backends quantize.

    GPT-2's Conv1D are turned, Falcon's own class is exchanged; the same matrices compute the same.
    """
    family = family_of(checkpoint)
    if family is None or not family.own_linear:
        return load_checkpoint(checkpoint, dtype, **settings)
    from palimpsest.models.dense import with_own_settings, with_torch_linear

    weights = _turned_weights(checkpoint, dtype)
    config, architecture = with_torch_linear(checkpoint)
    model = architecture.from_pretrained(None, config=config, state_dict=weights, dtype=dtype, **settings)
    return with_own_settings(model, checkpoint).eval()


def _class_of(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    family = family_of(folder)
    if family is None or not family.own_linear:
        return AutoModelForCausalLM
    settings = read_json(folder / "config.json").get("quantization_config", {})
    if settings.get("quant_method") != "compressed-tensors":
        return AutoModelForCausalLM
    from palimpsest.models.dense import with_torch_linear

    return with_torch_linear(folder)[1]


def _turned_weights(checkpoint: Path, dtype: str) -> "dict[str, Tensor]":
    import torch

    weights = {}
    with open_checkpoint(checkpoint) as files:
        turned = {f"{module}.weight" for module in layers_of(files).turned}
        for name in files.names():
            values = files.load(name)
            if not is_buffer(name, values.shape):
                values = np.ascontiguousarray(values.T) if name in turned else values
                weights[name] = torch.from_numpy(values).to(getattr(torch, dtype))
    return weights


def copy_tokenizer(checkpoint: Path, folder: Path) -> None:
    """Copy the tokenizer's files unchanged into `folder`, made if need be;
    raises PalimpsestError when there are none."""
    files = sorted({path for pattern in TOKENIZER_FILES for path in checkpoint.glob(pattern)})
    if not files:
        raise PalimpsestError(f"{checkpoint} holds no tokenizer: save the tokenizer beside the model.")
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        shutil.copy(path, folder / path.name)
