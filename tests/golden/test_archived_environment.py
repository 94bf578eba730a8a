"""The isolated environment of the archived packages: when it is built, refused and built again."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from palimpsest.errors import PalimpsestError
from palimpsest.quantizers.environments import VARIABLE, build, installed_version, interpreter

REPOSITORY = Path(__file__).parents[2]
REQUIREMENTS = REPOSITORY / "workflow/envs/archived.txt"


@pytest.fixture(autouse=True)
def environment(archived_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(archived_environment.parent))
    return archived_environment


def test_an_edited_requirements_file_makes_the_interpreter_refuse(environment, tmp_path, monkeypatch):
    """The layout of the repository, with the real environment's record."""
    requirements = tmp_path / "workflow/envs/archived.txt"
    requirements.parent.mkdir(parents=True)
    shutil.copy(REQUIREMENTS, requirements)
    folder = tmp_path / ".environments/archived"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(sys.executable)
    monkeypatch.setenv(VARIABLE, str(folder.parent))
    with pytest.raises(PalimpsestError, match=r"is not built: run `palimpsest build-environment .*archived.txt"):
        interpreter("archived")
    shutil.copy(environment / "environment.json", folder)
    assert interpreter("archived") == folder / "bin/python"
    requirements.write_text(requirements.read_text() + "# edited\n")
    with pytest.raises(PalimpsestError, match=r"built from another archived.txt than the one that is there now"):
        interpreter("archived")
    requirements.unlink()
    with pytest.raises(PalimpsestError, match=r"requirements of the environment .* are missing"):
        interpreter("archived")
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(PalimpsestError, match="PALIMPSEST_ENVIRONMENTS is not set"):
        interpreter("archived")


def test_a_failed_build_is_not_taken_for_ready_and_a_later_one_repairs_it(tmp_path, monkeypatch):
    """A tiny environment: the package is one of ours, installed from a folder, so that nothing is downloaded."""
    package = tmp_path / "tiny"
    package.mkdir()
    (package / "setup.py").write_text(
        "from setuptools import setup; setup(name='tiny', version='1.2', py_modules=['tiny'])"
    )
    (package / "tiny.py").write_text("")
    requirements, folder = tmp_path / "tiny.txt", tmp_path / "environments/tiny"
    requirements.write_text("./no-such-file.whl\n")
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)  # this environment has no pip that could install
        with pytest.raises(
            PalimpsestError, match=r"(?s)installing .*tiny.txt failed \(exit status 1\). Its last words:.*no-such-file"
        ):
            build(requirements, folder)
    assert (folder / "bin/pip").exists()
    assert (folder / "bin/python").exists() and not list(folder.glob("*.json"))
    requirements.write_text(f"setuptools==80.10.2\n{package}\n")
    build(requirements, folder)
    assert not (folder / "bin/pip").exists()
    monkeypatch.setenv(VARIABLE, str(folder.parent))
    assert interpreter("tiny").exists()
    before = (folder / "pyvenv.cfg").stat().st_mtime_ns
    (folder / "ready.json").unlink()  # as Snakemake does before it runs the rule
    assert interpreter("tiny").exists()  # for another study
    build(requirements, folder)
    assert (folder / "pyvenv.cfg").stat().st_mtime_ns == before
    assert (folder / "ready.json").read_bytes() == (folder / "environment.json").read_bytes()
    with pytest.raises(PalimpsestError, match="has no package torch"):
        installed_version("tiny", "torch")
    (package / "setup.py").write_text((package / "setup.py").read_text().replace("1.2", "1.3"))
    requirements.write_text(requirements.read_text() + "# edited\n")
    with pytest.raises(PalimpsestError, match=r"built from another tiny.txt"):
        interpreter("tiny")
    build(requirements, folder)
    assert (folder / "pyvenv.cfg").stat().st_mtime_ns != before and list(
        folder.glob("lib/*/site-packages/tiny-1.3*")
    )  # pip 23 without wheel leaves an egg-info
    assert interpreter("tiny").exists()


def test_a_python_that_the_pins_were_not_tried_on_is_named(tmp_path):
    (tmp_path / "old.txt").write_text("# python: 3.5, 3.6\nnumpy==1.0\n")
    with pytest.raises(PalimpsestError, match=r"were tried on Python 3.5 and 3.6, this is 3"):
        build(tmp_path / "old.txt", tmp_path / "environment")
    with pytest.raises(PalimpsestError, match=r"nowhere.txt does not exist"):
        build(tmp_path / "nowhere.txt", tmp_path / "environment")


def test_the_command_line_builds_nothing_twice(environment):
    command = [sys.executable, "-m", "palimpsest", "build-environment"]
    done = subprocess.run([*command, REQUIREMENTS, environment], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    done = subprocess.run([*command, "no", "where"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("palimpsest: no does not exist")
