"""The committed dvc.lock belongs to the tree it is committed with: commands, dependencies, params and outputs."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import load_yaml

REPOSITORY = Path(__file__).parents[2]
STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
LOCK = REPOSITORY / "dvc.lock"
LOCKED = load_yaml(LOCK)["stages"] if LOCK.is_file() else {}  # YAML 1.2, in which 8e-06 is a number
pytestmark = pytest.mark.skipif(
    not LOCK.is_file(),
    reason="no run of the default study is recorded for this code: `make repro` on a processor with AVX-512 or AMX, "
    "then commit dvc.lock",
)
REMEDY = "dvc.lock is stale: `dvc repro --no-run-cache` (or `dvc commit` after `snakemake --cores all`), then commit it"


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def hash_of(path: Path) -> str:
    """As DVC has it: of a folder, that of the JSON list of its files, here those that git knows or would add."""
    if path.is_file():
        return md5(path.read_bytes())
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z", "."]
    names = filter(None, subprocess.check_output(command, cwd=path, text=True).split("\0"))
    entries = [{"md5": md5((path / name).read_bytes()), "relpath": name} for name in sorted(set(names))]
    return md5(json.dumps(entries, sort_keys=True).encode()) + ".dir"


def lookup(params: Mapping[str, Any], key: str) -> Any:
    value: Any = params
    for part in key.split("."):
        value = value[part]
    return value


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_recorded_as_it_is_written(name):
    assert name in LOCKED, REMEDY
    stage, locked = STAGES[name], LOCKED[name]
    assert locked["cmd"] == stage["cmd"], REMEDY
    assert {dep["path"] for dep in locked.get("deps", [])} == set(stage["deps"]), REMEDY
    outputs = {path for each in stage.get("outs", []) + stage.get("metrics", []) for path in each}
    assert {out["path"] for out in locked.get("outs", [])} == outputs, REMEDY


def test_recorded_dependencies_are_those_of_the_tree():
    """Of artefacts, which git does not hold: those that an earlier stage put out."""
    made = {out["path"]: out["md5"] for stage in LOCKED.values() for out in stage.get("outs", [])}
    recorded = {(dep["path"], dep["md5"]) for stage in LOCKED.values() for dep in stage.get("deps", [])}
    stale = [
        path
        for path, known in sorted(recorded)
        if (made[path] if path in made else hash_of(REPOSITORY / path)) != known
    ]
    assert stale == [], REMEDY


@pytest.mark.parametrize("name", STAGES)
def test_recorded_params_are_those_of_the_tree(name):
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    recorded = LOCKED[name]["params"]["params.yaml"]
    assert {key: lookup(params, key) for key in recorded} == recorded, REMEDY
    listed = STAGES[name]["params"]
    assert set(recorded) == (set(params) if listed == [{"params.yaml": None}] else set(listed)), REMEDY
