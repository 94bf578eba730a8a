"""Layers by role: what the names of a family say is what transformers builds."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from families import FAMILIES as TESTED
from families import make_model, make_tokenizer
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from palimpsest.errors import PalimpsestError
from palimpsest.models.families import FAMILIES
from palimpsest.models.layers import Layers, layers_of
from palimpsest.models.tensors import open_checkpoint


def found(folder: Path) -> Layers:
    with open_checkpoint(folder) as files:
        return layers_of(files)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    for family in TESTED:
        make_model(family, make_tokenizer()).save_pretrained(root / family)
    return {family: root / family for family in TESTED}


def test_every_known_family_is_tested():
    assert set(FAMILIES) == set(TESTED)


@pytest.mark.parametrize("family", sorted(set(TESTED) - {"mixtral"}))
def test_names_of_a_family_are_the_layers_that_transformers_builds(family, saved, monkeypatch):
    by_names = found(saved[family])
    others = {kind: each for kind, each in FAMILIES.items() if kind != family}
    monkeypatch.setattr("palimpsest.models.layers.FAMILIES", others)
    assert found(saved[family]) == by_names
    assert len(by_names.linear) == {"opt": 12, "phi3": 8}.get(
        family, 8 if not by_names.linear[0].startswith("model") else 14
    )
    assert len(by_names.heads) == (0 if family in ("gemma2", "gemma3_text", "gpt2", "opt", "bloom", "falcon") else 1)
    assert bool(by_names.turned) == (family == "gpt2")


def test_experts_are_linear_layers_and_their_router_is_none(saved):
    layers = found(saved["mixtral"])
    assert len(layers.linear) == 2 * (4 + 4 * 3) and not any(name.endswith(".gate") for name in layers.linear)


@pytest.mark.parametrize("family", TESTED)
def test_a_matrix_has_the_outputs_and_inputs_of_its_layer(family, saved):
    with open_checkpoint(saved[family]) as files:
        layers = layers_of(files)
        for module in layers.linear:
            assert layers.load(files, module).shape == layers.shape(files, module)
        fused = next(
            module
            for module in layers.linear
            if module.endswith(("c_fc", "mlp.dense_h_to_4h", "fc1", "mlp.up_proj", "mlp.gate_up_proj", "w1"))
        )
        assert layers.shape(files, fused)[0] > layers.shape(files, fused)[1] == 64


def test_checkpoints_of_the_hub_leave_out_the_prefix_and_store_masks(saved, tmp_path):
    """As the published gpt2 does."""
    tensors = {
        name.removeprefix("transformer."): each for name, each in load_file(saved["gpt2"] / "model.safetensors").items()
    }
    tensors["h.0.attn.bias"] = np.ones((1, 1, 128, 128), ml_dtypes.bfloat16)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((saved["gpt2"] / "config.json").read_text())
    layers = found(tmp_path)
    assert [name.removeprefix("transformer.") for name in found(saved["gpt2"]).linear] == list(layers.linear)
    assert layers.turned == set(layers.linear) and layers.embeddings == ("wpe", "wte")


@pytest.mark.parametrize(
    ("kind", "shape", "linear", "turned"),
    [
        ("gptj", {"n_embd": 32, "n_layer": 1, "n_head": 2, "rotary_dim": 8}, 6, False),
        ("gpt_bigcode", {"n_embd": 32, "n_layer": 1, "n_head": 2}, 4, False),
        (
            "olmo2",
            {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48},
            7,
            False,
        ),
        ("openai-gpt", {"n_embd": 32, "n_layer": 1, "n_head": 2}, 4, True),
    ],
)
def test_another_architecture_is_built_to_see_its_layers(kind, shape, linear, turned, tmp_path):
    config = AutoConfig.for_model(kind, vocab_size=50, **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    layers = found(tmp_path)
    assert len(layers.linear) == linear and bool(layers.turned) == turned
    assert not set(layers.linear) & {*layers.heads, *layers.embeddings}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "t5"}, "transformers builds no causal language model"),
        ({"model_type": "nonesuch"}, "transformers builds no causal language model"),
        ({"hidden_size": 3}, "names no model_type"),
        ([], "holds no JSON object"),
    ],
)
def test_an_architecture_that_nobody_knows_is_one_line(config, message, tmp_path):
    save_file({"a.weight": np.ones((2, 2), np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PalimpsestError, match=message):
        found(tmp_path)


def test_stacked_experts_of_an_unknown_architecture_are_refused(tmp_path):
    kind = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    config = AutoConfig.for_model(
        "qwen3_moe", **kind, num_experts=2, moe_intermediate_size=16, head_dim=16, num_experts_per_tok=1
    )
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(tmp_path)
    with pytest.raises(PalimpsestError, match="does not know this architecture's layers"):
        found(tmp_path)
