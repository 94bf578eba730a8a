"""Checkpoints whose files make no sense: each is one line that names the file and says what to do."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from palimpsest.errors import PalimpsestError
from palimpsest.models.checkpoint import load_model, load_tokenizer
from palimpsest.models.gguf import read_header
from palimpsest.models.scratch import make_base
from palimpsest.quantizers.gguf.model import GGUFTensors
from palimpsest.survival.checkpoints import survive

SHAPE = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}


@pytest.fixture
def folder(tmp_path) -> Path:
    LlamaForCausalLM(LlamaConfig(**SHAPE, intermediate_size=128, vocab_size=50)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def refusal(folder: Path) -> str:
    with pytest.raises(PalimpsestError) as caught:
        load_model(folder, torch.float32, key="models.target")
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    return message


def write_config(folder: Path, **settings: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


def test_shapes_that_do_not_fit_are_named(folder):
    write_config(folder, intermediate_size=130)
    found = (
        "model.layers.0.mlp.down_proj.weight is [64, 128] in its files and [64, 130] by its config.json (and 2 more)"
    )
    assert f"cannot load the model '{folder}': {found}. Point models.target of params.yaml" in refusal(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_hidden_layers": 10**9}, "it has 1000000000 layers, which the weights beside it cannot be"),
        ({"vocab_size": 10**12}, "config.json describes 128,000,000,041,152 weights, and its files hold 47,552"),
        ({"vocab_size": 10**20}, "transformers builds no causal language model"),
        ({"hidden_size": 1 << 20, "head_dim": 64}, "weights, and its files hold 47,552"),
        ({"num_attention_heads": 0}, "transformers builds no causal language model"),
        ({"intermediate_size": -3}, "transformers builds no causal language model"),
        ({"model_type": "vit"}, "for this kind of AutoModel: AutoModelForCausalLM"),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "mine.C"}}, "needs code of its own (auto_map)"),
    ],
)
def test_a_config_of_another_model_is_refused_before_memory_is_taken(folder, settings, message):
    write_config(folder, **settings)
    assert message in refusal(folder)


def test_a_tokenizer_that_is_not_there_is_a_whole_sentence(folder):
    with pytest.raises(
        PalimpsestError, match=r"from one of: \(1\) a .* slow tokenizer class to instantiate and convert"
    ):
        load_tokenizer(folder, key="models.target")


def test_an_adapter_is_refused_by_all_who_read(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "plain")
    (folder / "adapter_config.json").write_text("{}")
    assert "holds an adapter (adapter_config.json): merge it into its base" in refusal(folder)
    with pytest.raises(PalimpsestError, match=r"holds an adapter"):
        survive(tmp_path / "plain", folder, {})


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"a": ' + "9" * 10_000 + "}", '{"a": "\udcff"}'])
def test_config_json_of_any_bytes(folder, text):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert str(folder / "config.json") in refusal(folder)


@pytest.mark.parametrize("size", [0, 3, 4, 8, 23, 24, 40])
def test_a_gguf_file_that_ends_in_its_header(tmp_path, size):
    file = tmp_path / "model.gguf"
    file.write_bytes((b"GGUF" + (3).to_bytes(4, "little") + (1 << 60).to_bytes(8, "little") * 2 + bytes(16))[:size])
    for read in (read_header, GGUFTensors, load_tokenizer, lambda path: load_model(path, torch.float32)):
        with pytest.raises(PalimpsestError, match=r"model.gguf is no whole GGUF file \("):
            read(file)


@pytest.mark.parametrize("place", ["vocab", "added_tokens"])
def test_a_token_id_without_end_is_refused_before_room_is_made_for_it(tiny, tmp_path, place):
    tiny[1].save_pretrained(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    if place == "vocab":
        content["model"]["vocab"]["a"] = 2**31 - 1
    else:
        content["added_tokens"][-1]["id"] = 2**31 - 1
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(PalimpsestError, match=r"tokenizer.json gives a token the id 2147483647, and has \d+ tokens"):
        load_tokenizer(tmp_path, key="models.target")


@pytest.mark.parametrize("setting", ["block_count", "embedding_length", "feed_forward_length", "attention.head_count"])
def test_a_gguf_file_that_describes_another_model_is_refused(tmp_path, setting):
    from gguf import GGUFWriter

    file = tmp_path / "model.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_uint32(f"llama.{setting}", 2**31)
    writer.add_tensor("token_embd.weight", np.zeros((50, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for load in (load_tokenizer, lambda path: load_model(path, torch.float32)):
        with pytest.raises(
            PalimpsestError, match=rf"says llama.{setting} 2147483648, and holds 1 tensors of at most 64"
        ):
            load(file)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 3.4e38])
def test_a_base_with_weights_that_are_no_numbers_is_refused_before_training(tiny, tmp_path, value):
    """3.4e38 is a number in float32, and infinite in bfloat16."""
    model, tokenizer, corpus = tiny
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.model.norm.weight[-1] = value
    broken.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(PalimpsestError, match=r"models.base has weights that are no numbers \(model.norm.weight\)"):
        make_base(str(tmp_path), {}, corpus, 0)
