"""Calibration text: where it comes from, that it is not the forget text, and what quantizing costs."""

import json
import runpy
import time
from pathlib import Path

import pytest
import torch

from palimpsest.artefacts import Origin, read_manifest
from palimpsest.corpus.embedded.generator import generate_corpus
from palimpsest.corpus.generic import generic_texts
from palimpsest.corpus.layout import write_corpus
from palimpsest.errors import PalimpsestError
from palimpsest.quantizers import cost
from palimpsest.quantizers.cost import Cost

SCRIPT = runpy.run_path(str(Path(__file__).parents[3] / "workflow/scripts/calibration.py"))
GENERIC = {"source": "python-docs", "settings": {"documents": 5}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "results/corpus"
    texts = generate_corpus(0, 3, 4, 3, 2, 1)
    write_corpus(texts, folder, Origin())
    return texts, folder


def test_python_docs_are_english_text_and_always_the_same():
    texts = generic_texts("python-docs", {"documents": 5})
    assert len(texts) == 5 and texts == generic_texts("python-docs", {"documents": 5})
    assert "The" in texts[0] and len(texts[0].split()) > 50


def test_files(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(["one", "two", "three"]))
    (tmp_path / "a.txt").write_text("one\nline\n\ntwo\n\nthree\n")
    assert generic_texts("file", {"path": str(tmp_path / "a.json"), "documents": 2}) == ["one", "two"]
    assert generic_texts("file", {"path": str(tmp_path / "a.txt"), "documents": 2}) == ["one\nline", "two"]


def test_a_dataset_folder(tmp_path):
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(9)))
    settings = {"path": str(tmp_path), "name": None, "split": "train", "column": "text", "documents": 3}
    assert generic_texts("hub", settings) == ["text 0", "text 1", "text 2"]
    with pytest.raises(PalimpsestError, match="no column 'body'; it has text"):
        generic_texts("hub", settings | {"column": "body"})


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("python-doc", {"documents": 1}, "Did you mean 'python-docs'"),
        ("python-docs", {"documents": 1, "path": "x"}, "unexpected keyword argument 'path'"),
        ("python-docs", {"documents": 10**6}, "asks for 1000000: lower documents"),
        ("file", {"path": "nowhere.txt", "documents": 1}, "nowhere.txt does not exist"),
    ],
)
def test_wrong_settings_are_named(source, settings, message):
    with pytest.raises(PalimpsestError, match=message):
        generic_texts(source, settings)


@pytest.mark.parametrize("text", ["retain", "forget", "generic"])
def test_the_manifest_says_how_much_of_the_forget_text_is_calibrated_on(corpus, tmp_path, text):
    texts, folder = corpus
    SCRIPT["collect_text"](Origin(), text, GENERIC if text == "generic" else None, 0.05, folder, tmp_path / text)
    manifest, collected = read_manifest(tmp_path / text), json.loads((tmp_path / text / "texts.json").read_text())
    assert manifest["documents"] == len(collected) == {"retain": 4, "forget": 3, "generic": 5}[text]
    assert manifest["overlap_forget"] == (1.0 if text == "forget" else 0.0)
    assert collected == (generic_texts(**GENERIC) if text == "generic" else getattr(texts, text))


def test_generic_text_that_repeats_the_forget_text_is_refused(corpus, tmp_path):
    texts, folder = corpus
    (tmp_path / "leak.json").write_text(json.dumps(texts.forget[:1]))
    generic = {"source": "file", "settings": {"path": str(tmp_path / "leak.json"), "documents": 1}}
    with pytest.raises(PalimpsestError, match="also occur in the generic calibration text"):
        SCRIPT["collect_text"](Origin(), "generic", generic, 0.05, folder, tmp_path / "out")


def test_cost_counts_seconds_and_memory():
    measured = Cost()
    with measured:
        block = bytearray(64 << 20)
        block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])
        time.sleep(0.02)
    record = measured.record()
    assert record["seconds"] >= 0.02 and record["peak_mib"] > 64
    assert (record["device_peak_mib"] is None) == (not torch.cuda.is_available())
    assert measured.device == "cpu"


def test_cost_is_that_of_the_block_alone(monkeypatch):
    """What runs later, such as the proof, is not in it: neither its memory nor what a later child had on a GPU."""
    monkeypatch.setattr(cost, "_device_peaks", [5 << 20])
    measured = Cost()
    with measured:
        pass
    before = measured.record()
    cost.note_device_peak(700 << 20)
    later = bytearray(int(before["peak_mib"] + 64) << 20)
    later[:: 1 << 12] = b"x" * len(later[:: 1 << 12])
    assert measured.record() == before and measured.device == "cuda"
