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
    """Four of five show it in text and answers, and NPO misses in the other; the contrast holds in all."""
    rows = evidence.default_seeds()
    shares = {
        (metric, at): rows[rows.precision == at].pivot(
            index="seed", columns="model", values=f"retained_same_precision_{metric}"
        )
        for metric in ("verbmem", "knowmem")
        for at in (FULL, "rtn-int4")
    }
    before = pd.concat([shares[metric, FULL][FOUR] for metric in ("verbmem", "knowmem")], axis=1)
    after = pd.concat([shares[metric, "rtn-int4"][FOUR] for metric in ("verbmem", "knowmem")], axis=1)
    shown = (before.max(axis=1) < 35) & (after.min(axis=1) > 65)
    assert list(shown) == [True, True, True, False, True] and says("default-study.md", "One of five seeds misses")
    assert says("default-study.md", "retains at most a third of text and answers in bf16, and at least two thirds of")
    missing = shares["knowmem", FULL].loc[3, FOUR]
    assert set(missing[missing > 35].index) == {"npo_gdr", "npo_klr"} and 45 < missing.max() < 50.5
    assert says("default-study.md", "end after their last step with up to half of the answers left in bf16")
    utility = rows[(rows.precision == FULL) & rows.model.isin(FOUR)].utility
    assert utility.min() < 10 and utility.max() > 95
    assert says("default-study.md", "between next to nothing and all of the Utility, by seed")
    assert rows[(rows.precision == "rtn-int4") & rows.model.isin(FOUR)].utility.min() > 75
    contrast = pd.concat([frame[CONTRAST] for frame in shares.values()])
    assert contrast.max() < 5 and says("default-study.md", "The contrast holds in all five")


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
    assert set(evidence.scores("losses").seed) == {0, 1, 2}
    assert len(rows) == 9 and says("losses.md", "Nine forget losses were run twice")
    every = rows[(rows.coarse_seeds == 3) & (rows.fine_seeds == 3)]
    assert set(every.index) == {"ga_gdr", "npo_gdr", "idk_dpo_gdr", "altpo_gdr", "wga_gdr"}
    assert (every.coarse > 10).all() and (every.fine < 10).all()
    assert says("losses.md", "three can be judged in both storages and every seed: IdkDPO, AltPO and WGA")
    assert rows.coarse_seeds.drop(every.index).to_dict() == {
        "undial_gdr": 0,
        "satimp_gdr": 0,
        "ce_u_gdr": 1,
        "pdu_gdr": 1,
    }
    assert says("losses.md", "**Four losses hardly forgot in bfloat16.**") and rows.fine_seeds["undial_gdr"] == 0
    assert (rows.fine.dropna() < 10).all()
    assert says("losses.md", "Of those that forgot with float32 weights it undoes none, on the mean of three seeds")
    assert (evidence.twins("losses", "rtn-int4-g32").coarse.dropna() < 10).all()
    assert says("losses.md", "**In small groups nothing comes back.**")


def test_seeds_of_the_losses():
    pairs = pd.DataFrame(evidence.pairs_of("losses")).query("precision == 'rtn-int4'")
    back = pairs.set_index(["model", "seed"]).recovered_share
    most = [back[name].min() for name in ("ga_gdr", "npo_gdr", "idk_dpo_gdr", "wga_gdr")]
    assert min(most) > 0.745 and says("losses.md", "Int4 restores three quarters or more, in each seed")
    finer = back[back.index.get_level_values("model").str.endswith("_float32")]
    assert list(finer[finer > 0.15].index) == [("ce_u_gdr_float32", 2)]
    assert says("losses.md", "**One run with float32 weights came back in part.** It is CE-U in seed 2")
    target = evidence.scores("losses").query("kind == 'target' and precision == @FULL", local_dict={"FULL": FULL})
    assert target.set_index("seed").verbmem.idxmin() == 2


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


SEEDS, SECOND = "pretrained-seeds", "pretrained-second-base"
NPO = {"bfloat16": "npo_gdr", "stochastic": "npo_gdr_stochastic", "float32": "npo_gdr_float32"}


def of_seeds(column: str, precision: str, study: str = SEEDS) -> pd.DataFrame:
    """A column of a study at a precision: a row for each seed, a column for each model."""
    rows = evidence.scores(study)
    return rows[rows.precision == precision].pivot(index="seed", columns="model", values=column)


