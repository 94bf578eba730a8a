"""Every way in for a user's text: byte order marks and line ends go, what is not UTF-8 is named with file and line."""

import codecs
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from palimpsest.artefacts import Origin
from palimpsest.corpus.corpus import Corpus
from palimpsest.corpus.embedded.generator import generate_corpus
from palimpsest.corpus.files import cleaned, read_list, read_text
from palimpsest.corpus.generic import generic_texts
from palimpsest.corpus.hub import opened
from palimpsest.corpus.layout import load_folder, write_corpus
from palimpsest.corpus.sources import load_corpus
from palimpsest.errors import PalimpsestError


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return generate_corpus(5, 3, 4, 3, 2, 2)


@pytest.fixture
def folder(corpus, tmp_path) -> Path:
    write_corpus(corpus, tmp_path / "corpus", Origin())
    return tmp_path / "corpus"


def load(folder: Path) -> Corpus:
    return load_folder(str(folder), "retain")


def windows(value: Any) -> Any:
    """As an editor on Windows saves it: a mark before every text, and its line ends."""
    if isinstance(value, str):
        return "\ufeff" + value.replace("\n", "\r\n")
    return {key: windows(each) for key, each in value.items()}


def with_lines(corpus: Corpus) -> Corpus:
    """Every text in two lines."""

    def split(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(" ", "\n", 1)
        return type(value)(**{key: split(each) for key, each in vars(value).items()})

    return Corpus(**{name: [split(row) for row in rows] for name, rows in corpus.parts()})


def test_byte_order_marks_and_line_ends_go_from_documents_prompts_and_questions_alike(corpus, tmp_path):
    plain = with_lines(corpus)
    write_corpus(plain, tmp_path / "corpus", Origin())
    for file in (tmp_path / "corpus").rglob("*.json"):
        if file.name != "manifest.json":
            rows = [windows(row) for row in json.loads(file.read_text(encoding="utf-8"))]
            file.write_text(json.dumps(rows), encoding="utf-8-sig")
    assert load(tmp_path / "corpus") == plain


def test_a_text_file_of_windows_is_the_text(corpus, folder):
    text = "\n".join(corpus.forget)
    (folder / "raw/forget.json").unlink()
    (folder / "raw/forget.txt").write_bytes(codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode())
    assert load(folder).forget == [text]


def test_hub_layout_of_windows_is_the_corpus(corpus, tmp_path, monkeypatch, write_hub_layout):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    plain = with_lines(corpus)
    write_hub_layout(plain, tmp_path / "hub")
    for file in (tmp_path / "hub").rglob("*.jsonl"):
        rows = [windows(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
        file.write_bytes(codecs.BOM_UTF8 + "\r\n".join(map(json.dumps, rows)).encode())
    assert load_corpus("hub", {"path": str(tmp_path / "hub"), "retain_split": "retain1"}) == plain


TEXT = 'first line\nsecond, "é" line\n'
ENCODINGS = [
    (TEXT.encode("latin-1"), r"{file}, line 2: Invalid UTF8 \(byte 0xe9\). Save the file as UTF-8 \(it may be Latin-1"),
    (TEXT.encode("utf-8")[:-3] + b"\xff\n", r"{file}, line 2: Invalid UTF8 \(byte 0xff\)"),
    (TEXT.encode("utf-16"), r"{file} is UTF-16: save it as UTF-8"),
    (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), r"{file} is UTF-16: save it as UTF-8"),
    ("ab\nc".encode("utf-16-le"), r"{file}, line 1 holds a zero byte: save the file as UTF-8 \(it may be UTF-16\)"),
]


@pytest.mark.parametrize(("content", "message"), ENCODINGS)
@pytest.mark.parametrize("name", ["raw/forget.txt", "raw/forget.json", "knowmem/retain_qa.json"])
def test_other_encodings_are_one_line_with_file_and_line(folder, name, content, message):
    if name.endswith(".txt"):
        (folder / "raw/forget.json").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(PalimpsestError, match=message.format(file=folder / name)) as caught:
        load(folder)
    assert "delete" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "message"), ENCODINGS)
