"""Checkpoints that were unlearned elsewhere, as far as their files tell at planning: before anything is trained."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from palimpsest.errors import PalimpsestError
from palimpsest.models.gguf import read_header
from palimpsest.models.likeness import Target, compare, is_hub_name
from palimpsest.models.lora import base_of, is_adapter, read_adapter
from palimpsest.models.quantized import reject_quantized
from palimpsest.models.tensors import read_settings
from palimpsest.vocabulary import CHECKPOINT, PRETRAINED, RETRAIN, SCRATCH, TARGET

Params = Mapping[str, Any]
NOTE = "note"
KEYS = (CHECKPOINT, "storage", NOTE)
"""Of a method that is a checkpoint."""
READABLE = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "phi3": "phi3",
    "gpt2": "gpt2",
    "bloom": "bloom",
    "falcon": "falcon",
}
"""The architectures of GGUF files whose weights transformers reads, and the families they are. Mistral's is llama."""


def check_keys_of_checkpoint(where: str, method: Mapping[str, Any], trained: Iterable[str]) -> None:
    """Raise PalimpsestError for a key that a checkpoint does not have. trained: those that methods have."""
    for name in method:
        if name in KEYS:
            continue
        if name in trained:
            raise PalimpsestError(
                f"{where}.{name} says how a method is trained here, and {where}.{CHECKPOINT} that it was trained "
                "elsewhere: delete one of the two."
            )
        near = difflib.get_close_matches(name, KEYS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"A checkpoint has {', '.join(KEYS)}."
        raise PalimpsestError(f"unknown key {name!r} in {where}. {hint}")


def check_brought(params: Params) -> None:
    """Raise PalimpsestError for a checkpoint that is not there, cannot be read, or is not of the target's kind."""
    target = _target(params)
    for name, method in params["methods"].items():
        if CHECKPOINT not in method:
            continue
        key, source = f"methods.{name}.{CHECKPOINT}", str(method[CHECKPOINT])
        if len(params["seeds"]) > 1:
            raise PalimpsestError(
                f"{key} is one model, and seeds lists {len(params['seeds'])}: it would count as often. Set seeds to "
                "one, or bring it in a study of its own."
            )
        _check_there(params, name, key, source)
        _check_source(params, key, source, target)


def check_control(params: Params) -> None:
    """Raise PalimpsestError for a retrained model that lies here and is of another kind than the target: what the two
    know could not be compared."""
    models = params["models"]
    source = models[RETRAIN][CHECKPOINT] if isinstance(models[RETRAIN], Mapping) else models[RETRAIN]
    if source in (None, "train"):
        return
    found, remedy = _described(Path(source), f"models.{RETRAIN}"), "Give one that was trained as the target was."
    compare(found, _target(params), f"models.{RETRAIN}", source, remedy)


def _check_there(params: Params, name: str, key: str, source: str) -> None:
    """What was made of a checkpoint stands when that is gone."""
    made = Path("results/models", name, f"seed{params['seeds'][0]}", "manifest.json")
    if not Path(source).exists() and not is_hub_name(source) and not made.exists():
        raise PalimpsestError(f"{key} is {source!r}, and nothing is there: correct the path, or copy the model there.")


def _check_source(params: Params, key: str, source: str, target: Mapping[str, Any]) -> None:
    path = Path(source)
    if is_adapter(path):
        said = params["models"][TARGET]
        folder = Path("results/models/target", f"seed{params['seeds'][0]}")
        place = Target(said if isinstance(said, str) else said[CHECKPOINT], folder)
        base = base_of(read_adapter(path, key), place, key)
        if base != folder:
            reject_quantized(base, key)
            compare(_described(Path(base), key), target, key, source)
        return
    reject_quantized(source, key)
    compare(_described(path, key), target, key, source)


def _described(path: Path, key: str) -> dict[str, Any]:
    """What config.json, or the header of a GGUF file, says of a model; nothing of one that is on a hub."""
    if path.is_file():
        return _of_gguf(path, key)
    return read_settings(path / "config.json") if (path / "config.json").is_file() else {}


def _of_gguf(path: Path, key: str) -> dict[str, Any]:
    numbers = read_header(path).numbers
    kind = next((name.removesuffix(".block_count") for name in numbers if name.endswith(".block_count")), "")
    if kind not in READABLE:
        raise PalimpsestError(
            f"{key} is {str(path)!r}, a GGUF file of {f'a {kind} model' if kind else 'no model'}, and the weights of "
            f"{', '.join(READABLE)} can be read: bring the checkpoint that it was made from."
        )
    names = {"hidden_size": "embedding_length", "num_hidden_layers": "block_count"}
    found = {ours: numbers.get(f"{kind}.{theirs}") for ours, theirs in names.items()}
    return found | ({} if kind == "llama" else {"model_type": READABLE[kind]})


def _target(params: Params) -> dict[str, Any]:
    """What is known of the target before there is one: of a folder that lies here, and of a model from scratch."""
    models = params["models"]
    source = models["base"] if models[TARGET] == "train" else models[TARGET]
    if isinstance(source, Mapping):
        source = source[CHECKPOINT]
    if models[TARGET] == "train" and source in (SCRATCH, PRETRAINED):
        names = {"hidden_size": "hidden_size", "num_hidden_layers": "layers", "num_attention_heads": "heads"}
        sizes = {ours: models["scratch"][theirs] for ours, theirs in names.items()}
        return {"model_type": "llama", **sizes, "intermediate_size": models["scratch"]["mlp_size"]}
    return _described(Path(source), "models.base") if (Path(source) / "config.json").is_file() else {}