def test_models_of_the_pretrained_studies():
    rows = evidence.scores("pretrained")
    rows = rows[rows.kind == UNLEARNED]
    assert rows.model.nunique() == 11 and says("pretrained.md", "has eleven unlearned models, GPTQ and int8")
    seeds = evidence.scores(SEEDS)
    assert set(seeds.utility_n) == {15} and says("pretrained.md", "With fifteen of them")
    assert set(seeds.seed) == {0, 1, 2} and says("pretrained.md", "**In each of three seeds a model forgot")
    second = evidence.scores(SECOND)
    assert set(second.seed) == {0, 1, 2} and says("pretrained.md", "**In three seeds on another base the same comes")
    ran = set(rows.model) | set(seeds.model) | set(second.model)
    assert not [name for name in ran for missing in ("simnpo", "sure", "lora") if missing in name]
    assert [name for name in ran if "npo_klr" in name] == ["npo_klr"]
    assert says("pretrained.md", "NPO_KLR has bfloat16 alone, on the second base. SimNPO, SURE and LoRA did not run")


def test_answers_of_the_pretrained_model_come_back_in_every_seed():
    before, after = (of_seeds("knowmem", at) for at in (FULL, "rtn-int4"))
    assert before[NPO["bfloat16"]].max() < 5 and (after[NPO["bfloat16"]] == before.target).all()
    assert says("pretrained.md", "After rounding to int4 it answers them as well as before")
    rows = evidence.scores(SEEDS)
    finer = rows[rows.model.isin([NPO["stochastic"], NPO["float32"]])]
    assert finer.utility.min() > 99 and says("pretrained.md", "With the finer storages they keep it in every format")
    assert of_seeds("utility", FULL)[list(NPO.values())].min().min() > 99
    pairs = evidence.pairs().query("study == @SEEDS and finer", local_dict={"SEEDS": SEEDS})
    assert len(pairs) == 24 and set(pairs.outcome) == {"kept"}
    assert says("findings.md", "On the pretrained model of 341 M parameters all of them are kept, in every seed")


def test_where_the_pretrained_model_forgets_less():
    text, answers = (of_seeds(f"retained_same_precision_{name}", FULL) for name in ("verbmem", "knowmem"))
    assert text[NPO["bfloat16"]].max() == pytest.approx(67, abs=2) and text[NPO["bfloat16"]].idxmax() == 2
    assert text.loc[2, [NPO["stochastic"], NPO["float32"]]].between(36, 44).all()
    assert says("pretrained.md", "still has two thirds of it in bf16, and the finer storages have about two fifths")
    finer = answers[[NPO["stochastic"], NPO["float32"]]]
    assert finer.loc[2].between(10, 20.5).all() and finer.loc[[0, 1]].max().max() < 5
    assert says("pretrained.md", "With finer weights it keeps between a tenth and a fifth of them in bf16")
    assert says("counterexamples.md", "In one seed of three both finer storages leave a tenth or more of the answers")


def test_what_rho_gets_wrong_on_the_pretrained_model():
    pairs = evidence.pairs().query("study == @SEEDS", local_dict={"SEEDS": SEEDS})
    wrong = pairs[pairs.foretold != pairs.outcome]
    assert len(wrong) == 6 and not pairs.tabled.any() and says("pretrained.md", "they foretell all but six")
    small = pairs[(pairs.precision == "rtn-int4-g128") & ~pairs.finer]
    assert set(wrong.index) == set(small.index)
    by_model = wrong.groupby("model")
    assert by_model.foretold.unique().map(list).to_dict() == {"npo_gdr": ["restored"], "ga_gdr": ["kept"]}
    assert by_model.recovered.mean()["npo_gdr"] < 20 < by_model.recovered.mean()["ga_gdr"] < 30
    assert says("pretrained.md", "All six are int4 in groups of 128, with bfloat16 weights")
    older = evidence.pairs().query("study == 'pretrained' and foretold != outcome")
    assert not older.finer.any() and set(older.precision) == {"rtn-int4-g128"} and older.recovered.max() < 36
    second = evidence.pairs().query("study == @SECOND", local_dict={"SECOND": SECOND})
    missed = second[second.foretold != second.outcome]
    assert len(missed) == 11 and says("pretrained.md", "they foretell all but eleven. **Where it fails.**")
    assert set(missed.precision) == {"rtn-int4-g128"} and not missed.finer.any()
    assert len(second[(second.precision == "rtn-int4-g128") & ~second.finer]) == 12
    assert says("pretrained.md", "So are the eleven")
    assert says("counterexamples.md", "is wrong for the same format alone, in eleven of twelve pairs")
    ga = second[(second.model == "ga_gdr") & (second.precision == "rtn-int4-g128")].set_index("seed").recovered
    assert ga[0] == pytest.approx(40, abs=2) and ga[[1, 2]].max() < 10
    assert says("pretrained.md", "GA_GDR gets two fifths back in one seed, and next to nothing in the others")
    every = pd.concat([wrong, older, missed]).recovered
    assert every.max() < 50 and every.median() < 33
    assert says("prediction.md", "Less than half comes back, and of most models less than a third")


