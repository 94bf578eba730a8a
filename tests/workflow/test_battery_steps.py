"""The utility battery in the workflow:
only where it is asked for, on the model that inference would load, and one message without data."""

import copy
import json
import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from palimpsest.artefacts import read_provenance
from palimpsest.models.checkpoint import load_tokenizer
from palimpsest.quantizers import make_quantizer
from palimpsest.study.verify import problems

with suppress(ImportError):  # it sets variables of the hub, which the steps are not to have
    import lm_eval  # noqa: F401

REPOSITORY = Path(__file__).parents[2]
TASKS = {
    "gen": {"data": "../gen", "limit": 6, "shots": 1},
    "tru": {"data": "../tru", "limit": 4},
    "fac": {"data": "../fac", "limit": 4, "shots": 1, "max_new_tokens": 6},
    "flu": {"data": "../flu", "limit": 3, "max_new_tokens": 8},
}
ASKED = {"models": ["target", "npo_klr"], "precisions": ["bf16", "bnb-fp4"], "seed": 0, "batch_size": 4, "tasks": TASKS}

pytestmark = pytest.mark.slow


def write_study(folder: Path, **changes: Any) -> dict[str, Any]:
    folder.mkdir()
    params = yaml.safe_load((REPOSITORY / "tests/tiny/params.yaml").read_text()) | changes
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return params


def snakemake(folder: Path, *arguments: str, code: int = 0) -> str:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = ["snakemake", "--directory", folder, *arguments]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def rounded(tasks: Any) -> Any:
    return json.loads(json.dumps(tasks), parse_float=lambda text: round(float(text), 6))


def jobs(plan: str) -> dict[str, int]:
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", plan, re.MULTILINE)}


def test_it_is_planned_for_what_is_asked_for_alone(tmp_path):
    write_study(tmp_path / "off")
    off = jobs(snakemake(tmp_path / "off", "--dry-run"))
    assert not any("battery" in rule for rule in off)
    write_study(tmp_path / "some", battery=ASKED)
    some = {"battery_questions": 1, "battery": 4}
    assert jobs(snakemake(tmp_path / "some", "--dry-run")) == off | some | {"total": off["total"] + 5}
    write_study(tmp_path / "every", battery=ASKED | {"models": None, "precisions": None})
    every = {"battery_questions": 1, "battery": 15}
    assert jobs(snakemake(tmp_path / "every", "--dry-run")) == off | every | {"total": off["total"] + 16}


def test_it_measures_the_models_on_disk(tiny, tmp_path, write_battery_data):
    """On a checkpoint that is given, so that nothing is trained; a second run has nothing to do."""
    harness = pytest.importorskip("palimpsest.battery.harness", reason="lm-eval is not installed", exc_type=ImportError)
    write_battery_data(tmp_path)
    model, tokenizer, _ = tiny
    model = copy.deepcopy(model)
    model.config.max_position_embeddings = 1024  # room for the examples
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    study = tmp_path / "study"
    params = write_study(study, battery=ASKED)
    params["models"]["target"] = "../model"
    (study / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    results = study / "results"
    records = [f"results/battery/target/seed0/{precision}.json" for precision in ASKED["precisions"]]
    snakemake(study, "--cores", "2", *records)
    questions = json.loads((results / "battery/questions.json").read_text())["questions"]
    sources = {
        "bf16": ("models/target/seed0", {"backend": "none"}),
        "bnb-fp4": ("quantized/target/seed0/bnb-fp4", params["quantizers"]["bnb-fp4"]),
    }
    found = {}
    for name, (precision, (source, quantizer)) in zip(records, sources.items(), strict=True):
        record = json.loads((study / name).read_text())
        assert (record["model"], record["seed"], record["precision"]) == ("target", 0, precision)
        network = make_quantizer(quantizer).load(results / source, record["device"], params["inference"]["compute"])
        expected = harness.measure(network, load_tokenizer(results / source), questions, TASKS, 4)
        assert rounded(expected) == rounded(record["tasks"])  # a sum's last bit goes by where its numbers lie in memory
        (made_with,) = read_provenance([study / name])
        assert {"lm_eval", "nltk", "torch", "transformers"} <= set(made_with["versions"])
        found[precision] = record["tasks"]
    assert {task: found["bf16"][task]["n"] for task in TASKS} == {task: each["limit"] for task, each in TASKS.items()}
    assert found["bf16"]["tru"]["per_example"] != found["bnb-fp4"]["tru"]["per_example"]
    assert not torch.isnan(torch.tensor([each["stderr"] for each in found["bf16"].values()])).any()
    missing = problems(results, params, ["battery"])
    assert [line for line in missing if "npo_klr" not in line] == []
    assert "Nothing to be done" in snakemake(study, "--cores", "1", "--dry-run", *records)


def test_missing_data_is_one_message_before_any_model(tmp_path):
    write_study(tmp_path / "study", battery=ASKED)
    output = snakemake(tmp_path / "study", "--cores", "1", code=1)
    (message,) = [line for line in output.splitlines() if line.startswith("Error: ") and line.endswith(".log)")]
    assert "battery.tasks.gen.data: dataset '../gen' (config 'all', split 'dev') cannot be loaded: " in message
    assert "local folder with the same files" in message and "Traceback" not in output
    assert "Training" not in output and not (tmp_path / "study/results/models").exists()
