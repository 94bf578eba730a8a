"""A quantized folder as an ordinary bfloat16 model: every format that can be read can be run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from palimpsest.errors import PalimpsestError
from palimpsest.quantizers.base import Quantizer
from palimpsest.tensors import open_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_dense(quantizer: Quantizer, folder: Path, device: str, dtype: str) -> "PreTrainedModel":
    """Build the model of `folder` with the matrices of `quantizer.read` as its bfloat16 weights, computing in `dtype`.

    Raises PalimpsestError when the folder lacks a weight of the model or holds one that the model has no place for.
    """
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, GenerationConfig

    weights = {}
    for matrix in quantizer.read(folder):
        weights[f"{matrix.name}.weight"] = torch.from_numpy(matrix.dequantized).to(torch.bfloat16)
    with open_checkpoint(folder) as files:
        for name in files.names():
            if f"{name.partition('.weight')[0]}.weight" not in weights:
                weights[name] = torch.from_numpy(files.load(name)).to(torch.bfloat16)

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    del config.quantization_config  # the weights are dense now
    architecture: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    model, report = architecture.from_pretrained(
        None, config=config, state_dict=weights, dtype=torch.bfloat16, output_loading_info=True
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            raise PalimpsestError(
                f"{folder} does not hold the weights of its config.json ({problem.replace('_', ' ')}: "
                f"{', '.join(map(str, sorted(report[problem])))}): quantize the checkpoint again."
            )
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    for weight in model.parameters():  # not model.to: it would round the rotary frequencies too
        weight.data = weight.data.to(getattr(torch, dtype))
    return model.to(device).eval()
