"""What pages of results say in words of counts and sizes, held to docs/evidence; their figures come from macros."""

from pathlib import Path

import pandas as pd
import pytest

import evidence
from palimpsest.vocabulary import BFLOAT16, FULL, UNLEARNED

RESULTS = Path(__file__).parents[2] / "docs/results"
FOUR = ["ga_gdr", "ga_klr", "npo_gdr", "npo_klr"]
CONTRAST = "npo_gdr_float32"


def says(page: str, sentence: str) -> bool:
    return sentence in " ".join((RESULTS / page).read_text(encoding="utf-8").split())


def test_seeds_of_the_default_study():
    """Three of five show it in full, the other two from models that answer next to nothing; the contrast holds."""
    rows = pd.concat([evidence.scores("default"), evidence.scores("default-seeds")])
    means = {
        (column, at): rows[rows.precision == at].pivot(index="seed", columns="model", values=column)
        for column in ("retained_same_precision_mean", "knowmem")
        for at in (FULL, "rtn-int4")
    }
    retained = means["retained_same_precision_mean", "rtn-int4"]
    answers = means["knowmem", FULL][FOUR]
    full = retained[FOUR].min(axis=1) > 95
    assert list(full) == [True, True, False, True, False] and says("default-study.md", "Three of five seeds show it")
    assert answers[~full].max().max() < 3 and says("default-study.md", "a model that answers next to nothing")
    others = retained[FOUR][~full]
    assert others.min().min() > 25 and 50 < others.max().max() < 60
    assert says("default-study.md", "int4 brings back a quarter to somewhat over half")
    assert answers[["npo_gdr", "npo_klr"]].max().nlargest(1).iloc[0] == pytest.approx(46.7, abs=1)
    assert says("default-study.md", "in one of them NPO leaves nearly half of the answers in bf16")
    assert retained[CONTRAST].abs().max() < 2 and says("default-study.md", "The contrast holds in all five")


def test_moved_weights_end_where_the_theory_says():
    rows = pd.read_csv(evidence.FOLDER / "moved-weights.csv")
    rows = rows[rows.weights == BFLOAT16]
    assert len(rows) == 6 and (rows["moves below predicted"] == rows["moves below measured"]).all()
    assert says("findings.md", "the moved weights end where the theory says, in six of six models")
    assert rows["in the dead zone of bnb-nf4 (%)"].between(45, 56).all()
    assert says("findings.md", "about half of it in that of NF4")


def test_one_seed_of_three_loses_its_forgetting_near_the_border():
    rows = evidence.scores("phase-diagram").query("model == 'bf16-1.2e-5'")
    means = rows.pivot(index="seed", columns="precision", values="retained_same_precision_mean")
    back = ((means["rtn-int4"] - means[FULL]) / (100 - means[FULL])).sort_values()
    assert len(back) == 3 and back.iloc[-1] > 0.5 and back.iloc[-2] < 0.1
    assert says("findings.md", "At 1.2e-5 one seed of three loses most of its forgetting, and the others lose nothing")


def test_rates_on_both_sides_of_the_border():
    """ "Nearly all" at the smallest rate, nothing at four times that rate."""
    small, large = (
        [evidence.retained("phase-diagram", f"bf16-{rate}", at) for at in (FULL, "rtn-int4")]
        for rate in ("4.0e-6", "1.6e-5")
    )
    assert (small[1] - small[0]) / (100 - small[0]) > 0.9 and large[1] < large[0]
    assert says(
        "findings.md", "int4 brings back nearly all of what GA_GDR had forgotten, at four times that rate nothing"
    )


def test_losses_that_can_be_judged():
    rows = evidence.twins("losses").set_index("method")
    both = rows[rows.coarse.notna() & rows.fine.notna()].index
    assert len(rows) == 9 and says("losses.md", "Nine forget losses were run twice")
    assert set(both) == {"ga_gdr", "npo_gdr", "idk_dpo_gdr", "altpo_gdr", "wga_gdr"}
    assert says("losses.md", "three can be judged in both storages: IdkDPO, AltPO and WGA")
    assert set(rows[rows.coarse.isna()].index) == {"undial_gdr", "satimp_gdr", "ce_u_gdr", "pdu_gdr"}
    assert says("losses.md", "**Four losses did not forget in bfloat16.**") and list(rows.index[rows.fine.isna()]) == [
        "undial_gdr"
    ]
    assert (rows.fine.dropna() < 10).all() and says(
        "losses.md", "Of those that forgot with float32 weights it undoes none"
    )
    assert (evidence.twins("losses", "rtn-int4-g32").coarse.dropna() < 10).all()
    assert says("losses.md", "**In small groups nothing comes back.**")


def test_public_rows_by_what_the_account_says():
    restores, keeps = "foretold == 'restores'", "foretold == 'keeps'"
    assert 2 * evidence.public(f"{restores} and recovered >= 10") > evidence.public(restores)
    assert evidence.public(f"{keeps} and recovered >= 10") == 0
    assert says("public-results.md", 'Most rows bring back a tenth or more where the account says "restores", and none')


def test_the_account_of_update_sizes():
    """The smaller update is the one that int4 keeps."""
    size, kept = (
        [evidence.score("phase-diagram", column, f"{bits}-8.0e-6", "rtn-int4", 0) for bits in ("fp32", "bf16")]
        for column in ("relative_update_norm", "rho")
    )
    assert size[0] < size[1] and kept[0] > 0.95 and kept[1] < 0.1
    assert says(
        "findings.md",
        "the update of the run with float32 weights is the smaller one. int4 keeps that update, and loses",
    )


def test_models_of_the_pretrained_study():
    rows = evidence.scores("pretrained")
    rows = rows[rows.kind == UNLEARNED]
    assert rows.model.nunique() == 11 and says("pretrained.md", "of all eleven unlearned models")
    assert set(rows.utility_n) == {15} and says("pretrained.md", "With fifteen of them")
