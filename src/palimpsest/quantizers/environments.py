"""Isolated environments, for backends whose pins cannot live beside the project's.
`palimpsest build-environment REQUIREMENTS FOLDER`.

An environment is a virtual environment below the folder that the variable PALIMPSEST_ENVIRONMENTS names, built from
workflow/envs/NAME.txt. Its `environment.json` is written last, so a build that was cut short is never taken for a whole
one; `ready.json` is a copy for Snakemake, which removes what a rule writes before it runs the rule.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from logging import getLogger
from pathlib import Path

from filelock import FileLock

from palimpsest.artefacts import read_json, sha256_file, write_json
from palimpsest.errors import PalimpsestError

VARIABLE = "PALIMPSEST_ENVIRONMENTS"
RECORD = "environment.json"
READY = "ready.json"
FIRST = ("torch", "setuptools", "wheel", "numpy")
"""Installed first, with what they depend on: the archived packages import them to build themselves."""
LAST_LINES = 15
"""Lines of a failed command's output that the error repeats."""

log = getLogger(__name__)


def build(requirements: Path, folder: Path) -> None:
    """Make the virtual environment `folder` from a requirements file; one that is ready and current stays as it is.

    The file lists every package with its version: nothing else is installed, save what torch itself needs (its CUDA
    libraries). A comment `# python: 3.11, 3.12` in it names the Python versions that the pins were tried on.
    Raises PalimpsestError for another version of Python,
    and with the last lines of what pip said when an installation fails.
    """
    check_python(requirements)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):  # two studies may want the same environment
        if _problem(requirements, folder):
            _build(requirements, folder)
        shutil.copyfile(folder / RECORD, folder / READY)


def _build(requirements: Path, folder: Path) -> None:
    for record in (READY, RECORD):
        (folder / record).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    # a pip of its own takes four seconds: only where this environment has none that could install (uv makes such)
    own = importlib.util.find_spec("pip") is None
    without = [] if own else ["--without-pip"]
    run_logged([sys.executable, "-m", "venv", *without, str(folder)], f"making the environment {folder}")
    python = str(_python(folder))
    pip = [python, "-I", "-m", "pip"] if own else [sys.executable, "-I", "-m", "pip", "--python", python]
    pip.append("--disable-pip-version-check")
    install = [*pip, "install", "--progress-bar", "off", "--no-compile"]  # Python compiles what is imported
    pins = requirements.read_text(encoding="utf-8").splitlines()
    first = [pin for pin in pins if re.split(r"[=<>~! ]", pin)[0].lower() in FIRST]
    what = f"installing {requirements}"
    settings = {"PYTHONPATH": "", "BUILD_CUDA_EXT": "0"}  # auto-gptq's kernels: nothing here calls them
    if first:
        run_logged([*install, *first], what, settings)
    run_logged([*install, "--no-deps", "--no-build-isolation", "-r", str(requirements)], what, settings)
    freeze, environment = [*pip, "freeze", "--all"], os.environ | settings
    frozen = subprocess.run(freeze, env=environment, check=True, capture_output=True, text=True).stdout
    write_json(
        folder / RECORD,
        {
            "requirements": os.path.relpath(requirements.resolve(), folder.resolve()),
            "sha256": sha256_file(requirements),
            "python": sys.version.split()[0],
            "packages": dict(pin.split("==", 1) for pin in frozen.splitlines() if "==" in pin),
        },
    )


def interpreter(name: str) -> Path:
    """The Python of the environment `name`; raises PalimpsestError when it is missing, or stale."""
    folder = _folder(name)
    record = folder / RECORD
    requirements = folder / read_json(record)["requirements"] if record.exists() else f"workflow/envs/{name}.txt"
    problem = _problem(Path(requirements), folder)
    if problem:
        raise PalimpsestError(
            f"{problem}: run `palimpsest build-environment {os.path.relpath(requirements)} "
            f"{os.path.relpath(folder)}`, as the rule `environment` does."
        )
    return _python(folder)


def installed_version(name: str, package: str) -> str:
    """The version of a package in the environment `name`; raises PalimpsestError when it is not installed there."""
    record = _folder(name) / RECORD
    packages = {each.lower().replace("_", "-"): version for each, version in read_json(record)["packages"].items()}
    if package not in packages:
        raise PalimpsestError(
            f"the environment {name} ({record}) has no package {package}: add it to its requirements."
        )
    return packages[package]


def run_logged(command: Sequence[str], what: str, settings: dict[str, str] | None = None) -> None:
    """Run a command with its output in the log; raises PalimpsestError with its last lines when it fails."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    process = subprocess.Popen(
        command,
        env={**os.environ, **(settings or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with process:
        for line in process.stdout or ():
            last.append(line.rstrip())
            log.info("%s", last[-1])
    if process.returncode:
        raise PalimpsestError(f"{what} failed (exit status {process.returncode}). Its last words:\n" + "\n".join(last))


def _folder(name: str) -> Path:
    root = os.environ.get(VARIABLE)
    if not root:
        raise PalimpsestError(
            f"the environment {name!r} is needed, but {VARIABLE} is not set: the rule `quantize` sets it; elsewhere "
            f"set it to the folder that holds {name}, built with `palimpsest build-environment "
            f"workflow/envs/{name}.txt FOLDER/{name}`."
        )
    return Path(root) / name


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _problem(requirements: Path, folder: Path) -> str | None:
    """What keeps an environment from being used, or None."""
    if not (folder / RECORD).exists() or not _python(folder).exists():
        return f"the environment {folder} is not built"
    if not requirements.exists():
        return f"the requirements of the environment {folder} are missing ({requirements.resolve()})"
    if read_json(folder / RECORD)["sha256"] != sha256_file(requirements):
        return f"the environment {folder} was built from another {requirements.name} than the one that is there now"
    return None


def check_interpreter(python: str) -> None:
    """Raise PalimpsestError when the path of the Python that runs the workflow has white space."""
    if re.search(r"\s", python):
        raise PalimpsestError(
            f"{python!r} has white space in its path, which Snakemake hands to the shell as it is in every step: "
            "move the clone and its environment to a path without white space, and run `make setup` there."
        )


def check_python(requirements: Path) -> None:
    """Raise PalimpsestError when the comment `# python:` of a requirements file
    does not name this version of Python."""
    if not requirements.exists():
        raise PalimpsestError(f"{requirements} does not exist: give the requirements file, workflow/envs/NAME.txt.")
    found = re.search(r"^# python: *(.*)$", requirements.read_text(encoding="utf-8"), re.MULTILINE)
    tried = re.split(r" *, *", found[1].strip()) if found else []
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if tried and here not in tried:
        raise PalimpsestError(
            f"the pins of {requirements} were tried on Python {' and '.join(tried)}, this is {here}: "
            "make the project's environment with one of these versions, or leave the quantizers out that need this one."
        )
