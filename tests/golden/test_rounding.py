"""Our rounding against the files that the backends write:
codes, scales, zero points and matrices are equal bit for bit."""

import shutil
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from checkpoints import save_checkpoint
from gguf_models import BYTE_LEVEL, FULL, byte_level
from gguf_models import save as save_llama
from safetensors.torch import load_file, save_file

from palimpsest.errors import PalimpsestError
from palimpsest.models.tensors import open_checkpoint, to_bfloat16
from palimpsest.quantizers import Quantizer, make_quantizer
from palimpsest.quantizers.base import QuantizedMatrix
from palimpsest.quantizers.compressed.floats import shared_scale
from palimpsest.quantizers.grids.rounding import round_half_away_in_place, to_bfloat16_in_place, to_float16
from palimpsest.survival.checkpoints import survive
from palimpsest.survival.measure import measure_survival

RTN = {"backend": "rtn", "bits": 4, "group_size": None, "symmetric": True}
BNB = {"backend": "bnb-4bit", "double_quantization": False}
INTX = {"backend": "torchao-intx", "bits": 4, "group_size": None, "symmetric": True}
SETTINGS = {
    "bnb-int8": {"backend": "bnb-int8", "outlier_threshold": 6.0},
    "bnb-fp4": BNB | {"levels": "fp4"},
    "bnb-nf4": BNB | {"levels": "nf4"},
    "rtn-int4": RTN,
    "rtn-int4-groups": RTN | {"group_size": 4},
    "rtn-int4-zero-points": RTN | {"symmetric": False},
    "rtn-int4-groups-zero-points": RTN | {"group_size": 4, "symmetric": False},
    "rtn-int8": RTN | {"bits": 8},
    "rtn-int8-zero-points": RTN | {"bits": 8, "group_size": 4, "symmetric": False},
    "w8a8-int8": {"backend": "w8a8", "format": "int8"},
    "w8a8-fp8": {"backend": "w8a8", "format": "fp8"},
    "torchao-int8": {"backend": "torchao-int8", "group_size": None},
    "torchao-int4": INTX,
    "torchao-int4-groups": INTX | {"group_size": 4},
    "torchao-int2": INTX | {"bits": 2},
    "torchao-int4-zero-points": INTX | {"symmetric": False},
    "torchao-int4-groups-zero-points": INTX | {"group_size": 4, "symmetric": False},
    "torchao-int8-groups": {"backend": "torchao-int8", "group_size": 4},
}
BLOCKS = {
    "rtn-int4-g128": RTN | {"group_size": 128},
    "nvfp4": {"backend": "microscale", "format": "nvfp4"},
    "mxfp4": {"backend": "microscale", "format": "mxfp4"},
}
GGUF = {kind: {"backend": "gguf", "format": kind, "outer": "bfloat16"} for kind in ("q8_0", "q4_0")}
RECORDED = Path(__file__).parents[1] / "data/torchao-int4"


