"""How long sentences are and how many numbers they hold, on every page of the site and in the README."""

import re
from pathlib import Path

import pytest

from prose import NAMES, NUMBER, NUMBERS, WORDS, counted, pages, sentences

DOCS = Path(__file__).parents[2] / "docs"


def test_sentences_are_short_and_hold_few_numbers(site):
    found = pages(site)
    assert "results/findings" in found and "results/counterexamples" in found
    far = {
        page: f"{count.mean_words:.1f} words and {count.numbers:.2f} numbers a sentence"
        for page, count in found.items()
        if count.mean_words > WORDS or count.numbers > NUMBERS
    }
    assert not far


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One of 12 models, 3 % of it. It kept 4 bits.", [["One of 12 models, 3 % of it.", 2], ["It kept 4 bits.", 0]]),
        ("In seed 0 it is 1.5e-5, at 341 M.", [["In seed 0 it is 1.5e-5, at 341 M.", 1]]),
    ],
)
def test_what_is_counted(text, expected):
    page = (
        f'<html><article class="md-content__inner"><p>{text}</p><table><tr><td>9 9</td></tr></table></article></html>'
    )
    found = sentences(page)
    assert found == [sentence for sentence, _ in expected]
    assert counted(found).numbers == sum(count for _, count in expected) / len(expected)


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
