"""Whether a folder is a whole, unquantized checkpoint: told from its files, before a model is loaded or planned with.

A study quantizes models itself, and compares with what they were before. A folder that is quantized already would have
its codes taken for weights, or its `bf16` rows would be those of another format.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from palimpsest.errors import PalimpsestError
from palimpsest.models.gguf import UNQUANTIZED, read_header
from palimpsest.models.layers import is_buffer
from palimpsest.models.tensors import DENSE, INDEX, WEIGHTS, TensorFiles, open_checkpoint, read_settings

CONFIG = "config.json"
SETTINGS = ("quantization_config", "compression_config")
"""Keys of config.json in which transformers and its backends say how a checkpoint is quantized."""
FILES = {
    "quantize_config.json": "GPTQ",
    "quant_config.json": "AWQ",
    "hf_quant_config.json": "ModelOpt",
    "qmodel.pt": "HQQ",
    "quanto_qmap.json": "quanto",
}
"""Files that backends leave beside the weights."""
PARTS = {
    "qweight": "GPTQ or AWQ",
    "qzeros": "GPTQ or AWQ",
    "g_idx": "GPTQ",
    "weight_packed": "compressed-tensors",
    "weight_scale": "compressed-tensors or fp8",
    "weight_zero_point": "compressed-tensors",
    "weight_global_scale": "compressed-tensors",
    "weight_scale_inv": "fp8",
    "SCB": "bitsandbytes",
    "weight_format": "bitsandbytes",
    "absmax": "bitsandbytes",
    "quant_map": "bitsandbytes",
    "nested_absmax": "bitsandbytes",
    "W_q": "HQQ",
    "_weight_qdata": "torchao",
    "_weight_scale": "torchao",
}
"""Tensors beside codes, by the last part of their names: some backends keep codes as floating-point numbers."""


def reject_quantized(source: Path | str, key: str = "", may_be_gguf: bool = False) -> None:
    """Raise PalimpsestError when a local checkpoint folder or GGUF file is quantized already, or an adapter;
    other sources pass.

    key: of params.yaml, where a user gave the source. may_be_gguf: see `quantization_of`.
    """
    reject_adapter(Path(source))
    if found := quantization_of(source, may_be_gguf):
        raise already_quantized(source, found, key)


def reject_adapter(folder: Path) -> None:
    """Raise PalimpsestError for a folder with an adapter: transformers would lay it over the weights, or look for its
    base elsewhere, and other programs would read the weights alone."""
    if (folder / "adapter_config.json").exists():
        raise PalimpsestError(
            f"{folder} holds an adapter (adapter_config.json): merge it into its base with PEFT's merge_and_unload, "
            "save that as a checkpoint, and give that folder; or move the adapter away."
        )


def quantization_of(source: Path | str, may_be_gguf: bool = False) -> str:
    """How a local folder or GGUF file is quantized, in a few words; empty where it is not, and for other sources.

    may_be_gguf: whether the dequantized weights of a GGUF file may serve: as what training starts from, never as a
    model that is audited. Raises PalimpsestError for files that cannot be read.
    """
    path = Path(source)
    if path.suffix == ".gguf" and path.is_file():
        kinds = sorted({tensor.kind for tensor in read_header(path).tensors} - set(UNQUANTIZED))
        return "" if may_be_gguf else ", ".join(kinds)
    return quantization_of_folder(path) if path.is_dir() else ""


def already_quantized(source: Path | str, found: str, key: str = "") -> PalimpsestError:
    """The error for what `quantization_of` found."""
    where = f"point {key} of params.yaml at" if key else "give"
    return PalimpsestError(
        f"{source} is quantized already ({found}), and what is measured here starts from unquantized weights: {where} "
        "the checkpoint that it was made from."
    )


def quantization_of_folder(folder: Path) -> str:
    """That of a folder. One without safetensors is left to who loads it."""
    if (folder / CONFIG).exists() and (found := quantization_of_config(read_settings(folder / CONFIG))):
        return found
    for name, method in FILES.items():
        if (folder / name).exists():
            return f"{method}, says {name}"
    if not ((folder / WEIGHTS).exists() or (folder / INDEX).exists()):
        return ""
    with open_checkpoint(folder) as files:
        return quantization_of_tensors(files)


def quantization_of_config(config: Mapping[str, Any]) -> str:
    """What config.json says of it."""
    return next((f"{_method(settings)}, says {CONFIG}" for settings in _blocks(config)), "")


def quantization_of_tensors(files: TensorFiles) -> str:
    """How the tensors of a checkpoint are quantized; empty where all are floating-point numbers of 16 bits or more."""
    for name in files.names():
        last = name.rpartition(".")[2]
        if last in PARTS:
            return f"{PARTS[last]}: it holds {name}"
        kind = files.dtype(name)
        if kind not in DENSE and not is_buffer(name, files.shape(name)):
            return f"{name} is stored as {kind}"
    return ""


def _blocks(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The settings of quantization in a config and in those of its parts (`text_config`)."""
    for key, value in config.items():
        if key in SETTINGS and value:
            yield value if isinstance(value, dict) else {}
        elif isinstance(value, dict) and key.endswith("_config"):
            yield from _blocks(value)


def _method(settings: Mapping[str, Any]) -> str:
    method = str(settings.get("quant_method", "an unnamed method"))
    bits = settings.get("bits")
    groups = settings.get("config_groups")
    match next(iter(groups.values()), None) if isinstance(groups, dict) else None:
        case {"weights": {"num_bits": stated}}:
            bits = stated
    bits = 4 if settings.get("load_in_4bit") else 8 if settings.get("load_in_8bit") else bits
    return f"{method}, {bits} bits" if isinstance(bits, int) else method
