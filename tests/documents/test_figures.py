"""The figures in docs/figures are what `make figures` draws from docs/evidence today."""

import re

import pandas as pd
import pytest

import counterexamples
import figures
from evidence import FOLDER


def words(svg: str) -> list[str]:
    """What is written in a figure; where it stands depends on the fonts of a machine."""
    return sorted(re.findall(r"<text[^>]*>([^<]*)</text>", svg))


@pytest.mark.parametrize("name", figures.FIGURES)
@pytest.mark.parametrize("theme", figures.THEMES)
def test_a_figure_is_drawn_from_todays_evidence(name, theme):
    chart, message = figures.FIGURES[name]()
    drawn = figures.drawn(chart, theme)
    kept = (figures.FOLDER / f"{name}{theme}.svg").read_text(encoding="utf-8")
    assert words(kept) == words(drawn) and len(words(drawn)) > 5, "say `make figures`"
    assert len(re.findall("<path", kept)) == len(re.findall("<path", drawn)), "say `make figures`"
    assert message.endswith(".") and "nan" not in message
    assert not re.search(r'(?:fill|stroke)="(?:black|#000)', drawn if theme else ""), "nobody sees it on a dark page"


def test_the_list_of_counterexamples_is_todays(tmp_path):
    kept = pd.read_csv(FOLDER / "counterexamples.csv")
    today = counterexamples.failures().reset_index(drop=True)
    assert list(kept.model) == list(today.model) and list(kept.precision) == list(today.precision)
    assert list(kept.outcome) == list(today.outcome) and list(kept.cause) == list(today.cause)
    assert kept.recovered.to_list() == pytest.approx(today.recovered.to_list(), rel=1e-3)
    assert "kept" not in set(kept.outcome) and set(kept.weights) == {"float32", "bfloat16-stochastic"}