def test_what_the_plan_of_the_pretrained_study_asked_for():
    target = {at: of_seeds("verbmem", at)["target"] for at in evidence.scores(SEEDS).precision.unique()}
    assert target[FULL].max() < 50 and says("pretrained.md", "| The target recites half of the text. | **Missed:**")
    for at in set(target) - {FULL}:
        assert float(evidence.target_keeps(SEEDS, "verbmem", at)) > 80
        assert float(evidence.target_keeps(SEEDS, "knowmem", at)) >= float(
            evidence.target_keeps(SEEDS, "knowmem", "bnb-nf4")
        )
    assert float(evidence.target_keeps("pretrained", "verbmem", "gptq")) > 80
    assert float(evidence.target_keeps("pretrained", "verbmem", "rtn-int4")) < 80
    for study in (SEEDS, SECOND):
        shares = pd.read_csv(evidence.FOLDER / f"{study}-shares.csv").query(
            "precision == @FULL and denominator == 'same_precision' and models in @of",
            local_dict={"FULL": FULL, "of": list(NPO.values())},
        )
        assert len(shares) == 3 and shares.share.max() - shares.share.min() < (shares.high - shares.low).min()
        assert of_seeds("utility", FULL, study)[list(NPO.values())].nunique().max() == 1
    assert says("pretrained.md", "what is retained in bf16 differs by less than the intervals are wide")


COARSE = ["npo_gdr", "npo_klr", "ga_gdr", "ga_klr"]


