"""The user's own files are known by their content: an edit counts, a move, another name and a touch do not."""

import json
import logging
import os
import pickle
import time
from pathlib import Path

import pytest

from palimpsest.artefacts import LocalSource, Origin, files_below, hash_sources
from palimpsest.study import sources
from palimpsest.study.sources import NOTES, digest_of, marked, plan, sources_of

LOG = logging.getLogger(__name__)


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """A study whose corpus is a folder beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/forget.json").write_text("[1]")
    (tmp_path / "data/raw/retain.json").write_text("[2]")
    return tmp_path


def params(path: str = "data") -> dict:
    return {"corpus": {"source": "folder", "settings": {"path": path, "retain_split": "retain1"}}, "seeds": [0]}


def seen(path: str = "data") -> str:
    """What Snakemake compares of a rule's params."""
    return repr({"settings": ("corpus", plan(params(path), True, LOG)["corpus"])})


def test_an_edit_is_another_param_and_a_touch_or_a_move_is_none(study):
    before, file = seen(), study / "data/raw/forget.json"
    os.utime(file, (1, 1))
    assert seen() == before
    (study / "data").rename(study / "elsewhere")
    (study / "link").symlink_to(study / "elsewhere")
    assert seen("elsewhere") == seen(str(study / "elsewhere")) == seen("link") == before
    file = study / "elsewhere/raw/forget.json"
    for edit in (lambda: file.write_text("[3]"), (study / "elsewhere/raw/more.json").touch, file.unlink):
        edit()
        after = seen("elsewhere")
        assert after != before
        before = after
    (study / "elsewhere/.cache").mkdir()
    (study / "elsewhere/.cache/lock").touch()
    assert seen("elsewhere") == before


def test_an_edit_of_the_same_size_with_the_old_time_stamps_is_noticed(study):
    file = study / "data/raw/forget.json"
    os.utime(file, (1, 1))
    before = seen()
    time.sleep(0.05)
    file.write_text("[9]")
    os.utime(file, (1, 1))
    assert seen() != before


def test_exchanged_files_are_another_content(study):
    before, (one, two) = seen(), ((study / f"data/raw/{name}.json") for name in ("forget", "retain"))
    first, second = one.read_text(), two.read_text()
    one.write_text(second)
    two.write_text(first)
    assert seen() != before


def test_folders_behind_links_count(study):
    before = seen()
    outside = study / "outside"
    outside.mkdir()
    (outside / "text").write_text("a")
    (study / "data/linked").symlink_to(outside)
    (outside / "round").symlink_to(study / "data")  # in a circle
    after = seen()
    assert after != before
    (outside / "text").write_text("b")
    assert seen() != after
    assert len(files_below(study / "data")) == 3


def test_a_file_of_many_bytes_is_hashed_once(study, monkeypatch):
    read = []
    hash_file = sources.sha256_file
    monkeypatch.setattr(sources, "sha256_file", lambda path: read.append(path) or hash_file(path))
    monkeypatch.setattr(sources, "SETTLED", -60)  # as if what was just written were old
    before = seen()
    assert len(read) == 2 and json.loads(NOTES.read_text())["digests"].keys() == {"data"}
    assert seen() == before and len(read) == 2
    (study / "data").rename(study / "moved")
    assert seen("moved") == before and len(read) == 2
    monkeypatch.setattr(sources, "SETTLED", 60)  # what is young may change within a tick of the clock
    (study / "moved/raw/forget.json").write_text("[5]")
    assert seen("moved") != before and len(read) == 3
    assert seen("moved") != before and len(read) == 4
    NOTES.write_text("{broken")
    seen("moved")
    assert len(read) == 6


def test_what_is_gone_keeps_the_hash_of_the_last_plan(study):
    """What was made from it stands: the step would fail without it."""
    before = seen()
    (study / "data").rename(study / "away")
    assert seen() == before
    NOTES.unlink()
    assert seen() == repr({"settings": ("corpus", params()["corpus"])})


def test_every_place_that_names_files_is_known_and_no_other(study):
    whole = {
        "corpus": {"source": "folder", "settings": {"path": "data"}},
        "models": {
            "target": {"checkpoint": "data", "tokenizer": "data/raw"},
            "retrain": "train",
            "base": "data",
            "pretraining": {"text": {"path": "data", "files": ["raw/*.json"]}},
        },
        "calibration": {"generic": {"source": "file", "settings": {"path": "data/raw/forget.json"}}},
        "battery": {"tasks": {"gen": {"data": "data"}, "tru": {"data": "truthfulqa/truthful_qa"}}},
        "report": {"method": "data"},
        "methods": {"data": {"forget_loss": "data"}, "mine": {"checkpoint": "data", "note": "data"}},
    }
    (study / "train").mkdir()
    (study / "train/file").touch()
    found = plan(whole, False, LOG)
    assert found == whole and not NOTES.exists()
    given = Origin(settings={key: value for key, value in found.items()}).record()["given"]
    assert sorted(given) == [
        "battery/tasks/gen/data",
        "calibration/generic/settings/path",
        "corpus/settings/path",
        "methods/mine/checkpoint",
        "models/base",
        "models/pretraining/text/path",
        "models/target/checkpoint",
        "models/target/tokenizer",
    ]
    assert sources_of(whole)["models"] == ["data", "data/raw", "data", "data"]
    assert digest_of(study / "data/raw/forget.json") == given["calibration/generic/settings/path"]


def test_a_source_is_its_path_wherever_it_is_used(study):
    source = marked(params(), study)["corpus"]["settings"]["path"]
    assert source == "data" and json.dumps([source]) == '["data"]' and Path(source).is_dir()
    again = pickle.loads(pickle.dumps({"path": source}))["path"]  # as Snakemake hands it to a script
    assert isinstance(again, LocalSource) and (again, again.digest) == (source, source.digest)
    assert hash_sources(source) == hash_sources("data") and len(hash_sources(source)["sources"]) == 2
