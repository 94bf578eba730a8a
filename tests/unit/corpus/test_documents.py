"""Text out of a folder of documentation."""

import gzip

import pytest

from palimpsest.corpus.documents import matching_files, read_documents, text_of_html
from palimpsest.errors import PalimpsestError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "doc/deep").mkdir(parents=True)
    (tmp_path / "doc/b.txt").write_text("second\n")
    (tmp_path / "doc/a.txt").write_text("first — page\n", encoding="utf-8")
    (tmp_path / "doc/deep/c.rst.gz").write_bytes(gzip.compress(b"third\n\npage\n"))
    (tmp_path / "doc/empty.txt").write_text(" \n")
    (tmp_path / "doc/old.pod").write_bytes("naïve".encode("latin-1"))
    (tmp_path / "doc/page.html.gz").write_bytes(gzip.compress(b"<p>A <b>page</b></p>"))
    return tmp_path


def test_files_come_pattern_by_pattern_sorted_and_once(folder):
    found = matching_files(folder, ["doc/deep/*", "doc/*.txt", "doc/**/*.gz"])
    assert [file.name for file in found] == ["c.rst.gz", "a.txt", "b.txt", "empty.txt", "page.html.gz"]


def test_every_kind_of_file_is_read_as_its_text(folder):
    files = matching_files(folder, ["doc/**/*"])
    assert sorted(read_documents(files)) == ["A page", "first — page", "naïve", "second", "third\n\npage"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["doc/*.md"], "no file below .* matches 'doc/\\*.md' of models.pretraining.text.files"),
        (["../*"], "give patterns below models.pretraining.text.path"),
        (["/etc/*"], "give patterns below models.pretraining.text.path"),
    ],
)
def test_a_pattern_that_finds_nothing_or_leaves_the_folder_is_refused(folder, patterns, message):
    with pytest.raises(PalimpsestError, match=message):
        matching_files(folder, patterns)


def test_a_missing_folder_and_a_broken_file_are_told_by_name(folder):
    with pytest.raises(PalimpsestError, match=r"nowhere does not exist: correct models.pretraining.text.path"):
        matching_files(folder / "nowhere", ["*"])
    broken = folder / "cut.txt.gz"
    broken.write_bytes(gzip.compress(b"text" * 100)[:-20])
    with pytest.raises(PalimpsestError, match=r"cannot read .*cut.txt.gz"):
        list(read_documents([broken]))


def test_html_is_read_as_a_browser_shows_it():
    page = """<!DOCTYPE html><html><head><title>no</title><style>p {}</style></head><body>
    <nav><a href="x">Next</a></nav><script>var x;</script>
    <h1>Title</h1><p>One  <em>two</em>
    three,<code>four</code>&amp;five.</p><ul><li>a<li>b</ul>
    <pre>x = 1
    y = 2</pre><p>End<br>here</p></body></html>"""
    assert text_of_html(page) == ("Title\nOne two three,four&five.\n\na\nb\n\nx = 1\n    y = 2\n\nEnd\nhere")