@pytest.mark.parametrize("name", ["texts.txt", "texts.json"])
def test_so_are_those_of_calibration_text(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PalimpsestError, match=message.format(file=tmp_path / name)):
        generic_texts("file", {"path": str(tmp_path / name), "documents": 1})


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "txt"])
@pytest.mark.parametrize(("content", "message"), ENCODINGS)
def test_so_are_those_of_datasets(tmp_path, monkeypatch, suffix, content, message):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / f"data/train.{suffix}"
    file.parent.mkdir()
    file.write_bytes(content)
    key, told = "battery.tasks.gen.data", message.format(file=file)
    with opened(str(file.parent), key) as read, pytest.raises(PalimpsestError, match=f"^{key}: .* {told}"):
        read("default", "train")
    settings = {"path": str(file.parent), "name": None, "split": "train", "column": "text", "documents": 1}
    with pytest.raises(PalimpsestError, match="^calibration.generic.settings.path: " + message.format(file=file)):
        generic_texts("hub", settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"forget.json is empty: it must be a JSON list"),
        ('{"text": "a"}\n{"text": "b"}\n', r"forget.json holds JSON lines: it must be one JSON list \(brackets"),
        ('"a"\n"b"\n', r"forget.json holds JSON lines"),
        (
            '["a",\n "b" "c"]',
            r"forget.json is not valid JSON \(line 2, column 6: Expecting ',' delimiter\): correct it",
        ),
        ("[" * 100_000, r"forget.json cannot be read as JSON \(maximum recursion depth"),
        ("[" + "1" * 10_000 + "]", r"forget.json cannot be read as JSON \(Exceeds the limit"),
        ('{"a": 1}', r"forget.json holds a dict: it must be a list"),
    ],
)
def test_what_is_no_json_list_is_named_and_nothing_is_to_be_deleted(folder, content, message):
    (folder / "raw/forget.json").write_text(content, encoding="utf-8")
    with pytest.raises(PalimpsestError, match=message) as caught:
        load(folder)
    assert "delete" not in str(caught.value) and "run the step" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "field", "where"),
    [
        ("raw/forget", None, "row 1 of raw/forget"),
        ("raw/holdout", None, "row 1 of raw/holdout"),
        ("knowmem/forget_qa", "answer", "answer of row 1 of knowmem/forget_qa"),
        ("verbmem/forget", "prompt", "prompt of row 1 of verbmem/forget"),
    ],
)
def test_half_a_surrogate_pair_is_named_with_its_row(folder, part, field, where):
    file = folder / f"{part}.json"
    rows = json.loads(file.read_text(encoding="utf-8"))
    if field is None:
        rows[1] = "ab\ud83d" + rows[1]
    else:
        rows[1][field] = "ab\ud83d"
    file.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(PalimpsestError, match=rf"{where} has half a surrogate pair \(U\+D83D\) as its character 2"):
        load(folder)


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_datasets_do_not_drop_it_without_a_word(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / f"data/train.{suffix}"
    file.parent.mkdir()
    rows = ['{"text": "\\ud83d\\ude00 \\\\ud83d"}', '{"text": "\\ud83d"}']
    file.write_text(f"[{rows[0]},\n{rows[1]}]" if suffix == "json" else "\n".join(rows), encoding="utf-8")
    with (
        opened(str(file.parent), "key") as read,
        pytest.raises(PalimpsestError, match=rf"{file}, line 2 has half a surro"),
    ):
        read("default", "train")


def test_a_row_of_parquet_that_is_not_utf8_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    texts = pyarrow.array([b"a", b"b", b"\xe9t\xe9"]).cast(pyarrow.string(), safe=False)
    pyarrow.parquet.write_table(pyarrow.table({"n": [1, 2, 3], "text": texts}), tmp_path / "data/train.parquet")
    with (
        opened(str(tmp_path / "data"), "key") as read,
        pytest.raises(PalimpsestError, match=r"row 2 has .* in its text"),
    ):
        read("default", "train")


def test_calibration_rows_without_text_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.jsonl").write_text('{"text": "a"}\n{"text": null}\n', encoding="utf-8")
    settings = {"path": str(tmp_path / "data"), "name": None, "split": "train", "column": "text", "documents": 2}
    with pytest.raises(PalimpsestError, match="row 1 of split 'train' has no text as text: correct or remove the row"):
        generic_texts("hub", settings)


def test_calibration_text_of_windows(tmp_path):
    (tmp_path / "a.txt").write_bytes(codecs.BOM_UTF8 + b"one\r\nline\r\n\r\ntwo")
    assert generic_texts("file", {"path": str(tmp_path / "a.txt"), "documents": 2}) == ["one\nline", "two"]
    (tmp_path / "a.json").write_bytes(codecs.BOM_UTF8 + json.dumps(["\ufeffone\r\nline", "two\r"]).encode())
    assert generic_texts("file", {"path": str(tmp_path / "a.json"), "documents": 2}) == ["one\nline", "two\n"]


def test_a_mark_within_a_text_and_a_text_of_nothing_else(corpus, folder):
    assert cleaned("\ufeff\ufeffa\ufeffb", "here") == "a\ufeffb"
    rows = [*corpus.forget, "\ufeff", "\u200b"]
    (folder / "raw/forget.json").write_text(json.dumps(rows), encoding="utf-8")
    assert load(folder) == replace(corpus, forget=corpus.forget)


def test_plain_files_are_read_as_they_are(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('["é\\u0000", "🙂"]', encoding="utf-8")
    assert read_list(file) == ["é\0", "🙂"] and read_text(file) == '["é\\u0000", "🙂"]'
