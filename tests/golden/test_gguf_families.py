"""GGUF of every family that is said to work: llama.cpp, given the file, computes what transformers computes of the
checkpoint, and of what is read back from the file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from families import FAMILIES, TEXT, save_family
from gguf import MODEL_ARCH, GGUFReader, dequantize, get_tensor_name_map
from gguf_models import gguf
from safetensors.torch import load_file, save_file
from test_gguf import logits_of, logits_of_llama_cpp
from transformers import AutoTokenizer

from palimpsest.errors import PalimpsestError
from palimpsest.models.layers import layers_of
from palimpsest.models.tensors import open_checkpoint, to_bfloat16
from palimpsest.quantizers import QUANTIZERS, prove
from palimpsest.quantizers.base import load_checkpoint
from palimpsest.quantizers.gguf.architectures import ARCHITECTURES
from palimpsest.quantizers.gguf.backend import FILE_TYPES, convert
from palimpsest.quantizers.gguf.blocks import FORMATS
from palimpsest.quantizers.gguf.model import write_unquantized

REFUSED = QUANTIZERS["gguf"].refuses
TAKEN = [family for family in FAMILIES if family not in REFUSED]
EXACT, GELU = 1e-5, 1e-3
"""How far logits may be apart: sums in another order, and llama.cpp's table of GELU in float16."""
GELU_FAMILIES = ("gemma2", "gemma3_text", "gpt_neox", "gpt2")


@pytest.fixture(scope="module")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root, made = tmp_path_factory.mktemp("families"), {}

    def checkpoint(family: str) -> Path:
        if family not in made:
            # llama.cpp cannot run a Gemma without a layer that looks at the whole text: the second, or the sixth
            made[family] = save_family(family, root / family, 256, {"gemma2": 2, "gemma3_text": 6}.get(family, 1))
        return made[family]

    return checkpoint


def tokens_of(family: str, checkpoint: Path) -> list[int]:
    """More than a window of 32, where llama.cpp has one."""
    return AutoTokenizer.from_pretrained(checkpoint)(TEXT * 2)["input_ids"][: 30 if family == "mistral" else 60]


def test_every_family_is_taken_or_refused():
    assert set(ARCHITECTURES) == set(TAKEN) and len(TAKEN) == 9


@pytest.mark.parametrize("family", TAKEN)
def test_the_unquantized_file_is_the_checkpoint(family, checkpoint_of, tmp_path):
    checkpoint = checkpoint_of(family)
    write_unquantized(checkpoint, tmp_path / "bfloat16.gguf")
    convert(tmp_path / "bfloat16.gguf", tmp_path / "float32.gguf", "f32")
    tokens = tokens_of(family, checkpoint)
    theirs = logits_of_llama_cpp(tmp_path / "float32.gguf", tokens)
    ours = logits_of(load_checkpoint(checkpoint, "float32"), tokens)
    assert ours.std() > 0.2
    assert np.abs(theirs - ours).max() < (GELU if family in GELU_FAMILIES else EXACT)


@pytest.mark.parametrize(("kind", "outer", "error"), [("q8_0", "bfloat16", 0.006), ("q4_k_m", "default", 0.09)])
@pytest.mark.parametrize("family", TAKEN)
def test_a_family_in_a_format(family, kind, outer, error, checkpoint_of, tmp_path):
    checkpoint, quantizer = checkpoint_of(family), gguf(kind, outer)
    held = quantizer.quantize(checkpoint, tmp_path / "quantized", [])
    facts = prove(quantizer, checkpoint, tmp_path / "quantized", held)
    with open_checkpoint(checkpoint) as files:
        layers = layers_of(files)
        originals = {
            module: to_bfloat16(layers.load(files, module))
            for module in (*layers.linear, *layers.heads, *layers.embeddings)
        }
    quantized = {matrix.name: matrix.dequantized for matrix in quantizer.read(tmp_path / "quantized")}
    assert quantized.keys() == held.keys() and facts["quantized_layers"] == len(held) >= len(layers.linear)
    assert (set(layers.linear) == held.keys()) == (outer == "bfloat16")
    for module, matrix in quantized.items():
        difference = np.linalg.norm(matrix - originals[module])
        assert 0 < difference < error * np.linalg.norm(originals[module]), module
    convert(tmp_path / "quantized/model.gguf", tmp_path / "float32.gguf", "f32")
    tokens = tokens_of(family, checkpoint)
    ours = logits_of(quantizer.load(tmp_path / "quantized", "cpu", "float32"), tokens)
    theirs = logits_of_llama_cpp(tmp_path / "float32.gguf", tokens)
    assert np.abs(theirs - ours).max() < (GELU if family in GELU_FAMILIES else EXACT)


