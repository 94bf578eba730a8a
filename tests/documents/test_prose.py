"""How long sentences are and how many numbers they hold, on every page of the site and in the README."""

import pytest

from prose import NUMBERS, WORDS, counted, pages, sentences

OLD = {  # pages that were not written by these limits: words and numbers a sentence that they have today, at most
    "explanation/theory": (22.0, 1.3),
    "results/pretrained": (19.1, 1.4),
}


def test_sentences_are_short_and_hold_few_numbers(site):
    found = pages(site)
    assert "results/findings" in found and "results/counterexamples" in found
    far = {}
    for page, count in found.items():
        words, numbers = OLD.get(page, (WORDS, NUMBERS))
        if count.mean_words > words or count.numbers > numbers:
            far[page] = f"{count.mean_words:.1f} words and {count.numbers:.2f} numbers a sentence"
    assert not far


def test_an_old_page_that_became_readable_keeps_to_the_limits(site):
    found = pages(site)
    for page in OLD:
        count = found[page]
        assert count.mean_words > WORDS or count.numbers > NUMBERS * 0.85, f"{page}: take it from OLD"


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
