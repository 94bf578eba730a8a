"""Quantized files that exist: what they are told to be, and of which checkpoint."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from checkpoints import TEXTS
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from packed_folders import as_awq, as_gptq
from safetensors.numpy import load_file, save_file

from palimpsest import cli
from palimpsest.artefacts import LocalSource
from palimpsest.errors import PalimpsestError
from palimpsest.models.checkpoint import load_tokenizer
from palimpsest.quantizers import make_quantizer
from palimpsest.quantizers.deployed import recognise
from palimpsest.quantizers.deployed_file import copy_file, examine_file
from palimpsest.quantizers.origin import (
    NOT_OF_IT,
    NOT_PROVEN,
    OF_TARGET,
    OTHER_SETTINGS,
    SAME,
    compare_origin,
)
from palimpsest.study.sources import digest_of

NF4 = {"backend": "bnb-4bit", "levels": "nf4", "double_quantization": False}
NESTED = NF4 | {"double_quantization": True}
RTN = {"backend": "rtn", "bits": 4, "group_size": 64, "symmetric": True}
HQQ = {"backend": "hqq", "bits": 4, "group_size": 64, "device": "cpu"}
NVFP4 = {"backend": "microscale", "format": "nvfp4"}
INTX = {"backend": "torchao-intx", "bits": 4, "group_size": 32, "symmetric": True}
Q4_0 = {"backend": "gguf", "format": "q4_0", "outer": "bfloat16"}
Q4_K_M = {"backend": "gguf", "format": "q4_k_m", "outer": "default"}
GPTQ = RTN | {"backend": "gptq", "calibration": "generic", "samples": 4, "sample_length": 32, "damping": 0.01}
OWN = {
    "bnb": NF4,
    "nested": NESTED,
    "rtn": RTN,
    "nvfp4": NVFP4,
    "intx": INTX,
    "q4_0": Q4_0,
    "q4_k_m": Q4_K_M,
}


@pytest.fixture(scope="module")
def models(llamas: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """target: the one of `llamas`; unlearned: its matrices moved by a twentieth of their spread; attention: those of
    attention alone, embeddings and norms as they were; stranger: other weights of the same shapes."""
    root, target = tmp_path_factory.mktemp("models"), llamas["plain"]
    return {
        "target": target,
        "unlearned": moved(target, root / "unlearned", 0.05, "weight"),
        "attention": moved(target, root / "attention", 0.05, "proj.weight"),
        "stranger": moved(target, root / "stranger", 2.0, "weight"),
    }


def moved(source: Path, folder: Path, share: float, ending: str) -> Path:
    shutil.copytree(source, folder)
    random = np.random.default_rng(len(folder.name))
    weights = load_file(source / "model.safetensors")
    for name, weight in weights.items():
        if name.endswith(ending):
            values = weight.astype(np.float32)
            values += share * values.std() * random.standard_normal(values.shape, np.float32)
            weights[name] = values.astype(ml_dtypes.bfloat16)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def deployed(
    models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[dict[str, Any], str], Path]:
    made: dict[str, Path] = {}

    def make(settings: dict[str, Any], model: str) -> Path:
        key = f"{json.dumps(settings)} {model}"
        if key not in made:
            made[key] = tmp_path_factory.mktemp("deployed") / "model"
            made[key].mkdir()
            make_quantizer(settings).quantize(models[model], made[key], TEXTS * 4)
        return made[key]

    return make


@pytest.mark.parametrize("name", OWN)
def test_a_file_is_told_by_its_settings_and_is_of_its_checkpoint(name, deployed, models):
    folder = deployed(OWN[name], "attention")
    found = recognise(folder)
    assert found.settings == OWN[name] and found.quantizer == make_quantizer(OWN[name])
    record = compare_origin(found, models["attention"], models["target"])
    assert (record["verdict"], record["reasons"]) == (SAME, [])
    assert record["values"]["of_checkpoint"] == record["values"]["weights"] > record["values"]["of_target"]
    assert record["relative_error"] == record["own_error"] > 0
    assert 0.5 < record["held"]["share"] < 1.3


def test_hqq_is_told_by_its_settings(checkpoints, tmp_path):
    make_quantizer(HQQ | {"group_size": 32}).quantize(checkpoints["aligned"], tmp_path, [])
    assert recognise(tmp_path).settings == HQQ | {"group_size": 32}


@pytest.mark.parametrize("name", ["bnb", "nested", "q4_0"])
def test_a_quantized_target_passed_off_is_flagged(name, deployed, models):
    """By the weights alone: embeddings and norms are the same in both."""
    record = compare_origin(recognise(deployed(OWN[name], "target")), models["attention"], models["target"])
    assert record["verdict"] == OF_TARGET and "in which the two differ are the target's" in record["reasons"][0]
    assert not record["maybe_erased"]
    assert abs(record["held"]["share"]) < 0.3


def test_a_quantized_target_is_flagged_by_what_is_not_quantized(deployed, models):
    record = compare_origin(recognise(deployed(NF4, "target")), models["unlearned"], models["target"])
    assert record["verdict"] == OF_TARGET and "unquantized tensors are the target's alone" in record["reasons"][0]
    assert compare_origin(recognise(deployed(NF4, "target")), models["unlearned"])["verdict"] == NOT_OF_IT


def test_a_file_of_a_sibling_is_neither_the_checkpoints_nor_the_targets(models, tmp_path):
    """Five steps, taken with float32 weights and with bfloat16 ones, of which they move the small: the file of the
    latter has the scales of the target, and so nearly all of its values."""
    weights, random = load_file(models["target"] / "model.safetensors"), np.random.default_rng(0)
    precise, coarse = dict(weights), dict(weights)
    for name in (name for name in weights if name.endswith("proj.weight")):
        step = 1.3e-4 * random.choice([-1, 1], weights[name].shape).astype(np.float32)
        precise[name] = weights[name].astype(np.float32) + 5 * step
        for _ in range(5):
            coarse[name] = (coarse[name].astype(np.float32) + step).astype(ml_dtypes.bfloat16)
    for which, tensors in (("precise", precise), ("coarse", coarse)):
        shutil.copytree(models["target"], tmp_path / which)
        save_file(tensors, tmp_path / which / "model.safetensors", {"format": "pt"})
    (tmp_path / "file").mkdir()
    make_quantizer(Q4_0).quantize(tmp_path / "coarse", tmp_path / "file", [])
    record = compare_origin(recognise(tmp_path / "file"), tmp_path / "precise", models["target"])
    assert record["values"]["decided_target"] > 0.9 * record["values"]["decisive"] and record["held"]["share"] > 0.5
    assert record["verdict"] == NOT_OF_IT and "another model of that target's" in record["reasons"][-1]
    own = compare_origin(recognise(tmp_path / "file"), tmp_path / "coarse", models["target"])
    assert own["verdict"] == SAME


def test_a_file_of_another_model_is_none_of_this(deployed, models):
    record = compare_origin(recognise(deployed(RTN, "target")), models["stranger"], models["unlearned"])
    assert record["verdict"] == NOT_OF_IT and "where this format allows" in record["reasons"][0]
    other = compare_origin(recognise(deployed(NF4, "target")), models["attention"])
    assert other["verdict"] == NOT_OF_IT and other["reasons"][1] == "its format has no other settings"


def test_gptq_has_other_settings_and_holds_the_update(deployed, models):
    """Its codes depend on the text it saw; which model it is of shows in the sum over all weights."""
    record = compare_origin(recognise(deployed(GPTQ, "attention")), models["attention"], models["target"])
    assert record["verdict"] == OTHER_SETTINGS and 0.5 < record["held"]["share"] < 1.3
    assert 0.3 < record["values"]["of_checkpoint"] / record["values"]["weights"] < 0.99
    record = compare_origin(recognise(deployed(GPTQ, "target")), models["attention"], models["target"])
    assert record["verdict"] == OF_TARGET and "of the update" in record["reasons"][-1]


def test_scaled_norms_prove_nothing_of_the_codes(deployed, models, tmp_path):
    """As AWQ leaves them: what the embeddings say still holds."""
    folder = shutil.copytree(deployed(RTN, "unlearned"), tmp_path / "scaled")
    for path in folder.glob("*.safetensors"):
        weights = load_file(path)
        if "model.layers.0.input_layernorm.weight" in weights:
            weights["model.layers.0.input_layernorm.weight"] *= ml_dtypes.bfloat16(0.5)
            save_file(weights, path, {"format": "pt"})
    record = compare_origin(recognise(folder), models["unlearned"], models["target"])
    assert record["verdict"] == NOT_PROVEN and "its norms are scaled" in record["reasons"][-1]
    assert record["unquantized"]["checkpoint_alone"] and record["unquantized"]["neither"] == 1
    assert compare_origin(recognise(folder), models["target"], models["unlearned"])["verdict"] == OF_TARGET


def test_an_update_that_rounding_takes_away_is_the_targets_file(deployed, models, tmp_path):
    """No weight leaves its level: the unlearned model's own file is the target's."""
    tiny = moved(models["target"], tmp_path / "tiny", 1e-5, "q_proj.weight")
    record = compare_origin(recognise(deployed(Q4_0, "target")), tiny, models["target"])
    assert record["verdict"] == OF_TARGET and "nothing of the update is in it" in record["reasons"][0]
    assert record["maybe_erased"]


def test_blocks_without_a_reader_are_not_proven(deployed, models, tmp_path):
    file = as_q4_1(deployed(Q4_0, "attention") / "model.gguf", models["attention"], tmp_path / "other.gguf")
    record = compare_origin(recognise(file), models["attention"], models["target"])
    assert record["format"] == "GGUF, Q4_1" and record["values"] is None and record["matrices"] == 14
    assert record["verdict"] == NOT_PROVEN and "of none of the formats q8_0" in record["not_proven"]
    assert record["held"]["share"] > 0.5
    assert compare_origin(recognise(file), models["target"], models["attention"])["verdict"] == OF_TARGET


AS_IT_IS = {"backend": "as-it-is", "like": Q4_0}


def test_a_file_without_a_reader_is_measured_as_it_is_and_called_not_proven(deployed, models, tmp_path):
    file = as_q4_1(deployed(Q4_0, "attention") / "model.gguf", models["attention"], tmp_path / "other.gguf")
    quantizer, folder = make_quantizer(AS_IT_IS), tmp_path / "brought"
    folder.mkdir()
    copy_file(file, models["attention"], folder)
    proof, told = examine_file(quantizer, folder, models["attention"], models["target"], "deployed.phone")
    assert proof["status"] == told["verdict"] == NOT_PROVEN and "of none of the formats q8_0" in proof["why"]
    assert proof["codes_sha256"] is None and proof["bytes"] > file.stat().st_size
    held = dict(recognise(file).matrices())
    loaded = quantizer.load(folder, "cpu", "float32").state_dict()
    assert len(held) == 14 and all(np.array_equal(loaded[f"{name}.weight"], values) for name, values in held.items())
    with pytest.raises(PalimpsestError, match="have no reader here: its blocks are those of none"):
        next(quantizer.read(folder))
    assert quantizer.why_not_proven(folder) == proof["why"]
    _, other = examine_file(quantizer, folder, models["target"], models["attention"], "deployed.phone")
    assert other["verdict"] == OF_TARGET
    ours = deployed(Q4_0, "target")  # what it is compared with
    assert not quantizer.why_not_proven(ours)
    assert [each.name for each in quantizer.read(ours)] == [each.name for each in make_quantizer(Q4_0).read(ours)]
    assert quantizer.bits == 4 and quantizer.packages == make_quantizer(Q4_0).packages


def test_awq_without_its_factors_runs_as_the_file_says(models, tmp_path):
    """As AutoAWQ leaves it, with no factors beside it: nothing speaks of the codes, and the model runs, its norms
    undoing what its columns were multiplied by."""
    import torch

    as_awq(models["attention"], tmp_path / "awq")
    whole = recognise(tmp_path / "awq").load(None, "cpu", "float32")
    shutil.rmtree(tmp_path / "awq/smoothing")
    found = recognise(tmp_path / "awq")
    assert found.quantizer is None and found.is_loadable and "factors" in found.why_not
    quantizer = make_quantizer({"backend": "as-it-is", "like": RTN})
    proof, told = examine_file(quantizer, tmp_path / "awq", models["attention"], models["target"], "deployed.a")
    assert proof["status"] == told["verdict"] == NOT_PROVEN
    loaded = quantizer.load(tmp_path / "awq", "cpu", "float32")
    ids = torch.arange(4, 40)[None]
    assert torch.equal(loaded(ids).logits, whole(ids).logits)


def test_gptq_of_another_tool_is_read(models, tmp_path):
    """As GPTQModel and AutoGPTQ lay it out, rounded to nearest here: no word of ours lies beside it."""
    for model in ("attention", "target"):
        as_gptq(models[model], tmp_path / model)
    found = recognise(tmp_path / "attention")
    assert found.settings["backend"] == "auto-gptq" and found.settings["group_size"] == 64
    record = compare_origin(found, models["attention"], models["target"])
    assert record["verdict"] == OTHER_SETTINGS and record["matrices"] == 14 and record["relative_error"] < 0.12
    assert record["unquantized"]["tensors"] == record["unquantized"]["of_checkpoint"] == 7
    assert compare_origin(recognise(tmp_path / "target"), models["attention"], models["target"])["verdict"] == OF_TARGET
    assert found.load(None, "cpu", "float32").num_parameters()


@pytest.mark.parametrize("desc_act", [False, True], ids=["in order", "by activation"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_every_width_of_gptq_is_read(models, tmp_path, bits, desc_act):
    """Within half a step of the weights, which no wrong order of bits, columns or groups is."""
    as_gptq(models["target"], tmp_path / "it", bits=bits, desc_act=desc_act)
    found = recognise(tmp_path / "it")
    assert {key: found.settings[key] for key in ("bits", "desc_act")} == {"bits": bits, "desc_act": desc_act}
    assert_within_half_a_step(found, models["target"])


def test_awq_of_another_tool_is_read(models, tmp_path):
    """With the factors beside it; norms, which it scaled, too."""
    as_awq(models["target"], tmp_path / "it")
    found = recognise(tmp_path / "it")
    assert found.settings["backend"] == "autoawq" and found.settings["group_size"] == 32
    assert_within_half_a_step(found, models["target"])
    assert compare_origin(found, models["attention"], models["target"])["verdict"] == OF_TARGET


def assert_within_half_a_step(found: Any, checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    matrices = list(found.quantizer.read(found.path))
    assert len(matrices) == 14
    for matrix in matrices:
        weight, groups = weights[f"{matrix.name}.weight"].astype(np.float32), matrix.scales.shape[1]
        index = (
            matrix.group_index
            if matrix.group_index is not None
            else np.arange(weight.shape[1]) * groups // weight.shape[1]
        )
        step = matrix.scales[:, index]
        if matrix.column_factors is not None:
            step = step / matrix.column_factors
        assert (np.abs(matrix.effective - weight) <= 0.502 * step + 2e-3 * np.abs(weight)).all(), matrix.name


def as_q4_1(source: Path, checkpoint: Path, target: Path) -> Path:
    """The matrices of a checkpoint in Q4_1, by the gguf package, in place of those of a file of ours."""
    from gguf import quants

    from palimpsest.models.tensors import open_checkpoint
    from palimpsest.quantizers.gguf.architectures import interleaved
    from palimpsest.quantizers.gguf.model import GGUFTensors

    reader, tensors = GGUFReader(source), GGUFTensors(source)
    names = {tensors._tensors[name].name: name for name in tensors.names()}
    writer = GGUFWriter(target, "llama")
    for key in ("attention.head_count", "attention.head_count_kv"):
        writer.add_uint32(f"llama.{key}", reader.fields[f"llama.{key}"].contents())
    with open_checkpoint(checkpoint) as files:
        for tensor in reader.tensors:
            if tensor.tensor_type.name == "Q4_0":
                values = files.load(names[tensor.name])
                heads = {"attn_q": 4, "attn_k": 2}.get(tensor.name.split(".")[2])
                values = values[interleaved(len(values), heads)] if heads else values
                packed = quants.quantize(values, GGMLQuantizationType.Q4_1)
                writer.add_tensor(tensor.name, packed, raw_dtype=GGMLQuantizationType.Q4_1)
            else:
                writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def test_the_command(deployed, models, tmp_path, capsys):
    arguments = ["--of", str(models["attention"]), "--target", str(models["target"])]
    out = tmp_path / "origin.json"
    assert cli.main(["deployed", str(deployed(NF4, "attention")), *arguments, "--json", str(out)]) == 0
    assert capsys.readouterr().out.endswith("Verdict: same\n") and json.loads(out.read_text())["verdict"] == SAME
    assert cli.main(["deployed", str(deployed(NF4, "target")), *arguments]) == 2
    assert "Verdict: the target's\n- " in capsys.readouterr().out


def test_a_file_of_other_shapes_is_none_of_this(deployed, llamas):
    record = compare_origin(recognise(deployed(Q4_0, "target")), llamas["full"])
    assert record["verdict"] == NOT_OF_IT and record["reasons"][0].startswith("it holds model.layers.")


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ({"quant_method": "quanto"}, "palimpsest has no reader of quanto"),
        ({"quant_method": "awq", "bits": 4}, "the factors that AWQ multiplied its columns by are not in the folder"),
        ({"quant_method": "gptq", "checkpoint_format": "gptq_v2"}, "its checkpoint_format is 'gptq_v2'"),
        ({"quant_method": "hqq"}, "its settings are none that a reader here knows"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": 1, "b": 2}}, "it has 2 groups of layers"),
    ],
)
def test_a_folder_without_a_reader_says_why(method, why, models, tmp_path):
    config = json.loads((models["target"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": method}))
    found = recognise(tmp_path)
    assert found.quantizer is None and why in found.why_not
    with pytest.raises(PalimpsestError, match="cannot be loaded here"):
        found.load(None, "cpu", "float32")


def test_what_is_not_quantized_or_not_there(models, tmp_path):
    with pytest.raises(PalimpsestError, match="is not quantized: it is a checkpoint"):
        recognise(models["target"])
    with pytest.raises(PalimpsestError, match="does not exist: give the quantized file"):
        recognise(tmp_path / "nothing.gguf")
    with pytest.raises(PalimpsestError, match=r"no folder with a config\.json"):
        recognise(tmp_path)


def test_a_file_is_taken_as_it_is_and_proven(deployed, models, tmp_path, caplog):
    """Into a study: what lies there is a folder as ours are, and the target's file is let through with a word."""
    quantizer = make_quantizer(Q4_0)
    for model, verdict in (("attention", SAME), ("target", OF_TARGET)):
        folder = tmp_path / model
        folder.mkdir()
        copy_file(deployed(Q4_0, model) / "model.gguf", models["attention"], folder)
        proof, told = examine_file(quantizer, folder, models["attention"], models["target"], "deployed.phone")
        assert told["verdict"] == verdict and proof["quantized_layers"] == 14
        assert quantizer.load(folder, "cpu").num_parameters() and load_tokenizer(folder)
    assert "deployed.phone.path is the target's file" in caplog.text
    with pytest.raises(PalimpsestError, match=r"^deployed.phone.path is not of deployed.phone.of: its weights are"):
        examine_file(quantizer, folder, models["stranger"], None, "deployed.phone")


def test_a_file_that_changes_after_planning_is_refused(deployed, models, tmp_path):
    source = shutil.copytree(deployed(NF4, "attention"), tmp_path / "source")
    planned = LocalSource(str(source), digest_of(source))
    (tmp_path / "first").mkdir()
    copy_file(planned, models["attention"], tmp_path / "first")
    assert {path.name for path in source.iterdir()} == {path.name for path in (tmp_path / "first").iterdir()}
    (source / "config.json").write_text((source / "config.json").read_text() + " ")
    (tmp_path / "second").mkdir()
    with pytest.raises(PalimpsestError, match="changed after the run was planned"):
        copy_file(planned, models["attention"], tmp_path / "second")
