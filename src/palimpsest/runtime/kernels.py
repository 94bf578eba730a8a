"""Which kernels of the numerical libraries multiply and add on the CPU, where that decides the time or the bits.

A processor without instructions for bfloat16 multiplies such matrices in loops of ATen's, which take tens of times as
long as its float32. There the products are made in float32 (`multiply_in_float32`); the weights stay in bfloat16.

A processor with more instructions adds up in another order, so that last bits differ. `REPRODUCIBLE` holds ATen, oneDNN
and MKL to the instructions that every x86-64 processor with AVX2 has.
"""

import os
import warnings
from collections.abc import Callable, Set
from functools import cache
from typing import Any

REPRODUCIBLE = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"}
"""The libraries read these when they are imported, or at their first product. MKL takes any branch but COMPATIBLE
(SSE2) on Intel's processors alone, and says nothing where it does not (oneMKL Developer Guide, Specifying Code
Branches)."""

ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"
PRODUCTS: dict[str, Set[int]] = {
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm", f"{ATTENTION}_backward"), frozenset()),
    ATTENTION: frozenset({1}),
}
"""ATen's operators that multiply matrices on a CPU, each with its results that are float32 in any case: of attention
the logarithms of its sums."""


def choose_kernels(kernels: str | None) -> None:
    """For this process and its children, as `kernels` in params.yaml says. Before the libraries are imported."""
    if kernels == "reproducible":
        os.environ.update(REPRODUCIBLE)


@cache
def multiply_in_float32() -> bool:
    """Where the processor has no kernels for bfloat16: from here on in this process products of bfloat16 matrices are
    made in float32 and rounded once. Says whether that is so.

    oneDNN's kernels for bfloat16 add up in float32 too: what differs is the order of the additions.
    """
    import torch

    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    library = torch.library.Library("aten", "IMPL")
    _registered.append(library)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # that a kernel of torch's own is replaced, which is what it is for
        for name, float32 in PRODUCTS.items():
            kernel = torch.library.get_kernel(f"aten::{name}", "CPU")
            library.impl(name, _in_float32(torch, kernel, float32), "CPU", with_keyset=True)
    return True


_registered: list[Any] = []
"""What is registered goes with its library."""


def _in_float32(torch: Any, kernel: Any, float32: Set[int]) -> Callable[..., Any]:
    """The operator that hands tensors in bfloat16 to `kernel` in float32. float32: the results that stay so."""

    def narrow(value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.dtype is torch.bfloat16

    def multiply(keys: Any, *arguments: Any, **named: Any) -> Any:
        if not any(map(narrow, arguments)):
            return kernel.call_boxed(keys, *arguments, **named)
        made = kernel.call_boxed(keys, *(each.float() if narrow(each) else each for each in arguments), **named)
        if isinstance(made, torch.Tensor):
            return made.to(torch.bfloat16)
        return tuple(each if number in float32 else each.to(torch.bfloat16) for number, each in enumerate(made))

    return multiply
