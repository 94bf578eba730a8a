"""Every command line ends a mistake of the user's with one line that names the file or key, and exit code 1."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from palimpsest import cli
from palimpsest.errors import PalimpsestError
from palimpsest.models.checkpoint import load_model, load_published
from palimpsest.models.tensors import open_checkpoint
from palimpsest.quantizers.base import load_checkpoint
from palimpsest.report import known_answers as known
from palimpsest.study import dvc as dvc_params
from palimpsest.study import verify
from palimpsest.tables import formats, markdown, phase
from palimpsest.tables import moved_weights as reach

REPOSITORY = Path(__file__).parents[2]


def fails(main, monkeypatch, capsys, *arguments: str | Path) -> str:
    monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err.strip()


REPORTS = {
    "markdown": (markdown.main, ["{}/audit.json"]),
    "formats": (formats.main, ["{}"]),
    "known": (known.main, ["{}"]),
    "diagram": (phase.main, ["diagram", "{}/figure.svg", "{}"]),
    "methods": (phase.main, ["methods", "{}"]),
    "reach": (reach.main, ["{}"]),
    "metrics": (phase.main, ["metrics", "{}"]),
    "calibration": (phase.main, ["calibration", "{}/figure.svg", "{}"]),
}


@pytest.mark.parametrize("name", REPORTS)
def test_reports_without_their_audit(name, tmp_path, monkeypatch, capsys):
    main, templates = REPORTS[name]
    arguments = [template.format(tmp_path) for template in templates]
    assert f"{tmp_path}/audit.json does not exist" in fails(main, monkeypatch, capsys, *arguments)
    if name == "calibration":
        return
    (tmp_path / "audit.json").write_text('{"settings": {}}')
    assert fails(main, monkeypatch, capsys, *arguments) == (
        f"Error: {tmp_path}/audit.json is no audit (it lacks 'models'): give the audit.json of a study's results."
    )


def test_a_folder_instead_of_a_file(tmp_path, monkeypatch, capsys):
    assert str(tmp_path) in fails(markdown.main, monkeypatch, capsys, tmp_path)


def test_dvc_params_without_dvc_yaml(tmp_path, monkeypatch, capsys):
    found = fails(dvc_params.main, monkeypatch, capsys, REPOSITORY / "params.yaml", tmp_path / "dvc.yaml")
    assert found == f"Error: {tmp_path}/dvc.yaml does not exist: run this where it is, or name it (PARAMS DVC)."


@pytest.mark.parametrize("key", ["corpus", "training", "models", "seeds", "quantizers", "metrics"])
def test_verify_with_a_key_missing(key, tmp_path, monkeypatch, capsys):
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    del params[key]
    file = tmp_path / "params.yaml"
    file.write_text(json.dumps(params))
    found = fails(verify.main, monkeypatch, capsys, tmp_path / "results", file)
    assert found == f"Error: {file} lacks the key '{key}': add it, `snakemake -n` says where it belongs."


@pytest.fixture
def truncated(tiny, tmp_path) -> Path:
    folder = tmp_path / "model"
    tiny[0].save_pretrained(folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    return folder


def test_survive_of_a_truncated_checkpoint(tiny, truncated, tmp_path, monkeypatch, capsys):
    whole = tmp_path / "whole"
    tiny[0].save_pretrained(whole)
    capsys.readouterr()  # its progress
    for pair in ((whole, truncated), (truncated, whole)):
        found = fails(cli.main, monkeypatch, capsys, "survive", *pair)
        assert found.startswith(f"palimpsest: {truncated}/model.safetensors is no whole safetensors file (")


@pytest.mark.parametrize("load", [open_checkpoint, load_checkpoint])
def test_reading_a_truncated_checkpoint(truncated, load):
    with pytest.raises(PalimpsestError, match=r"model.safetensors is no whole safetensors file"):
        load(truncated)


def test_loading_a_truncated_checkpoint(truncated):
    import torch

    with pytest.raises(PalimpsestError, match=r"^cannot load the model .* Point models.base of params.yaml at "):
        load_model(truncated, torch.float32, key="models.base")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"),
            "1 missing keys: model.layers.1.mlp.up_proj",
        ),
        (lambda weights: weights.update({"model.layers.2.extra": weights["model.norm.weight"]}), "1 unexpected keys"),
        (lambda weights: weights["lm_head.weight"].fill_(float("nan")), "weights that are no numbers .lm_head.weight"),
        (lambda weights: weights.update({"lm_head.weight": weights["model.norm.weight"]}), "cannot load the model"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(tiny, tmp_path, change, message):
    """transformers would draw what is missing at random, and say so in a log."""
    from safetensors.torch import load_file, save_file

    model, tokenizer, _ = tiny
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    load_published(str(tmp_path), "models.target")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = weights["model.norm.weight"].clone()  # Llama 2 has them
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    load_published(str(tmp_path), "models.target")
    change(weights)
    weights = {name: weight.clone() for name, weight in weights.items()}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(PalimpsestError, match=message):
        load_published(str(tmp_path), "models.target")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tokenizer.json", '{"model": {}}'),
        ("tokenizer_config.json", "[]"),
        ("config.json", '{"model_type": "llama", "hidden_size": "x"}'),
    ],
)
def test_files_of_a_checkpoint_that_make_no_sense(tiny, tmp_path, file, text):
    model, tokenizer, _ = tiny
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(
        PalimpsestError, match=r"^cannot load the (model|tokenizer) .* Point models.target of params.yaml at "
    ):
        load_published(str(tmp_path), "models.target")


def test_a_shard_that_is_missing(tiny, tmp_path):
    tiny[0].save_pretrained(tmp_path, max_shard_size="200KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(PalimpsestError, match=f"^{shard} is missing: the index of the checkpoint names it"):
        open_checkpoint(tmp_path)
