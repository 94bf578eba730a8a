"""The lists of params in dvc.yaml: current, complete, and rewritten without touching anything else."""

from pathlib import Path

import pytest
import yaml

from palimpsest.errors import PalimpsestError
from palimpsest.study.dvc import STAGES, differences, rewrite, stage_params
from palimpsest.study.params import leaves, read_params

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
    lists = stage_params(read_params(REPOSITORY / "params.yaml"))
    assert differences((REPOSITORY / "dvc.yaml").read_text(), lists) == []


def test_each_block_and_leaf_is_in_the_one_stage_that_uses_it():
    params = read_params(REPOSITORY / "params.yaml")
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    assert stages.pop("check")["params"] == [{"params.yaml": None}]
    listed = [key for stage in stages.values() for key in stage["params"]]
    blocks = [key for key, value in params.items() if isinstance(value, dict)]
    assert sorted(listed) == sorted([*leaves(params), *blocks])
    for name, stage in stages.items():
        assert {key.split(".")[0] for key in stage["params"]} == set(STAGES[name])


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
    [({"metric": {"a": 1}}, "metric"), ({"methods": {"a.b": {"c": 1}}}, "'a.b' in methods has a dot")],
)
def test_keys_that_no_stage_can_list(params, message):
    with pytest.raises(PalimpsestError, match=message):
        stage_params(params)
