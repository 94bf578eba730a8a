"""A setting that only its step can refuse costs nothing that was made before."""

import subprocess
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
