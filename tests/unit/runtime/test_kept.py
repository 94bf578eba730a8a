"""What a step made before comes back where the step fails (through Snakemake: test_refused_settings)."""

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from palimpsest.artefacts import MANIFEST, Origin, atomic_directory, verify_files, write_json, write_manifest
from palimpsest.runtime.kept import FOLDER, RUN, keep, outlast, put_back, put_back_after_a_kill

LOG = logging.getLogger(__name__)


class Records(dict):
    """Snakemake's records of files, as its persistence gives and takes them."""

    def metadata(self, file):
        return self.get(file)

    def _get_key(self, file):
        return file

    def _clear_cache(self):
        pass

    def _unmark_incomplete(self, key):
        INCOMPLETE.discard(key)

    def _delete_record(self, key):
        self.pop(key, None)

    def _write_record(self, key, record):
        self[key] = record


INCOMPLETE = set()
"""What Snakemake notes of a step that it begins."""


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
    INCOMPLETE.clear()
    return SimpleNamespace(output=outputs, folder=folder), Records.fromkeys(outputs, {"settings": "A"})


def run(job, records):
    """What Snakemake does with a step: it deletes the outputs, and notes the settings however the step ends."""
    for output in job.output:
        Path(output).unlink()
        records[output]["settings"] = "B"
        INCOMPLETE.add(output)


def test_a_step_that_fails_gives_back_what_it_made_before(made):
    job, records = made
    before = {output: Path(output).read_bytes() for output in job.output}
    kept = keep([job, SimpleNamespace(output=["results/none.json"]), SimpleNamespace(output=[])], records)
    assert len(kept) == 1
    run(job, records)
    put_back(kept, records, LOG)
    assert {output: Path(output).read_bytes() for output in job.output} == before and not INCOMPLETE
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


def test_after_a_kill_the_next_run_puts_back_what_was_kept_and_no_sooner(made):
    job, records = made
    before = {output: Path(output).read_bytes() for output in job.output}
    held = outlast(keep([job], records), [])
    run(job, records)
    put_back_after_a_kill(lambda: records, LOG)  # a dry run beside the run
    assert not any(Path(output).exists() for output in job.output) and set(job.output) == INCOMPLETE
    held.close()
    put_back_after_a_kill(lambda: records, LOG)
    assert {output: Path(output).read_bytes() for output in job.output} == before
    assert set(map(str, records.values())) == {"{'settings': 'A'}"} and not INCOMPLETE and not FOLDER.exists()
    verify_files(job.folder)


def test_after_a_kill_what_snakemake_knew_nothing_of_it_knows_nothing_of(made):
    job, records = made
    held = outlast(keep([job], Records()), [])
    run(job, records)
    held.close()
    put_back_after_a_kill(lambda: records, LOG)
    assert records == {} and all(Path(output).exists() for output in job.output)


def test_after_a_kill_nothing_old_comes_back_beside_what_is_new(made):
    job, records = made
    held = outlast(keep([job], records), [])
    run(job, records)
    (job.folder / "weights").write_text("new")
    held.close()
    put_back_after_a_kill(lambda: records, LOG)
    assert not any(Path(output).exists() for output in job.output)


def test_a_run_that_was_killed_before_its_steps_began_left_nothing_to_put_back(made):
    job, records = made
    outlast(keep([job], records), []).close()
    put_back_after_a_kill(lambda: records, LOG)
    assert all(Path(output).exists() for output in job.output) and not FOLDER.exists()
    held = outlast(keep([SimpleNamespace(output=["results/none.json"])], records), ["locks/0.input.lock"])
    Path("locks").mkdir()
    own, others = Path("locks/0.input.lock"), Path("locks/1.input.lock")
    own.touch(), others.touch()
    put_back_after_a_kill(lambda: records, LOG)
    assert own.exists()  # the run lives
    held.close()
    put_back_after_a_kill(lambda: records, LOG)
    assert not own.exists() and others.exists() and not FOLDER.exists()
    keep([job], records)  # killed before all was written down
    put_back_after_a_kill(lambda: records, LOG)
    assert FOLDER.exists() and not (FOLDER / RUN).exists()


def test_where_files_cannot_be_locked_nothing_is_said_to_last(made, monkeypatch):
    def refuse(*arguments):
        raise OSError("no locks here")

    job, records = made
    monkeypatch.setattr("fcntl.flock", refuse)
    assert outlast(keep([job], records), []) is None and not (FOLDER / RUN).exists()
