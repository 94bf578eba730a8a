"""Update survival on random matrices:
the same shift survives from float32 masters and is erased from bfloat16 storage."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from palimpsest.errors import PalimpsestError
from palimpsest.models.tensors import to_bfloat16
from palimpsest.survival.measure import measure_survival

SHAPES = {"model.layers.0.mlp.up_proj": (96, 256), "model.layers.1.mlp.down_proj": (64, 384)}


class RoundToNearest:
    """Symmetric round-to-nearest per output channel: int4 with a grid of -7..7, int8 with -127..127."""

    def __init__(self, bits: int) -> None:
        self.top = 2 ** (bits - 1) - 1

    def quantize(self, checkpoint: Path, folder: Path) -> Path:
        tensors = {}
        for name, stored in load_file(checkpoint / "model.safetensors").items():
            if name.endswith("_proj.weight"):
                weights = stored.astype(np.float32)
                scales = np.abs(weights).max(axis=1, keepdims=True) / self.top
                tensors[f"{name}.codes"] = np.rint(weights / scales).astype(np.int8)
                tensors[f"{name}.scales"] = scales
        folder.mkdir()
        save_file(tensors, folder / "quantized.safetensors")
        return folder

    def read(self, folder: Path) -> Iterator[SimpleNamespace]:
        tensors = load_file(folder / "quantized.safetensors")
        for name in sorted(name.removesuffix(".weight.codes") for name in tensors if name.endswith(".codes")):
            codes, scales = tensors[f"{name}.weight.codes"], tensors[f"{name}.weight.scales"]
            yield SimpleNamespace(name=name, codes=codes, scales=scales, group_index=None, effective=codes * scales)


def save(folder: Path, tensors: dict[str, np.ndarray], dtype: type = np.float32) -> Path:
    folder.mkdir()
    save_file({name: array.astype(dtype) for name, array in tensors.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture
def start() -> dict[str, np.ndarray]:
    """N(0, 0.02) weights that bfloat16 holds exactly."""
    rng = np.random.default_rng(0)
    tensors = {
        f"{name}.weight": to_bfloat16(rng.normal(0, 0.02, shape).astype(np.float32)) for name, shape in SHAPES.items()
    }
    return tensors | {"model.norm.weight": np.ones(64, np.float32)}


def shifted(
    start: dict[str, np.ndarray], in_place: bool, steps: int = 100, rate: float = 2e-6
) -> dict[str, np.ndarray]:
    """Coherent steps of `rate`, each rounded to bfloat16 at once (`in_place`) or kept in float32."""
    rng = np.random.default_rng(1)
    moved = {}
    for name, weights in start.items():
        direction = np.where(rng.random(weights.shape) < 0.5, -rate, rate).astype(np.float32)
        current = weights.copy()
        for _ in range(steps if name.endswith("_proj.weight") else 0):
            current = to_bfloat16(current + direction) if in_place else current + direction
        moved[name] = current
    return moved


def measure(tmp_path: Path, target: Path, unlearned: Path, bits: int) -> dict:
    quantizer = RoundToNearest(bits)
    quantized = [quantizer.quantize(each, tmp_path / f"{each.name}-q{bits}") for each in (target, unlearned)]
    return measure_survival(target, unlearned, *quantized, quantizer)


def test_a_shift_in_bfloat16_is_erased_by_int4_and_one_in_float32_is_not(tmp_path: Path, start: dict) -> None:
    target = save(tmp_path / "target", start, ml_dtypes.bfloat16)
    in_place = save(tmp_path / "in-place", shifted(start, in_place=True), ml_dtypes.bfloat16)
    master = save(tmp_path / "master", shifted(start, in_place=False))
    erased = measure(tmp_path, target, in_place, 4)
    assert abs(erased["all"]["rho"]) < 0.02
    assert 0 < erased["all"]["changed_share"] < 0.05, "only weights below 256 * rate = 5e-4 can move"
    assert erased["all"]["same_code_share"] > 0.99

    (tmp_path / "target-q4").rename(tmp_path / "first-q4")
    kept = measure(tmp_path, target, master, 4)
    assert kept["all"]["rho"] == pytest.approx(1, abs=0.1)
    assert kept["all"]["changed_share"] == 1.0
    assert 0.9 < kept["all"]["same_code_share"] < 1

    assert measure(tmp_path, target, in_place, 8)["all"]["rho"] == pytest.approx(1, abs=0.1)


def test_sums_agree_with_the_formula_on_the_whole(tmp_path: Path, start: dict) -> None:
    moved = shifted(start, in_place=False, rate=3e-5)
    record = measure(tmp_path, save(tmp_path / "a", start), save(tmp_path / "b", moved), 4)
    q0, q = ({m.name: m for m in RoundToNearest(4).read(tmp_path / f"{x}-q4")} for x in "ab")
    update = np.concatenate([(moved[f"{n}.weight"].astype(float) - start[f"{n}.weight"]).ravel() for n in SHAPES])
    change = np.concatenate([(q[n].effective.astype(float) - q0[n].effective).ravel() for n in SHAPES])
    norm = np.sqrt(sum((start[f"{n}.weight"].astype(float) ** 2).sum() for n in SHAPES))
    whole = record["all"]
    assert whole["rho"] == pytest.approx(change @ update / (update @ update), rel=1e-12)
    assert whole["relative_update_norm"] == pytest.approx(np.linalg.norm(update) / norm, rel=1e-12)
    assert whole["weights"] == whole["codes"] == update.size
    drift = np.concatenate([np.abs(q[n].scales / q0[n].scales - 1).ravel() for n in SHAPES])
    assert whole["scale_drift"] == pytest.approx(drift.mean(), rel=1e-5)
    assert [matrix["name"] for matrix in record["matrices"]] == sorted(SHAPES)
    assert record["outside"] == {"weights": 64, "share_of_squared_update": 0.0}
    json.dumps(record, allow_nan=False)


def test_no_update_has_a_status_and_no_number(tmp_path: Path, start: dict) -> None:
    record = measure(tmp_path, save(tmp_path / "a", start), save(tmp_path / "b", start), 4)
    assert record["all"]["rho"] is None and "no weight changed" in record["all"]["rho_status"]
    assert record["all"]["same_code_share"] == 1.0
    assert record["outside"]["share_of_squared_update"] is None
    json.dumps(record, allow_nan=False)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path, start: dict) -> None:
    target = save(tmp_path / "target", start)
    fewer = save(tmp_path / "fewer", {name: array for name, array in start.items() if "layers.1" not in name})
    wider = save(tmp_path / "wider", start | {"model.norm.weight": np.ones(65, np.float32)})
    broken = save(
        tmp_path / "nan", start | {f"{name}.weight": np.full(shape, np.nan) for name, shape in SHAPES.items()}
    )
    quantizer = RoundToNearest(4)
    right = quantizer.quantize(target, tmp_path / "right")
    with pytest.raises(PalimpsestError, match="different tensors"):
        measure_survival(target, fewer, right, right, quantizer)
    with pytest.raises(PalimpsestError, match=r"model.norm.weight is"):
        measure_survival(target, wider, right, right, quantizer)
    with pytest.raises(PalimpsestError, match="different numbers of matrices"):
        measure_survival(target, target, right, quantizer.quantize(fewer, tmp_path / "less"), quantizer)
    with pytest.raises(PalimpsestError, match="NaN"):
        measure_survival(target, broken, right, right, quantizer)


def test_survival_imports_no_heavy_library() -> None:
    code = (
        "import sys, palimpsest.survival.measure; sys.exit(any(name in sys.modules for name in "
        "('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


OF_BLAS = [
    {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "1"},
    {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "2"},
    {"OPENBLAS_CORETYPE": "Prescott", "OPENBLAS_NUM_THREADS": "1"},
]
"""What OpenBLAS adds up in another order for: the kind of processor, and the number of threads."""
SUMS = """
import numpy as np
from palimpsest.survival.measure import kept_sum, update_sums

rng = np.random.default_rng(0)
w0, w, q0, q = rng.normal(0, 0.02, (4, 3 * 12288)).astype(np.float32)
update, sums = update_sums(w0, w)
print(float(np.dot(update, update)), sums["update"], sums["norm"], kept_sum(update, q0, q))
"""


def test_no_digit_of_a_sum_is_due_to_the_processor_or_the_threads() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", SUMS], env=os.environ | each, capture_output=True, text=True, check=True)
        for each in OF_BLAS
    ]
    of_blas, *ours = zip(*(run.stdout.split() for run in runs), strict=True)
    if platform.machine() == "x86_64":
        assert len(set(of_blas)) > 1, "the values are such that BLAS has more than one answer"
    assert [len(set(values)) for values in ours] == [1, 1, 1]