def make_extreme(folder: Path) -> Path:
    """Put into every matrix of a checkpoint what ordinary weights do not have: zeros, outliers, ties, tiny values."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, weight in tensors.items():
        if weight.dim() < 2 or "embed" in name:
            continue
        columns = weight.shape[1]
        weight[0] = 0
        weight[1, : columns // 2] = 0
        weight[2, 1] = 8.0
        weight[3] *= 1e-5
        steps = torch.arange(columns) % 65 - 32
        weight[4] = (steps / 32).to(
            weight.dtype
        )  # the largest |w| twice with both signs, and weights halfway between levels
        weight[5] = torch.where(steps % 2 == 0, 2.0**-6, -(2.0**-6)) * 2.0 ** -(steps % 7).float()
        weight[6, columns // 2 :] *= 2.0**-60
        weight[7] = (steps / 15).to(weight.dtype)
        weight[8, ::2] = -weight[8, 1::2]
    save_file(tensors, path, {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def extreme(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """aligned: whole blocks and words. ragged: short last blocks and words.
    llama: a tokenizer that llama.cpp takes, wide heads."""
    root = tmp_path_factory.mktemp("extreme")
    aligned = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_key_value_heads": 4}
    ragged = {"hidden_size": 40, "intermediate_size": 36, "num_hidden_layers": 1, "num_key_value_heads": 1}
    folders = {
        "aligned": save_checkpoint(root / "aligned", **aligned),
        "ragged": save_checkpoint(root / "ragged", tie_word_embeddings=True, **ragged),
        "llama": save_llama(root / "llama", byte_level(BYTE_LEVEL), **FULL),
    }
    return {name: make_extreme(folder) for name, folder in folders.items()}


def assert_same(
    quantizer: Quantizer, checkpoint: Path, matrices: list[QuantizedMatrix], rows: int | None = None
) -> None:
    """rows: of a block; None rounds whole matrices."""
    with open_checkpoint(checkpoint) as files:
        largest: dict[str, float] = {}
        for matrix in matrices:
            key = shared_scale(matrix.name)
            largest[key] = max(largest.get(key, 0), float(np.abs(files.load(f"{matrix.name}.weight")).max()))
        for matrix in matrices:
            weights = to_bfloat16(files.load(f"{matrix.name}.weight"))
            blocks = [
                quantizer.round(weights[start : start + (rows or len(weights))], largest[shared_scale(matrix.name)])
                for start in range(0, len(weights), rows or len(weights))
            ]
            for part in ("codes", "scales", "zero_points", "dequantized"):
                ours, theirs = [getattr(block, part) for block in blocks], getattr(matrix, part)
                if theirs is None:
                    assert ours[0] is None
                    continue
                whole = np.concatenate(ours)
                assert whole.shape == theirs.shape, (matrix.name, part)
                assert np.array_equal(whole, theirs), (matrix.name, part, np.argwhere(whole != theirs)[:5].tolist())


@pytest.fixture(scope="module")
def written(extreme: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable:
    def write(settings: dict, shape: str) -> tuple[Quantizer, Path, list[QuantizedMatrix]]:
        quantizer, folder = make_quantizer(settings), tmp_path_factory.mktemp("quantized")
        quantizer.quantize(extreme[shape], folder, [])
        return quantizer, extreme[shape], list(quantizer.read(folder))

    return write


@pytest.mark.parametrize("shape", ["aligned", "ragged"])
@pytest.mark.parametrize("name", SETTINGS)
def test_rounding_gives_what_the_backend_wrote(written, name, shape):
    quantizer, checkpoint, matrices = written(SETTINGS[name], shape)
    assert len(matrices) >= 7 and not quantizer.why_not_round()
    assert_same(quantizer, checkpoint, matrices)


@pytest.mark.parametrize("name", BLOCKS)
def test_rounding_in_small_blocks_gives_what_the_backend_wrote(written, name):
    quantizer, checkpoint, matrices = written(BLOCKS[name], "aligned")
    assert len(matrices) == 14
    assert_same(quantizer, checkpoint, matrices)


@pytest.mark.parametrize("name", GGUF)
def test_rounding_gives_what_llama_cpp_wrote(written, name):
    quantizer, checkpoint, matrices = written(GGUF[name], "llama")
    assert len(matrices) == 7
    assert_same(quantizer, checkpoint, matrices)


def test_rounding_gives_what_tinygemm_wrote():
    """The file was made on a GPU; ordinary weights only."""
    quantizer = make_quantizer({"backend": "torchao-int4", "group_size": 32})
    matrices = list(quantizer.read(RECORDED / "quantized"))
    assert matrices
    assert_same(quantizer, RECORDED / "checkpoint", matrices)


@pytest.mark.parametrize("name", ["bnb-fp4", "bnb-int8", "rtn-int4-groups", "rtn-int4-zero-points"])
def test_blocks_of_64_rows_give_the_same_as_whole_matrices(written, name):
    quantizer, checkpoint, matrices = written(SETTINGS[name], "ragged")
    assert_same(quantizer, checkpoint, matrices, rows=64)
    assert_same(quantizer, checkpoint, [m for m in matrices if m.codes.shape[1] % 8 == 0], rows=8)


@pytest.mark.parametrize("name", ["bnb-fp4", "bnb-int8", "rtn-int4-groups", "w8a8-fp8", "torchao-int4"])
def test_survival_from_two_checkpoints_is_that_of_the_quantized_files(extreme, tmp_path, name):
    quantizer, target, unlearned = make_quantizer(SETTINGS[name]), extreme["ragged"], tmp_path / "unlearned"
    shutil.copytree(target, unlearned)
    tensors = load_file(target / "model.safetensors")
    moved = {key: (weight + 1e-3 * torch.randn(weight.shape)).to(weight.dtype) for key, weight in tensors.items()}
    save_file(moved, unlearned / "model.safetensors", {"format": "pt"})
    for folder, quantized in ((target, "q0"), (unlearned, "q")):
        quantizer.quantize(folder, tmp_path / quantized, [])
    expected = measure_survival(target, unlearned, tmp_path / "q0", tmp_path / "q", quantizer)
    found = survive(target, unlearned, {name: quantizer})
    for key, value in expected["all"].items():
        assert found["formats"][name][key] == (
            pytest.approx(value, rel=1e-12) if isinstance(value, float) else value
        ), key
    assert found["outside"] == expected["outside"]


def test_the_short_ways_of_rounding_agree_with_casts_for_every_number():
    numbers = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16).astype(np.float32)
    below = numbers[np.abs(numbers) < 0.25]
    assert np.array_equal(to_float16(below), below.astype(np.float16).astype(np.float32))
    more = np.random.default_rng(0).normal(0, 1, 1 << 16).astype(np.float32)
    finite = np.concatenate([numbers[np.isfinite(numbers)], more, more + np.float32(2.0**-9), [0.5, -0.5, 2.5]]).astype(
        np.float32
    )
    assert np.array_equal(to_bfloat16_in_place(finite.copy()), to_bfloat16(finite))
    away = np.array([0.5, -0.5, 1.5, -2.5, 0.49999997, -0.49999997, 126.5, 3.0], np.float32)
    assert np.array_equal(round_half_away_in_place(away), [1, -1, 2, -3, 0, 0, 127, 3])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (BNB | {"levels": "nf4", "double_quantization": True}, "double quantization"),
        (
            {
                "backend": "gptq",
                "bits": 4,
                "group_size": 128,
                "symmetric": True,
                "damping": 0.01,
                "calibration": "retain",
                "samples": 8,
                "sample_length": 32,
            },
            "calibration text",
        ),
        ({"backend": "gguf", "format": "q4_k_m", "outer": "bfloat16"}, "searches"),
        ({"backend": "hqq", "bits": 4, "group_size": 64, "device": "cpu"}, "searches"),
    ],
)
def test_what_weights_alone_do_not_decide_is_refused_with_the_reason(settings, reason):
    quantizer = make_quantizer(settings)
    assert reason in quantizer.why_not_round()
    with pytest.raises(PalimpsestError, match=reason):
        quantizer.round(np.zeros((1, 64), np.float32))
