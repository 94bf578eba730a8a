"""A checkpoint that is quantized already is refused by what its files are, whichever backend wrote it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from palimpsest.cli import main
from palimpsest.errors import PalimpsestError
from palimpsest.models.checkpoint import load_model, load_published
from palimpsest.models.quantized import quantization_of
from palimpsest.models.scratch import make_base
from palimpsest.quantizers import make_quantizer
from palimpsest.study.params import check_params, read_params

REPOSITORY = Path(__file__).parents[3]
RTN = {"backend": "rtn", "group_size": None, "symmetric": True}
BNB4 = {"backend": "bnb-4bit", "levels": "nf4", "double_quantization": True}
BACKENDS = {
    "rtn-int4": (RTN | {"bits": 4}, "compressed-tensors, 4 bits, says config.json"),
    "rtn-int8": (RTN | {"bits": 8}, "compressed-tensors, 8 bits, says config.json"),
    "int8": ({"backend": "w8a8", "format": "int8"}, "compressed-tensors, 8 bits, says config.json"),
    "fp8": ({"backend": "w8a8", "format": "fp8"}, "compressed-tensors, 8 bits, says config.json"),
    "mxfp4": ({"backend": "microscale", "format": "mxfp4"}, "compressed-tensors, 4 bits, says config.json"),
    "bnb-int8": ({"backend": "bnb-int8", "outlier_threshold": 6.0}, "bitsandbytes, 8 bits, says config.json"),
    "bnb-nf4": (BNB4, "bitsandbytes, 4 bits, says config.json"),
    "torchao": ({"backend": "torchao-int8", "group_size": None}, "torchao, says config.json"),
    "hqq": ({"backend": "hqq", "bits": 4, "group_size": 64, "device": "cpu"}, "hqq, says config.json"),
}
"""Settings of a quantizer, and what its folder is called."""


@pytest.fixture(scope="module")
def dense(tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "dense"
    model, tokenizer, _ = tiny
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def written(dense) -> "dict[str, Path]":
    """The folder of each backend, made once."""
    return {}


def folder_of(name: str, written: dict[str, Path], dense: Path) -> Path:
    if name not in written:
        folder = dense.with_name(name)
        make_quantizer(BACKENDS[name][0]).quantize(dense, folder, [])
        written[name] = folder
    return written[name]


def without_settings(folder: Path, copy: Path) -> Path:
    """A folder whose config.json says nothing of quantization, as if somebody had tidied it."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config.pop("quantization_config", None)
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def refused(source: Path | str, tiny) -> str:
    """The one message that loading, planning and `survive` give."""
    messages = []
    for load in (
        lambda: load_published(str(source), "models.target"),
        lambda: load_published({"checkpoint": str(source), "tokenizer": str(source)}, "models.retrain"),
        lambda: load_model(source, torch.float32),
        lambda: make_base(str(source), {}, tiny[2], 0),
    ):
        with pytest.raises(PalimpsestError) as caught:
            load()
        messages.append(str(caught.value))
    assert all("\n" not in message for message in messages)
    assert len({message.split(" is quantized already")[0] for message in messages}) == 1, messages
    return messages[0]


@pytest.mark.parametrize("name", BACKENDS)
def test_a_folder_of_every_backend_is_refused_with_its_name(name, written, dense, tiny, tmp_path):
    folder = folder_of(name, written, dense)
    message = refused(folder, tiny)
    assert message.startswith(f"{folder} is quantized already ({BACKENDS[name][1]})"), message
    assert "point models.target of params.yaml at the checkpoint that it was made from" in message
    bare = without_settings(folder, tmp_path / "bare")
    assert refused(bare, tiny).startswith(f"{bare} is quantized already (")


@pytest.mark.parametrize(
    ("part", "kind"),
    [("qweight", np.int32), ("weight_packed", np.int32), ("weight", np.int8), ("weight", np.uint8), ("W_q", np.uint8)],
)
def test_packed_tensors_without_a_word_in_the_config_are_refused(dense, tiny, tmp_path, part, kind):
    folder = tmp_path / "packed"
    shutil.copytree(dense, folder)
    tensors = load_file(folder / "model.safetensors")
    matrix = tensors.pop("model.layers.0.mlp.up_proj.weight")
    tensors[f"model.layers.0.mlp.up_proj.{part}"] = np.ones(matrix.shape, kind)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert f"model.layers.0.mlp.up_proj.{part}" in refused(folder, tiny)


