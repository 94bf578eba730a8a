"""What tests/slurm/run.py asserts of the jobs that Slurm ran, without Slurm."""

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from palimpsest.quantizers import make_quantizer
from palimpsest.study.params import read_params

FILE = Path(__file__).parents[1] / "slurm/run.py"
PLAN = {"corpus": 1, "train": 2, "infer": 5, "quantize": 10, "score": 120, "survival": 1}


@pytest.fixture(scope="module")
def run():
    spec = importlib.util.spec_from_file_location("slurm_run", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def jobs(run):
    """As squeue prints them: of each kind as many as planned."""
    lines = []
    for kind, wanted in run.expected(PLAN).items():
        for _ in range(wanted["count"]):
            comment = f"rule_{kind}" + ("" if kind in ("corpus", "scores_score") else "_wildcards_target_0")
            gpus = f"gres:gpu:{wanted['gpus']}" if wanted["gpus"] else "N/A"
            lines.append((str(len(lines)), comment, "COMPLETED", gpus, f"{wanted['mem_mb']}M", str(wanted["cpus"])))
    return [run.job(*line) for line in lines]


def test_what_is_expected_is_what_rules_and_profile_say(run):
    wanted = run.expected(PLAN)
    assert wanted["train"] == wanted["infer"] | {"count": 2} == {"count": 2, "gpus": 1, "mem_mb": 3000, "cpus": 1}
    assert wanted["scores_score"] == {"count": 3, "gpus": 0, "mem_mb": 2000, "cpus": 2}
    assert wanted["survival_survival"] == {"count": 1, "gpus": 0, "mem_mb": 2000, "cpus": 1}


def test_the_plan_of_the_tiny_study_is_counted(run, tmp_path):
    (tmp_path / "params.yaml").write_bytes((FILE.parents[1] / "tiny/params.yaml").read_bytes())
    plan = run.planned(tmp_path)
    assert plan["quantize"] == 10 and plan["score"] == 25 and "all" not in plan
    assert set(plan) <= set(run.declared())
    formats = read_params(tmp_path / "params.yaml")["quantizers"].values()
    assert not any(make_quantizer(settings).uses_gpu for settings in formats)
    assert run.expected(plan)["quantize"]["gpus"] == 0


def test_jobs_as_planned_pass(run, jobs):
    assert run.differences(jobs, run.expected(PLAN)) == []


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("train", {"gpus": 0}, r"job \d+ \(train\) asked for gpus 0 instead of 1"),
        ("corpus", {"gpus": 1}, r"job \d+ \(corpus\) asked for gpus 1 instead of 0"),
        ("quantize", {"mem_mb": 1000}, r"\(quantize\) asked for mem_mb 1000 instead of 3000"),
        ("scores_score", {"cpus": 50}, r"\(scores_score\) asked for cpus 50 instead of at most 2"),
        ("survival_survival", {"kind": "survival"}, "0 jobs are survival_survival, planned were 1"),
        ("train", {"state": "FAILED"}, r"job \d+ \(train\) is FAILED"),
    ],
)
def test_jobs_that_are_not_as_planned_are_named(run, jobs, kind, change, said):
    next(each for each in jobs if each["kind"] == kind).update(change)
    assert re.search(said, "; ".join(run.differences(jobs, run.expected(PLAN))))


def test_squeues_words_are_understood(run):
    read = run.job("7", "rule_infer_wildcards_ga_0", "COMPLETED", "gres/gpu:2", "4G", "1")
    assert read == {"id": "7", "kind": "infer", "state": "COMPLETED", "gpus": 2, "mem_mb": 4096, "cpus": 1}


class Resources(dict):
    """As the plugin reads a job's: by name or as an attribute."""

    __getattr__ = dict.__getitem__


@pytest.mark.parametrize("profile", ["slurm", "slurm-7b"])
@pytest.mark.parametrize("rule", ["train", "unlearn"])
def test_several_gpus_of_a_step_are_asked_for_on_one_node(profile, rule):
    submit = pytest.importorskip("snakemake_executor_plugin_slurm.submit_string")
    settings = yaml.safe_load((FILE.parents[2] / "workflow/profiles" / profile / "config.yaml").read_text())
    asked = Resources({"gpu": 2, **settings["default-resources"], **settings["set-resources"][rule]})
    known = dict.fromkeys(("run_uuid", "slurm_logfile", "comment_str", "account", "partition", "workdir"), "")
    command = submit.get_submit_command(SimpleNamespace(threads=1, resources=asked), known)
    assert "--nodes=1 " in command and command.endswith("--cpus-per-task=1")


@pytest.mark.parametrize("profile", ["slurm", "slurm-7b"])
def test_a_group_is_not_asked_for_on_two_nodes(profile):
    """Of the steps of a group that run at the same time Snakemake adds up what each asks for."""
    settings = yaml.safe_load((FILE.parents[2] / "workflow/profiles" / profile / "config.yaml").read_text())
    for rule in settings["groups"]:
        assert "nodes" not in {**settings["default-resources"], **settings["set-resources"][rule]}
