"""How long sentences are and how many numbers they hold, on every page of the site and in the README."""

import pytest

from prose import NUMBERS, WORDS, counted, pages, sentences


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
