"""Every command line ends a mistake of the user's with one line that names the file or key, and exit code 1."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from palimpsest import cli
from palimpsest.errors import PalimpsestError
from palimpsest.models.checkpoint import load_model, load_published
from palimpsest.models.tensors import open_checkpoint
from palimpsest.quantizers.base import load_checkpoint

REPOSITORY = Path(__file__).parents[2]
VENV = Path(sys.executable).parent


def fails(capsys, *arguments: str | Path) -> str:
    """The one line on standard error of a command that must end with exit code 1."""
    with pytest.raises(SystemExit) as end:
        cli.main(list(map(str, arguments)))
    assert end.value.code == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err.strip()


TABLES = {
    "audit": ["{}/audit.json"],
    "formats": ["{}"],
    "known-answers": ["{}"],
    "phase-diagram": ["{}/figure.svg", "{}"],
    "methods": ["{}"],
    "metric-quality": ["{}"],
    "moved-weights": ["{}"],
    "metrics": ["{}"],
    "calibration": ["{}/figure.svg", "{}"],
    "prediction": ["{}"],
}
COMMANDS = [["survive"], ["verify"], ["stage"], ["dvc-params"], ["build-environment"], ["tables"], ["families"]]
COMMANDS += [["audit"], ["new"], ["verdict"], ["policy"], ["sign"], ["check"], ["reproduce"], ["engine"], ["deployed"]]
COMMANDS += [["card"], ["lm-eval-files"]]
COMMANDS += [["tables", name] for name in [*TABLES, "attacks", "recovery"]]


@pytest.mark.parametrize("name", TABLES)
def test_tables_without_their_audit(name, tmp_path, capsys):
    arguments = [template.format(tmp_path) for template in TABLES[name]]
    assert f"{tmp_path}/audit.json does not exist" in fails(capsys, "tables", name, *arguments)
    if name in ("calibration", "prediction"):
        return
    (tmp_path / "audit.json").write_text('{"settings": {}}')
    assert fails(capsys, "tables", name, *arguments) == (
        f"palimpsest: {tmp_path}/audit.json is no audit (it lacks 'models'): give the audit.json of a study's results."
    )


def help_of(*command: str) -> str:
    done = subprocess.run([sys.executable, "-m", "palimpsest", *command, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_commands_are_those_that_are_tested():
    listed = re.findall(r"^  ([a-z-]+)  ", help_of().partition("Commands:")[2], re.MULTILINE)
    inner = re.findall(r"^  ([a-z-]+)  ", help_of("tables").partition("Commands:")[2], re.MULTILINE)
    assert sorted([[name] for name in listed] + [["tables", name] for name in inner]) == sorted(COMMANDS)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != ["tables"]], ids=" ".join)
def test_help_shows_an_example_and_says_what_each_argument_is(command):
    text = help_of(*command)
    assert f"Example: palimpsest {' '.join(command)}" in text
    called = typer.main.get_command(cli.app)
    for name in command:
        called = called.commands[name]
    assert called.params and all(parameter.help for parameter in called.params)


def test_help_needs_no_heavy_import():
    loaded = (
        "import sys; from palimpsest import cli; print([n for n in ('torch', 'numpy', "
        "'matplotlib') if n in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", loaded], text=True) == "[]\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete(shell):
    environment = os.environ | {
        "_PALIMPSEST_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "palimpsest tables ph",
    }
    environment |= {"COMP_WORDS": "palimpsest tables ph", "COMP_CWORD": "2", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    found = subprocess.run([VENV / "palimpsest"], env=environment, capture_output=True, text=True).stdout
    assert "phase-diagram" in found


@pytest.mark.parametrize(
    "command",
    [
        ["tabels"],
        ["tables", "formatz", "x"],
        ["survive", "one"],
        ["verify", "--nope"],
        ["audit", "--cores", "0"],
        ["audit", "--cores", "two"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_is_none_is_a_usage_error(command, capsys):
    assert cli.main(command) == cli.WRONG_USE
    assert "Usage: palimpsest" in capsys.readouterr().err


def test_no_document_and_no_module_asks_for_a_module_to_be_run():
    """What a person types is a command; processes that the library starts are run as modules, and nobody types them."""
    tracked = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=REPOSITORY, text=True)
    started = ("palimpsest.training.processes", "palimpsest.runtime.warm")
    for name in tracked.split():
        file = REPOSITORY / name
        if file.suffix in (".py", ".md", ".yaml", ".smk", ".toml", ".rst") or file.name in ("Makefile", "Snakefile"):
            text = file.read_text() if file.is_file() else ""
            found = re.findall(r"python3? -m (palimpsest\.[\w.]+)", text)
            found += re.findall(r"(palimpsest\.[\w.]+) --\w", text)
            assert [module for module in found if module.rstrip(".") not in started] == [], name


def test_a_folder_instead_of_a_file(tmp_path, capsys):
    assert str(tmp_path) in fails(capsys, "tables", "audit", tmp_path)


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_dvc_params_without_dvc_yaml(check, tmp_path, capsys):
    found = fails(capsys, "dvc-params", *check, REPOSITORY / "params.yaml", tmp_path / "dvc.yaml")
    assert found == f"palimpsest: {tmp_path}/dvc.yaml does not exist: run this where it is, or name it (PARAMS DVC)."


@pytest.mark.parametrize("key", ["methods", "seeds", "quantizers"])
def test_verify_with_a_key_missing(key, tmp_path, capsys):
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    del params[key]
    file = tmp_path / "params.yaml"
    file.write_text(json.dumps(params))
    found = fails(capsys, "verify", tmp_path / "results", file)
    assert found == f"palimpsest: params.yaml lacks the key '{key}': add it, `snakemake -n` says where it belongs."


def test_verify_of_a_part_that_is_none(tmp_path, capsys):
    (tmp_path / "models").mkdir()
    found = fails(capsys, "verify", tmp_path, REPOSITORY / "params.yaml", "modles")
    assert found.startswith("palimpsest: unknown part of") and "Did you mean 'models'?" in found


def test_a_stage_that_is_none(monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    assert "unknown stage of dvc.yaml 'model'. Did you mean 'models'?" in fails(capsys, "stage", "model")


@pytest.fixture
def truncated(tiny, tmp_path) -> Path:
    folder = tmp_path / "model"
    tiny[0].save_pretrained(folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    return folder


def test_survive_of_a_truncated_checkpoint(tiny, truncated, tmp_path, capsys):
    whole = tmp_path / "whole"
    tiny[0].save_pretrained(whole)
    capsys.readouterr()  # its progress
    for pair in ((whole, truncated), (truncated, whole)):
        found = fails(capsys, "survive", *pair)
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
