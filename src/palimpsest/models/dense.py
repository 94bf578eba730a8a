"""A quantized folder as an ordinary dense model: every format that can be read can be run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palimpsest.errors import PalimpsestError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from palimpsest.models.tensors import Float32


def load_dense(
    folder: Path,
    matrices: Iterable[tuple[str, Float32]],
    others: Callable[[Set[str]], Iterable[tuple[str, Float32]]],
    device: str,
    dtype: str,
) -> PreTrainedModel:
    """Build the model that `folder` describes from weights given as arrays, stored and computing in `dtype`.

    matrices: (module, its dequantized weight); others: given the modules of these, (name, values) of all other tensors.

    Raises PalimpsestError when the folder lacks a weight of the model or holds one that the model has no place for.
    """
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, GenerationConfig

    kind = getattr(torch, dtype)
    weights = {}
    for module, matrix in matrices:
        weights[f"{module}.weight"] = torch.from_numpy(matrix).to(kind)
    modules = {name.removesuffix(".weight") for name in weights}
    for name, values in others(modules):
        weights[name] = torch.from_numpy(values).to(kind)

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    vars(config).pop("quantization_config", None)  # the weights are dense now
    architecture: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    model, report = architecture.from_pretrained(
        None, config=config, state_dict=weights, dtype=kind, output_loading_info=True
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            raise PalimpsestError(
                f"{folder} does not hold the weights of its config.json ({problem.replace('_', ' ')}: "
                f"{', '.join(map(str, sorted(report[problem])))}): quantize the checkpoint again."
            )
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model.to(device).eval()