def test_a_norm_of_gemma_near_nothing_is_the_checkpoints(tmp_path):
    """The file has 1 + weight in float32, where a weight below 2^-16 loses its last bits."""
    checkpoint, quantizer = save_family("gemma2", tmp_path / "gemma", 256, 2), gguf("q8_0")
    weights = load_file(checkpoint / "model.safetensors")
    norm = weights["model.layers.0.input_layernorm.weight"]
    norm[:3] = torch.tensor([3e-6, -1.01e-5, 2e-9])
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    held = quantizer.quantize(checkpoint, tmp_path / "quantized", [])
    assert prove(quantizer, checkpoint, tmp_path / "quantized", held)["quantized_layers"] == len(held)
    norm[0] = 5e-6
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(PalimpsestError, match=r"input_layernorm.weight in .* was not to be quantized, but is not the"):
        prove(quantizer, checkpoint, tmp_path / "quantized", held)


@pytest.mark.parametrize("family", REFUSED)
def test_what_llama_cpp_cannot_have_is_refused(family, checkpoint_of, tmp_path):
    with pytest.raises(PalimpsestError, match=rf"of type '{family}', which cyllama does not quantize here: .* Use rtn"):
        gguf("q8_0").quantize(checkpoint_of(family), tmp_path / "quantized", [])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("family", TAKEN)
def test_names_are_those_of_the_gguf_package(family, checkpoint_of):
    architecture = ARCHITECTURES[family]
    names = get_tensor_name_map(MODEL_ARCH[architecture.name.upper()], 6)
    with open_checkpoint(checkpoint_of(family)) as files:
        for name in files.names():
            assert architecture.gguf_name(name) == names.get_name(name, (".weight", ".bias"))
            assert architecture.checkpoint_name(architecture.gguf_name(name)) == name


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("qwen2", {"hidden_act": "gelu"}, "hidden_act 'gelu', llama.cpp computes with silu"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window True"),
        ("qwen3", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}}, "rope_type 'yarn'"),
        ("mistral", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "'linear'"),
        ("gemma2", {"query_pre_attn_scalar": 7}, "query_pre_attn_scalar 7, llama.cpp scales by 64"),
        ("gemma2", {"layer_types": ["full_attention", "sliding_attention"]}, r"layer_types \['full_attention', "),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping 30.0"),
        ("gemma3_text", {"hidden_activation": "gelu"}, "hidden_activation 'gelu'"),
        ("gpt_neox", {"hidden_act": "relu"}, "hidden_act 'relu'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
        ("gpt2", {"activation_function": "relu"}, "activation_function 'relu'"),
    ],
)
def test_settings_that_llama_cpp_would_not_compute_with_are_refused(family, change, message, checkpoint_of, tmp_path):
    config = json.loads((checkpoint_of(family) / "config.json").read_text()) | change
    for path in checkpoint_of(family).iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PalimpsestError, match=f"{message}.*take another backend"):
        write_unquantized(tmp_path, tmp_path / "model.gguf")


def test_a_window_that_llama_cpp_does_not_have_bounds_the_context(checkpoint_of, tmp_path):
    """Longer texts would look farther back in llama.cpp than in the checkpoint."""
    for family, context in (("mistral", 32), ("gemma2", 128), ("phi3", 128)):
        write_unquantized(checkpoint_of(family), tmp_path / family)
        fields = GGUFReader(tmp_path / family).fields
        assert fields[f"{ARCHITECTURES[family].name}.context_length"].contents() == context


def test_five_bits_are_read_as_gguf_reads_them(checkpoint_of, tmp_path, monkeypatch):
    """Some versions of llama.cpp store fused queries, keys and values so in q4_k_m."""
    monkeypatch.setitem(FILE_TYPES, "q5_k", "MOSTLY_Q5_K_S")
    write_unquantized(checkpoint_of("phi3"), tmp_path / "bfloat16.gguf")
    convert(tmp_path / "bfloat16.gguf", tmp_path / "five.gguf", "q5_k")
    tensors = [each for each in GGUFReader(tmp_path / "five.gguf").tensors if each.tensor_type.name == "Q5_K"]
    assert len(tensors) == 4
    for tensor in tensors:
        blocks = FORMATS["Q5_K"].unpack(tensor.data)
        assert np.array_equal(blocks.dequantize(), dequantize(tensor.data, tensor.tensor_type))
        assert blocks.codes.max() == 31 and blocks.codes.min() == 0
