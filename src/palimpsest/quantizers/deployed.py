"""Quantized files that exist: what they are, told from the files themselves, and the reader that knows their codes."""

import json
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palimpsest.errors import PalimpsestError
from palimpsest.models.gguf import read_header
from palimpsest.models.quantized import quantization_of_folder, reject_adapter
from palimpsest.models.tensors import Float32, open_checkpoint, read_settings
from palimpsest.quantizers.archived.backends import SMOOTHING, AutoAWQ
from palimpsest.quantizers.base import Quantizer
from palimpsest.quantizers.compressed.floats import WEIGHTS
from palimpsest.quantizers.gguf.backend import FORMATS, FUSED, MODEL
from palimpsest.quantizers.gguf.blocks import FORMATS as BLOCK_FORMATS
from palimpsest.quantizers.gguf.model import ROPE_FACTORS, GGUFTensors
from palimpsest.quantizers.registry import make_quantizer
from palimpsest.quantizers.torchao import MARK

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEPLOYED = "deployed"
"""The block of params.yaml with such files."""
Settings = dict[str, Any]
OUTER = ("token_embd.weight", "output.weight")
"""llama.cpp's names of embeddings and head, which may have a format of their own."""
UNQUANTIZED = ("F32", "F16", "BF16", "F64")
BLOCKS_OF_32 = ("_0", "_1", "_NL", "FP4")
"""Ends of the names of formats whose products take inputs in blocks of 32 (Q8_0 and Q8_1 in ggml-cpu); those of all
others, the K-quants among them, take 256 (Q8_K)."""
UNKNOWN: Settings = {"calibration": "generic", "samples": 1, "sample_length": 1}
"""Settings of calibration, of which a file says nothing and on which no reader depends."""


@dataclass(frozen=True)
class Deployed:
    """A quantized file or folder as somebody else left it.

    format: in a few words. quantizer: whose reader knows its codes, with the settings that the file states; None where
    no reader here does, and `why_not` says why. settings: of that quantizer, as a block of params.yaml has them.
    """

    path: Path
    format: str
    quantizer: Quantizer | None
    settings: Settings
    why_not: str = ""
    factored: AutoAWQ | None = None
    """Whose codes AWQ's are where the folder lacks the factors: the model can be run, and not compared."""

    @property
    def is_gguf(self) -> bool:
        return self.path.suffix == ".gguf"

    @property
    def is_loadable(self) -> bool:
        """Whether the model can be run here, its codes read or not."""
        if self.quantizer or self.factored:
            return True
        return self.is_gguf and all(map(_dequantizes, {tensor.kind for tensor in read_header(self.path).tensors}))

    def input_blocks(self) -> dict[str, int]:
        """module: how many of its inputs share a scale where llama.cpp rounds them to 8 bits, of each quantized matrix
        of a GGUF file. A file has several: where rows are no whole K-quants, llama.cpp takes another format."""
        if not self.is_gguf:
            return {}
        tensors = GGUFTensors(self.path)
        kinds = {name.removesuffix(".weight"): tensors.kind(name) for name in tensors.names()}
        return {
            module: 32 if kind.endswith(BLOCKS_OF_32) else 256
            for module, kind in kinds.items()
            if kind not in UNQUANTIZED
        }

    def matrices(self) -> Iterator[tuple[str, Float32]]:
        """(module, its matrix in the checkpoint's coordinates) of each quantized one, in name order."""
        if self.quantizer:
            for matrix in self.quantizer.read(self.path):
                yield matrix.name, matrix.effective
        elif self.is_gguf:
            yield from _dequantized(self.path)
        else:
            raise PalimpsestError(f"{self.path} cannot be read here: {self.why_not}.")

    def unquantized(self, quantized: Set[str]) -> Iterator[tuple[str, Float32]]:
        """(name, values) of the other tensors, where `matrices` gives those."""
        if self.quantizer:
            yield from self.quantizer.unquantized(self.path, quantized)
        elif self.is_gguf:
            yield from _others(self.path, quantized)

    def load(self, like: Path | None, device: str, dtype: str) -> "PreTrainedModel":
        """The model of its dequantized weights. like: a checkpoint of the same architecture, whose config.json a GGUF
        file gets instead of what its own header says."""
        if not self.is_gguf:
            if self.factored:
                from palimpsest.models.dense import load_dense

                matrices = ((matrix.name, matrix.dequantized) for matrix in self.factored.read_as_stored(self.path))
                return load_dense(self.path, matrices, partial(self.factored.unquantized, self.path), device, dtype)
            if self.quantizer is None:
                raise PalimpsestError(f"{self.path} cannot be loaded here: {self.why_not}.")
            return self.quantizer.load(self.path, device, dtype)
        like = like or (self.path.parent if (self.path.parent / "config.json").exists() else None)
        if like is None:
            self._check_header()
            import torch

            from palimpsest.models.checkpoint import load_model

            model: Any = load_model(self.path, getattr(torch, dtype))
            return model.to(device).eval()
        from palimpsest.models.dense import load_dense

        return load_dense(like, self.matrices(), partial(_others, self.path), device, dtype)

    def _check_header(self) -> None:
        """Raise PalimpsestError where transformers would build another model than llama.cpp from the file alone."""
        names = [tensor.name for tensor in read_header(self.path).tensors]
        if lost := next((name for name in names if name == ROPE_FACTORS or name.endswith("attn_q.bias")), ""):
            raise PalimpsestError(
                f"{self.path} holds {lost}, which transformers may not read from a GGUF file: give the checkpoint that "
                "it was made from (--of), or put its config.json beside the file."
            )


