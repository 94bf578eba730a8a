"""benchmarks/study_in_one_process.py: the steps of a study without Snakemake make what Snakemake makes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from palimpsest.study.params import read_params
from palimpsest.study.verify import problems

REPOSITORY = Path(__file__).parents[2]
PROGRAM = REPOSITORY / "benchmarks/study_in_one_process.py"


def run(*arguments, folder, code=0):
    """The program with `arguments`, on the CPU."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


@pytest.mark.slow
def test_a_plan_runs_to_artefacts_that_verify_and_goes_on_where_it_stopped(tmp_path):
    params = read_params(REPOSITORY / "tests/tiny/params.yaml")
    params["methods"] = {"npo_klr": params["methods"]["npo_klr"]}
    params["quantizers"] = {name: params["quantizers"][name] for name in ("bf16", "rtn-int4")}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    run("plan", tmp_path, "plan.json", folder=tmp_path)
    run("run", "plan.json", "--cpu", "1", "--only", "corpus", "train", folder=tmp_path)
    target = tmp_path / "results/models/target/seed0/manifest.json"
    before = target.stat().st_mtime_ns
    output = run("run", "plan.json", "--cpu", "1", folder=tmp_path)
    assert "  train " not in output and target.stat().st_mtime_ns == before
    assert problems(tmp_path / "results", params) == []
    assert (tmp_path / "results/report.html").exists()

    plan = json.loads((tmp_path / "plan.json").read_text())
    broken = next(step for step in plan["steps"] if step["rule"] == "survival")
    broken["params"][1]["settings"]["quantizer"][1]["backend"] = "nothing"
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    (tmp_path / broken["output"][0][0]).unlink()
    complete = pd.read_csv(tmp_path / "results/audit.csv")
    said = run("audit", "plan.json", "--seeds", "0", folder=tmp_path)
    assert said == "survival records missing: 1 (npo_klr seed0 rtn-int4)\n"
    gap = pd.read_csv(tmp_path / "results/audit.csv")
    assert complete.rho.count() == 1 and gap.rho.count() == 0 and gap.recovery.equals(complete.recovery)
    assert json.loads((tmp_path / "results/audit.json").read_text())["seeds"] == [0]
    said = run("audit", "plan.json", "--seeds", "7", folder=tmp_path, code=1)
    assert said == "--seeds: the plan has no seed 7, but [0]: give of those.\n"
    (tmp_path / "results/audit.json").unlink()
    output = run("run", "plan.json", "--cpu", "1", folder=tmp_path, code=1)
    assert "FAILED survival npo_klr 0 rtn-int4: RuntimeError: PalimpsestError: unknown quantizer" in output
    assert not (tmp_path / "results/audit.json").exists()
