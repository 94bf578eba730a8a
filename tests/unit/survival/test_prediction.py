"""From audits to thresholds on rho: outcomes, error rate without the held-out group, and refusals."""

import csv
import json
import re
from itertools import pairwise
from pathlib import Path
from statistics import mean

import numpy as np
import pytest

from palimpsest.errors import PalimpsestError
from palimpsest.study.params import read_params
from palimpsest.survival.prediction import (
    ENOUGH,
    KEPT,
    OUTCOMES,
    PARTLY,
    RESTORED,
    TABLE,
    choose_thresholds,
    classify,
    corpus_of,
    gather,
    in_lines,
    make_table,
    outcome,
    predict,
    read_table,
    score,
)

REPOSITORY = Path(__file__).parents[3]
EVIDENCE = REPOSITORY / "docs/evidence"


def audit(
    points: list[tuple[str, float, float, float]],
    seed: int = 0,
    parameters: int = 1000,
    target: str = "t",
    corpus: int = 1,
) -> dict:
    """points: model, rho, retained in bf16 and at four bits.
    target: what tells its weights from another's; corpus: its seed."""

    def row(model: str, precision: str, retained: float | None, rho: float | None) -> dict:
        return {
            "model": model,
            "seed": seed,
            "precision": precision,
            "storage": "bfloat16",
            "retained": {"same_precision": {name: {"value": retained} for name in ("verbmem", "knowmem", "mean")}},
            "survival": None if precision == "bf16" else {"rho": rho},
        }

    rows = []
    for model, rho, before, after in points:
        rows += [row(model, "bf16", before, None), row(model, "int4", after, rho)]
    rows.append({"model": "target", "seed": seed, "precision": "int4", "retained": None, "survival": None})
    kinds = [("target", "target"), *((model, "unlearned") for model, *_ in points)]
    models = [
        {"model": model, "kind": kind, "parameters": parameters}
        | {"files": {str(seed): {"config.json": "same", "model.safetensors": f"{target}-{model}"}}}
        for model, kind in kinds
    ]
    rules = {"forgotten_below": 50.0, "negligible": 10.0}
    settings = {
        "quantizers": {"int4": {"backend": "rtn"}},
        "corpus": {"source": "embedded", "settings": {"seed": corpus}, "subset": None},
    }
    return {"models": models, "rows": rows, "rules": rules, "settings": settings}


def save(folder: Path, content: dict) -> Path:
    folder.mkdir(parents=True)
    (folder / "audit.json").write_text(json.dumps(content))
    return folder


def test_an_outcome_is_the_share_of_what_was_forgotten():
    assert outcome(retained=60, before=20, negligible=10) == RESTORED  # 40 of 80
    assert outcome(retained=59, before=20, negligible=10) == PARTLY
    assert outcome(retained=30, before=20, negligible=10) == KEPT
    assert outcome(retained=5, before=20, negligible=10) == KEPT


def test_thresholds_lie_in_the_middle_of_the_widest_gaps_between_outcomes():
    pairs = [
        {"rho": rho, "outcome": name}
        for rho, name in ((0.0, RESTORED), (0.2, RESTORED), (0.4, PARTLY), (0.9, KEPT), (1, KEPT))
    ]
    low, high = choose_thresholds(pairs)
    assert low == pytest.approx(0.3) and high == pytest.approx(0.65)
    assert [classify(rho, (low, high)) for rho in (0.29, 0.31, 0.64, 0.66)] == [RESTORED, PARTLY, PARTLY, KEPT]
    only_kept = choose_thresholds([pair for pair in pairs if pair["outcome"] == KEPT])
    assert classify(-0.05, only_kept) == classify(5.0, only_kept) == KEPT


def test_errors_are_those_of_thresholds_chosen_without_the_held_out_model(tmp_path):
    points = [
        ("a", 0.0, 0.0, 90.0),
        ("b", 0.02, 0.0, 90.0),
        ("c", 0.9, 0.0, 5.0),
        ("d", 1.0, 0.0, 5.0),
        ("odd", 0.05, 0.0, 5.0),
    ]
    points.append(("remembers", 0.0, 80.0, 80.0))  # had not forgotten: says nothing
    table = make_table([save(tmp_path / "results", audit(points))])
    text = in_lines(table)
    assert json.loads(text) == table and sum('"outcome"' in line for line in text.splitlines()) == 5
    assert table["pairs"] == 5 and table["groups"] == 5 and table["held_out"] == "model"
    assert table["errors"] == 1 and table["always_kept_errors"] == 2
    assert table["auc_returned"] == table["auc_restored"] == 1.0
    assert [pair["foretold"] for pair in table["measured"]] == [RESTORED, RESTORED, KEPT, KEPT, RESTORED]
    found = predict(0.02, table, 1000)
    assert found["outcome"] == RESTORED and found["alike"] == {RESTORED: 2, PARTLY: 0, KEPT: 0}
    assert found["of_models"] is None  # no size class has enough pairs
    assert predict(0.95, table, 1000)["alike"] == {RESTORED: 0, PARTLY: 0, KEPT: 3}
    assert predict(None, table, 1000) is None