def recognise(path: Path) -> Deployed:
    """What a file or folder is; raises PalimpsestError for one that is missing, no model, or not quantized."""
    if not path.exists():
        raise PalimpsestError(f"{path} does not exist: give the quantized file or folder that is deployed.")
    file = _gguf_in(path)
    if file is not None:
        return _of_gguf(file)
    reject_adapter(path)
    if not path.is_dir() or not (path / "config.json").exists():
        raise PalimpsestError(f"{path} is no GGUF file and no folder with a config.json: give what is deployed.")
    stated = read_settings(path / "config.json").get("quantization_config")
    if not isinstance(stated, dict) or not stated:
        if found := quantization_of_folder(path):
            return Deployed(path, found, None, {}, "its config.json has no quantization_config")
        raise PalimpsestError(f"{path} is not quantized: it is a checkpoint, which is audited as a model.")
    method = str(stated.get("quant_method", "an unnamed method"))
    reader = METHODS.get(method)
    if reader is None:
        return Deployed(path, method, None, {}, f"palimpsest has no reader of {method}")
    try:
        settings = reader(path, stated)
        quantizer = make_quantizer(settings)
        if next(quantizer.read(path), None) is None:  # a matrix that its reader does not read shows here, too
            raise _Unread("it holds no matrix that its reader finds")
        return Deployed(path, _described(settings), quantizer, settings)
    except _Unread as reason:
        return Deployed(path, method, None, {}, str(reason), reason.factored)
    except (PalimpsestError, KeyError, TypeError, AttributeError, ValueError) as error:
        return Deployed(path, method, None, {}, f"its settings are none that a reader here knows ({error})")


class _Unread(Exception):
    """Why a folder has no reader. factored: see Deployed."""

    def __init__(self, reason: str, factored: AutoAWQ | None = None) -> None:
        super().__init__(reason)
        self.factored = factored


def _described(settings: Mapping[str, Any]) -> str:
    said = [f"{key} {value}" for key, value in settings.items() if key not in ("backend", *UNKNOWN)]
    return ", ".join([str(settings["backend"]), *said])


