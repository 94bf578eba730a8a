"""Jobs on one host take GPUs that no other job holds, in real processes; a script stands in for nvidia-smi, as CI has no GPU."""

import os
import subprocess
import sys

import pytest

from palimpsest.devices import visible_gpus
from palimpsest.errors import PalimpsestError

GPUS = ["GPU-aaaa", "GPU-bbbb", "GPU-cccc"]
JOB = """
import os, sys
from palimpsest.devices import take_gpus
taken = take_gpus(int(sys.argv[1]))
if taken or sys.argv[1] == "0":
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(taken)
print(*taken, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host with the GPUs, and no lock held."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '%s\\n' " + " ".join(GPUS) + "\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@pytest.fixture
def start():
    """Start a job that holds GPUs until it is killed; gives the process and the GPUs."""
    jobs = []

    def run(count=1, **environment):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        job = subprocess.Popen(
            [sys.executable, "-c", JOB, str(count)], text=True, env=os.environ | environment, **pipes
        )
        jobs.append(job)
        return job, job.stdout.readline().split()

    yield run
    for job in jobs:
        job.kill()
        job.wait()


def test_jobs_take_different_gpus_and_then_share_them_evenly(host, start):
    taken = [start()[1] for _ in range(7)]
    assert sorted(gpu for (gpu,) in taken[:3]) == GPUS
    assert sorted(gpu for (gpu,) in taken[3:6]) == GPUS


def test_jobs_that_start_at_once_take_different_gpus(host):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    jobs = [subprocess.Popen([sys.executable, "-c", JOB, "1"], **pipes) for _ in GPUS]
    taken = [job.stdout.readline().split() for job in jobs]
    for job in jobs:
        job.kill()
        job.wait()
    assert sorted(gpu for (gpu,) in taken) == GPUS


def test_a_killed_job_lets_its_gpu_go(host, start):
    jobs = [start() for _ in range(3)]
    jobs[1][0].kill()
    jobs[1][0].wait()
    assert start()[1] == jobs[1][1]


def test_a_job_takes_as_many_gpus_as_it_asks_for_or_all_there_are(host, start):
    assert start(2)[1] == GPUS[:2]
    assert start(1)[1] == [GPUS[2]]
    assert sorted(start(9)[1]) == GPUS


def test_a_job_that_asks_for_no_gpu_sees_none_and_leaves_all_to_others(host, start):
    job, taken = start(0)
    assert taken == [] and job.poll() is None
    assert [start()[1] for _ in GPUS] == [[gpu] for gpu in GPUS]


def test_a_set_cuda_visible_devices_is_respected(host, start, monkeypatch):
    assert start(2, CUDA_VISIBLE_DEVICES="2,GPU-aa")[1] == ["GPU-cccc", "GPU-aaaa"]
    assert start(1, CUDA_VISIBLE_DEVICES="-1")[1] == []
    assert start(1, CUDA_VISIBLE_DEVICES="")[1] == []
    for wrong in ("3", "GPU-x"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wrong)
        with pytest.raises(PalimpsestError, match=f"names the GPU '{wrong}'"):
            visible_gpus()


def test_without_an_nvidia_gpu_nothing_happens(tmp_path, monkeypatch, start):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert start(1, PATH="/nowhere")[1] == []
    assert not list(tmp_path.iterdir())
