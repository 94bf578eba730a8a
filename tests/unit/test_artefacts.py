"""Files appear whole or not at all, and say what made them."""

from pathlib import Path
from types import SimpleNamespace

import matplotlib.figure
import pytest

from palimpsest.artefacts import (
    REPOSITORY,
    Origin,
    atomic_directory,
    atomic_file,
    read_json,
    sha256_file,
    write_json,
    write_manifest,
)
from palimpsest.audit import table as audit
from palimpsest.report import figures
from palimpsest.runtime.jobs import key_of


def test_an_error_leaves_the_old_file_and_no_draft(tmp_path):
    file = tmp_path / "deep/file.txt"
    with atomic_file(file) as draft:
        draft.write_text("old")
    with pytest.raises(OSError, match="No space"), atomic_file(file) as draft:
        draft.write_text("new, but")
        raise OSError("No space left on device")
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file]


def test_a_folder_begins_without_the_drafts_of_killed_runs_and_leaves_those_of_other_folders(tmp_path):
    killed = tmp_path / f".gptq.{'0a' * 16}"
    (killed / "deep").mkdir(parents=True)
    with atomic_directory(tmp_path / "gptq.g32") as other, atomic_directory(tmp_path / "gptq"):
        assert other.is_dir() and not killed.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gptq", "gptq.g32"]


def test_the_table_and_the_charts_are_written_so(tmp_path, monkeypatch):
    def break_off(draft: Path) -> None:
        Path(draft).write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(audit, "_flat", lambda row: row)
    with pytest.raises(ValueError, match="'b'"):
        audit.write_csv({"rows": [{"a": 1}, {"b": 2}]}, tmp_path / "audit.csv")
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda self, file, **options: break_off(file))
    with pytest.raises(OSError):
        figures.save(matplotlib.figure.Figure(), tmp_path / "chart.svg")
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_names_inputs_below_results_and_code_below_the_repository(tmp_path):
    corpus, model = tmp_path / "results/corpus", tmp_path / "results/models/target/seed0"
    code = [REPOSITORY / "src/palimpsest/unlearning/losses.py", REPOSITORY / "workflow/scripts/../scripts/train.py"]
    for folder in (corpus, model):
        folder.mkdir(parents=True)
    write_manifest(corpus, Origin(), packages=())
    made_by = Origin({"model": "target"}, {"models/target": "train"}, [corpus / "manifest.json"], code)
    write_manifest(model, made_by, packages=())
    manifest = read_json(model / "manifest.json")
    assert manifest["inputs"] == {"corpus/manifest.json": sha256_file(corpus / "manifest.json")}
    assert (manifest["model"], manifest["settings"]) == ("target", {"models/target": "train"})
    assert manifest["code"] == {
        "src/palimpsest/unlearning/losses.py": sha256_file(code[0]),
        "workflow/scripts/train.py": sha256_file(code[1]),
    }


def test_two_equal_runs_write_the_same_bytes(tmp_path):
    made = []
    for run in ("one", "two"):
        record = tmp_path / run / "results/scores/record.json"
        source = tmp_path / run / "results/infer/manifest.json"
        write_json(source, {"a": 1})
        made_by = Origin(inputs=[source], code=[REPOSITORY / "src/palimpsest/unlearning/losses.py"])
        write_json(record, made_by.record())
        made.append(record.read_bytes())
    assert made[0] == made[1]


def test_the_key_of_a_job_is_what_its_rule_has():
    class Wildcards(SimpleNamespace):
        def get(self, name):
            return getattr(self, name, None)

    assert key_of(Wildcards(model="ga", seed="3")) == {"model": "ga", "seed": 3}
    assert key_of(Wildcards(model="ga", seed="3", precision="bf16", metric="utility")) == {
        "model": "ga",
        "seed": 3,
        "precision": "bf16",
    }