def _gguf_in(path: Path) -> Path | None:
    """The GGUF file that a path is, or that alone lies in a folder without safetensors."""
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    files = sorted(path.glob("*.gguf"))
    if not files or any(path.glob("*.safetensors")):
        return None
    if (path / MODEL) in files:
        return path / MODEL
    if len(files) > 1:
        raise PalimpsestError(f"{path} holds {len(files)} GGUF files ({files[0].name}, ...): name the one you mean.")
    return files[0]


def _of_gguf(path: Path) -> Deployed:
    tensors = read_header(path).tensors
    plain = ("F32", "F16", "BF16", "F64")
    outer = {tensor.kind for tensor in tensors if tensor.name in OUTER} - set(plain)
    inner = {tensor.kind for tensor in tensors if tensor.name not in OUTER} - set(plain)
    named = f"GGUF, {', '.join(sorted(inner | outer))}"
    if not inner | outer:
        raise PalimpsestError(f"{path} is not quantized: it is a checkpoint, which is audited as a model.")
    for kind, allowed in FORMATS.items():
        settings = {"backend": "gguf", "format": kind, "outer": "default" if outer else "bfloat16"}
        quantizer = make_quantizer(settings)
        if inner and inner <= {*allowed, *FUSED.get(kind, ())} and inner & {allowed[0]} and _readable(path, quantizer):
            return Deployed(path, f"{named} ({kind})", quantizer, settings)
    known = ", ".join(FORMATS)
    return Deployed(path, named, None, {}, f"its blocks are those of none of the formats {known}, which have a reader")


def _readable(path: Path, quantizer: Any) -> bool:
    tensors = GGUFTensors(path)
    return all(
        tensors.kind(name) in ("F32", "BF16") or quantizer.takes(name, tensors.kind(name)) for name in tensors.names()
    )


def _dequantized(path: Path) -> Iterator[tuple[str, Float32]]:
    """By the gguf package, for blocks that no reader here unpacks."""
    from gguf import GGMLQuantizationType, dequantize

    tensors = GGUFTensors(path)
    for name in tensors.names():
        kind = tensors.kind(name)
        if kind in UNQUANTIZED:
            continue
        if kind in BLOCK_FORMATS:
            yield name.removesuffix(".weight"), BLOCK_FORMATS[kind].unpack(tensors.rows(name)).dequantize()
            continue
        try:
            yield name.removesuffix(".weight"), dequantize(tensors.rows(name), GGMLQuantizationType[kind])
        except NotImplementedError:
            raise PalimpsestError(f"{name} in {path} is {kind}, which the gguf package does not dequantize.") from None


def _dequantizes(kind: str) -> bool:
    """Whether blocks of this kind can be turned into numbers here."""
    if kind in UNQUANTIZED or kind in BLOCK_FORMATS:
        return True
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    try:
        number = GGMLQuantizationType[kind]
        dequantize(np.zeros((1, GGML_QUANT_SIZES[number][1]), np.uint8), number)
    except (KeyError, NotImplementedError):
        return False
    return True


def _others(path: Path, quantized: Any) -> Iterator[tuple[str, Float32]]:
    tensors = GGUFTensors(path)
    for name in tensors.names():
        if name.removesuffix(".weight") not in quantized:
            yield name, tensors.load(name)


def _bitsandbytes(path: Path, stated: Mapping[str, Any]) -> Settings:
    if stated.get("load_in_8bit"):
        return {"backend": "bnb-int8", "outlier_threshold": stated["llm_int8_threshold"]}
    double = bool(stated.get("bnb_4bit_use_double_quant"))
    return {"backend": "bnb-4bit", "levels": stated["bnb_4bit_quant_type"], "double_quantization": double}


