"""How long sentences are and how many numbers they hold, on every page of the site and in the README."""

import re
from pathlib import Path

import pytest

from prose import NAMES, NUMBER, counted, pages, sentences

DOCS = Path(__file__).parents[2] / "docs"


def test_sentences_are_short_and_hold_few_numbers(site):
    """`python docs/tools/prose.py --sentences` prints which ones are meant."""
    found = pages(site)
    assert "results/findings" in found and "results/counterexamples" in found
    assert {page: far for page, said in found.items() if (far := counted(said).far_off())} == {}


def test_numbers_that_macros_bring_are_counted(site):
    """In a page's running text there is a number at least for every macro that brings one."""
    text = (DOCS / "results/findings.md").read_text(encoding="utf-8")
    running = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(("|", "{%")))
    brought = len(re.findall(r'\{\{ (?:share|moved|"%)', running))
    found = pages(site)["results/findings"]
    assert brought > 10 and counted(found).numbers * len(found) >= brought


def as_page(*paragraphs: str) -> str:
    said = "".join(f"<p>{each}</p>" for each in paragraphs)
    return f'<html><article class="md-content__inner">{said}<table><tr><td>9 9</td></tr></table></article></html>'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One of 12 models, 3 % of it. It kept 4 bits.", [["One of 12 models, 3 % of it.", 2], ["It kept 4 bits.", 0]]),
        ("In seed 0 it is 1.5e-5, at 341 M.", [["In seed 0 it is 1.5e-5, at 341 M.", 1]]),
        ("Half of it, in six of ten.", [["Half of it, in six of ten.", 3]]),
        (
            "It returns, e.g. 3 points. int4 loses <code>rho 7</code>. <code>x</code> ends.",
            [["It returns, e.g. 3 points.", 1], ["int4 loses Code.", 0], ["Code ends.", 0]],
        ),
    ],
)
def test_what_is_counted(text, expected):
    found = sentences(as_page(text))
    assert found == [sentence for sentence, _ in expected]
    assert counted(found).numbers == sum(count for _, count in expected) / len(expected)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["A word. " * 19, "It has 3."], []),
        (["Very " * 40 + "long.", "Short. " * 9], ["41 words in a sentence, at most 40"]),
        (["Very " * 29 + "long."], ["30.0 words a sentence, at most 25"]),
        (["Half. " * 9, "A third of two."], ["1.10 numbers a sentence, at most 1"]),
        (["Nothing. " * 18, "From 3 to 4."], ["1 of 19 sentences hold more than one number, at most 5%"]),
    ],
)
def test_what_is_far_off(said, expected):
    assert counted(sentences(as_page(*said))).far_off() == expected


SETTINGS = (
    r"groups of \d+|\d(\.\d)?e-\d|\d+ prompts|\d+ questions|questions are \d+|\[claim \d|95 % intervals"
    r"|near rho 1|rho near 1|all of it is 1|80 % of that|7 points of Utility|Llama-3-\w+|Llama [23]"
)
"""What a study was given, and what words mean: group sizes, rates, numbers of questions, aims."""
MEASURED = [
    "index.md",
    "explanation/why.md",
    *sorted(f"results/{file.name}" for file in (DOCS / "results").glob("*.md")),
]


TYPED = re.compile(r"(?<![\w.-])\d[\d,.]* ?(?:%|(?:seconds?|minutes?|hours?|points?|GB|MiB|ms)\b)")
"""A number with a unit that only a measurement has."""
MEANT = r"95 % intervals|7 points of Utility|[Nn]ear 100 %|says 100 %"


@pytest.mark.parametrize(
    "page", [*MEASURED, "explanation/promises.md", "start/first-audit.md", "start/survive.md", "how-to/publish.md"]
)
def test_none_is_typed_in_tables_and_folded_notes_either(page):
    """There numbers of a study's settings may be typed."""
    text = (DOCS / page).read_text(encoding="utf-8")
    text = re.sub(r"\{\{.*?\}\}|\{%.*?%\}|^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)|`[^`]*`|(First audit in 15 minutes)", "", text)
    assert TYPED.findall(re.sub(MEANT, "", text)) == []


WRAPPED = sorted(DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", WRAPPED, ids=lambda page: page.stem)
def test_lines_of_a_page_are_wrapped(page):
    """But for tables, code and what a command of the project prints."""
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    printed = "- Mixtral in ", "- Qwen3, Gemma 2"
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("|", "{%", *printed))]
    assert [line for line in lines if len(line) > 150] == []


@pytest.mark.parametrize("page", MEASURED)
def test_no_measured_number_is_typed(page):
    """Outside tables, folded notes and code all of them come from docs/evidence, by macros."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for taken in (r"^\?\?\?.*\n(?:(?:    .*)?\n)*", r"^[|#].*$|^---$"):
        text = re.sub(taken, "", text, flags=re.MULTILINE)
    text = re.sub(r"\{\{.*?\}\}|\{%.*?%\}|```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)|`[^`]*`", "", NAMES.sub("", text))
    text = re.sub(SETTINGS, "", " ".join(text.split()))
    assert NUMBER.findall(text) == []
