"""Every family in every format that runs on a CPU: what a backend is said to take passes its proof, computes what the
checkpoint computes up to rounding, and what it is said to refuse is refused before anything is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, TEXT, save_family
from transformers import AutoTokenizer

from palimpsest.errors import PalimpsestError
from palimpsest.models.layers import layers_of
from palimpsest.models.tensors import open_checkpoint, to_bfloat16
from palimpsest.quantizers import QUANTIZERS, make_quantizer, prove
from palimpsest.quantizers.base import load_checkpoint

CALIBRATION = {"calibration": "retain", "samples": 6, "sample_length": 32}
SETTINGS: dict[str, tuple[dict[str, Any], float, float]] = {
    "rtn": ({"bits": 8, "group_size": None, "symmetric": True}, 0.01, 0.03),
    "microscale": ({"format": "nvfp4"}, 0.12, 0.4),
    "w8a8": ({"format": "fp8"}, 0.04, 0.12),
    "bnb-int8": ({"outlier_threshold": 6.0}, 0.01, 0.05),
    "bnb-4bit": ({"levels": "nf4", "double_quantization": False}, 0.12, 0.4),
    "hqq": ({"bits": 8, "group_size": 64, "device": "cpu"}, 0.01, 0.03),
    "torchao-int8": ({"group_size": None}, 0.01, 0.03),
    "torchao-intx": ({"bits": 8, "group_size": 32, "symmetric": True}, 0.01, 0.03),
    "gptq": ({"bits": 8, "group_size": 32, "symmetric": True, "damping": 0.01} | CALIBRATION, 0.25, 0.03),
    "awq": ({"bits": 8, "group_size": None, "symmetric": True} | CALIBRATION, 0.02, 0.04),
}
"""Settings by backend, and how large the relative errors of a matrix and of the logits may be. Eight bits where the
backend has them: rounding is then so small that anything else that it does to a model shows. GPTQ moves weights that
meet nearly constant inputs (behind OPT's ReLU) farther than a step."""
ELSEWHERE = {
    "none": "quantizes nothing",
    "torchao-int4": "needs a GPU",
    "gguf": "tests/golden/test_gguf_families.py",
    "auto-gptq": "tests/golden/test_archived.py",
    "autoawq": "tests/golden/test_archived.py",
}
TEXTS = [f"Line {i}: {TEXT * (1 + i % 3)}" for i in range(12)]


def test_every_backend_is_tried_here_or_elsewhere():
    assert {*SETTINGS, *ELSEWHERE} == set(QUANTIZERS) and not SETTINGS.keys() & ELSEWHERE.keys()


def test_rtn_takes_every_family_as_the_refusals_of_others_say():
    assert not QUANTIZERS["rtn"].refuses
    for quantizer in QUANTIZERS.values():
        assert quantizer.refuses.keys() <= set(FAMILIES)


@pytest.fixture(scope="module")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root, made = tmp_path_factory.mktemp("families"), {}

    def checkpoint(family: str) -> Path:
        if family not in made:
            made[family] = save_family(family, root / family, layers=1)
        return made[family]

    return checkpoint


def logits(model: torch.nn.Module, checkpoint: Path) -> np.ndarray:
    tokens = torch.tensor([AutoTokenizer.from_pretrained(checkpoint)(TEXT)["input_ids"]])
    with torch.inference_mode():
        return model(tokens).logits.float().numpy()


@pytest.mark.parametrize("backend", SETTINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_in_a_format(family, backend, checkpoint_of, tmp_path):
    checkpoint, (settings, error, most) = checkpoint_of(family), SETTINGS[backend]
    quantizer, folder = make_quantizer({"backend": backend} | settings), tmp_path / "quantized"
    if family in quantizer.refuses:
        with pytest.raises(PalimpsestError, match=rf"of type '{family}', which .* does not quantize here: .* Use rtn"):
            quantizer.quantize(checkpoint, folder, TEXTS)
        assert not folder.exists()
        return
    held = quantizer.quantize(checkpoint, folder, TEXTS)
    prove(quantizer, checkpoint, folder, held)
    with open_checkpoint(checkpoint) as files:
        layers = layers_of(files)
        originals = {module: to_bfloat16(layers.load(files, module)) for module in layers.linear}
    matrices = {matrix.name: matrix for matrix in quantizer.read(folder)}
    assert matrices.keys() == originals.keys() == held.keys()
    for module, matrix in matrices.items():
        difference = np.linalg.norm(matrix.effective - originals[module])
        assert 0 < difference < error * np.linalg.norm(originals[module]), module
    model = quantizer.load(folder, "cpu", "float32")
    ours, theirs = (logits(each, checkpoint) for each in (model, load_checkpoint(checkpoint, "float32")))
    assert np.linalg.norm(ours - theirs) < most * np.linalg.norm(theirs)
