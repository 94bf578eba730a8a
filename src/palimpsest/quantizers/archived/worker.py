"""What runs in the isolated environment: quantizes a checkpoint with auto-gptq or autoawq.
`python -I worker.py JOB.json`

A job holds: backend, checkpoint (its configuration in the terms of transformers 4), folder, settings, stretches (token
ids [samples, sample_length]) and result, the file for `held`, the fingerprints of the dequantized matrices by module,
and for the most bytes that torch had on a CUDA device.
Nothing of palimpsest is imported: it is not installed there.
PALIMPSEST_GPUS names the GPUs that the job took, if it took any.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM


def run_auto_gptq(job: dict[str, Any]) -> dict[str, str]:
    """AutoGPTQ's own loop over the layers, its packing and its file.
    Only its loader is left out, which insists on CUDA."""
    from auto_gptq import BaseQuantizeConfig
    from auto_gptq.modeling import _base
    from auto_gptq.modeling.auto import GPTQ_CAUSAL_LM_MODEL_MAP

    if not torch.cuda.is_available():
        _base.CUDA_0 = torch.device("cpu")
        torch.cuda.synchronize = lambda device=None: None
    model = AutoModelForCausalLM.from_pretrained(job["checkpoint"], torch_dtype=torch.bfloat16, use_safetensors=True)
    if model.config.model_type not in GPTQ_CAUSAL_LM_MODEL_MAP:
        sys.exit(f"auto-gptq knows no model of type {model.config.model_type}: use gptq.")
    to_float16(model.eval())
    held: dict[str, str] = {}
    pack_model = _base.pack_model

    def pack_and_check(model: Any, quantizers: dict[str, Any], **settings: Any) -> None:
        solved = {name: model.get_submodule(name).weight.data for name in quantizers}
        pack_model(model=model, quantizers=quantizers, **settings)
        for name, weight in solved.items():
            module = model.get_submodule(name)
            packed = forward_matrix(module)
            step = module.scales[module.g_idx.long()].t()
            if not ((packed - weight.to(packed.device)).abs() <= step / 2).all():
                sys.exit(
                    f"auto-gptq does not pack what it computed for {name}: it has no zero point 0, which a group whose "
                    "weights are all positive needs. Use symmetric: true, or a larger group_size."
                )
            held[name] = fingerprint(packed)

    _base.pack_model = pack_and_check
    settings = job["settings"]
    wrapper = GPTQ_CAUSAL_LM_MODEL_MAP[model.config.model_type](
        model, False, BaseQuantizeConfig(model_file_base_name="model", **settings)
    )
    wrapper.quantize([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in job["stretches"]])
    wrapper.save_quantized(job["folder"])
    return held


def forward_matrix(module: Any) -> torch.Tensor:
    """[out, in] the matrix that a packed layer of AutoGPTQ multiplies with:
    its forward pass of the identity, without its bias."""
    bias, module.bias = module.bias, None
    matrix = module(torch.eye(module.infeatures, dtype=torch.float16, device=module.qweight.device)).t()
    module.bias = bias
    return matrix


def run_autoawq(job: dict[str, Any]) -> dict[str, str]:
    """AutoAWQ's own quantizer, its packing and its file; beside it the factors by which it scaled rows and columns."""
    from awq import AutoAWQForCausalLM
    from awq.quantize.quantizer import AwqQuantizer
    from awq.utils.module import get_op_name
    from awq.utils.packing_utils import dequantize_gemm

    held: dict[str, str] = {}
    factors: dict[str, np.ndarray] = {}

    class Recording(AwqQuantizer):
        def _search_best_scale(self, module: Any, prev_op: Any, layers: Any, **settings: Any) -> Any:
            block = get_op_name(self.model, module)
            found = super()._search_best_scale(module, prev_op, layers, **settings)
            previous, names, scales = found
            values = scales.float().numpy()
            factors.update({f"{block}.{name}.columns": values.copy() for name in names})
            if not hasattr(prev_op, "weight"):
                sys.exit(
                    f"autoawq would put a layer of its own behind {block}.{previous}: use awq for this architecture."
                )
            rows = np.ones(len(prev_op.weight), np.float32)  # of a linear layer or a norm
            rows[-len(values) :] = 1 / values
            factors[f"{block}.{previous}.rows"] = rows
            return found

        def _apply_quant(self, module: Any, named_linears: Any) -> None:
            super()._apply_quant(module, named_linears)
            for name, linear in named_linears.items():
                packed = module.get_submodule(name)
                matrix = dequantize_gemm(packed.qweight, packed.qzeros, packed.scales, self.w_bit, self.group_size).t()
                step = packed.scales.repeat_interleave(self.group_size, dim=0).t()
                name = f"{get_op_name(self.model, module)}.{name}"
                if not ((matrix - linear.weight.data.to(matrix.device)).abs() <= step / 2).all():
                    sys.exit(f"autoawq does not pack what it computed for {name}: use awq.")
                held[name] = fingerprint(matrix)

    model = AutoAWQForCausalLM.from_pretrained(
        job["checkpoint"], torch_dtype=torch.bfloat16, trust_remote_code=False, device_map="cpu"
    )
    to_float16(model.model)
    stretches = job["stretches"]
    model.quantize(
        tokenizer=None,
        quant_config=job["settings"],
        calib_data=stretches,
        max_calib_samples=len(stretches),
        max_calib_seq_len=len(stretches[0]),
        quantizer_cls=Recording,
    )
    model.save_quantized(job["folder"])
    (Path(job["folder"]) / "smoothing").mkdir()
    save_file(factors, Path(job["folder"]) / "smoothing" / "model.safetensors")
    return held


def check_gpus() -> None:
    """As palimpsest.runtime.devices.check_gpus, for the torch of this environment."""
    taken = os.environ.get("PALIMPSEST_GPUS")
    if taken and not torch.cuda.is_available():
        sys.exit(
            f"the job took {taken}, and torch {torch.__version__} (torch.version.cuda: {torch.version.cuda}) of this "
            "environment can use no GPU: pin a build of torch for the CUDA of the driver in "
            "workflow/envs/archived.txt, or set CUDA_VISIBLE_DEVICES= (empty) to run on the CPU on purpose."
        )


def to_float16(model: Any) -> None:
    """Parameters alone: the rotary embedding keeps its float32 frequencies, as where a model is loaded in float16."""
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.half()
        if not parameter.isfinite().all():
            sys.exit(f"{name} has weights that are not finite in float16, in which this backend computes.")
    model.config.torch_dtype = torch.float16


def fingerprint(matrix: torch.Tensor) -> str:
    """SHA-256 of the values in float32, row by row; -0 counts as 0:
    what palimpsest.quantizers.base.fingerprint computes."""
    values = matrix.detach().float().cpu().numpy()
    return hashlib.sha256(np.ascontiguousarray(values + np.float32(0)).data).hexdigest()


BACKENDS = {"auto-gptq": run_auto_gptq, "autoawq": run_autoawq}

if __name__ == "__main__":
    check_gpus()
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    result: dict[str, Any] = {"held": BACKENDS[job["backend"]](job)}
    result["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    result["device_peak_bytes"] = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")
