"""Snakemake notices that a file of the user's own was edited, and that it was not when it was touched or moved."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from palimpsest.study.verify import problems

REPOSITORY = Path(__file__).parents[2]
MADE = "results/calibration/generic/manifest.json"
COLLECTING = "Collecting the generic text for calibration"

pytestmark = pytest.mark.slow


def test_an_edited_file_runs_its_step_again_and_a_touched_or_moved_one_does_not(tmp_path):
    """Text for calibration, the quickest step that reads one; a corpus folder and checkpoints are marked alike."""
    params = yaml.safe_load((REPOSITORY / "tests/tiny/params.yaml").read_text())
    text = tmp_path / "text.txt"
    text.write_text("One paragraph.\n\nAnother one.")

    def snakemake(name, *arguments):
        params["calibration"]["generic"] = {"source": "file", "settings": {"path": name, "documents": 2}}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        command = ["snakemake", "--directory", tmp_path, "--cores", "1", MADE]
        done = subprocess.run([*command, *arguments], cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert COLLECTING in snakemake("text.txt")
    os.utime(text)
    assert "Nothing to be done" in snakemake("text.txt")
    (tmp_path / "deep").mkdir()
    text = text.rename(tmp_path / "deep/moved.txt")
    assert "Nothing to be done" in snakemake("deep/moved.txt")
    assert problems(tmp_path / "results", params, ["calibration"]) == []
    text.write_text("One paragraph.\n\nAnother two.")
    (found,) = problems(tmp_path / "results", params, ["calibration"])
    assert "was made from another content of deep/moved.txt (calibration.generic.settings.path)" in found
    assert COLLECTING in snakemake("deep/moved.txt", "--dry-run")
    assert COLLECTING in snakemake("deep/moved.txt")
    assert problems(tmp_path / "results", params, ["calibration"]) == []
    text.unlink()
    assert "Nothing to be done" in snakemake("deep/moved.txt")  # what was made from it stands
