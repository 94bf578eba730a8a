"""Steps that run at once on one host take different GPUs, through Snakemake, and end where torch cannot use them.

A script stands in for nvidia-smi, as CI has no GPU."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
GPUS = {"GPU-aaaa", "GPU-bbbb"}

pytestmark = pytest.mark.slow


def test_two_steps_at_once_take_a_gpu_each_and_do_not_run_on_the_cpu_instead(tmp_path):
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
    study = tmp_path / "study"
    study.mkdir()
    shutil.copy2(REPOSITORY / "tests/tiny/params.yaml", study)
    models = [f"results/models/{model}/seed0/manifest.json" for model in ("target", "retrain")]
    command = [Path(sys.prefix) / "bin/snakemake", "--directory", study, "--cores", "2", "--resources", "gpu=2"]
    command += ["--keep-going", "--"]
    done = subprocess.run(
        [*command, *models],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 1, done.stdout
    logs = [(study / "results/logs/models" / model / "seed0.log").read_text() for model in ("target", "retrain")]
    taken = [re.findall(r"palimpsest\.jobs INFO: GPUs: (.*)", log) for log in logs]
    assert sorted(gpu for (gpu,) in taken) == sorted(GPUS)
    assert all(
        f"PalimpsestError: the job took {gpu}, and torch" in log for (gpu,), log in zip(taken, logs, strict=True)
    )
    assert done.stdout.count("Error: the job took GPU-") == 2
