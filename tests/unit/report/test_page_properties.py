"""Whatever a model says, the page shows it as text: none of it is markup, and none is lost."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from any_text import always, texts
from hypothesis import given
from made_study import pages

from palimpsest.inference.files import Response, write_responses
from palimpsest.report.page import render
from palimpsest.report.samples import select_samples


class Samples(HTMLParser):
    """The texts of prompts and answers on the page, and every tag."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.tags: set[str] = set()
        self.open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.open = tag == "dd" or (tag, ("class", "prompt")) == ("p", dict.fromkeys(attrs) and attrs[0])
        self.said += [""] if self.open else []

    def handle_endtag(self, tag: str) -> None:
        self.open = self.open and tag not in ("dd", "p")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.said[-1] += data


@pytest.fixture(scope="module")
def plain(study: dict, audit: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the charts and the page of the made-up study."""
    folder = tmp_path_factory.mktemp("page")
    pages(study, audit, folder)
    return folder


def read(page: Path) -> Samples:
    parser = Samples()
    parser.feed(page.read_bytes().decode("utf-8"))
    return parser


@always(12)
@given(prompt=texts(1), answer=texts(1), response=texts(1))
def test_what_is_said_stands_on_the_page(plain: Path, audit: Any, prompt: str, answer: str, response: str) -> None:
    file = plain / "responses.jsonl"
    write_responses([Response("verbmem", 0, prompt, answer, response)], file)
    samples = select_samples({"target": file}, "target", "verbmem", 1, "unicode")
    figures = {name: plain / f"{name}.svg" for name in ("retained", "survival")}
    render(audit, figures, samples, plain / "any.html")
    known, shown = read(plain / "report.html"), read(plain / "any.html")
    assert shown.tags <= known.tags, "no text becomes a tag"
    expected = [prompt, answer, response if response.strip() else "(nothing)"]
    assert [text for text in shown.said if text in expected][-3:] == expected