def test_codes_kept_as_floating_point_numbers_are_refused(written, dense, tiny, tmp_path):
    """bitsandbytes can store its nibbles in bfloat16, for FSDP: two codes a byte, two bytes a number."""
    folder = without_settings(folder_of("bnb-nf4", written, dense), tmp_path / "floats")
    tensors = load_torch(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor.dtype == torch.uint8 and name.endswith(".weight"):
            tensors[name] = tensor.view(-1).view(torch.bfloat16).view(-1, 1)
    save_torch(tensors, folder / "model.safetensors", {"format": "pt"})
    assert "bitsandbytes" in refused(folder, tiny)


@pytest.mark.parametrize("name", ["quantize_config.json", "quant_config.json", "hf_quant_config.json"])
def test_files_of_settings_beside_the_weights_are_refused(dense, tiny, tmp_path, name):
    shutil.copytree(dense, tmp_path / "beside")
    (tmp_path / "beside" / name).write_text("{}")
    assert name in refused(tmp_path / "beside", tiny)


def test_every_integer_type_and_small_float_of_a_weight_is_refused(dense, tmp_path):
    for kind in (np.int8, np.uint8, np.int16, np.int32, np.int64, np.bool_):
        folder = tmp_path / np.dtype(kind).name
        shutil.copytree(dense, folder)
        tensors = load_file(folder / "model.safetensors")
        tensors["model.norm.weight"] = np.ones(64, kind)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        assert quantization_of(folder).startswith("model.norm.weight is stored as ")


def test_masks_and_frequencies_of_old_checkpoints_pass(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=16, vocab_size=50))
    model.save_pretrained(tmp_path)
    tensors = load_torch(tmp_path / "model.safetensors")
    mask = torch.ones(16, 16).tril().view(1, 1, 16, 16)
    for kind in (torch.uint8, torch.bool, torch.float32):
        tensors["transformer.h.0.attn.bias"] = mask.to(kind)
        tensors["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
        save_torch(tensors, tmp_path / "model.safetensors", {"format": "pt"})
        assert quantization_of(tmp_path) == ""


def test_a_quantized_gguf_file_is_where_training_may_start_but_no_target(dense, tiny, tmp_path):
    make_quantizer({"backend": "gguf", "format": "q8_0", "outer": "bfloat16"}).quantize(dense, tmp_path)
    file = tmp_path / "model.gguf"
    with pytest.raises(PalimpsestError, match=r"model.gguf is quantized already \(Q8_0\).*point models.target"):
        load_published(str(file), "models.target")
    assert make_base(str(file), {}, tiny[2], 0)[0].dtype == torch.float32


def test_planning_says_so_before_anything_runs(written, dense):
    folder = folder_of("bnb-int8", written, dense)
    schema = REPOSITORY / "workflow/schemas/params.schema.yaml"
    for key in ("target", "retrain", "base"):
        params = read_params(REPOSITORY / "params.yaml")
        del params["quantizers"]["gptq"]  # its groups of 128 do not fit this model, which is another message
        params["models"][key] = str(dense)
        if key == "retrain":  # which is to be a model of the target's kind
            params["models"]["target"] = str(dense)
        check_params(params, schema, "params.yaml")
        params["models"][key] = str(folder)
        with pytest.raises(PalimpsestError, match=rf"is quantized already .* point models.{key} of params.yaml"):
            check_params(params, schema, "params.yaml")
    params = read_params(REPOSITORY / "params.yaml")
    params["models"]["target"] = {"checkpoint": str(folder), "tokenizer": str(dense)}
    with pytest.raises(PalimpsestError, match=r"point models.target.checkpoint of params.yaml"):
        check_params(params, schema, "params.yaml")


def test_no_backend_quantizes_or_runs_what_is_quantized_already(written, dense, tmp_path):
    folder = folder_of("rtn-int8", written, dense)
    for settings in (*(settings for settings, _ in BACKENDS.values()), {"backend": "none"}):
        quantizer = make_quantizer(settings)
        with pytest.raises(PalimpsestError, match=r"rtn-int8 is quantized already \(compressed-tensors, 8 bits"):
            if settings["backend"] == "none":
                quantizer.load(folder, "cpu")
            quantizer.quantize(folder, tmp_path / "again", [])


def test_survive_refuses_a_quantized_folder_of_the_very_target(written, dense, capsys):
    folder = folder_of("rtn-int4", written, dense)
    for pair in ((dense, folder), (folder, dense)):
        with pytest.raises(SystemExit, match=r"^1$"):
            main(["survive", *map(str, pair)])
        message = capsys.readouterr().err
        assert message.startswith(f"palimpsest: {folder} is quantized already (compressed-tensors, 4 bits")
        assert message.count("\n") == 1 and "must be made from this target" not in message


def test_a_model_of_the_hub_is_refused_once_its_files_are_here(written, dense, tmp_path, monkeypatch):
    """A cache as huggingface_hub lays it out, and no network."""
    place = tmp_path / "models--someone--quantized"
    without_settings(folder_of("rtn-int8", written, dense), place / "snapshots" / "abc")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PalimpsestError, match=r"^someone/quantized is quantized already \(compressed-tensors"):
        load_model("someone/quantized", torch.float32, key="models.base")
