"""llama.cpp: GGUF, the file that llama.cpp, Ollama and LM Studio run,
quantized by llama.cpp itself (through cyllama)."""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np

from palimpsest.errors import PalimpsestError, choose
from palimpsest.models.families import FAMILIES
from palimpsest.models.layers import is_named, layers_of
from palimpsest.models.tensors import Float32, open_checkpoint
from palimpsest.quantizers.base import QuantizedMatrix, Quantizer, copy_tokenizer, fingerprint
from palimpsest.quantizers.gguf.blocks import FORMATS as BLOCK_FORMATS
from palimpsest.quantizers.gguf.model import GGUFTensors, write_unquantized
from palimpsest.quantizers.grids.levels import integer_levels
from palimpsest.quantizers.grids.rounding import Rounded, in_groups, largest_magnitude, round_half_away_in_place

MODEL = "model.gguf"
FORMATS: dict[str, tuple[str, ...]] = {"q8_0": ("Q8_0",), "q4_0": ("Q4_0",), "q4_k_m": ("Q4_K", "Q6_K")}
"""The block formats of a file's layers, the one of most matrices first."""
OUTER_NAMES = tuple({name for family in FAMILIES.values() for name in (family.embeddings[0], *family.heads)})
"""Of the token embeddings and the output head, in every family."""
IN_ONE = ("qkv_proj", "query_key_value", "c_attn")
FUSED = {"q4_k_m": ("Q5_K",)}
"""What llama.cpp makes of the matrices IN_ONE, which hold queries, keys and values, where that is none of FORMATS."""
UNQUANTIZED = ("F32", "BF16")
OUTER: dict[str, tuple[str, ...]] = {
    "q8_0": ("Q8_0",),
    "q4_0": ("Q4_0", "Q6_K", "Q8_0"),  # heads have more bits: Q8_0 where their width is not a multiple of 256
    "q4_k_m": ("Q4_K", "Q6_K"),
}
"""What llama.cpp makes of embeddings and head if it is left to itself."""
OUTER_CHOICES = ("bfloat16", "default")
FILE_TYPES = {"q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0", "q4_k_m": "MOSTLY_Q4_K_M", "f32": "ALL_F32"}
DIVISORS = {"Q8_0": 127.0, "Q4_0": 8.0, "Q4_K": 7.5, "Q5_K": 15.5, "Q6_K": 32.0}
"""The code of a group's largest |w|, or of half the range of a group with a minimum."""
PROBE = "The year's 1,024th line:  don't  wait, ask Zoë\n\n\tand (maybe) pay 3.50 €!"
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class GGUF(Quantizer):
    """Weights in llama.cpp's blocks, by rounding (no importance matrix): q8_0, q4_0 or q4_k_m.

    q4_k_m has most matrices in Q4_K (4 bits, groups of 32 with a scale and a minimum), and in some layers v_proj and
    down_proj in Q6_K (6 bits, groups of 16).
    outer: what becomes of token embeddings and output head: `bfloat16` leaves them as they are, so that formats
    compare, `default` has llama.cpp quantize them, as its tool does: the head, or the embeddings that serve as
    one, to 6 bits at least.

    The base class's `load` computes with the weights alone. llama.cpp on CPU also rounds the activations that enter a
    matrix product, to 8 bits in blocks of 32 (q8_0, q4_0) or 256 (K-quants) and to bfloat16 before an unquantized head;
    its GPU kernels differ again. The weights are the same everywhere.
    """

    format: str
    outer: str
    packages: ClassVar[tuple[str, ...]] = ("cyllama", "gguf", "transformers")
    refuses: ClassVar[Mapping[str, str]] = {
        "opt": "llama.cpp has no such architecture",
        "bloom": "its tokenizer is none that palimpsest writes for llama.cpp",
        "falcon": "its tokenizer is none that palimpsest writes for llama.cpp",
        "mixtral": "it stacks the experts of a layer, which palimpsest does not read back one by one",
    }
    imports = ("gguf",)  # cyllama starts threads, which no fork would have

    def __post_init__(self) -> None:
        choose(FORMATS, str(self.format), "format of backend 'gguf'")
        choose(dict.fromkeys(OUTER_CHOICES), str(self.outer), "outer of backend 'gguf'")

    @property
    def bits(self) -> int:  # type: ignore[override]
        """Of most matrices' codes."""
        return BLOCK_FORMATS[FORMATS[self.format][0]].bits

    @property
    def zero_on_grid(self) -> bool:
        return self.format != "q4_k_m"  # Q4_K fits a minimum to each group

    def check_checkpoint(self, checkpoint: Path) -> None:
        super().check_checkpoint(checkpoint)
        self._check_shapes(checkpoint)

    def quantize(self, checkpoint: Path, folder: Path, calibration: Sequence[str] = ()) -> dict[str, str]:
        """The fingerprints are of what llama.cpp dequantizes its own file to: it keeps nothing in memory."""
        self.check_family(checkpoint)
        layers = self._check_shapes(checkpoint)
        copy_tokenizer(checkpoint, folder)
        for name in ("config.json", "generation_config.json"):
            if (checkpoint / name).exists():
                shutil.copy(checkpoint / name, folder / name)
        with TemporaryDirectory(dir=folder) as scratch:
            unquantized, dequantized = Path(scratch, "unquantized.gguf"), Path(scratch, "dequantized.gguf")
            write_unquantized(checkpoint, unquantized)
            convert(unquantized, folder / MODEL, self.format, self.outer)
            unquantized.unlink()
            self._check_types(folder, layers)
            if self.outer == "default":
                layers += [
                    name.removesuffix(".weight") for name in GGUFTensors(folder / MODEL).names() if _is_outer(name)
                ]
            _check_tokenizer(checkpoint, folder / MODEL)
            convert(folder / MODEL, dequantized, "f32")
            held = GGUFTensors(dequantized)
            return {layer: fingerprint(held.load(f"{layer}.weight")) for layer in layers}

    def read(self, folder: Path) -> Iterator[QuantizedMatrix]:
        tensors = GGUFTensors(_file(folder))
        for name in tensors.names():
            kind = tensors.kind(name)
            if kind in UNQUANTIZED:
                continue
            if not self.takes(name, kind):
                raise PalimpsestError(
                    f"{name} in {_file(folder)} is {kind}, which is not part of {self.format}: quantize again."
                )
            blocks = BLOCK_FORMATS[kind].unpack(tensors.rows(name))
            yield QuantizedMatrix(
                name.removesuffix(".weight"),
                blocks.codes,
                blocks.scales,
                None,
                blocks.dequantize(),
                tensors.nbytes(name),
                minimums=blocks.minimums,
                bits=BLOCK_FORMATS[kind].bits,
            )

    def unquantized(self, folder: Path, quantized: Set[str]) -> Iterator[tuple[str, Float32]]:
        tensors = GGUFTensors(_file(folder))
        for name in tensors.names():
            if name.removesuffix(".weight") not in quantized:
                yield name, tensors.load(name)

    @property
    def width_divisor(self) -> int:
        return BLOCK_FORMATS[FORMATS[self.format][0]].block

    def why_not_round(self) -> str:
        return "llama.cpp searches for the scales and minimums of q4_k_m" if self.format == "q4_k_m" else ""

    def round(self, weights: Float32, largest: float = 0.0) -> Rounded:
        """llama.cpp's reference rounding, quantize_row_q8_0_ref and quantize_row_q4_0_ref,
        which its quantizer calls on all machines.

        A build that fuses q4_0's product with the sum after it could round a weight halfway
        between two levels otherwise.
        """
        if self.format == "q4_k_m":
            raise PalimpsestError(self.why_not_round())
        groups = in_groups(weights, self.width_divisor)
        if self.format == "q8_0":
            steps = largest_magnitude(groups) / np.float32(127)
        else:
            steps = _signed_largest(groups) / np.float32(-8)
        inverse = np.divide(np.float32(1), steps, out=np.zeros_like(steps), where=steps != 0)
        values = groups * inverse[:, :, None]
        if self.format == "q8_0":
            values = round_half_away_in_place(values)
        else:
            values += np.float32(8.5)
            np.floor(values, out=values)
            np.minimum(values, 15, out=values)
            values -= 8
        codes = values.astype(np.int8).reshape(weights.shape)
        scales = steps.astype(np.float16).astype(np.float32)
        values *= scales[:, :, None]
        return Rounded(codes, scales, values.reshape(weights.shape))

    def level_tables(self) -> dict[str, Float32]:
        """Q6_K: scale = the largest weight / -32, which llama.cpp then moves a little to lower the group's error."""
        return {kind: _levels(kind) for kind in FORMATS[self.format]}

    def levels(self) -> Float32:
        """Scale = largest |w| / 127 (q8_0, which has no code -128) or / 8 (q4_0: the largest weight is code -8,
        whatever its sign, so that these levels are mirrored in groups where it is positive).

        q4_k_m: the levels of Q4_K in a group centred on zero, where the scale is 2/15 of the largest |w|. They are
        stated with one level at zero. In a real group zero lies anywhere between two levels, for the minimum is
        fitted to the group: a weight next to zero becomes one of these two, and the border between them is as
        likely to be close to zero as far away. So small moves next to zero, which q4_0 rounds away, cross it often
        enough to arrive on average.
        """
        return _levels(FORMATS[self.format][0])

    def takes(self, name: str, kind: str) -> bool:
        """Whether a quantized tensor of the checkpoint's name may have this block format."""
        return kind in self._kinds(name)

    def _kinds(self, name: str) -> tuple[str, ...]:
        """The block formats that a quantized tensor may have."""
        if _is_outer(name) and self.outer == "default":
            return OUTER[self.format]
        fused = is_named(name.removesuffix(".weight"), IN_ONE) and self.format in FUSED
        return FORMATS[self.format] + (FUSED[self.format] if fused else ())

    def _check_shapes(self, checkpoint: Path) -> list[str]:
        """The layers to quantize; llama.cpp takes another format, silently,
        for a matrix whose rows are not whole blocks."""
        block = BLOCK_FORMATS[FORMATS[self.format][0]].block
        with open_checkpoint(checkpoint) as files:
            layers = layers_of(files)
            for layer in layers.linear:
                width = layers.shape(files, layer)[-1]
                if width % block:
                    raise PalimpsestError(
                        f"{layer} in {checkpoint} has {width} inputs, {self.format} needs a multiple of {block}: "
                        "take another format or a model of another width."
                    )
        return list(layers.linear)

    def _check_types(self, folder: Path, layers: Sequence[str]) -> None:
        tensors = GGUFTensors(folder / MODEL)
        for name in tensors.names():
            quantized = name.removesuffix(".weight") in layers or (_is_outer(name) and self.outer == "default")
            allowed = self._kinds(name) if quantized else UNQUANTIZED
            if tensors.kind(name) not in allowed:
                raise PalimpsestError(
                    f"llama.cpp made {name} of {folder / MODEL} {tensors.kind(name)} where {self.format} should have "
                    f"{' or '.join(allowed)}: take another format for this model."
                )


