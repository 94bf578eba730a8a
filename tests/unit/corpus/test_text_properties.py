"""What holds of every text: it goes through files and checks as it is, whatever its script."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from any_text import always, texts
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.artefacts import Origin
from palimpsest.corpus.checks import check_overlap
from palimpsest.corpus.corpus import Corpus, Prompt, Question
from palimpsest.corpus.files import cleaned
from palimpsest.corpus.layout import read_corpus, write_corpus
from palimpsest.corpus.words import (
    PUBLISHED,
    UNICODE,
    by_character_if_unspaced,
    folded,
    is_blank,
    reading,
    unicode_words,
    units,
    word_spans,
)

seen = texts().map(lambda text: cleaned(text, "here")).filter(lambda text: not is_blank(text))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus") / "corpus"


@always(60)
@given(rows=st.lists(seen, min_size=5, max_size=5))
def test_a_corpus_comes_back_from_its_files(folder: Path, rows: list[str]) -> None:
    text, other, question, answer, prompt = rows
    asked = [Question(question, answer), Question(text, other)]
    corpus = Corpus(
        [text, other],
        [other],
        [prompt],
        asked,
        asked[:1],
        asked[1:],
        asked,
        [Prompt(prompt, text)],
        [text],
        [other],
        [answer],
    )
    write_corpus(corpus, folder, Origin())
    assert read_corpus(folder) == corpus


@always(60)
@given(rows=st.lists(texts(), min_size=1, max_size=4), escaped=st.booleans())
def test_files_of_any_editor_give_the_same_documents(folder: Path, rows: list[str], escaped: bool) -> None:
    write_corpus(Corpus(*[["a"]] * 3, *[[Question("a", "b")]] * 4, [Prompt("a", "b")], *[["a"]] * 3), folder, Origin())
    text = json.dumps(rows, ensure_ascii=escaped, indent=1)
    (folder / "raw/forget.json").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    expected = [cleaned(row, "here") for row in rows]
    assert read_corpus(folder).forget == [row for row in expected if not is_blank(row)]
    assert not any("\r" in row or row.startswith("\ufeff") for row in read_corpus(folder).forget)


@always(150)
@given(text=texts())
def test_words_are_of_the_text_alone(text: str) -> None:
    words = unicode_words(text)
    assert unicode_words(folded(text)) == words, "folding twice is folding once"
    assert not any(is_blank(word) for word in words) and not any(" " in word for word in words)
    assert bool(words) or is_blank(folded(text)) or not folded(text).isprintable()


@always(150)
@given(text=texts())
def test_spans_of_words_cover_all_but_white_space(text: str) -> None:
    spans = word_spans(text)
    assert "".join(text[start:end] for start, end in spans) == "".join(text.split())
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert all("".join(by_character_if_unspaced(word)) == word for word in text.split())


@always(100)
@given(texts_=st.lists(seen, min_size=1, max_size=3), before=seen)
def test_text_overlaps_wholly_with_itself(texts_: list[str], before: str) -> None:
    written = [text for text in texts_ if units(text)]
    if written:
        assert check_overlap(written, "retain", written, 1.0) == 1.0
        assert check_overlap(written, "retain", [f"{before}\n{text}" for text in written], 1.0) == 1.0


@always(150)
@given(rows=st.lists(texts(), max_size=4))
def test_a_tokenizer_drops_between_nothing_and_all(rows: list[str]) -> None:
    read = reading(rows, PUBLISHED)
    assert 0 <= read.dropped <= read.letters and 0 <= read.share <= 1
    assert reading(rows, UNICODE)[1:] == (0, [])
    assert all(0 <= place < len(rows) for place in read.unread)
