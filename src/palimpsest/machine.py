"""What a step ran on: the processor and what of it the numerical libraries use, GPUs, threads.

Another processor may give other bits: libraries choose their kernels by its instructions, and each rounds in its own
order. So a step notes them beside its record (`palimpsest.artefacts.write_provenance`), where an equal result elsewhere
does not differ for it.
"""

import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any

INSTRUCTIONS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2"),
)
"""Of those that a processor lists (/proc/cpuinfo), the ones by which libraries choose kernels: x86, then ARM."""
LIMITS = (
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE"),
    *("MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES"),
    *("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE"),
)
"""Variables by which a user holds libraries to fewer instructions or other kernels."""
CPUINFO = Path("/proc/cpuinfo")


def facts() -> dict[str, Any]:
    """processor: its name; architecture; instructions: those of INSTRUCTIONS that it has; limits: those of LIMITS that
    are set; torch: what this process's torch uses, where it was imported: its instruction set (ATen's), whether it has
    oneDNN and MKL, whether it has kernels for bfloat16 (palimpsest.runtime.kernels), threads, and GPUs by name."""
    name, instructions = _processor()
    found = {
        "processor": name,
        "architecture": platform.machine(),
        "instructions": instructions,
        "limits": {variable: os.environ[variable] for variable in LIMITS if variable in os.environ},
    }
    torch = sys.modules.get("torch")
    return found if torch is None else found | {"torch": _torch(torch)}


@cache
def _processor() -> tuple[str, list[str]]:
    lines: dict[str, str] = {}
    if CPUINFO.is_file():
        for line in CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            lines[key.strip().lower()] = value.strip()
    flags = set((lines.get("flags") or lines.get("features") or "").split())
    return lines.get("model name") or platform.processor(), [name for name in INSTRUCTIONS if name in flags]


def _torch(torch: Any) -> dict[str, Any]:
    return {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": torch.backends.mkldnn.is_available(),
        "mkl": torch.backends.mkl.is_available(),
        "bfloat16": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
        "threads": torch.get_num_threads(),
        "gpus": _gpus(torch) if torch.cuda.is_available() and torch.cuda.is_initialized() else [],
    }


def _gpus(torch: Any) -> list[str]:
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
