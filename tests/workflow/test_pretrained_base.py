"""A base that is pretrained as a step of the study, from the text to the report."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from palimpsest.study.params import read_params
from palimpsest.study.verify import problems

REPOSITORY = Path(__file__).parents[2]
STUDY = REPOSITORY / "studies/pretrained/params.yaml"
SNAKEMAKE = ("snakemake", "--cores", "2", "--directory")
METHODS = ("ga_gdr", "ga_gdr_lora_stochastic")
FORMATS = ("bf16", "rtn-int4")


def run(*command, code=0):
    done = subprocess.run(
        list(map(str, command)), cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def small(folder):
    """studies/pretrained with everything that takes long made small, and text and corpus that are here."""
    tiny, params = read_params(REPOSITORY / "tests/tiny/params.yaml"), read_params(STUDY)
    text = folder / "text/usr/share"
    text.mkdir(parents=True)
    for name, article in (("a.txt", "The harbour master keeps a log of every ship. "), ("b.md", "# Ropes\n\nA knot. ")):
        (text / name).write_text(article * 200)
    params["seeds"] = [0]
    params["corpus"] = tiny["corpus"]
    params["models"]["scratch"] = tiny["models"]["scratch"] | {"vocabulary": 280}
    params["models"]["pretraining"] |= {
        "text": {"path": str(folder / "text"), "files": ["usr/**/*.txt", "usr/**/*.md"]}
    }
    params["models"]["pretraining"] |= {"steps": 4, "warmup_steps": 1, "batch_size": 2, "held_out": 0.1}
    params["training"] |= {"epochs": 2, "max_length": 64, "stop_at_loss": None}
    params["methods"] = {name: params["methods"][name] | {"epochs": 1} for name in METHODS}
    params["quantizers"] = {name: params["quantizers"][name] for name in FORMATS}
    params["inference"] = tiny["inference"]
    for metric in params["metrics"].values():
        metric["resamples"] = 50
    params["audit"]["resamples"] = 50
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return params


@pytest.mark.slow
def test_the_study_runs_from_the_text_to_the_report_and_an_edit_of_a_method_keeps_the_base(tmp_path):
    params = small(tmp_path)
    run(*SNAKEMAKE, tmp_path)
    results = tmp_path / "results"
    assert problems(results, params) == []
    text, base, target = (
        json.loads((results / place / "manifest.json").read_text())
        for place in ("base/text", "base/model", "models/target/seed0")
    )
    assert text["counts"]["documents"] == 2 and len(text["sources"]) == 2
    assert base["kind"] == "base" and base["training"]["steps"] == 4
    assert base["inputs"].keys() == {"base/text/manifest.json"}
    assert "base/model/manifest.json" in target["inputs"]
    assert target["parameters"] == base["parameters"]

    params["methods"]["ga_gdr"]["learning_rate"] = 1.0e-4
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    planned = set(re.findall(r"^Job \d+: (.*)$", run(*SNAKEMAKE, tmp_path, "--dry-run"), re.MULTILINE))
    assert "Unlearning with ga_gdr (seed 0)" in planned
    assert not planned & {
        "Pretraining the base",
        "Training target (seed 0)",
        "Unlearning with ga_gdr_lora_stochastic (seed 0)",
    }
    assert any("methods.ga_gdr.learning_rate" in line for line in problems(results, params))

    (tmp_path / "text/usr/share/a.txt").write_text("Another text. " * 300)
    assert any("base/text/manifest.json was made from another" in line for line in problems(results, params))
    shutil.rmtree(tmp_path / "text")
    said = run(*SNAKEMAKE, tmp_path, "--forcerun", "results/base/text/manifest.json", code=1)
    assert "does not exist: correct models.pretraining.text.path" in said


def test_what_both_studies_have_both_have_the_same():
    """They differ in the base; the second has two methods and two formats more."""
    studies = ("pretrained-seeds", "pretrained-second-base")
    one, two = (read_params(REPOSITORY / f"studies/{study}/params.yaml") for study in studies)
    assert one["models"]["pretraining"].pop("seed") != two["models"]["pretraining"].pop("seed")
    more = {"methods": {"npo_klr", "ga_klr"}, "quantizers": {"gptq", "awq"}}
    for block, names in more.items():
        assert two[block].keys() - one[block].keys() == names
        two[block] = {name: settings for name, settings in two[block].items() if name not in names}
    assert one == two
