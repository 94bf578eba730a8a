"""The table of public results: each number as the packs of known answers have it, and shares by hand."""

import pandas as pd
import pytest

import evidence
from palimpsest.report.known_answers import choose_pack

PACKS = {
    "MUSE-News": "muse-news",
    "MUSE-Books": "muse-books",
    "1 B": "tofu-1b",
    "8 B": "tofu-8b",
    "1.3 B": "tofu-phi-1.5",
    "7 B": "tofu-llama-2-7b",
}
NAMES = {"LLM.int8": "8-bit", "FP4": "4-bit"}


def published(row: pd.Series) -> tuple[float, float, float] | None:
    """Target, unlearned and quantized of a row by the first table of its pack; None for a source without a pack."""
    if row.source.startswith("arXiv 2410.16454, table 1"):
        pack, place = PACKS[row.benchmark], 0
    elif "/unlearn" in row.source and row.benchmark.startswith("TOFU"):
        pack, place = PACKS[row.model], int(row.note == "40 questions")
    else:
        return None
    table = choose_pack(pack)["tables"][place]["rows"]
    form = NAMES.get(row.format, row.format)
    return table["target"]["full"][0], table[row.method]["full"][0], table[row.method][form][0]


def test_rows_that_a_pack_has_are_those_of_the_pack():
    rows = evidence.public_results()
    known = [(row, found) for _, row in rows.iterrows() if (found := published(row))]
    assert len(known) == 37
    for row, found in known:
        assert (row.target, row.unlearned, row.quantized) == found, row.to_dict()


@pytest.mark.parametrize(
    ("method", "form", "source", "share"),
    [
        ("npo_klr", "FP4", "arXiv 2410.16454, table 1", 100 * (34.1 - 16.6) / (34.2 - 16.6)),
        ("npo_klr", "AWQ", "reproduction of 2410.16454", 100 * (47.6 - 11.3) / (93.4 - 11.3)),
        ("simnpo_gdr", "FP4", "danieltennant/unlearning-compression", 100 * (22.3 - 11.0) / (88.0 - 11.0)),
    ],
)
def test_shares_are_of_the_quantized_target_where_it_was_measured(method, form, source, share):
    rows = evidence.public_results().query("method == @method and format == @form and source == @source")
    assert rows.recovered.iloc[0] == pytest.approx(share)


def test_rows_without_a_target_have_no_share_and_every_format_has_a_prediction():
    rows = evidence.public_results()
    assert set(rows.recovered.isna()) == {True, False}
    assert (rows.recovered.isna() == rows.target.isna()).all()
    assert set(rows.foretold) == {"restores", "keeps", "says nothing"}
    assert rows.source.str.len().min() > 10


def test_what_the_page_says_of_the_rows_that_do_not_fit_holds():
    rows = evidence.public_results().query("foretold == 'restores' and recovered < 10")
    assert len(rows) == 11
    assert (rows.method.str.endswith("_sure")).sum() == 4
    assert (rows.method == "ga").sum() == 2
    assert (rows.note == "collapsed in bfloat16").sum() == 2
    assert list(rows[rows.benchmark == "TOFU forget10"].method) == ["ga_gdr_alpha_5", "npo_gdr"]
    kept = evidence.public_results().query("foretold == 'keeps' and format != 'LLM.int8'").dropna(subset="recovered")
    assert set(kept.rate.fillna(0)) == {5.0e-5, 0.0}
    assert set(kept.source) == {"Arya-126/unlearn-quant"} and set(kept.method) == {"npo_gdr"}
    stored = evidence.public_results().dropna(subset="target").storage.dropna()
    assert set(stored) == {"bfloat16"}