def answers_back(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Of the target's answers that NPO with bfloat16 weights had forgotten: the share that is back, by seed."""
    npo = ["npo_gdr", "npo_klr"]
    return (after[npo] - before[npo]) / (before.target.max() - before[npo])


def test_what_repeats_on_a_second_base():
    answers = {at: of_seeds("knowmem", at, SECOND) for at in (FULL, "bnb-fp4", "bnb-nf4", "rtn-int4", "gptq", "awq")}
    found = pd.DataFrame(evidence.pairs_of(SECOND)).assign(recovered=lambda rows: 100 * rows.recovered_share)
    back = found.groupby(["precision", "model"]).recovered
    assert (answers["rtn-int4"][COARSE].sub(answers["rtn-int4"].target, axis=0) == 0).all().all()
    assert back.min()["rtn-int4"][COARSE].min() > 95 and back.min()["bnb-fp4"][COARSE].min() > 75
    assert says("pretrained.md", "Text and answers are back, and FP4 brings back most of both")
    finer = found[found.weights != "bfloat16"]
    assert len(finer) == 36 and finer.recovered.max() < 10
    assert says("pretrained.md", "No format brings a tenth of it back, and Utility stays as it was in every format")
    utility = evidence.scores(SECOND).pivot(index=["model", "seed"], columns="precision", values="utility")
    assert (utility.loc[[NPO["stochastic"], NPO["float32"]]].min().min() > 99) and set(
        found[found.precision == "bnb-nf4"].outcome
    ) == {"kept"}
    gained = answers_back(answers[FULL], answers["gptq"])
    assert gained.max().round(1).to_list() == [0.0, 0.1] and (gained.npo_klr < 0.02).sum() == 2
    assert says("pretrained.md", "It brings back a tenth of NPO_KLR's in one seed, and none in the others")
    kept = utility.loc[["npo_gdr", "npo_klr"], "gptq"] / utility.loc[["npo_gdr", "npo_klr"], FULL]
    assert kept.min() > 0.8 and kept.min() < 0.85 and says("pretrained.md", "up to a fifth of its Utility")
    for at in (FULL, "bnb-fp4", "bnb-nf4", "rtn-int4", "awq"):
        assert (answers[at].npo_gdr - answers[at].npo_klr).abs().max() < 5


def test_awq_on_the_second_base():
    """It keeps the target and the finer models whole, and does to those with bfloat16 weights what NF4 does."""
    found = pd.DataFrame(evidence.pairs_of(SECOND)).query("precision == 'awq'")
    assert len(found) == 18 and set(found.outcome) == {"kept"} and found.recovered_share.max() < 0.1
    at = {name: of_seeds("utility", name, SECOND) for name in ("awq", "bnb-nf4")}
    assert at["awq"][COARSE].max().max() < 40 and at["bnb-nf4"][COARSE].max().max() < 45
    assert at["awq"][["target", NPO["stochastic"], NPO["float32"]]].min().min() > 99
    assert says("pretrained.md", "AWQ restores nothing, and damages the models with bfloat16 weights as NF4 does")
    assert float(evidence.target_keeps(SECOND, "knowmem", "awq")) > 95


def test_what_does_not_repeat_on_a_second_base():
    for at in ("bnb-fp4", "rtn-int4"):
        left = of_seeds("verbmem", at, SECOND).target / of_seeds("verbmem", FULL, SECOND).target
        assert left.between(0.72, 0.81).all() and says("pretrained.md", "FP4 and int4 take about a quarter of that")
    answers, grouped = (of_seeds("knowmem", at, SECOND) for at in (FULL, "rtn-int4-g128"))
    assert answers.loc[0, [NPO["bfloat16"], NPO["float32"]]].between(10, 12.5).all()
    assert answers.loc[[1, 2], list(NPO.values())].max().max() < 3 and answers[NPO["stochastic"]].max() < 6.5
    assert says("counterexamples.md", "On the second base float32 does in one seed of three, and so does bfloat16")
    back = answers_back(answers, grouped)
    assert back.loc[0].between(0.3, 0.37).all() and back.loc[2].between(0.1, 0.14).all() and back.loc[1].max() < 0.04
    assert says("pretrained.md", "It brings a third of NPO's answers back in one, a tenth in another, and next to none")
    broken = evidence.scores(SECOND).query("precision == 'bf16'").set_index(["model", "seed"]).broken
    assert broken["ga_klr"].to_list() == [False, True, True] and broken["ga_gdr"].all()
    assert says("pretrained.md", "In the other two it is ruined, as GA_GDR is in all three")


@pytest.mark.parametrize(("study", "lines"), [(SEEDS, (4 + 2) * 5 * 4), (SECOND, (6 + 2) * 7 * 4)])
def test_shares_with_intervals_are_those_of_the_rows(study, lines):
    """Means over models and seeds of a study's rows, inside their intervals, with the seeds they say."""
    rows = evidence.scores(study)
    shares = pd.read_csv(evidence.FOLDER / f"{study}-shares.csv")
    assert len(shares) == lines
    for line in shares.to_dict("records"):
        of = rows[rows.model.isin(line["models"].split(", ")) & (rows.precision == line["precision"])]
        column = f"retained_{line['denominator']}_mean"
        assert line["share"] == pytest.approx(of[column].mean(), abs=0.01)
        assert line["low"] < line["share"] < line["high"]
        for seed, value in of.groupby("seed")[column].mean().items():
            assert line[f"seed {seed}"] == pytest.approx(value, abs=0.01)


def test_the_mean_in_the_papers_form():
    shares = pd.read_csv(evidence.FOLDER / f"{SEEDS}-shares.csv")
    paper = shares.query("models == 'npo_gdr, ga_gdr' and denominator == 'ratio_bf16'").set_index("precision").share
    assert paper[FULL] == pytest.approx(100 / 3, abs=3) and paper["rtn-int4"] > 90
    assert says("pretrained.md", "a model keeps a third of what it was to forget in bf16, and nearly all of it in int4")


def test_attacks_on_the_tofu_study():
    """Pruning brings back what bfloat16 weights had lost, and relearning what either had; the rest brings a part."""
    rows = evidence.attacks("tofu-cpu").query("metric == 'knowmem' and precision == @FULL")
    share = rows.pivot(index="attack", columns="model", values="share")
    assert share.loc["prune", "npo_gdr"] > 95 and share.loc["prune", "npo_gdr_float32"] < 10
    assert says("tofu.md", "The one with float32 weights does not.")
    assert share.loc["relearn_20", ["npo_gdr", "npo_gdr_float32"]].min() > 95 and says(
        "tofu.md", "Relearning defeats both"
    )
    assert says("findings.md", "nearly everything from float32 weights, too")
    assert share.loc[["sample", "paraphrase", "prefix"], ["npo_gdr", "npo_gdr_float32"]].max().max() < 30
    floor = rows.set_index(["attack", "model"]).floor
    assert floor["relearn_20", "npo_gdr"] - floor["none", "npo_gdr"] < 2
    assert says("tofu.md", "has learned next to nothing by then") and says("tofu.md", "Asking otherwise brings little")


def test_controls_of_the_attacks():
    """A retrained model of another seed has no excess, a target of another seed has all of it, whatever the attack."""
    rows = evidence.attacks("tofu-controls").query("attack != 'none'")
    retrained = rows[rows.model == "retrain_seed_0"]
    assert len(retrained) == 12 and (retrained.low <= 0).all() and (retrained.high >= 0).all()
    assert says("tofu.md", "All of these intervals have zero in them")
    target = rows[rows.model == "target_seed_0"].set_index("attack").share
    assert len(target) == 12 and target.between(90, 110).all()
    assert set(target[~target.between(99, 101)].index) == {"sample", "paraphrase"}
    assert says("tofu.md", "It is least where the model is asked in other words or the best of samples counts")
