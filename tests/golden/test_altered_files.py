"""One bit of a quantized file flipped: in a quantized matrix, a norm, the embeddings, the head.
The proof must notice, whatever the backend."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import TEXTS
from gguf import GGUFReader
from gguf_models import BYTE_LEVEL, byte_level
from gguf_models import save as save_llama

from palimpsest.errors import PalimpsestError
from palimpsest.quantizers import make_quantizer, prove
from palimpsest.quantizers.environments import VARIABLE
from palimpsest.quantizers.gguf.model import gguf_name

TEXT = {"calibration": "retain", "samples": 4, "sample_length": 32}
GRID = {"bits": 4, "group_size": 32}
BACKENDS = {
    "bnb-int8": {"outlier_threshold": 6.0},
    "bnb-4bit": {"levels": "nf4", "double_quantization": False},
    "rtn": GRID | {"symmetric": True},
    "gptq": GRID | {"symmetric": True, "damping": 0.01} | TEXT,
    "awq": GRID | {"symmetric": False} | TEXT,
    "w8a8": {"format": "fp8"},
    "microscale": {"format": "mxfp4"},
    "gguf": {"format": "q4_k_m", "outer": "bfloat16"},
    "hqq": GRID | {"device": "cpu"},
    "torchao-int8": {"group_size": None},
    "torchao-intx": GRID | {"symmetric": True},
    "auto-gptq": GRID | {"symmetric": True, "desc_act": False, "damping": 0.01} | TEXT,
    "autoawq": GRID | {"zero_point": True} | TEXT,
}
CODES = ("weight_packed", "weight", "W_q", "_weight_qdata", "qweight")
LAYER = "model.layers.0.mlp.up_proj"
NOTICED = f"{LAYER} read back from .* is not what the backend held"
KEPT = "in .* was not to be quantized, but is not the checkpoint's"


@pytest.fixture(scope="module")
def quantized(checkpoints, tmp_path_factory, request) -> Callable[[str], tuple]:
    """(quantizer, checkpoint, folder, held) by backend, made once."""
    cases: dict[str, tuple] = {}

    def case(backend: str) -> tuple:
        if backend not in cases:
            quantizer, folder = (
                make_quantizer({"backend": backend} | BACKENDS[backend]),
                tmp_path_factory.mktemp(backend),
            )
            checkpoint = checkpoints["aligned"]
            if backend == "gguf":  # llama.cpp takes no tokenizer of words
                checkpoint = save_llama(tmp_path_factory.mktemp("llama"), byte_level(BYTE_LEVEL))
            cases[backend] = quantizer, checkpoint, folder, quantizer.quantize(checkpoint, folder, TEXTS)
        return cases[backend]

    return case


def flip(folder: Path, module: str, byte: int) -> None:
    """Flip the lowest bit of one byte of a module's codes, or of its weight, in place."""
    if (folder / "model.gguf").exists():
        name = gguf_name(f"{module}.weight")
        tensor = next(each for each in GGUFReader(folder / "model.gguf", "r+").tensors if each.name == name)
        data = tensor.data.reshape(-1).view("u1")
        data[byte + tensor.data.itemsize - 2 if tensor.data.itemsize > 2 else byte] ^= 1  # the exponent of a float32
        tensor.data.base.flush()
        return
    for path in folder.glob("*.safetensors"):
        content = bytearray(path.read_bytes())
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        for name in (f"{module}.{part}" for part in CODES):
            if name in header:
                content[8 + length + header[name]["data_offsets"][0] + byte] ^= 1
                path.write_bytes(content)
                return
    raise AssertionError(f"{module} is nowhere in {folder}")


@pytest.mark.parametrize(
    ("module", "byte", "message"),
    [
        (LAYER, 20, NOTICED),
        ("model.layers.1.input_layernorm", 1, f"layers.1.input_layernorm.weight {KEPT}"),
        ("model.norm", 1, f"model.norm.weight {KEPT}"),
        ("model.embed_tokens", 1, f"model.embed_tokens.weight {KEPT}"),
        ("lm_head", 1, f"lm_head.weight {KEPT}"),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_proof_notices_one_bit(quantized, tmp_path, monkeypatch, request, backend, module, byte, message):
    if backend in ("auto-gptq", "autoawq"):
        monkeypatch.setenv(VARIABLE, str(request.getfixturevalue("forked_environment").parent))
    quantizer, checkpoint, folder, held = quantized(backend)
    facts = prove(quantizer, checkpoint, folder, held)["unquantized"]
    assert (
        facts["tensors"] == 7 and len(facts["sha256"]) == 64
    )  # embeddings, head, and the norms of two layers and the end
    altered = Path(shutil.copytree(folder, tmp_path / "altered"))
    flip(altered, module, byte)
    with pytest.raises(PalimpsestError, match=message):
        prove(quantizer, checkpoint, altered, held)


@pytest.mark.parametrize("backend", ["rtn", "gguf"])
def test_the_hash_of_the_unquantized_tensors_is_that_of_the_checkpoints(quantized, backend):
    """Formats that leave them as they are agree."""
    others = [prove(*quantized(each))["unquantized"] for each in (("bnb-4bit", "hqq") if backend == "rtn" else ())]
    mine = prove(*quantized(backend))["unquantized"]
    assert all(each == mine for each in others)
