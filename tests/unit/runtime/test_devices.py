"""Jobs on one host take GPUs that no other job holds, in real processes;
a script stands in for nvidia-smi, as CI has no GPU."""

import os
import re
import stat
import subprocess
import sys

import pytest
import torch

from palimpsest.errors import PalimpsestError
from palimpsest.quantizers.archived.backends import WORKER
from palimpsest.runtime import devices
from palimpsest.runtime.devices import visible_gpus

GPUS = ["GPU-aaaa", "GPU-bbbb", "GPU-cccc"]
JOB = """
import os, sys
from palimpsest.runtime.devices import take_gpus
taken = take_gpus(int(sys.argv[1]))
if taken or sys.argv[1] == "0":
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(taken)
print(*taken, flush=True)
sys.stdin.read()
"""


ON_A_GPU = """
import os
from palimpsest.runtime import devices
devices.DEVICE_FILES = os.environ["DEVICE_FILES"]
devices.take_gpus(1)
from palimpsest.runtime.startup import import_transformers
import_transformers()
"""


def say(folder, *lines, status=0):
    """Put a script in nvidia-smi's place that prints the lines and ends with the status."""
    program = folder / "nvidia-smi"
    quoted = " ".join(f"'{line}'" for line in lines)
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' {quoted}\nexit {status}\n")
    program.chmod(0o755)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host with the GPUs, and no lock held."""
    say(tmp_path, *(f"{gpu}, NVIDIA H100" for gpu in GPUS))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("DEVICE_FILES", str(tmp_path / "nvidia[0-9]*"))
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
    for wrong in ("3", "GPU-x", "²"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wrong)
        with pytest.raises(PalimpsestError, match=f"names the GPU '{wrong}'"):
            visible_gpus()


@pytest.mark.parametrize("twice", ["0,0", "1,0,GPU-aa", "MIG-1,MIG-1"])
def test_a_gpu_that_is_named_twice_is_not_counted_twice(host, monkeypatch, twice):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", twice)
    with pytest.raises(PalimpsestError, match=f"CUDA_VISIBLE_DEVICES={twice} names (GPU-aaaa|MIG-1) more than once"):
        visible_gpus()


def test_numbers_are_refused_where_cuda_may_count_otherwise(host, monkeypatch):
    say(host, "GPU-aaaa, NVIDIA T400", "GPU-bbbb, NVIDIA H100")
    assert visible_gpus() == ["GPU-aaaa", "GPU-bbbb"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b")
    assert visible_gpus() == ["GPU-bbbb"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(PalimpsestError, match=r"NVIDIA T400, NVIDIA H100.*CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        visible_gpus()
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert visible_gpus() == ["GPU-aaaa"]


def test_parts_of_a_gpu_with_slashes_in_their_names_are_shared_out(host, start):
    parts = ["MIG-GPU-aaaa/1/0", "MIG-GPU-aaaa/2/0"]
    taken = [start(CUDA_VISIBLE_DEVICES=",".join(parts))[1] for _ in range(2)]
    assert taken == [parts[:1], parts[1:]]
    locks = list((host / f"palimpsest-gpus-{os.getuid()}").iterdir())
    assert len(locks) == 3 and all(lock.suffix == ".lock" for lock in locks)


def test_an_nvidia_smi_that_fails_is_an_error_with_its_words(host, monkeypatch):
    say(host, "Failed to initialize NVML: Driver/library version mismatch", status=18)
    with pytest.raises(PalimpsestError, match=r"\(exit status 18\): Failed to initialize NVML: Driver/library version"):
        visible_gpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_a_driver_without_a_gpu_is_no_error(host):
    say(host, "No devices were found", status=6)
    assert visible_gpus() == []


@pytest.mark.parametrize("name", ["nvidia0", "nvidiactl"])
def test_gpus_without_an_nvidia_smi_end_the_job_and_on_purpose_it_runs_on_the_cpu(host, run, name):
    """The driver has nvidiactl without a GPU too."""
    (host / name).touch()
    status, said = run("-c", ON_A_GPU, PATH="/nowhere")
    if name == "nvidiactl":
        assert (status, said) == (0, "")
        return
    assert status == 1 and f"({host}/nvidia0): put one that runs on PATH" in said
    assert "PalimpsestError: nvidia-smi cannot be run (No such file or directory)" in said
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in said
    assert run("-c", ON_A_GPU, PATH="/nowhere", CUDA_VISIBLE_DEVICES="") == (0, "")


def test_an_nvidia_smi_that_may_not_be_run_is_one_error(host, monkeypatch):
    (host / "nvidia-smi").chmod(0o644)
    monkeypatch.setenv("PATH", str(host))
    with pytest.raises(
        PalimpsestError, match=r"nvidia-smi cannot be run \(Permission denied\).*CUDA_VISIBLE_DEVICES= "
    ):
        visible_gpus()


@pytest.fixture
def run(all_forks, forked_commands):
    """What a Python process says, and its exit status; no GPU of this machine has the UUIDs of the stand-in."""

    def run(*arguments, **environment):
        command = [forked_commands / "forked-python", *arguments]
        done = subprocess.run(
            command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | environment
        )
        return done.returncode, done.stdout

    return run


def test_gpus_that_torch_cannot_use_end_the_job(host, run):
    status, said = run("-c", ON_A_GPU)
    assert status == 1 and "PalimpsestError: the job took GPU-aaaa, and torch" in said
    assert f"torch {torch.__version__} (torch.version.cuda: {torch.version.cuda})" in said
    assert "set CUDA_VISIBLE_DEVICES= (empty)" in said


def test_on_purpose_and_without_nvidia_smi_a_job_runs_on_the_cpu(host, run):
    assert run("-c", ON_A_GPU, CUDA_VISIBLE_DEVICES="") == (0, "")
    assert run("-c", ON_A_GPU, PATH="/nowhere", CUDA_VISIBLE_DEVICES="0") == (0, "")


def test_the_worker_of_the_archived_quantizers_refuses_gpus_that_its_torch_cannot_use(run):
    status, said = run("-I", WORKER, "job.json", PALIMPSEST_GPUS="GPU-aaaa", CUDA_VISIBLE_DEVICES="GPU-aaaa")
    assert status == 1 and "the job took GPU-aaaa, and torch" in said and "workflow/envs/archived.txt" in said
    status, said = run("-I", WORKER, "job.json", CUDA_VISIBLE_DEVICES="GPU-aaaa")
    assert "FileNotFoundError" in said and "job.json" in said


def test_without_an_nvidia_gpu_nothing_happens(host, monkeypatch):
    monkeypatch.setattr(devices, "DEVICE_FILES", str(host / "nvidia[0-9]*"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert devices.take_gpus(1) == [] and "CUDA_VISIBLE_DEVICES" not in os.environ
    assert [file.name for file in host.iterdir()] == ["nvidia-smi"]


def take_one() -> str:
    """What a job says that takes a GPU and ends."""
    done = subprocess.run([sys.executable, "-c", JOB, "1"], capture_output=True, text=True, input="")
    return done.stderr


def test_the_locks_lie_where_their_user_alone_can_go(host):
    locks = host / f"palimpsest-gpus-{os.getuid()}"
    assert take_one() == "" and stat.S_IMODE(locks.stat().st_mode) == 0o700
    locks.chmod(0o777)
    assert take_one() == "" and stat.S_IMODE(locks.stat().st_mode) == 0o700


@pytest.mark.parametrize("what", ["link", "file"])
def test_a_folder_of_locks_that_is_none_is_refused(host, what):
    """Who knows the name, which anybody can foresee, could send the locks elsewhere or block them."""
    locks, elsewhere = host / f"palimpsest-gpus-{os.getuid()}", host / "elsewhere"
    elsewhere.mkdir()
    if what == "link":
        locks.symlink_to(elsewhere)
    else:
        locks.touch()
    assert re.search(f"PalimpsestError: {locks}, where .* is no folder: remove it .* or set TMPDIR", take_one())
    assert not list(elsewhere.iterdir())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_locks_of_another_user_is_refused(host):
    locks = host / f"palimpsest-gpus-{os.getuid()}"
    locks.mkdir()
    os.chown(locks, 1234, 1234)
    assert "is a folder of the user 1234: remove it" in take_one() and not list(locks.iterdir())