def test_several_targets_are_held_out_with_all_that_was_unlearned_from_each(tmp_path):
    first = save(tmp_path / "results", audit([("a", 0.0, 0.0, 90.0), ("b", 1.0, 0.0, 0.0)]))
    second = audit([("a", 0.1, 0.0, 95.0), ("b", 0.8, 0.0, 0.0)], seed=1, parameters=5000, target="u")
    table = make_table([first, save(tmp_path / "studies/larger/results", second)])
    assert table["held_out"] == "target" and table["groups"] == 2 and table["errors"] == 0
    assert table["studies"] == ["default", "larger"] and table["largest_parameters"] == 5000


def test_targets_that_learned_the_same_text_are_held_out_together(tmp_path):
    """Two seeds of one corpus agree that 0.3 is restored, another corpus that it is kept:
    neither corpus may vouch for itself."""
    folders = [
        save(
            tmp_path / f"studies/{seed}/results",
            audit([("a", 0.3, 0.0, 90.0), ("b", 1.0, 0.0, 0.0)], seed, target=f"t{seed}"),
        )
        for seed in (0, 1)
    ]
    other = audit([("a", 0.0, 0.0, 90.0), ("b", 0.3, 0.0, 0.0)], target="u", corpus=2)
    table = make_table([*folders, save(tmp_path / "studies/other/results", other)])
    assert table["held_out"] == "corpus" and table["groups"] == 2
    assert [pair["foretold"] for pair in table["measured"]] == [KEPT, KEPT, KEPT, KEPT, RESTORED, RESTORED]
    assert table["errors"] == 3  # by target 0.3 of the two seeds would have been right


def test_a_corpus_is_the_text_that_was_drawn_from_not_how_it_was_cut():
    folder = {"source": "folder", "settings": {"path": "../../data/muse-news", "retain_split": "other"}}
    small, large = (folder | {"subset": {"forget_documents": number}} for number in (4, 16))
    assert corpus_of(small) == corpus_of(large) == "folder muse-news"
    one, two = ({"source": "embedded", "settings": {"seed": seed}} for seed in (1, 2))
    assert corpus_of(one) != corpus_of(two)


def test_an_earlier_table_gives_the_pairs_of_its_studies(tmp_path):
    points = [("a", 0.0, 0.0, 90.0), ("b", 0.4, 0.0, 30.0), ("c", 1.0, 0.0, 0.0)]
    folders = [
        save(tmp_path / f"studies/{seed}/results", audit(points, seed, target=f"t{seed}", corpus=seed))
        for seed in (1, 2)
    ]
    table = make_table(folders)
    (tmp_path / "earlier.json").write_text(in_lines(table))
    assert make_table([tmp_path / "earlier.json"]) == table
    assert {pair["corpus"] for pair in gather([tmp_path / "earlier.json"])} == {
        corpus_of({"source": "embedded", "settings": {"seed": seed}}) for seed in (1, 2)
    }


@pytest.mark.parametrize(
    ("content", "found"), [({"measured": []}, "None"), ({"version": 1, "measured": []}, "1"), ([], "None")]
)
def test_a_table_of_another_version_is_refused(tmp_path, content, found):
    file = tmp_path / "old.json"
    file.write_text(json.dumps(content))
    message = (
        f"{file} is no table of version 2 (its version: {found}): make it anew, from the "
        "results folders of its studies."
    )
    with pytest.raises(PalimpsestError, match=f"^{re.escape(message)}$"):
        gather([file])


def pair_of(study: str, rho: float, name: str, parameters: int = 13_000_000) -> dict:
    unlearned = f"{study}-{rho}-{name}-{parameters}"
    return {"study": study, "target": study, "unlearned": unlearned, "precision": "int4", "weights": "bfloat16"} | {
        "parameters": parameters,
        "rho": rho,
        "outcome": name,
    }


def test_the_nearest_size_class_with_enough_pairs_speaks():
    small = [pair_of("s", 0.1 + 0.001 * i, RESTORED) for i in range(ENOUGH)]
    large = [pair_of("l", 0.1 + 0.001 * i, PARTLY if i else KEPT, 200_000_000) for i in range(ENOUGH)]
    few = [pair_of("f", 0.1, KEPT, 7_000_000_000)] * (ENOUGH - 1)
    measured = [pair | {"foretold": RESTORED} for pair in (*small, *large, *few, pair_of("s", 1.0, KEPT))]
    table = {"restored_below": 0.5, "kept_from": 0.5, "measured": measured}
    found = predict(0.2, table, 6_000_000_000)
    assert found["of_models"] == 200_000_000 and found["alike"] == {RESTORED: 0, PARTLY: 9, KEPT: 1}
    assert (found["pairs"], found["errors"], found["always_kept_errors"]) == (10, 10, 9)
    assert (
        found["near"] == {RESTORED: 0, PARTLY: 9, KEPT: 1} and predict(0.3, table, 6_000_000_000)["near"][PARTLY] == 0
    )
    assert predict(0.2, table, 12_000_000)["of_models"] == 13_000_000
    assert predict(0.9, table, 12_000_000)["of_models"] is None  # one pair is not enough


