"""A LoRA adapter in a folder of PEFT: read, and merged into the base that it was trained on.

What PEFT computes is left to PEFT: W + scale B A, scaled by rank (LoRA) or its root (rsLoRA), or with the lengths of
the rows trained apart (DoRA). A setting that is none of those is refused: it may change what the adapter means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palimpsest.errors import PalimpsestError, first_line
from palimpsest.models.likeness import Target, is_hub_name
from palimpsest.models.tensors import read_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WHOLE = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""What an adapter's folder does not hold: which of the two models would be meant?"""
KNOWN = (
    *("base_model_name_or_path", "revision", "auto_mapping", "peft_type", "peft_version", "task_type"),
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out", "bias"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"),
    *("inference_mode", "init_lora_weights", "lora_dropout", "megatron_core", "qalora_group_size"),
)
"""Settings of PEFT's LoraConfig that its merge follows, or that concern training alone."""
PLAIN_START = (True, False, "gaussian", None)
"""How an adapter may have begun: the other ways change the base's weights, too, which the base lacks."""


@dataclass(frozen=True)
class AdapterFolder:
    """folder: of the adapter; base: what it says it was trained on, empty where it does not say; settings: its own."""

    folder: Path
    base: str
    settings: Mapping[str, Any]

    def record(self) -> dict[str, Any]:
        """What a manifest says of the adapter."""
        kinds = {"use_dora": "DoRA", "use_rslora": "rsLoRA"}
        kind = next((title for key, title in kinds.items() if self.settings.get(key)), "LoRA")
        return {"kind": kind, "rank": self.settings.get("r"), "scale": self.settings.get("lora_alpha")}


def is_adapter(source: Path | str) -> bool:
    """Whether a source is a folder that holds an adapter."""
    return (Path(source) / CONFIG).is_file()


def read_adapter(folder: Path, key: str) -> AdapterFolder:
    """The adapter of a folder, without its weights. Nothing here imports torch.

    key: of params.yaml, for messages. Raises PalimpsestError for what cannot be merged.
    """
    settings, where = read_settings(folder / CONFIG), f"{key} is {str(folder)!r}, an adapter"
    remedy = "merge it with PEFT's merge_and_unload, and give that checkpoint"
    if whole := next((name for name in WHOLE if (folder / name).exists()), None):
        raise PalimpsestError(f"{where} that holds a whole model, too ({whole}): move away the one that is not meant.")
    if settings.get("peft_type") != "LORA":
        raise PalimpsestError(f"{where} of the type {settings.get('peft_type')!r}, not LORA: {remedy}.")
    if not (folder / WEIGHTS).is_file():
        raise PalimpsestError(f"{where} without {WEIGHTS}: save it in that format (PEFT's save_pretrained does).")
    if settings.get("init_lora_weights", True) not in PLAIN_START:
        raise PalimpsestError(
            f"{where} that began as {settings['init_lora_weights']!r}, which changes the base's weights: {remedy}."
        )
    if unknown := sorted(name for name, value in settings.items() if value and name not in KNOWN):
        raise PalimpsestError(f"{where} with the setting {unknown[0]!r}, which is not known here: {remedy}.")
    base = settings.get("base_model_name_or_path")
    return AdapterFolder(folder, base if isinstance(base, str) else "", settings)


def base_of(adapter: AdapterFolder, target: Target, key: str) -> Path | str:
    """What an adapter is merged into: the target where it names that or nothing, else the model that it names.

    Raises PalimpsestError for a folder that is not here.
    """
    if not adapter.base or target.is_called(adapter.base):
        return target.folder
    if Path(adapter.base).exists() or is_hub_name(adapter.base):
        return adapter.base
    raise PalimpsestError(
        f"{key} is {str(adapter.folder)!r}, an adapter for {adapter.base!r}, which is neither the target nor here: "
        "name the model that it was trained on as base_model_name_or_path in its adapter_config.json."
    )


def merge(model: PreTrainedModel, adapter: AdapterFolder, base: str, key: str) -> PreTrainedModel:
    """The model with the adapter in its weights, in their type.

    base: what messages call the model. Raises PalimpsestError where the adapter is of another one.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(adapter.folder / WEIGHTS)
        wrapped = get_peft_model(model, LoraConfig.from_pretrained(str(adapter.folder)))
        report: Any = set_peft_model_state_dict(wrapped, weights)
    except (ValueError, TypeError, RuntimeError, LookupError, AttributeError, SafetensorError) as error:
        raise _another_base(adapter, base, key, first_line(error)) from error
    missing = [name for name in report.missing_keys if "lora_" in name or "modules_to_save" in name]
    if odd := sorted([*report.unexpected_keys, *missing]):
        raise _another_base(adapter, base, key, f"{odd[0]} is in one of the two alone")
    merged: Any = wrapped.merge_and_unload(safe_merge=True)
    return merged


def _another_base(adapter: AdapterFolder, base: str, key: str, reason: str) -> PalimpsestError:
    return PalimpsestError(
        f"{key} is {str(adapter.folder)!r}, an adapter that does not fit {base!r} ({reason.rstrip('.: ')}): it is for "
        "another base. Name the right one as base_model_name_or_path in its adapter_config.json."
    )
