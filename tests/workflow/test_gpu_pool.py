"""Steps that run at once on one host take different GPUs, through Snakemake;
a script stands in for nvidia-smi, as CI has no GPU."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from palimpsest.artefacts import Origin, write_manifest

REPOSITORY = Path(__file__).parents[2]
GPUS = {"GPU-aaaa", "GPU-bbbb"}

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(tmp_path):
    """Of a host with two GPUs."""
    program = tmp_path / "bin/nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf '%s\\n' " + " ".join(GPUS) + "\n")
    program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),  # where the pool has its locks
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    return environment


@pytest.fixture
def study(tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    shutil.copy2(REPOSITORY / "tests/tiny/params.yaml", study)
    return study


def snakemake(study, environment, *arguments):
    command = ["snakemake", "--directory", study, "--cores", "2", "--resources", "gpu=2"]
    return subprocess.run(
        [*command, *arguments],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def taken(log):
    return re.findall(r"palimpsest\.runtime\.jobs INFO: GPUs: (.*)", log)


def test_two_steps_at_once_take_a_gpu_each_and_do_not_run_on_the_cpu_instead(study, environment):
    models = [f"results/models/{model}/seed0/manifest.json" for model in ("target", "retrain")]
    done = snakemake(study, environment, "--keep-going", "--", *models)
    assert done.returncode == 1, done.stdout
    logs = [(study / "results/logs/models" / model / "seed0.log").read_text() for model in ("target", "retrain")]
    assert sorted(gpu for (gpu,) in map(taken, logs)) == sorted(GPUS)
    assert all(f"PalimpsestError: the job took {taken(log)[0]}, and torch" in log for log in logs)
    lines = [line for line in done.stdout.splitlines() if line.startswith("Error: the job took GPU-")]
    assert len(lines) == 4 and sum(line.endswith("/seed0.log)") for line in lines) == 2  # once more at the end


def test_only_a_format_that_is_made_on_a_gpu_takes_one(study, environment):
    """The steps end with an error after they took what they ask for:
    torch cannot use the GPU, and there is no checkpoint."""
    params = yaml.safe_load((study / "params.yaml").read_text())
    params["quantizers"]["hqq"] = {"backend": "hqq", "bits": 4, "group_size": 64, "device": "cuda"}
    (study / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for made in ("corpus", "models/target/seed0"):
        (study / "results" / made).mkdir(parents=True)
        write_manifest(study / "results" / made, Origin())
    wanted = {name: f"results/quantized/target/seed0/{name}/manifest.json" for name in ("hqq", "rtn-int4")}
    done = snakemake(study, environment, "--keep-going", "--rerun-triggers", "input", "--", *wanted.values())
    logs = {name: (study / f"results/logs/quantized/target/seed0/{name}.log").read_text() for name in wanted}
    assert "the job took GPU-" in logs["hqq"] and "holds no" in logs["rtn-int4"], done.stdout
    assert len(taken(logs["hqq"])) == 1 and taken(logs["rtn-int4"]) == []
    assert "no GPU in sight" in logs["rtn-int4"] and "no GPU in sight" not in logs["hqq"]
