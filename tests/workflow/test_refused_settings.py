"""A step that refuses its settings, and a run that is killed, cost nothing that was made before."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
CORPUS, GENERIC = "results/corpus/manifest.json", "results/calibration/generic/manifest.json"
SUBSET = (
    *("forget_documents", "retain_documents", "holdout_documents", "prompt_words", "answer_words"),
    *("prompts_per_document", "passage_words", "passages_per_document"),
)

pytestmark = pytest.mark.slow


def test_a_refused_setting_leaves_nothing_to_do_when_it_is_put_back(tmp_path):
    """The corpus and the calibration text that is made from it; what a subset leaves is a matter of the texts."""
    file = tmp_path / "params.yaml"
    params = yaml.safe_load((REPOSITORY / "tests/tiny/params.yaml").read_text())

    def snakemake(edit, *arguments):
        file.write_text(yaml.safe_dump(params | {"corpus": params["corpus"] | edit}))
        command = ["snakemake", "--directory", tmp_path, "--cores", "1", CORPUS, GENERIC]
        done = subprocess.run([*command, *arguments], cwd=REPOSITORY, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    code, said = snakemake({})
    assert code == 0, said
    made = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.json")}
    refused = {"subset": {name: params["corpus"]["settings"][name] for name in SUBSET} | {"max_words": 20}}
    for _ in range(2):  # the second run refuses, too, and does not take the old corpus for one of these settings
        code, said = snakemake(refused)
        assert code == 1 and "Error: " in said and "Preparing the corpus" in said
        assert f"What the failed step made before is back: {CORPUS}" in said
        assert {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.json")} == made
    assert "Preparing the corpus" in snakemake(refused, "--dry-run")[1]
    code, said = snakemake({}, "--dry-run")
    assert code == 0 and "Nothing to be done" in said, said
    assert not (tmp_path / ".snakemake/kept").exists()


def test_a_killed_run_leaves_nothing_to_do_when_the_setting_is_put_back(tmp_path):
    """SIGKILL of Snakemake while the corpus is made by another setting; its own processes, so nothing is a fork."""
    file, manifest = tmp_path / "params.yaml", tmp_path / CORPUS
    params = yaml.safe_load((REPOSITORY / "tests/tiny/params.yaml").read_text())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PALIMPSEST")}
    command = [sys.executable, "-m", "snakemake", "--directory", str(tmp_path), "--cores", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}

    def edit(seed):
        params["corpus"]["settings"]["seed"] = seed
        file.write_text(yaml.safe_dump(params))

    def snakemake(*arguments):
        done = subprocess.run([*command, *arguments], cwd=REPOSITORY, env=environment, **pipes)
        return done.returncode, done.stdout

    seed = params["corpus"]["settings"]["seed"]
    edit(seed)
    code, said = snakemake(CORPUS, GENERIC)
    assert code == 0, said
    made = {path: (path.read_bytes(), path.stat().st_mtime) for path in (tmp_path / "results").rglob("manifest.json")}
    edit(seed + 1)
    for _ in range(2):  # the second run finds the old corpus again, and does not take it for one of the new setting
        process = subprocess.Popen([*command, CORPUS], cwd=REPOSITORY, env=environment, start_new_session=True, **pipes)
        end = time.monotonic() + 120
        while manifest.exists() or not (tmp_path / ".snakemake/kept/run").exists():
            assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
            time.sleep(0.005)
        process.kill()
        said = process.communicate()[0]  # the pipe closes when the step has ended, too
        assert not manifest.exists() and "Preparing the corpus" in said
        code, said = snakemake("--dry-run", CORPUS)
        assert code == 0 and f"step made before is back: {CORPUS}" in said and "Preparing the corpus" in said, said
        assert {path: (path.read_bytes(), path.stat().st_mtime) for path in made} == made
    edit(seed)
    code, said = snakemake(CORPUS, GENERIC)  # no lock stands in its way
    assert code == 0 and "Nothing to be done" in said, said
    assert not (tmp_path / ".snakemake/kept").exists()