def _file(folder: Path) -> Path:
    """The file of a folder of ours, or one that somebody else made and named."""
    return folder if folder.suffix == ".gguf" else folder / MODEL


def _levels(kind: str) -> Float32:
    levels = integer_levels(BLOCK_FORMATS[kind].bits, DIVISORS[kind])
    return levels[1:] if kind == "Q8_0" else levels


def _is_outer(name: str) -> bool:
    """Whether a tensor is the weight of the token embeddings or of the output head."""
    return is_named(name.removesuffix(".weight"), OUTER_NAMES)


def _signed_largest(groups: Float32) -> Float32:
    """[..., size] to [...]: the weight of the largest |w| with its sign, the first of them where two are equal."""
    low, high = groups.min(-1), groups.max(-1)
    largest = np.where(high > -low, high, low)
    both = (high == -low) & (high > 0)
    tied = groups[both]
    first = np.abs(tied).argmax(-1)
    largest[both] = np.take_along_axis(tied, first[:, None], -1)[:, 0]
    return largest


def convert(source: Path, target: Path, kind: str, outer: str = "bfloat16") -> None:
    """Have llama.cpp rewrite a GGUF file.
    kind: a format of GGUF, or `f32` for everything dequantized to float32; outer: see GGUF.

    Raises PalimpsestError with llama.cpp's reason when it refuses.
    """
    import cyllama.llama.llama_cpp as llama
    from gguf import GGMLQuantizationType, LlamaFileType

    errors = log_llama_cpp()
    parameters: Any = llama.LlamaModelQuantizeParams()
    parameters.ftype = LlamaFileType[FILE_TYPES[kind]].value
    parameters.nthread = int(
        os.environ.get("OMP_NUM_THREADS", "1")
    )  # rows are independent: any number gives the same file
    if kind == "f32":
        parameters.allow_requantize = True
    elif outer == "bfloat16":
        parameters.quantize_output_tensor = False
        parameters.token_embedding_type = GGMLQuantizationType.BF16.value
    try:
        llama.model_quantize(str(source), str(target), parameters)
    except RuntimeError as error:
        raise PalimpsestError(f"llama.cpp cannot write {target} as {kind}: {' '.join(errors) or error}") from error


