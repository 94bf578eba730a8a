"""The isolated environment in the plan:
what an edited requirements file replans, and that a Python it was not tried on is refused early."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
QUANTIZERS = yaml.safe_load((REPOSITORY / "studies/all-quantizers/params.yaml").read_text())["quantizers"]
ARCHIVED = QUANTIZERS["auto-gptq"] | {"group_size": 32}  # the tiny model has 64 inputs a layer


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The workflow and the library somewhere else, with the tiny study, one quantizer of which is isolated."""
    for name in ("workflow", "src", "profiles"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(REPOSITORY / "Snakefile", tmp_path)
    params = yaml.safe_load((REPOSITORY / "tests/tiny/params.yaml").read_text())
    params["quantizers"] = {"rtn-int4": params["quantizers"]["rtn-int4"], "auto-gptq": ARCHIVED}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    requirements = tmp_path / "workflow/envs/archived.txt"
    here = f"3.{sys.version_info.minor}"  # so that the test runs on every Python
    requirements.write_text(
        re.sub(r"^# python: .*$", f"# python: {here}", requirements.read_text(), flags=re.MULTILINE)
    )
    return tmp_path


def plan(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["snakemake", "--dry-run", "--rerun-triggers", "mtime", "--", *arguments],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_touched_requirements_file_replans_the_environment_and_what_needs_it(tree):
    made = [
        "results/models/target/seed0/manifest.json",
        "results/corpus/manifest.json",
        "results/calibration/retain/manifest.json",
    ]
    made += [".environments/archived/ready.json"]
    wanted = [f"results/quantized/target/seed0/{name}/manifest.json" for name in ("rtn-int4", "auto-gptq")]
    costs = [f"results/cost/target/seed0/{name}.json" for name in ("rtn-int4", "auto-gptq")]
    newest = max(path.stat().st_mtime for path in tree.rglob("*"))
    order = ["results/corpus/manifest.json", *made, *wanted, *costs]
    for age, name in enumerate(dict.fromkeys(order), 1):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("{}")
        os.utime(tree / name, (newest + age, newest + age))
    before = plan(tree, *wanted)
    assert before.returncode == 0 and "Nothing to be done" in before.stdout, before.stdout
    os.utime(tree / "workflow/envs/archived.txt", (newest + 100, newest + 100))
    after = plan(tree, *wanted)
    assert after.returncode == 0, after.stdout
    assert set(re.findall(r"^Job \d+: (.*)$", after.stdout, re.MULTILINE)) == {
        "Building the isolated environment archived",
        "Quantizing target (seed 0) to auto-gptq",
    }


def test_a_python_that_the_pins_were_not_tried_on_is_refused_while_planning(tree):
    requirements = tree / "workflow/envs/archived.txt"
    requirements.write_text(re.sub(r"^# python: .*$", "# python: 3.5", requirements.read_text(), flags=re.MULTILINE))
    done = plan(tree)
    assert done.returncode and "were tried on Python 3.5, this is 3" in done.stdout
    assert "leave the quantizers out" in done.stdout
    params = yaml.safe_load((tree / "params.yaml").read_text())
    del params["quantizers"]["auto-gptq"]
    (tree / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    assert plan(tree).returncode == 0
