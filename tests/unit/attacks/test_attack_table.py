"""Excess over the retrained model under the same attack: values by hand, controls, and what has no value."""

import numpy as np
import pytest

from palimpsest.attacks.table import ONE_SEED, compare, interval, matrix, steps_to_recovery, texts
from palimpsest.errors import PalimpsestError
from palimpsest.vocabulary import NO_RETRAIN, OK

RULES = {"minimum_gap": 5.0, "resamples": 2000, "confidence": 0.95, "seed": 0}
ABOUT = {"attack": "relearn_5", "family": "relearn", "kind": "relearn", "strength": 5, "when": "before"}
ABOUT |= {"precision": "rtn-int4", "metric": "knowmem", "leak_at": None}
IDS = list(range(8))


def of(*rows):
    return {seed: (IDS, list(row)) for seed, row in enumerate(rows)}


TARGET = of([1.0] * 8, [0.9] * 8)
RETRAIN = of([0.0, 0.2] * 4, [0.1, 0.1] * 4)
MINE = of([0.5, 0.3] * 4, [0.6, 0.2] * 4)
SCORES = {"target": TARGET, "retrain": RETRAIN, "mine": MINE}


def test_excess_and_share_are_those_by_hand():
    row = compare(ABOUT | {"model": "mine"}, SCORES, of([0.1] * 8, [0.1] * 8), RULES)
    assert row["attacked"] == pytest.approx(40) and row["floor"] == pytest.approx(10)
    assert row["ceiling"] == pytest.approx(95) and row["plain"] == pytest.approx(10)
    assert row["excess"] == pytest.approx(30) and row["share"] == pytest.approx(100 * 30 / 85)
    assert row["status"] == OK and row["n"] == 8 and row["seeds"] == 2 and row["ci_note"] == ""
    low, high = row["ci"]
    assert low < 30 < high


def test_the_retrained_model_has_no_excess_and_the_target_all_of_it():
    retrain = compare(ABOUT | {"model": "retrain"}, SCORES, None, RULES)
    assert retrain["excess"] == 0 and retrain["share"] == 0 and retrain["ci"] == [0, 0] and retrain["plain"] is None
    assert compare(ABOUT | {"model": "target"}, SCORES, None, RULES)["share"] == pytest.approx(100)


def test_without_a_retrained_model_or_a_gap_there_is_no_share():
    row = compare(ABOUT | {"model": "mine"}, {"target": TARGET, "mine": MINE}, None, RULES)
    assert row["status"] == NO_RETRAIN and row["excess"] is None and row["share"] is None
    close = compare(ABOUT | {"model": "mine"}, SCORES | {"target": RETRAIN}, None, RULES)
    assert close["share"] is None and "0.0 points apart" in close["status"] and close["excess"] == pytest.approx(30)


def test_intervals_are_over_records_and_seeds():
    """Of differences that vary by seed alone, the interval is that of means of two seeds drawn with replacement; by
    record alone, about 1.96 standard errors wide."""
    draw = np.random.default_rng(0)
    by_seed = np.repeat([[0.0], [10.0]], 40, axis=1)
    (low, high), note = interval(by_seed, 4000, 0.95, 0)
    assert (low, high) == (0, 10) and note == ""
    records = draw.normal(5, 2, (1, 400))
    (low, high), note = interval(records, 4000, 0.95, 0)
    error = records.std() / 20
    assert low == pytest.approx(records.mean() - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(records.mean() + 1.96 * error, abs=0.25 * error)
    assert note == ONE_SEED


def test_records_that_lack_are_refused_and_order_does_not_matter():
    assert matrix({0: ([2, 1], [0.5, 0.25])}, [1, 2]).tolist() == [[25.0, 50.0]]
    with pytest.raises(PalimpsestError, match="record 3 of seed 0 has no score"):
        matrix({0: ([1, 2], [0.0, 0.0])}, [3])


def test_steps_to_recovery_are_the_fewest_that_reach_the_share():
    rows = []
    for steps, share in ((20, 80.0), (0, 3.0), (5, 55.0), (50, None)):
        rows.append(compare(ABOUT | {"model": "mine"}, SCORES, None, RULES) | {"strength": steps, "share": share})
    (found,) = steps_to_recovery(rows, 50.0)
    assert found["steps"] == 5 and found["tried"] == [0, 5, 20, 50] and found["model"] == "mine"
    assert steps_to_recovery(rows, 90.0)[0]["steps"] is None
    assert steps_to_recovery([row | {"kind": "prune"} for row in rows], 50.0) == []


def test_the_page_has_a_line_for_each_method():
    rows = [compare(ABOUT | {"model": model}, SCORES, MINE, RULES) for model in SCORES]
    head, (line,) = texts(rows)
    assert len(head) == len(line) and line[2] == "mine" and line[-3] == "10.0" and line[-2].startswith("+30.0 (")
