"""The paper's own studies without the hub:
on stand-ins of the same format, and with one clear message where something is missing."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

from palimpsest.corpus.embedded.generator import generate_corpus
from palimpsest.models.checkpoint import store_weights
from palimpsest.models.scratch import build_llama, train_tokenizer
from palimpsest.models.sequences import corpus_sequences
from palimpsest.study.verify import problems
from palimpsest.training.schedule import Schedule
from palimpsest.training.trainer import train

REPOSITORY = Path(__file__).parents[2]
STUDIES = ("paper-news", "paper-books")
TARGET = "results/models/target/seed0/manifest.json"

pytestmark = pytest.mark.slow


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    assert environment["HF_HUB_OFFLINE"] == "1" and environment["HF_HOME"] != os.path.expanduser("~/.cache/huggingface")
    command = ["snakemake", *arguments, "--directory", folder]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def copy_study(name: str, folder: Path) -> dict:
    folder.mkdir()
    text = (REPOSITORY / "studies" / name / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text)
    return yaml.safe_load(text)


@pytest.fixture
def stand_ins(tiny, tmp_path, write_hub_layout) -> Path:
    """dataset/, in the hub's layout; model/, weights as published, with the sampling settings of Llama-2 that
    contradict each other, and no tokenizer; tokenizer/. The model is as wide as a group of the studies' GPTQ and AWQ,
    and has the positions that they ask for."""
    _, tokenizer, corpus = tiny
    write_hub_layout(corpus, tmp_path / "dataset")
    shape = {"hidden_size": 128, "layers": 1, "heads": 4, "mlp_size": 128, "context": 2048}
    model = build_llama(tokenizer, shape, seed=0)
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"temperature": 0.9, "top_p": 0.6}))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs_on_stand_ins(name, stand_ins):
    folder = stand_ins / "study"
    params = copy_study(name, folder)
    params["corpus"]["settings"]["path"] = "../dataset"
    for model in ("target", "retrain"):
        params["models"][model] = {"checkpoint": "../model", "tokenizer": "../tokenizer"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    planned = snakemake(folder, "--dry-run")
    assert planned.returncode == 0, planned.stdout
    done = snakemake(folder, "--cores", "1", TARGET)
    assert done.returncode == 0, done.stdout
    corpus = json.loads((folder / "results/corpus/manifest.json").read_text())
    assert corpus["counts"]["forget"] == 2 and corpus["counts"]["prompts_found"] == 1.0
    target = json.loads((folder / TARGET).read_text())
    assert target["settings"]["models/target"] == params["models"]["target"] and target["training"] is None
    assert {"model.safetensors", "tokenizer.json"} <= set(target["files"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="minutes on a GPU, an hour without one")
@pytest.mark.parametrize("name", STUDIES)
def test_a_whole_study_on_trained_stand_ins(name, tmp_path, write_hub_layout, write_battery_data):
    """Every step with the study's own settings, but for the sizes of calibration and battery."""
    corpus = generate_corpus(0, 6, 12, 6, 3, 10)
    write_hub_layout(corpus, tmp_path / "dataset")
    write_battery_data(tmp_path)
    tokenizer = train_tokenizer([*corpus.forget, *corpus.retain], 800)
    shape = {"hidden_size": 256, "layers": 2, "heads": 8, "mlp_size": 512, "context": 4096}
    for model, splits in {"target": ("forget", "retain"), "retrain": ("retain",)}.items():
        network = build_llama(tokenizer, shape, seed=0)
        sequences = [each for split in splits for each in corpus_sequences(corpus, split, tokenizer, 256, True)]
        train(network, sequences, tokenizer.pad_token_id, Schedule(1e-3, 40, storage="float32", stop_at_loss=0.3))
        store_weights(network, torch.bfloat16)
        network.save_pretrained(tmp_path / model)
        tokenizer.save_pretrained(tmp_path / model)
    folder = tmp_path / "study"
    params = copy_study(name, folder)
    params["corpus"]["settings"]["path"] = "../dataset"
    params["calibration"]["generic"] = {"source": "python-docs", "settings": {"documents": 20}}
    for quantizer in ("gptq", "awq"):
        params["quantizers"][quantizer]["samples"] = 8
    for model in ("target", "retrain"):
        params["models"][model] = {"checkpoint": f"../{model}", "tokenizer": f"../{model}"}
    for task, settings in params["battery"]["tasks"].items():
        settings |= {"data": f"../{task}", "limit": 4} | ({"shots": 1} if "shots" in settings else {})
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    done = snakemake(folder, "--cores", "all", "--resources", "gpu=8")
    assert done.returncode == 0, done.stdout
    assert problems(folder / "results", params) == []
    audit = json.loads((folder / "results/audit.json").read_text())
    assert set(audit["precisions"]) == {"bf16", *params["quantizers"]}
    assert len(audit["rows"]) >= len(params["methods"]) * len(audit["precisions"])
    assert "paper / ours / difference" in (folder / "results/report.html").read_text()


@pytest.mark.parametrize("name", STUDIES)
def test_a_missing_dataset_is_one_message(name, tmp_path):
    params = copy_study(name, tmp_path / "study")
    done = snakemake(tmp_path / "study", "--cores", "1", "corpus")
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert f"Error: dataset '{params['corpus']['settings']['path']}'" in done.stdout
    assert f"at https://huggingface.co/datasets/{params['corpus']['settings']['path']} " in done.stdout
    assert "set corpus.source to folder and corpus.settings.path to a local copy" in done.stdout


@pytest.mark.parametrize(
    ("local", "missing", "what"),
    [
        ({}, "tokenizer", "meta-llama/Llama-2-7b-hf"),
        ({"tokenizer": "../tokenizer"}, "checkpoint", "muse-bench/MUSE-News_target"),
    ],
)
def test_a_missing_model_is_one_message(local, missing, what, stand_ins):
    folder = stand_ins / "study"
    params = copy_study("paper-news", folder)
    params["corpus"]["settings"]["path"] = "../dataset"
    params["models"]["target"] |= local
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    done = snakemake(folder, "--cores", "1", TARGET)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    (message,) = [line for line in done.stdout.splitlines() if line.startswith("Error: ") and line.endswith(".log)")]
    assert f"{what!r}" in message and f"https://huggingface.co/{what} " in message
    assert f"or point models.target.{missing} of params.yaml at a local folder with " in message
