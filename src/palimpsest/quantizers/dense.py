"""A quantized folder as an ordinary dense model: every format that can be read can be run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from palimpsest.errors import PalimpsestError
from palimpsest.quantizers.base import Quantizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_dense(quantizer: Quantizer, folder: Path, device: str, dtype: str) -> "PreTrainedModel":
    """Build the model of `folder` with the matrices of `quantizer.read` as its weights, stored and computing in `dtype`.

    Raises PalimpsestError when the folder lacks a weight of the model or holds one that the model has no place for.
    """
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, GenerationConfig

    kind = getattr(torch, dtype)
    weights = {}
    for matrix in quantizer.read(folder):
        weights[f"{matrix.name}.weight"] = torch.from_numpy(matrix.dequantized).to(kind)
    modules = {name.removesuffix(".weight") for name in weights}
    for name, values in quantizer.unquantized(folder, modules):
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