def _check_tokenizer(checkpoint: Path, path: Path) -> None:
    """Raise PalimpsestError when llama.cpp cannot load the file or tokenizes a probe otherwise
    than the checkpoint's tokenizer."""
    import cyllama.llama.llama_cpp as llama
    from transformers import AutoTokenizer

    errors = log_llama_cpp()
    parameters = llama.LlamaModelParams()
    parameters.n_gpu_layers, parameters.use_extra_bufts = 0, False  # mapped from the file, nothing repacked
    try:
        model = llama.LlamaModel(str(path), parameters, verbose=False)
    except ValueError as error:
        raise PalimpsestError(f"llama.cpp cannot load {path}: {' '.join(errors) or error}") from error
    theirs = model.get_vocab().tokenize(PROBE, True, False)
    model.close()
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    ours = tokenizer(PROBE)["input_ids"]
    if theirs != ours:
        raise PalimpsestError(
            f"llama.cpp tokenizes {PROBE!r} to {theirs}, the tokenizer of {checkpoint} to {ours}: take another backend."
        )


def log_llama_cpp() -> list[str]:
    """Send llama.cpp's messages to the log instead of stderr; returns the list to which its errors will be added."""
    import cyllama.llama.llama_cpp as llama

    errors: list[str] = []
    error_level = 4  # ggml_log_level

    def log(level: int, text: str) -> None:
        LOG.debug(text.rstrip())
        if level == error_level:
            errors.append(text.strip())

    llama.set_log_callback(log)
    return errors
