"""Files appear whole or not at all, say what made them, and are refused where they are not what their step wrote."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib.figure
import pytest

from palimpsest.artefacts import (
    MANIFEST,
    REPOSITORY,
    Origin,
    atomic_directory,
    atomic_file,
    read_json,
    read_record,
    sha256_file,
    verify_files,
    write_json,
    write_manifest,
)
from palimpsest.audit import table as audit
from palimpsest.audit.records import read_records
from palimpsest.errors import PalimpsestError
from palimpsest.report import figures
from palimpsest.runtime.jobs import key_of, records_of


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


def test_a_file_begins_without_the_drafts_of_killed_runs_and_leaves_those_of_other_files(tmp_path):
    killed, other = (tmp_path / f".{name}.{'0a' * 16}" for name in ("chart.svg", "chart.svg.png"))
    for each in (killed, other):
        each.write_text("half")
    with atomic_file(tmp_path / "chart.svg") as draft:
        draft.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "chart.svg"]


DISK = "No space left on device; make room and run it again: what is done is kept: "


def test_a_full_disk_names_the_file(tmp_path):
    """/dev/full answers every write as a full disk does."""
    file = tmp_path / "results/audit.csv"
    with pytest.raises(OSError, match=re.escape(f"{DISK}'{file}'")) as caught, atomic_file(file) as draft:
        draft.symlink_to("/dev/full")
        draft.write_text("a,b")
    assert caught.value.errno == errno.ENOSPC and not list(file.parent.iterdir())
    folder = tmp_path / "results/models/ga"
    with pytest.raises(OSError, match=re.escape(f"{DISK}'{folder}'")), atomic_directory(folder) as draft:
        (draft / "weights").symlink_to("/dev/full")
        with open(draft / "weights", "wb", buffering=0) as weights:
            weights.write(b"0")
    assert not list(folder.parent.iterdir())


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np, torch, pyarrow, pyarrow.parquet, safetensors.torch
from palimpsest.artefacts import atomic_directory
writers = {
    "safetensors": lambda file: safetensors.torch.save_file({"w": torch.zeros(1 << 20)}, file),
    "numpy": lambda file: np.zeros(1 << 20).tofile(file),
    "arrow": lambda file: pyarrow.parquet.write_table(pyarrow.table({"a": np.random.rand(1 << 18)}), file),
    "torch": lambda file: torch.save(torch.zeros(1 << 20), file),
}
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
for name, write in writers.items():
    try:
        with atomic_directory(Path(sys.argv[1]) / name) as draft:
            write(draft / "file")
    except OSError as error:
        print(name, error.filename)
"""


def test_whatever_library_wrote(tmp_path):
    """A limit on the size of files, which the system enforces as it does the end of a disk."""
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True)
    names = ("safetensors", "numpy", "arrow", "torch")
    assert done.stdout.splitlines() == [f"{name} {tmp_path / name}" for name in names], done.stderr


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


def make_folder(results: Path, *place: str, text: str = "weights", **key: object) -> str:
    """An artefact folder as a step writes it; returns its manifest's path."""
    folder = results.joinpath(*place)
    with atomic_directory(folder) as draft:
        (draft / "model.safetensors").write_text(text)
        write_manifest(draft, Origin(key), packages=())
    return str(folder / MANIFEST)


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """The folder `results` of a study, by the relative path that a step knows it by."""
    monkeypatch.chdir(tmp_path)
    return Path("results")


KEYS = {"model": "ga", "seed": 0, "precision": "nf4"}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"model": "target"}, "model 'ga'"),
        ({"seed": 1}, "seed 0"),
        ({"precision": "gptq"}, "precision 'nf4'"),
    ],
)
@pytest.mark.parametrize("step", ["quantized", "infer"])
def test_a_step_refuses_an_artefact_in_the_place_of_another(study, step, other, said):
    """Every file is sound; the folders were exchanged."""

    def place(key: dict) -> tuple[str, str, str, str]:
        return step, key["model"], f"seed{key['seed']}", key["precision"]

    mine = make_folder(study, *place(KEYS), **KEYS)
    another = make_folder(study, *place(KEYS | other), **KEYS | other)
    assert records_of([mine, another, "results/corpus/texts.parquet", "params.json"]) == [mine, another]
    Path(mine).parent.rename(study / "away")
    Path(another).parent.rename(Path(mine).parent)
    (study / "away").rename(Path(another).parent)
    for each in (mine, another):
        with pytest.raises(PalimpsestError, match=r"belongs elsewhere \(were folders exchanged\?\)"):
            records_of([each])
        with pytest.raises(PalimpsestError, match="belongs elsewhere"):
            verify_files(Path(each).parent)
    with pytest.raises(PalimpsestError, match=f"{another} is an artefact of {said},"):
        records_of([another])


