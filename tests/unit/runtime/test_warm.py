"""The warm process of a run: steps are forks of it, and end, fail and are measured as processes of their own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from palimpsest.runtime import warm
from palimpsest.runtime.benchmark import count_forks

STEP = """
import os, sys
sys.path.append({tests!r})
if __name__ == "__main__":
    from palimpsest.runtime.warm import hand_over
    hand_over(early={early})
import json
said = {{"warm": "colorsys" in sys.modules, "torch": "torch" in sys.modules, "pid": os.getpid()}}
said |= {{"folder": os.getcwd(), "argv": sys.argv[1:], "is": os.environ.get("IS")}}
print(json.dumps(said), flush=True)
{then}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Of a warm process that has imported a module that nothing else imports, and listens."""
    folder, process = warm.start(["colorsys", "there_is_no_such_module"], tmp_path / "warm.log")
    wait(lambda: (folder / warm.SOCKET).exists() or process.poll() is not None)
    assert process.poll() is None, (tmp_path / "warm.log").read_text()
    yield folder
    warm.stop(folder, process)
    assert not folder.exists()


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end
        time.sleep(0.01)


def start(
    tmp_path: Path, then: str = "", *arguments: str, early: bool = False, **environment: str
) -> "subprocess.Popen[str]":
    script = tmp_path / f"step-{early}.py"
    script.write_text(STEP.format(tests=str(Path(__file__).parent), then=then, early=early))
    command = [sys.executable, str(script), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=tmp_path, env=os.environ | environment, stdout=pipe, stderr=pipe, text=True)


def run(tmp_path: Path, then: str = "", *arguments: str, **environment: str) -> tuple[dict, int, str]:
    process = start(tmp_path, then, *arguments, **environment)
    said, errors = process.communicate(timeout=60)
    return json.loads(said.splitlines()[0]), process.returncode, errors


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it may end between opening and reading
        return False


def test_a_step_is_a_fork_with_its_own_arguments_folder_and_environment(folder, tmp_path):
    said, code, _ = run(tmp_path, "", "--one", "two", IS="mine")
    assert (said["warm"], said["argv"], said["folder"], said["is"], code) == (
        True,
        ["--one", "two"],
        str(tmp_path),
        "mine",
        0,
    )
    assert run(tmp_path)[0]["pid"] != said["pid"]


def test_without_a_warm_process_a_step_is_its_own(tmp_path, monkeypatch):
    for value in ("off", str(tmp_path / "gone")):
        monkeypatch.setenv(warm.VARIABLE, value)
        said, code, _ = run(tmp_path)
        assert (said["warm"], code) == (False, 0)
    monkeypatch.delenv(warm.VARIABLE)
    assert run(tmp_path)[0]["warm"] is False


@pytest.mark.parametrize(
    ("then", "code", "error"),
    [
        ("sys.exit(3)", 3, ""),
        ("sys.exit('a last word')", 1, "a last word"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("os.kill(os.getpid(), 9)", 128 + 9, ""),
        ("import atexit\natexit.register(print, 'at the end', file=sys.stderr)", 0, "at the end"),
        (
            "import threading, time\n"
            "threading.Thread(target=lambda: time.sleep(0.3) or print('a thread', file=sys.stderr)).start()",
            0,
            "a thread",
        ),
        ("sys.excepthook = lambda *_: print('caught', file=sys.stderr)\n1 / 0", 1, "caught"),
    ],
)
def test_a_step_ends_as_its_fork_does(folder, tmp_path, then, code, error):
    _, ended, errors = run(tmp_path, then)
    assert ended == code
    assert error in errors
    assert run(tmp_path)[0]["warm"]  # the next step finds the warm process as it was


def test_steps_run_side_by_side(folder, tmp_path):
    meeting = "open(sys.argv[1], 'w').close()\nimport time\nwhile not os.path.exists(sys.argv[2]): time.sleep(0.01)"
    first = start(tmp_path, meeting, "a", "b")
    second = start(tmp_path, meeting, "b", "a")
    assert [process.wait(60) for process in (first, second)] == [0, 0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_step_that_is_ended_ends_its_fork(folder, tmp_path, number):
    process = start(tmp_path, "import time\ntime.sleep(600)")
    worker = json.loads(process.stdout.readline())["pid"]
    assert alive(worker)
    process.send_signal(number)
    assert process.wait(60) != 0
    wait(lambda: not alive(worker))


@pytest.mark.parametrize(("then", "code"), [("", 0), ("sys.exit(3)", 3), ("1 / 0", 1)])
def test_a_step_goes_on_when_the_warm_process_is_killed(tmp_path, then, code):
    folder, process = warm.start(["colorsys"], tmp_path / "warm.log")
    wait(lambda: (folder / warm.SOCKET).exists())
    step = start(tmp_path, f"while not os.path.exists('go'): pass\n{then}")
    assert json.loads(step.stdout.readline())["warm"]
    process.kill()
    process.wait()
    (tmp_path / "go").touch()
    assert step.wait(60) == code
    assert run(tmp_path)[0]["warm"] is False  # the next imports for itself
    warm.stop(folder, process)


def test_a_step_whose_request_was_not_read_before_the_kill_imports_for_itself(tmp_path):
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/{warm.SOCKET}")
        listener.listen()
        step = start(tmp_path, **{warm.VARIABLE: folder})
        connection, _ = listener.accept()
        assert connection.recv(1, socket.MSG_PEEK)  # what lies unread when a process ends is refused to the sender
        connection.close()
        said, _ = step.communicate(timeout=60)
        assert json.loads(said)["warm"] is False and step.returncode == 0


def test_the_warm_process_ends_with_its_run(tmp_path):
    run_of_a_study = (
        "import sys; from pathlib import Path; from palimpsest.runtime import warm\n"
        "folder, process = warm.start(['colorsys'], Path(sys.argv[1]))\n"
        "print(folder, process.pid, flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", run_of_a_study, str(tmp_path / "log")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    folder, pid = process.stdout.readline().split()
    wait(lambda: (Path(folder) / warm.SOCKET).exists())
    process.kill()
    process.wait()
    wait(lambda: not alive(int(pid)) and not Path(folder).exists())


def test_a_module_that_starts_a_thread_ends_the_warm_process_with_a_word(tmp_path, monkeypatch):
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    folder, process = warm.start(["threaded"], tmp_path / "log")
    process.wait(60)
    warm.stop(folder, process)
    assert "an import started a thread" in (tmp_path / "log").read_text()


def test_a_step_that_trains_is_forked_before_all_is_imported(tmp_path, monkeypatch):
    (tmp_path / "slow.py").write_text(
        f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    folder, process = warm.start(["transformers", "colorsys", "slow"], tmp_path / "log")
    training, other = start(tmp_path, early=True), start(tmp_path)
    assert json.loads(other.communicate(timeout=60)[0])["torch"] is False  # it had nothing to wait for
    assert json.loads(training.stdout.readline())["torch"]
    assert not (folder / warm.SOCKET).exists()
    (tmp_path / "go").touch()
    assert training.wait(60) == 0
    wait(lambda: (folder / warm.SOCKET).exists())
    for early in (False, True):
        assert json.loads(start(tmp_path, early=early).communicate(timeout=60)[0])["warm"]
    warm.stop(folder, process)


def test_a_step_that_trains_does_not_wait_for_a_warm_process_that_failed(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("import time\ntime.sleep(0.5)\n1 / 0\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    folder, process = warm.start(["broken"], tmp_path / "log")
    step = start(tmp_path, early=True)
    assert json.loads(step.communicate(timeout=60)[0])["warm"] is False and step.returncode == 0
    warm.stop(folder, process)


def test_a_run_inside_another_uses_its_warm_process_if_that_fits(folder, tmp_path, monkeypatch):
    def used(around: Path | str, *modules: str, worth: bool = True, **environment: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in (environment | {warm.VARIABLE: str(around)}).items():
                patch.setenv(name, value)
            own = warm.start_for_run(modules, tmp_path / "own.log", worth)
            named = os.environ.get(warm.VARIABLE)
            for each in own:
                assert named == str(each[0])
                warm.stop(*each)
        return "its own" if own else "the other" if named == str(around) else "none"

    assert used(folder, "colorsys") == "the other"
    assert used(folder, "colorsys", "wave") == "its own"
    assert used(folder, "colorsys", "wave", worth=False) == "none"
    for name in ("ATEN_CPU_CAPABILITY", "HF_HUB_OFFLINE"):  # which libraries read when they are imported
        assert used(folder, "colorsys", **{name: "a value"}) == "its own"
    assert used(tmp_path / "gone", "colorsys") == "its own"
    assert used("off", "colorsys") == "the other"


def test_a_step_of_another_clone_imports_the_library_of_that_one(folder, tmp_path, monkeypatch):
    library = tmp_path / "clone/palimpsest"
    shutil.copytree(warm.PACKAGE, library, ignore=shutil.ignore_patterns("__pycache__"))
    (library / "errors.py").write_text((library / "errors.py").read_text() + "\nEDITED = True\n")
    edited = "import palimpsest.errors\nprint(hasattr(palimpsest.errors, 'EDITED'), palimpsest.errors.__file__)"
    for path, expected in ((None, warm.PACKAGE), (library.parent, library), (None, warm.PACKAGE)):
        environment = {"PYTHONPATH": str(path)} if path else {}
        process = start(tmp_path, edited, **environment)
        said, _ = process.communicate(timeout=60)
        assert json.loads(said.splitlines()[0])["warm"] and process.returncode == 0
        assert said.splitlines()[1] == f"{path is not None} {expected / 'errors.py'}"


def test_what_a_fork_starts_may_have_forks_too(folder, tmp_path):
    for inside in ("off", str(folder)):
        script = tmp_path / "program.py"
        script.write_text(
            "import os, sys\nfrom palimpsest.runtime.warm import hand_over\n"
            "if 'colorsys' not in sys.modules:\n    hand_over(sys.argv[1])\n"
            "print('colorsys' in sys.modules, os.environ['PALIMPSEST_WARM'])\n"
        )
        said = subprocess.check_output([sys.executable, str(script), inside], text=True)
        assert said.split() == ["True", inside]


def test_a_benchmark_counts_the_fork(folder, tmp_path):
    class Timer:
        """What Snakemake's does around a step."""

        def __init__(self, pid: int) -> None:
            self.pid, self.bench_record = pid, SimpleNamespace(data_collected=False, max_vms=1.0)

        def cancel(self) -> None:
            self.ended = True

    count_forks(Timer)
    process = start(tmp_path, "kept = bytearray(300 << 20)\nimport time\nwhile time.process_time() < 0.7: pass")
    timer = Timer(process.pid)
    assert process.wait(60) == 0
    timer.cancel()
    record = timer.bench_record
    assert timer.ended and record.data_collected
    assert 0.7 <= record.cpu_time < 5 and record.cpu_usage == 100 * record.cpu_time
    assert 300 < record.max_rss < 600 and record.max_vms is None
