"""A step ends with its run, however that ends, and not before."""

import functools
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from palimpsest.runtime import run_end

STEP = """
from palimpsest.runtime.run_end import end_with_run
end_with_run()
import os, sys, time
print("at work", os.getpid(), flush=True)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    pass
print("done", flush=True)
"""
RUN = """
import subprocess, sys
from palimpsest.runtime.run_end import hold_run, release_run
held = hold_run()
code = subprocess.run([sys.executable, "-c", sys.argv[1], sys.argv[2]]).returncode
release_run(held)
sys.exit(code)
"""


def run(seconds: float) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", RUN, STEP, str(seconds)]
    heard = functools.partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True, preexec_fn=heard)


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end
        time.sleep(0.01)


def files() -> set[str]:
    return set(map(str, Path(run_end.tempfile.gettempdir()).glob("palimpsest-run-*")))


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(run_end.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in (run_end.VARIABLE, run_end.MACHINE):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_step_ends_with_its_run(number):
    process = run(600)
    worker = int(process.stdout.readline().split()[-1])
    assert len(files()) == 1
    process.send_signal(number)
    said, errors = process.communicate(timeout=60)  # both pipes close when the step has ended
    assert said == "" and "the run that started this step was killed" in errors
    wait(lambda: not Path(f"/proc/{worker}").exists())
    assert files() == set()


def test_a_step_of_a_run_that_lives_is_left_alone():
    said, errors = run(0.5).communicate(timeout=60)
    assert said.splitlines()[-1] == "done" and errors == "" and files() == set()


def test_a_step_that_begins_when_the_run_is_gone_ends_at_once(tmp_path):
    (tmp_path / "palimpsest-run-x").touch()
    environment = os.environ | {run_end.VARIABLE: str(tmp_path / "palimpsest-run-x")}
    done = subprocess.run([sys.executable, "-c", STEP, "600"], env=environment, capture_output=True, timeout=60)
    assert done.returncode == 1 and b"done" not in done.stdout


def test_two_steps_that_begin_when_the_run_is_gone_both_end(tmp_path):
    """The first removes the run's file: to the second a file that is not there is a run that has ended."""
    (tmp_path / "palimpsest-run-x").touch()
    environment = os.environ | {run_end.VARIABLE: str(tmp_path / "palimpsest-run-x"), run_end.MACHINE: platform.node()}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", STEP, "600"], env=environment, capture_output=True, timeout=60)
        assert done.returncode == 1 and b"the run that started this step was killed" in done.stderr
    assert files() == set()


def test_without_a_run_on_this_machine_nothing_happens(tmp_path):
    for file in (None, str(tmp_path / "of another machine")):
        environment = os.environ | ({} if file is None else {run_end.VARIABLE: file})
        done = subprocess.run([sys.executable, "-c", STEP, "0.2"], env=environment, capture_output=True, timeout=60)
        assert done.returncode == 0 and b"done" in done.stdout
