"""What a step made before comes back where the step fails (through Snakemake: test_refused_settings)."""

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from palimpsest.artefacts import MANIFEST, Origin, atomic_directory, verify_files, write_json, write_manifest
from palimpsest.runtime.kept import FOLDER, keep, put_back

LOG = logging.getLogger(__name__)


class Records(dict):
    """Snakemake's records of files, as its persistence gives and takes them."""

    def metadata(self, file):
        return self.get(file)

    def cleanup_metadata(self, file):
        self.pop(file, None)

    def _get_key(self, file):
        return file

    def _write_record(self, key, record):
        self[key] = record


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A step with two outputs, which it made from the settings A."""
    monkeypatch.chdir(tmp_path)
    folder, cost = Path("results/quantized/ga/seed0/nf4"), Path("results/cost/ga/seed0/nf4.json")
    with atomic_directory(folder) as draft:
        (draft / "weights").write_text("old")
        write_manifest(draft, Origin({"model": "ga"}), packages=())
    write_json(cost, Origin({"model": "ga"}).record())
    outputs = [str(folder / MANIFEST), str(cost)]
    for output in outputs:
        os.utime(output, (1e9, 1e9))
    return SimpleNamespace(output=outputs, folder=folder), Records.fromkeys(outputs, {"settings": "A"})


def run(job, records):
    """What Snakemake does with a step: it deletes the outputs, and notes the settings however the step ends."""
    for output in job.output:
        Path(output).unlink()
        records[output]["settings"] = "B"


def test_a_step_that_fails_gives_back_what_it_made_before(made):
    job, records = made
    before = {output: Path(output).read_bytes() for output in job.output}
    kept = keep([job, SimpleNamespace(output=["results/none.json"]), SimpleNamespace(output=[])], records)
    assert len(kept) == 1
    run(job, records)
    put_back(kept, records, LOG)
    assert {output: Path(output).read_bytes() for output in job.output} == before
    assert all(os.stat(output).st_mtime == 1e9 for output in job.output)
    assert set(map(str, records.values())) == {"{'settings': 'A'}"} and not FOLDER.exists()
    verify_files(job.folder)


def test_what_snakemake_knew_nothing_of_it_knows_nothing_of(made):
    """After a `dvc pull`."""
    job, records = made
    records.clear()
    kept = keep([job], records)
    for output in job.output:
        Path(output).unlink()
        records[output] = {"settings": "B"}
    put_back(kept, records, LOG)
    assert records == {} and all(Path(output).exists() for output in job.output)


@pytest.mark.parametrize("what", ["the folder is new", "the step ended well"])
def test_nothing_old_comes_back_beside_what_is_new(made, what):
    job, records = made
    kept = keep([job], records)
    run(job, records)
    (job.folder / "weights").write_text("new")
    if what == "the step ended well":
        for output in job.output:
            Path(output).write_text("new")
    put_back(kept, records, LOG)
    assert [Path(output).exists() for output in job.output] == 2 * [what == "the step ended well"]
    assert set(map(str, records.values())) == {"{'settings': 'B'}"} and not FOLDER.exists()


def test_where_files_cannot_have_two_names_they_are_copied(made, monkeypatch):
    def refuse(*paths):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    job, records = made
    kept = keep([job], records)
    run(job, records)
    put_back(kept, records, LOG)
    assert all(os.stat(output).st_mtime == 1e9 for output in job.output)
