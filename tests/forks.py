"""Programs that tests start as forks of one warm process (palimpsest.runtime.warm) which has imported what they import.

They are processes of their own, with arguments, environment, folder and streams of their own, and run their own script
from its first line. Where there is no warm process they import for themselves.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from palimpsest.runtime import warm

VENV = Path(sys.executable).parent
COMMANDS = {
    "snakemake": ("snakemake.cli", "snakemake.report.html_reporter", "palimpsest.study.run_checks"),
    "dvc": ("dvc.cli", "dvc.repo", "dvc.commands.repro", "dvc.repo.reproduce", "dvc_data.index"),
    "palimpsest": ("palimpsest.cli", "palimpsest.study.verify"),
}
"""Programs that tests start a hundred times, and what they import."""
HARNESS = ("lm_eval.api.task", "lm_eval.evaluator", "lm_eval.models.huggingface")
"""What the steps of the battery import, where it is installed."""
PROGRAM = """#!{python}
import os, sys
from palimpsest.runtime.warm import VARIABLE, hand_over
sys.argv[0] = {program!r}
hand_over(inside=os.environ.get(VARIABLE, "off"))
os.execv({python!r}, [{python!r}, *sys.argv])
"""
PYTHON = """#!{starts}
import os, sys, tempfile
from palimpsest.runtime.warm import VARIABLE, hand_over
given, arguments = sys.argv[1:], [each for each in sys.argv[1:] if each != "-I"]
if arguments[0] == "-c":
    with tempfile.NamedTemporaryFile("w", suffix=".py", dir={folder!r}, delete=False) as script:
        script.write(arguments[1])
    arguments = [script.name, *arguments[2:]]
os.environ[VARIABLE] = {warm!r} or os.environ.get(VARIABLE, "off")
sys.argv, sys.path[:] = arguments, {path!r} or sys.path
hand_over()
os.execv({python!r}, [{python!r}, *given])
"""


def start_warm_process() -> "tuple[Path, subprocess.Popen[bytes]]":
    """One that has imported what the steps of every study and the programs of COMMANDS import: ten seconds that no
    test pays again. It is offline, and what this machine has of the hub does not count: its HF_HOME is empty."""
    from palimpsest.quantizers import QUANTIZERS

    names = [name.replace("-", "_") for kind in QUANTIZERS.values() if not kind.environment for name in kind.packages]
    names += [name for names in COMMANDS.values() for name in names]
    names += HARNESS
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(warm.VARIABLE, "off")  # so that what `start` sets goes again: a test asks for it
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HOME", tempfile.mkdtemp(prefix="palimpsest-hub-"))
        return warm.start(list(dict.fromkeys([*warm.LIBRARIES, *names])), Path(os.devnull))


def settings_of(folder: Path) -> dict[str, str]:
    """The environment in which runs share a warm process."""
    settings: dict[str, str] = json.loads((folder / warm.IMPORTED).read_text())["environment"]
    return settings | {warm.VARIABLE: str(folder)}


def environment_with(commands: dict[str, str]) -> dict[str, str]:
    """This process's environment with the other one, and without what libraries set when they were imported here
    (lm-eval does)."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(warm.READ_BY_IMPORTS)}
    return mine | commands


def stop(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    shutil.rmtree(settings_of(folder)["HF_HOME"])
    warm.stop(folder, process)


def wait_for(folder: Path, process: "subprocess.Popen[bytes] | None") -> None:
    """Until the warm process is ready, or has ended; of another process's child one knows the first alone."""
    end = time.monotonic() + 120
    while not (folder / warm.SOCKET).exists() and time.monotonic() < end:
        if process and process.poll() is not None:
            return
        time.sleep(0.05)


def write_programs(folder: Path) -> None:
    """COMMANDS and `forked-python`, for PATH: forks of the process that PALIMPSEST_WARM names."""
    for name in COMMANDS:
        _write(folder / name, PROGRAM.format(python=sys.executable, program=str(VENV / name)))
    write_python(folder / "forked-python")


def write_python(
    program: Path, python: str | Path = sys.executable, warm_process: Path | None = None, path: Iterable[str] = ()
) -> None:
    """A Python that takes `-c CODE` or a file, and -I before it. warm_process: its folder, None for the one that
    PALIMPSEST_WARM names; path: where that process's interpreter looks for packages, where it is another's."""
    folder = str(program.parent)
    where = {"warm": str(warm_process or ""), "path": list(path), "folder": folder}
    _write(program, PYTHON.format(starts=sys.executable, python=str(python), **where))


def _write(program: Path, text: str) -> None:
    program.write_text(text)
    program.chmod(0o755)