def test_a_step_refuses_an_artefact_of_another_step(study):
    """The same model, seed and precision."""
    made, asked = (make_folder(study, step, "ga", "seed0", "nf4", **KEYS) for step in ("quantized", "infer"))
    Path(made).parent.rename(study / "away")
    Path(asked).parent.rename(Path(made).parent)
    with pytest.raises(PalimpsestError, match=f"{made} is an artefact of infer/ga/seed0/nf4/manifest.json, which"):
        records_of([made])


def test_scores_that_were_exchanged(study):
    names = [study / f"scores/ga/seed0/nf4/{metric}.json" for metric in ("verbmem", "knowmem")]
    for name in names:
        write_json(name, Origin(KEYS).record() | {"metric": name.stem, "score": 1.0})
    records_of(map(str, names))
    names[0].replace(names[1])
    with pytest.raises(PalimpsestError, match=r"knowmem\.json is an artefact of scores/ga/seed0/nf4/verbmem.json,"):
        records_of([str(names[1])])


@pytest.mark.parametrize("key", ["score", "rho", "bits_per_weight", "seconds", "model"])
def test_a_record_that_was_edited_by_hand_is_used_by_nobody(study, key):
    path = study / "survival/ga/seed0/nf4.json"
    write_json(path, Origin(KEYS).record() | {"score": 1.0, "rho": 0.25, "bits_per_weight": 4.5, "seconds": 2})
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record, indent=4, sort_keys=True))  # other white space and order: the same record
    assert read_record(path) == record and records_of([str(path)])
    path.write_text(json.dumps(record | {key: "target" if key == "model" else 0.75}))
    for use in (read_record, lambda path: read_records([path]), lambda path: records_of([str(path)])):
        with pytest.raises(PalimpsestError, match=f"{path} was altered after its step wrote it: run its step again"):
            use(path)
    path.write_text(json.dumps({name: value for name, value in record.items() if name != "seal"} | {key: 0.75}))
    with pytest.raises(PalimpsestError, match="has no hash of its own"):
        records_of([str(path)])


def test_a_step_refuses_a_folder_with_a_file_that_its_manifest_does_not_list(study):
    """An index and a shard of another model beside a checkpoint: a loader would take them."""
    folder = Path(make_folder(study, "models", "ga", "seed0", model="ga", seed=0)).parent
    verify_files(folder)
    for stray in ("model.safetensors.index.json", ".hidden", "deep/model-00001-of-00001.safetensors"):
        (folder / stray).parent.mkdir(exist_ok=True)
        (folder / stray).write_text("{}")
        with pytest.raises(PalimpsestError, match=f"{folder / stray} is not listed in .*, and a loader may take it"):
            verify_files(folder)
        (folder / stray).unlink()
    (folder / "deep").rmdir()
    (folder / "link").symlink_to(study)
    with pytest.raises(PalimpsestError, match="link is not listed"):
        verify_files(folder)
    (folder / "link").unlink()
    (folder / "model.safetensors").write_text("weightz")  # of the same size
    with pytest.raises(PalimpsestError, match=r"model.safetensors is not the file its manifest names"):
        verify_files(folder)


def test_the_results_are_those_of_the_study_whatever_else_has_that_name(study, tmp_path):
    above = Path(make_folder(tmp_path / "results/of/results", "models", "ga", "seed0", model="ga", seed=0))
    below = Path(make_folder(study, "models", "results", "seed0", model="results", seed=0))
    for made, place in ((above, "models/ga/seed0/manifest.json"), (below, "models/results/seed0/manifest.json")):
        assert read_json(made)["seal"]["place"] == place
        verify_files(made.parent)
    verify_files(below.parent.absolute())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_record_is_json(study, number):
    with pytest.raises(PalimpsestError, match=r"score\.json cannot be written: it holds a number that is not finite"):
        write_json(study / "score.json", Origin().record() | {"score": number})
    with pytest.raises(PalimpsestError, match="lone surrogate"):
        write_json(study / "score.json", Origin().record() | {"note": "\ud800"})
    assert not list(study.glob("*"))


BROKEN = {
    "not UTF-8": b'{"settings": {}, "inputs": {}, "code": {}, "note": "\xff"}',
    "nested": b"[" * 100_000,
    "digits": b'{"settings": {}, "inputs": {}, "code": {}, "score": ' + b"1" * 10_000 + b"}",
    "half": b'{"settings": {}, "inp',
    "empty": b"",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_read_is_one_message_with_the_file(tmp_path, content):
    file = tmp_path / "record.json"
    file.write_bytes(content)
    with pytest.raises(PalimpsestError, match=f"^{file} is not valid JSON "):
        read_json(file)
    with pytest.raises(PalimpsestError, match="cannot be read"):
        read_json(tmp_path)
