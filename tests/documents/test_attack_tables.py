"""The tables of attacks and of methods in twins: each cell from its row, and a dash where there is no value."""

import pandas as pd
import pytest

import evidence
from palimpsest.tables.attacks import COLUMNS
from palimpsest.vocabulary import HEADLINE

RETRAIN, TARGET, MINE = {"plain": 12.0}, {"plain": 92.0}, {"plain": 32.0}


def row(attack, model, precision="bf16", **values):
    about = {"attack": attack, "kind": attack.partition("_")[0], "model": model, "precision": precision}
    return dict.fromkeys(COLUMNS) | about | {"metric": "knowmem", "n": 40, "seeds": 1, "status": "ok"} | values


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence.places, "FOLDER", tmp_path)
    for cached in (evidence.attacks, evidence.scores, evidence.twins):
        cached.cache_clear()
    yield tmp_path
    for cached in (evidence.attacks, evidence.scores, evidence.twins):
        cached.cache_clear()


def write_attacks(folder, *rows):
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "some-attacks.csv", index=False)


def test_each_attack_has_a_line_and_the_first_is_without_one(folder):
    given = {"strength": 5.0, "excess": 40.04, "low": 30.0, "high": 50.0, "share": 50.0, "floor": 12.0}
    models = (("retrain", RETRAIN), ("target", TARGET), ("npo", MINE))
    write_attacks(folder, *(row("relearn_5", name, **(plain | given)) for name, plain in models))
    share = evidence.attack_table("some", "share", ["npo"], ["bf16", "rtn-int4"]).splitlines()
    assert share[0] == "| attack | npo, bf16 | npo, rtn-int4 |"
    assert share[2:] == ["| none | 25 | – |", "| relearning, 5 steps | 50 | – |"]
    excess = evidence.attack_table("some", "excess", ["npo"], ["bf16"], 1).splitlines()
    assert excess[2:] == ["| none | 20.0 |", "| relearning, 5 steps | 40.0 (30.0 to 50.0) |"]
    assert evidence.attack("some", "floor", "relearn_5", "npo", "bf16") == 12.0
    assert evidence.most_of_attacks("some", "share", "npo", "bf16") == 50.0
    with pytest.raises(LookupError, match="has no share of prune on npo in bf16"):
        evidence.attack("some", "share", "prune", "npo", "bf16")
    with pytest.raises(LookupError, match="has no share of npo in bf16"):
        evidence.most_of_attacks("some", "share", "npo", "bf16", kinds=["prune"])


def test_models_that_are_alike_have_no_share(folder):
    alike = (("retrain", RETRAIN), ("target", {"plain": 16.0}), ("npo", MINE))
    write_attacks(folder, *(row("prune", name, strength=30.0, **plain) for name, plain in alike))
    assert evidence.attack_table("some", "share", ["npo"], ["bf16"]).splitlines()[2:] == [
        "| none | – |",
        "| pruning, 30 % | – |",
    ]


def score_row(model, precision, verbmem, knowmem):
    head = f"retained_{HEADLINE}"
    return {
        "model": model,
        "kind": "unlearned",
        "weights": "float32" if model.endswith("_float32") else "bfloat16",
        "seed": 0,
        "precision": precision,
        "rho": 0.5,
        f"{head}_verbmem": verbmem,
        f"{head}_knowmem": knowmem,
    }


def test_methods_in_twins_say_what_they_had_forgotten_and_what_came_back(folder):
    rows = [
        score_row("npo", "bf16", 20.0, 90.0),
        score_row("npo", "rtn-int4", 60.0, 90.0),
        score_row("npo_float32", "bf16", 0.0, 20.0),
        score_row("npo_float32", "rtn-int4", 0.0, 20.0),
        score_row("undial", "bf16", 80.0, 90.0),
        score_row("undial", "rtn-int4", 80.0, 90.0),
        score_row("undial_float32", "bf16", 10.0, 60.0),
        score_row("undial_float32", "rtn-int4", 1.0, 60.0),
        score_row("alone", "bf16", 0.0, 0.0),
    ]
    pd.DataFrame(rows).to_csv(folder / "some.csv", index=False)
    assert evidence.twins_table("some").splitlines()[2:] == [
        "| npo | VerMem | 50 | VerMem, KnowMem | 0 |",
        "| undial | neither | – | VerMem | -10 |",
    ]
    assert evidence.twins_count("some", "coarse == coarse") == 1 and evidence.twins_count("some") == 2
    assert evidence.twins_value("some", "npo", "coarse") == "50"
    with pytest.raises(LookupError, match="has no coarse of undial in rtn-int4"):
        evidence.twins_value("some", "undial", "coarse")


def test_methods_in_twins_say_in_how_many_seeds_they_had_forgotten(folder):
    rows = [
        score_row(model, precision, verbmem, 90.0) | {"seed": seed}
        for seed in (0, 1)
        for model, precision, verbmem in [
            ("npo", "bf16", 20.0 if seed else 80.0),
            ("npo", "rtn-int4", 60.0),
            ("npo_float32", "bf16", 0.0),
            ("npo_float32", "rtn-int4", 10.0 * seed),
        ]
    ]
    pd.DataFrame(rows).to_csv(folder / "two.csv", index=False)
    assert evidence.twins_table("two").splitlines()[2:] == [
        "| npo | VerMem in 1 of 2 seeds | 50 | VerMem | 5 (0 to 10) |"
    ]
    assert evidence.twins("two").coarse_seeds.to_list() == [1] and evidence.twins("two").fine_seeds.to_list() == [2]
