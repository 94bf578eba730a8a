"""A quantized folder as an ordinary dense model: every format that can be read can be run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palimpsest.errors import PalimpsestError
from palimpsest.models.layers import family_of, is_named

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

    kind = getattr(torch, dtype)
    family = family_of(folder)
    turned = family.turned if family else ()
    weights = {}
    for module, matrix in matrices:
        dense = torch.from_numpy(matrix).to(kind)
        weights[f"{module}.weight"] = dense.T.contiguous() if is_named(module, turned) else dense
    modules = {name.removesuffix(".weight") for name in weights}
    for name, values in others(modules):
        weights[name] = torch.from_numpy(values).to(kind)

    config, architecture = _config_and_class(folder)
    vars(config).pop("quantization_config", None)  # the weights are dense now
    model, report = architecture.from_pretrained(
        None, config=config, state_dict=weights, dtype=kind, output_loading_info=True
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            raise PalimpsestError(
                f"{folder} does not hold the weights of its config.json ({problem.replace('_', ' ')}: "
                f"{', '.join(map(str, sorted(report[problem])))}): quantize the checkpoint again."
            )
    return with_own_settings(model, folder).to(device).eval()


def with_own_settings(model: Any, folder: Path) -> Any:
    """The model with the name and the settings of generation of its folder,
    which `from_pretrained` does not know of a model whose weights are given as arrays."""
    from transformers import GenerationConfig

    model.name_or_path = model.config.name_or_path = str(folder)
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model


def with_torch_linear(folder: Path) -> tuple[Any, Any]:
    """The configuration of a folder and the class of its model, with torch's Linear wherever that has a linear layer of
    another class: transformers' Conv1D, whose weights are turned, and classes that inherit from Linear."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    config, architecture = _config_and_class(folder)

    class WithLinear(architecture):  # type: ignore[valid-type, misc]
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            for name, module in list(self.named_modules()):
                if isinstance(module, Conv1D):
                    self.set_submodule(name, nn.Linear(module.nx, module.nf))
                elif isinstance(module, nn.Linear) and type(module) is not nn.Linear:
                    bias = module.bias is not None
                    self.set_submodule(name, nn.Linear(module.in_features, module.out_features, bias))

    WithLinear.__name__ = architecture.__name__  # what config.json will say
    return config, WithLinear


def _config_and_class(folder: Path) -> tuple[Any, Any]:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return config, MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