def test_the_auc_is_that_of_the_ranks():
    rhos = {RESTORED: [0.0, 0.1, 0.9], PARTLY: [0.5], KEPT: [0.1, 0.7, 1.0]}
    pairs = [pair_of("s", rho, name) | {"foretold": KEPT} for name, values in rhos.items() for rho in values]

    def by_hand(so, others):
        wins = [(a < b) + 0.5 * (a == b) for a in so for b in others]
        return sum(wins) / len(wins)

    found = score(pairs)
    assert found["auc_returned"] == pytest.approx(by_hand(rhos[RESTORED] + rhos[PARTLY], rhos[KEPT]))
    assert found["auc_restored"] == pytest.approx(by_hand(rhos[RESTORED], rhos[PARTLY] + rhos[KEPT]))
    assert score(pairs[:3])["auc_returned"] is None


def test_thresholds_have_the_fewest_errors_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        pairs = [{"rho": rho, "outcome": str(rng.choice(OUTCOMES))} for rho in rng.integers(0, 6, 12) / 5]
        ends = sorted({pair["rho"] for pair in pairs})
        places = [ends[0] - 1, *((a + b) / 2 for a, b in pairwise(ends)), ends[-1] + 1]

        def errors(thresholds, pairs=pairs):
            return sum(classify(pair["rho"], thresholds) != pair["outcome"] for pair in pairs)

        least = min(errors((low, high)) for low in places for high in places if low <= high)
        assert errors(choose_thresholds(pairs)) == least


def test_a_model_that_two_studies_share_counts_once(tmp_path):
    first = save(tmp_path / "results", audit([("a", 0.0, 0.0, 90.0), ("b", 1.0, 0.0, 0.0)]))
    second = save(tmp_path / "studies/more/results", audit([("a", 0.0, 0.0, 90.0), ("c", 0.5, 0.0, 30.0)]))
    table = make_table([first, second])
    assert [pair["model"] for pair in table["measured"]] == ["a", "b", "c"] and table["held_out"] == "model"


def test_recovery_is_of_what_was_forgotten(tmp_path):
    """The answers were never forgotten: only the text can come back."""
    content = audit([("a", 0.0, 0.0, 90.0), ("b", 1.0, 0.0, 0.0)])
    for row in content["rows"]:
        if row["model"] == "a":
            row["retained"]["same_precision"]["knowmem"]["value"] = 100.0
    first, _ = make_table([save(tmp_path / "results", content)])["measured"]
    assert first["forgotten"] == ["verbmem"] and first["recovered_share"] == 0.9 and first["outcome"] == RESTORED


def test_too_little_is_refused(tmp_path):
    with pytest.raises(PalimpsestError, match="hold pairs of rho and recovery of 1 models"):
        make_table([save(tmp_path / "one", audit([("a", 0.0, 0.0, 90.0)]))])
    with pytest.raises(PalimpsestError, match=r"audit.json does not exist"):
        make_table([tmp_path / "nowhere"])


def test_the_packaged_table_is_of_the_scores_in_docs_evidence():
    """Every pair whose scores are published agrees with them, so that neither is renewed without the other."""
    published = {}
    for file in EVIDENCE.glob("*.csv"):
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                if {"model", "seed", "retained_same_precision_verbmem"} <= row.keys():
                    published[file.stem, row["model"], int(row["seed"]), row["precision"]] = row
    compared = 0
    for pair in read_table()["measured"]:
        keys = [(pair["study"], pair["model"], pair["seed"], precision) for precision in (pair["precision"], "bf16")]
        if all(key in published for key in keys):
            after, before = (
                mean(float(published[key][f"retained_same_precision_{metric}"]) for metric in pair["forgotten"])
                for key in keys
            )
            assert float(published[keys[0]]["rho"]) == pytest.approx(pair["rho"], abs=1e-6), keys[0]
            assert (after - before) / (100 - before) == pytest.approx(pair["recovered_share"], abs=1e-6), keys[0]
            compared += 1
    assert compared > 1000


def test_the_packaged_table_is_what_its_pairs_give():
    table = read_table()
    if table is None:
        pytest.skip("no table is packaged yet")
    assert (table["restored_below"], table["kept_from"]) == choose_thresholds(table["measured"])
    assert make_table([Path(str(TABLE))]) == table
    cures = corpus_of(read_params(REPOSITORY / "studies/cures/params.yaml")["corpus"])
    assert {pair["corpus"] for pair in table["measured"] if pair["study"] in ("cures", "default-0.2")} == {cures}
    assert table["held_out"] == "corpus" and table["groups"] > 1
