"""Products of bfloat16 matrices on a processor without kernels for them, and kernels held to AVX2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from palimpsest.runtime.kernels import REPRODUCIBLE, choose_kernels

KERNELS = Path(__file__).parents[3] / "benchmarks/kernels.py"
PRODUCTS = """
import json, torch
from torch.nn.functional import linear, scaled_dot_product_attention as attention
from palimpsest.runtime.kernels import multiply_in_float32

def products(number):
    torch.manual_seed(0)
    x, y, z = (torch.randn(shape).to(number).requires_grad_() for shape in ((33, 70), (50, 70), (2, 3, 17, 16)))
    made = {
        "mm": x @ y.mT, "addmm": linear(x, y, y[:, 0]), "bmm": z[0] @ z[0].mT,
        "baddbmm": torch.baddbmm(z[0], z[0], z[0][:, :16]), "attention": attention(z, z, z, is_causal=True),
    }
    sum(each.square().sum() for each in made.values()).backward()
    return made | {f"gradient of {name}": each.grad for name, each in (("x", x), ("y", y), ("z", z))}

def distance(some, others):
    return {name: ((some[name] - others[name]).abs().max() / others[name].abs().max()).item() for name in some}

supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
exact = {name: each.double() for name, each in products(torch.float32).items()}
before = products(torch.bfloat16)
replaced = multiply_in_float32()
after = products(torch.bfloat16)
print(json.dumps({
    "supported": supported, "replaced": replaced, "types": sorted({str(each.dtype) for each in after.values()}),
    "before": distance(before, exact), "after": distance(after, exact),
    "float32": distance(products(torch.float32), exact),
}))
"""


@pytest.mark.parametrize("limits", [{}, REPRODUCIBLE], ids=["native", "avx2"])
def test_products_of_bfloat16_are_as_exact_as_ever_and_float32_is_untouched(limits):
    done = subprocess.run(
        [sys.executable, "-c", PRODUCTS], env=os.environ | limits, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["replaced"] is not found["supported"] and "Overriding" not in done.stderr
    if limits and sys.platform == "linux" and os.uname().machine == "x86_64":
        assert found["replaced"]
    assert found["types"] == ["torch.bfloat16"]
    assert max(found["float32"].values()) < 1e-12
    for name, off in found["after"].items():
        assert off < max(0.01, 1.5 * found["before"][name]), name


@pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason="the kernels are those of x86-64 processors"
)
def test_reproducible_gives_the_bits_that_other_processors_gave():
    """An AMD EPYC and an Intel Xeon with AMX agree on three steps (docs/evidence/kernels.csv); this is the first."""
    made = subprocess.run(
        [sys.executable, str(KERNELS), "--measure", "bfloat16", "--steps", "1"],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | REPRODUCIBLE,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(made.stdout.splitlines()[-1])["weights"] == "a5177b8abd6d7958"


def test_reproducible_holds_every_library_and_native_none(monkeypatch):
    for name in REPRODUCIBLE:
        monkeypatch.delenv(name, raising=False)
    choose_kernels(None)
    choose_kernels("native")
    assert not REPRODUCIBLE.keys() & os.environ.keys()
    choose_kernels("reproducible")
    assert {name: os.environ[name] for name in REPRODUCIBLE} == REPRODUCIBLE
    for name in REPRODUCIBLE:
        monkeypatch.delenv(name)