def _compressed_tensors(path: Path, stated: Mapping[str, Any]) -> Settings:
    groups = list(stated["config_groups"].values())
    if len(groups) != 1:
        raise _Unread(f"it has {len(groups)} groups of layers, each with a format of its own")
    weights, inputs = groups[0]["weights"], groups[0].get("input_activations")
    found = {key: weights[key] for key in ("num_bits", "type", "symmetric")}
    if inputs or found["type"] == "float":
        for backend, names in (("w8a8", ("int8", "fp8")), ("microscale", ("nvfp4", "mxfp4"))):
            for name in names:
                if all(weights.get(key) == value for key, value in WEIGHTS[name].items()):
                    return {"backend": backend, "format": name}
        raise _Unread(
            "its floating-point or 8-bit format is none of int8, fp8, nvfp4 and mxfp4 as llm-compressor has them"
        )
    grid = {"bits": found["num_bits"], "group_size": weights["group_size"], "symmetric": found["symmetric"]}
    if (path / SMOOTHING).is_dir():
        return {"backend": "awq", **UNKNOWN, **grid}
    return {"backend": "rtn", **grid}


def _gptq(path: Path, stated: Mapping[str, Any]) -> Settings:
    if stated.get("checkpoint_format", "gptq") != "gptq":
        raise _Unread(f"its checkpoint_format is {stated['checkpoint_format']!r}, and the reader knows gptq")
    size = stated["group_size"]
    grid = {"bits": stated["bits"], "group_size": None if size == -1 else size, "symmetric": stated["sym"]}
    return {
        "backend": "auto-gptq",
        **UNKNOWN,
        **grid,
        "desc_act": stated["desc_act"],
        "damping": stated.get("damp_percent", 0.01),
    }


def _awq(path: Path, stated: Mapping[str, Any]) -> Settings:
    grid: Settings = {key: stated[key] for key in ("bits", "group_size", "zero_point") if key in stated}
    is_known = stated.get("version") == "gemm" and len(grid) == 3
    if not (path / SMOOTHING).is_dir():
        raise _Unread(
            "the factors that AWQ multiplied its columns by are not in the folder, so its codes say nothing",
            AutoAWQ(**UNKNOWN, **grid) if is_known else None,
        )
    if not is_known:
        raise _Unread(f"its version is {stated.get('version')!r}, and the reader knows gemm")
    return {"backend": "autoawq", **UNKNOWN, **grid}


def _hqq(path: Path, stated: Mapping[str, Any]) -> Settings:
    weights = stated["quant_config"]["weight_quant_params"]
    if weights["axis"] != 1:
        raise _Unread(f"its groups run along axis {weights['axis']}, and the reader knows 1")
    return {"backend": "hqq", "bits": weights["nbits"], "group_size": weights["group_size"], "device": "cpu"}


def _torchao(path: Path, stated: Mapping[str, Any]) -> Settings:
    with open_checkpoint(path) as files:
        modules = [name.removesuffix(MARK) for name in files.names() if name.endswith(MARK)]
        if not modules:
            raise _Unread("it holds no tensor of torchao's flattened safetensors")
        facts = json.loads(files.metadata(f"{modules[0]}{MARK}")[f"{modules[0]}.weight"])
        data = facts["_data"]
        columns = data.get("shape", files.shape(f"{modules[0]}{MARK}"))[1]
        symmetric = not files.stored(f"{modules[0]}._weight_zero_point").any() if "Intx" in facts["_type"] else True
    size = data["block_size"][-1]
    grid = {"group_size": None if size == columns else size}
    match facts["_type"]:
        case "Int8Tensor":
            return {"backend": "torchao-int8", **grid}
        case "Int4TilePackedTo4dTensor":
            return {"backend": "torchao-int4", **grid}
        case "IntxUnpackedToInt8Tensor":
            bits = int(data["target_dtype"]["_data"].removeprefix("int"))
            return {"backend": "torchao-intx", "bits": bits, **grid, "symmetric": symmetric}
    raise _Unread(f"its tensors are {facts['_type']}, which has no reader here")


METHODS: dict[str, Callable[[Path, Mapping[str, Any]], Settings]] = {
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed_tensors,
    "gptq": _gptq,
    "awq": _awq,
    "hqq": _hqq,
    "torchao": _torchao,
}
"""By what config.json calls the method, what reads the settings of a folder."""
