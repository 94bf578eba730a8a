"""The lists of params in dvc.yaml: current, complete, and rewritten without touching anything else."""

import shutil
from pathlib import Path

import pytest
import yaml

from palimpsest.errors import PalimpsestError
from palimpsest.study.dvc import check_lists, differences, rewrite, stage_params, write_lists
from palimpsest.study.params import leaves, read_params
from palimpsest.study.stages import outputs_of, read_stages, rules_of

REPOSITORY = Path(__file__).parents[3]
DVC = """# a comment
stages:
  one: # of two
    cmd: echo one
    params:
      - old.key
    outs: # kept
      - results/one

  two:
    cmd: echo two
    params:
    outs:
      - results/two
"""
LISTS = {"one": ["a", "b.c"], "two": ["d"]}


def test_committed_lists_are_current():
    lists = stage_params(read_params(REPOSITORY / "params.yaml"), read_stages(REPOSITORY / "dvc.yaml"))
    assert differences((REPOSITORY / "dvc.yaml").read_text(), lists) == []


def test_each_block_and_leaf_is_in_the_one_stage_that_uses_it():
    params = read_params(REPOSITORY / "params.yaml")
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    assert stages.pop("check")["params"] == [{"params.yaml": None}]
    listed = [key for stage in stages.values() for key in stage["params"]]
    blocks = [key for key, value in params.items() if isinstance(value, dict)]
    twice = ["verdict", "verdict.policy"]  # what is judged decides at both ends
    assert sorted(listed) == sorted([*leaves(params), *blocks, *twice])
    for stage in stages.values():
        own = [key for key in stage["params"] if "." not in key]
        assert {key.split(".")[0] for key in stage["params"]} == set(own)


def test_rewriting_keeps_everything_else():
    text = rewrite(DVC, LISTS)
    assert {name: stage["params"] for name, stage in yaml.safe_load(text)["stages"].items()} == LISTS
    assert [line for line in text.splitlines() if line.strip()[2:] not in ("a", "b.c", "d")] == [
        line for line in DVC.splitlines() if "old.key" not in line
    ]
    assert rewrite(text, LISTS) == text
    assert differences(text, LISTS) == []


def test_differences_name_the_key_and_the_stage():
    found = differences(DVC, LISTS, "dvc.yaml")
    assert "dvc.yaml: stage one lacks b.c." in found
    assert "dvc.yaml: stage one lists old.key, which params.yaml lacks." in found
    assert "dvc.yaml: stage two lacks d." in found


def test_a_dvc_file_without_the_stages_is_refused():
    with pytest.raises(PalimpsestError, match="must have the stages one, two, three"):
        rewrite(DVC, LISTS | {"three": []})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"metric": {"a": 1}}, "no stage of dvc.yaml reads the block 'metric' .* add `- metric` to"),
        ({"methods": {"a.b": {"c": 1}}}, "'a.b' in methods has a dot"),
    ],
)
def test_keys_that_no_stage_can_list(params, message):
    with pytest.raises(PalimpsestError, match=message):
        stage_params(params, {"one": {"params": ["methods", "methods.a"]}})


def test_a_block_that_two_stages_list_is_refused():
    stages = {"one": {"params": ["methods"]}, "two": {"params": ["methods"]}}
    with pytest.raises(PalimpsestError, match="the stages one and two both list methods"):
        stage_params({"methods": {}}, stages)


def test_a_stage_has_the_rules_of_its_files_and_puts_out_what_it_lists():
    stages = read_stages(REPOSITORY / "dvc.yaml")
    assert rules_of(stages["models"], REPOSITORY) == ["pretraining_text", "pretrain", "bring", "train", "unlearn"]
    assert rules_of(stages["report"], REPOSITORY) == ["audit", "figures", "score"]
    found = {name: [path.name for path in outputs_of(stage)] for name, stage in stages.items()}
    assert found["corpus"] == ["corpus", "policy"] and found["report"][-1] == "audit.json"


def test_a_file_without_stages_is_refused(tmp_path):
    (tmp_path / "dvc.yaml").write_text("plots: []")
    with pytest.raises(PalimpsestError, match="has no stages"):
        read_stages(tmp_path / "dvc.yaml")


def test_a_file_with_names_of_the_version_before_is_checked_by_todays(tmp_path):
    """Its keys are listed as the file has them: DVC reads no other."""
    params = read_params(REPOSITORY / "params.yaml")
    params["training"]["weights"] = params["training"].pop("storage")
    shutil.copy(REPOSITORY / "policy.yaml", tmp_path)
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(params))
    found = check_lists(file, REPOSITORY / "dvc.yaml")
    assert [line.partition(": ")[2] for line in found] == [
        "stage models lacks training.weights.",
        "stage models lists training.storage, which params.yaml lacks.",
    ]


def test_what_is_judged_is_read_where_the_policy_is_fixed_and_where_models_are_judged():
    """A study that judges other models reruns its last stage: none of the first one's files says which."""
    params = read_params(REPOSITORY / "params.yaml") | {"verdict": {"policy": "policy.yaml", "models": ["ga"]}}
    lists = stage_params(params, read_stages(REPOSITORY / "dvc.yaml"))
    assert [stage for stage, keys in lists.items() if "verdict.models" in keys] == ["corpus", "page"]


def test_the_users_own_files_are_dependencies_of_the_stage_that_reads_them(tmp_path):
    """An edited corpus or a replaced checkpoint reruns its stage."""
    params = read_params(REPOSITORY / "params.yaml")
    params["corpus"] |= {"source": "folder", "settings": {"path": "data: news", "retain_split": "retain1"}}
    params["models"] |= {"target": {"checkpoint": "model", "tokenizer": "model"}, "retrain": "org/name"}
    for name in ("data: news", "model"):
        (tmp_path / name).mkdir()
    shutil.copy(REPOSITORY / "policy.yaml", tmp_path)
    file, dvc = tmp_path / "params.yaml", tmp_path / "dvc.yaml"
    file.write_text(yaml.safe_dump(params))
    before = (REPOSITORY / "dvc.yaml").read_text()
    dvc.write_text(before)
    assert [line.partition(": ")[2] for line in check_lists(file, dvc) if "depend" in line] == [
        "stage corpus does not depend on data: news, which it reads.",
        "stage models does not depend on model, which it reads.",
    ]
    write_lists(file, dvc)
    assert check_lists(file, dvc) == []
    stages, old = (yaml.safe_load(text)["stages"] for text in (dvc.read_text(), before))
    added = {
        name: [dep for dep in stages[name].get("deps", []) if dep not in old[name].get("deps", [])] for name in old
    }
    assert {name: deps for name, deps in added.items() if deps} == {"corpus": ["data: news"], "models": ["model"]}
    params["models"]["target"] = "train"
    (tmp_path / "data: news").rmdir()
    file.write_text(yaml.safe_dump(params))
    assert "stage models depends on model, which it does not read." in check_lists(file, dvc)[-1]
    write_lists(file, dvc)
    assert check_lists(file, dvc) == []
    write_lists(REPOSITORY / "params.yaml", dvc)
    assert dvc.read_text() == before
