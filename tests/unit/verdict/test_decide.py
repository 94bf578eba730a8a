"""Every verdict, from records whose truth is known, and the controls that show that the test can fail."""

import re
from dataclasses import replace

import numpy as np
import pytest

from palimpsest.errors import PalimpsestError
from palimpsest.verdict.comparison import mean_of
from palimpsest.verdict.controls import RETRAINED, SHUFFLED, TARGET_PASSED_OFF, judge, run_controls
from palimpsest.verdict.decide import decide, exit_code, worst
from palimpsest.verdict.policy import read_policy
from palimpsest.verdict.records import Measured
from palimpsest.verdict.text import share
from palimpsest.vocabulary import FULL

POLICY = read_policy()
N = 60


def scores(mean: float, spread: float = 0.08, seed: int = 0, n: int = N) -> np.ndarray:
    """[1, n] of about `mean`."""
    return np.clip(np.random.default_rng(seed).normal(mean, spread, (1, n)), 0, 1)


def measured(full: float, int4: float, **changes) -> Measured:
    """An unlearned model between a retrained one (0.2) and a target (0.9), in both precisions.

    Records rise and fall together in all of them, and quantization adds a little noise.
    """
    noise = scores(0.5, 0.02, 9) - 0.5
    here = {FULL: scores(full), "int4": np.clip(scores(int4) + noise, 0, 1)}
    floor = {FULL: scores(0.2, seed=1), "int4": np.clip(scores(0.2, seed=1) + scores(0.5, 0.02, 8) - 0.5, 0, 1)}
    ceiling = {FULL: scores(0.9, seed=2), "int4": scores(0.9, seed=2)}
    made = Measured("probability", [str(i) for i in range(N)], here, floor, ceiling, utility={FULL: 95.0, "int4": 94.0})
    return replace(made, **changes)


def verdict(made: Measured, policy=POLICY) -> str:
    return decide(made, policy)[0]["verdict"]


@pytest.mark.parametrize(
    ("full", "int4", "expected"),
    [
        (0.22, 0.22, "FORGETS"),
        (0.22, 0.6, "RELAPSES"),
        (0.6, 0.6, "NEVER FORGOT"),
        (0.6, 0.2, "NEVER FORGOT"),
        (0.1, 0.1, "FORGETS"),
    ],
)
def test_verdicts(full, int4, expected):
    assert verdict(measured(full, int4)) == expected


def test_a_damaged_model_never_passes():
    assert verdict(measured(0.2, 0.2, utility={FULL: 95.0, "int4": 40.0})) == "COLLAPSED"


def test_few_records_decide_nothing_and_say_how_many_would():
    few = measured(0.22, 0.22)
    kinds = ("unlearned", "retrain", "target")
    cut = {kind: {at: values[:, :12] for at, values in getattr(few, kind).items()} for kind in kinds}
    few = replace(few, ids=few.ids[:12], **cut)
    (one,) = decide(few, POLICY)
    assert one["verdict"] == "INCONCLUSIVE" and "fewer than 20 records" in one["reason"]
    assert one["records_needed"] >= 20


def test_a_control_that_two_subjects_do_not_decide_is_none_that_failed():
    """Forty records of two people, as in TOFU's forget01: the target, too, may be told from a model that forgot or not,
    by chance."""
    two = measured(0.22, 0.22, subjects=["Ann" if i % 2 else "Bob" for i in range(N)])
    verdicts, controls = judge([two], POLICY)
    assert [one["verdict"] for one in verdicts] == ["INCONCLUSIVE"]
    assert verdicts[0]["records_needed"] >= N * 20 / 2
    assert share(verdicts[0]["retained"]) == "4 [no bound to no bound]"
    undecided = [each for each in controls if each["passed"] is None]
    assert undecided and all(each["passed"] is not False for each in controls)
    assert {each["found"] for each in undecided if "retain records" not in each["found"]} == {
        "not decided: there are fewer than 20 subjects"
    }


def test_no_significant_difference_is_no_pass():
    """Equivalence must be shown: wide scores around a small rise neither relapse nor forget."""
    random = np.random.default_rng(0)
    full = random.uniform(0, 0.5, (1, N))
    wide = Measured(
        "probability",
        [str(i) for i in range(N)],
        {FULL: full, "int4": np.clip(full + random.normal(0, 0.3, (1, N)), 0, 1)},
    )
    lax = replace(POLICY, allowed=N, forgotten_below=50)
    (one,) = decide(wide, lax)
    assert one["verdict"] == "INCONCLUSIVE" and one["records_needed"] > N
    assert one["p_relapses"] > 0.025 < one["p_forgets"]


def test_one_record_that_comes_back_is_seen_where_the_mean_is_not():
    quiet = measured(0.22, 0.22)
    here = quiet.unlearned["int4"].copy()
    here[0, 7] = 0.95
    loud = replace(quiet, unlearned={FULL: quiet.unlearned[FULL], "int4": here})
    (one,) = decide(loud, POLICY)
    assert one["verdict"] == "RELAPSES" and [record["id"] for record in one["relapsed"]] == ["7"]
    assert one["relapsed"][0]["p"] < 1e-6
    assert decide(loud, replace(POLICY, allowed=1, margin=30, forgotten_below=50))[0]["verdict"] == "FORGETS"


def test_the_noise_of_quantization_is_no_relapse():
    """Rises above the threshold that the retrained model makes as well are the format's noise."""
    quiet = measured(0.22, 0.22)
    jump = (np.arange(N) % 6 == 0) * 0.2
    noisy = replace(
        quiet,
        unlearned={FULL: quiet.unlearned[FULL], "int4": np.clip(quiet.unlearned["int4"] + jump, 0, 1)},
        retrain={FULL: quiet.retrain[FULL], "int4": np.clip(quiet.retrain[FULL] + np.roll(jump, 1), 0, 1)},
    )
    assert decide(noisy, POLICY)[0]["relapsed"] == []
    alone = replace(noisy, retrain={FULL: quiet.retrain[FULL]})
    assert len(decide(alone, POLICY)[0]["relapsed"]) >= 10


# The controls: each model passed off as another.


def test_the_target_passed_off_as_unlearned_never_forgot():
    made = measured(0.2, 0.2)
    assert verdict(replace(made, unlearned=made.target)) == "NEVER FORGOT"


def test_the_quantized_target_passed_off_as_the_quantized_model_relapses():
    made = measured(0.22, 0.22)
    assert verdict(replace(made, unlearned={FULL: made.unlearned[FULL], "int4": made.target["int4"]})) == "RELAPSES"


def test_the_retrained_model_forgets():
    made = measured(0.2, 0.2)
    (one,) = decide(replace(made, unlearned=made.retrain), POLICY)
    assert one["verdict"] == "FORGETS" and one["retained"]["value"] == pytest.approx(0, abs=2)


def test_a_format_that_changes_nothing_recovers_exactly_nothing():
    made = measured(0.22, 0.22)
    same = replace(made, unlearned={FULL: made.unlearned[FULL], "bf16 again": made.unlearned[FULL]})
    (one,) = decide(same, POLICY)
    assert one["verdict"] == "FORGETS" and one["rise"]["value"] == pytest.approx(0, abs=1e-9) and one["relapsed"] == []


def test_shuffled_labels_find_nothing():
    """Of a model that relapsed: rises dealt out to forget and retain records at random are centred on nothing."""
    random, found = np.random.default_rng(0), 0
    made = measured(0.22, 0.22)
    for run in range(40):
        flips = random.choice([-1.0, 1.0], (1, N)) * 0.2
        here = np.clip(made.unlearned[FULL] + flips * random.uniform(0, 1, (1, N)), 0, 1)
        shuffled = replace(made, unlearned={FULL: made.unlearned[FULL], "int4": here})
        found += decide(shuffled, replace(POLICY, allowed=N, seed=run))[0]["p_relapses"] <= 0.025
    assert found <= 3


def test_questions_that_do_not_reach_the_model_give_no_verdict():
    made = measured(0.2, 0.2)
    blind = replace(made, target={FULL: made.retrain[FULL] + 0.01})
    (one,) = decide(blind, POLICY)
    assert one["verdict"] == "NO VERDICT" and "do not tell a model that knows from one that does not" in one["reason"]
    assert exit_code([one]) == 4


def test_the_worst_format_decides_and_gives_the_exit_code():
    made = measured(0.22, 0.22)
    both = replace(made, unlearned={**made.unlearned, "fp4": scores(0.7)})
    verdicts = decide(both, POLICY)
    assert [one["verdict"] for one in verdicts] == ["FORGETS", "RELAPSES"]
    assert worst(verdicts)["format"] == "fp4" and exit_code(verdicts) == 2
    assert exit_code(decide(both, replace(POLICY, formats=["int4"]))) == 0
    with pytest.raises(PalimpsestError, match="nf4, which was not measured"):
        decide(both, replace(POLICY, formats=["nf4"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ["a"] * N}, "record a occurs twice"),
        ({"retrain": {FULL: np.zeros((1, 3))}}, "3 records where there are 60"),
        ({"target": {FULL: np.full((1, N), 1.5)}}, "record 0 is no number from 0 to 1"),
        ({"target": {FULL: np.full((1, N), np.nan)}}, "record 0 is no number from 0 to 1"),
        ({"unlearned": {"int4": np.zeros((1, N))}}, "no values at full precision"),
        ({"kept": {FULL: np.zeros((1, 5)), "int4": np.zeros((1, 4))}}, "of the retain records: other records"),
        ({"kept": {FULL: np.full((1, 5), np.nan)}}, "of the retain records: other records in another format, or one"),
    ],
)
def test_bad_measurements_are_named(changes, message):
    with pytest.raises(PalimpsestError, match=message):
        measured(0.2, 0.2, **changes)


def test_the_controls_of_a_sound_test_pass_and_the_verdict_stands():
    made = measured(0.22, 0.6)
    verdicts, controls = judge([made], POLICY)
    assert [one["verdict"] for one in verdicts] == ["RELAPSES"]
    assert [control["passed"] for control in controls] == [True] * 4 + [None]
    assert [control["found"] for control in controls][:3] == ["NEVER FORGOT", "RELAPSES", "FORGETS"]


def test_controls_that_cannot_be_run_say_so():
    made = replace(measured(0.22, 0.22), target={}, retrain={FULL: measured(0.2, 0.2).retrain[FULL]})
    _, controls = judge([made], POLICY)
    assert [control["passed"] for control in controls] == [None, None, None, True, None]
    assert "the target was not asked in bf16, int4" in controls[0]["found"]
    assert controls[2]["found"] == "not run: the retrained model was not asked in int4"
    assert controls[4]["found"] == "not run: no retain records were asked in bf16, int4"


def with_kept(made: Measured) -> Measured:
    """The same model asked about 40 records that it was to keep, which rounding moves a little."""
    known = scores(0.8, seed=5, n=40)
    moved = np.clip(known + np.random.default_rng(6).normal(0, 0.03, known.shape), 0, 1)
    return replace(made, kept={FULL: known, "int4": moved})


@pytest.mark.parametrize("int4", [0.22, 0.6])
def test_shuffled_labels_are_a_control_of_every_verdict(int4):
    """Of a model that relapses too: what is found there is of the records that were to be forgotten, and no others."""
    made = with_kept(measured(0.22, int4))
    control = run_controls(made, POLICY)[-1]
    assert control["control"] == SHUFFLED and control["passed"], control
    assert control == run_controls(made, POLICY)[-1], "the seed is the policy's"
    assert re.fullmatch(r"a difference in \d of 100", control["found"])
    assert control["expected"] == "a difference in at most 13 of 100 shuffles"


def test_a_test_that_sees_differences_everywhere_fails_on_shuffled_labels(monkeypatch):
    def too_sure(*arguments):
        mean = mean_of(*arguments)
        return replace(mean, error=mean.error / 4)

    monkeypatch.setattr("palimpsest.verdict.controls.mean_of", too_sure)
    verdicts, controls = judge([with_kept(measured(0.22, 0.22))], POLICY)
    assert controls[-1]["passed"] is False
    assert [one["verdict"] for one in verdicts] == ["NO VERDICT"]
    assert (
        "a control failed: the labels of forget and retain records shuffled is a difference in" in verdicts[0]["reason"]
    )


def with_few_changes(seeds: int) -> Measured:
    """A model none of whose forty forgotten answers moved, and seven of the forty kept ones fell, in the last seed."""
    nothing, kept, fell = np.zeros((seeds, 40)), np.ones((seeds, 40)), np.ones((seeds, 40))
    fell[-1, :7] = [0, 0, 0.5, 0.22, 0.67, 0.4, 0.5]
    target = {FULL: nothing + 1, "int4": nothing + 1}
    of_none = {FULL: nothing, "int4": nothing}
    at = {FULL: kept, "int4": fell}
    return Measured("knowmem", [str(i) for i in range(40)], of_none, of_none, target, kept=at)


@pytest.mark.parametrize("seeds", [1, 4])
def test_a_few_answers_that_changed_are_no_difference_in_shuffled_labels(seeds, monkeypatch):
    """As in four seeds of the default study's contrast. Where errors were estimated from them, in the mean over seeds,
    the control failed."""
    made, lax = with_few_changes(seeds), replace(POLICY, margin=25)
    verdicts, controls = judge([made], lax)
    assert controls[-1]["passed"] and [one["verdict"] for one in verdicts] == ["FORGETS"]
    monkeypatch.setattr(
        "palimpsest.verdict.controls.mean_of",
        lambda values, subjects, resamples, seed, *_: mean_of(values.mean(0)[None], subjects, resamples, seed),
    )
    before = run_controls(made, lax)[-1]
    assert int(before["found"].split()[3]) >= 4, "more than the 2.5 of 100 that were stated"


@pytest.mark.parametrize("records", [20, 40])
def test_a_rise_that_few_records_may_have_missed_is_no_pass(records):
    """One record in ten comes back, which is the margin. Of twenty none has in one study of eight."""
    random, passed, lax = np.random.default_rng(12), 0, replace(POLICY, allowed=records, resamples=1000)
    nothing = np.zeros((1, records))
    for _ in range(200):
        here = (random.random((1, records)) < 0.1).astype(float)
        made = Measured("knowmem", [str(i) for i in range(records)], {FULL: nothing, "int4": here})
        passed += verdict(made, lax) == "FORGETS"
    assert passed / 200 <= 0.025 + 0.02


@pytest.mark.parametrize(("records", "expected"), [(20, "INCONCLUSIVE"), (30, "INCONCLUSIVE"), (45, "FORGETS")])
def test_records_that_all_stayed_the_same_pass_where_they_are_enough(records, expected):
    """Were a tenth to come back, none of 36 would be among them in 2.25 % of studies."""
    nothing = np.zeros((1, records))
    same = Measured("knowmem", [str(i) for i in range(records)], {FULL: nothing, "int4": nothing})
    (one,) = decide(same, POLICY)
    assert one["verdict"] == expected
    assert one["records_needed"] is None if expected == "FORGETS" else 33 <= one["records_needed"] <= 41


def test_a_failed_control_gives_no_verdict():
    """A target that the format destroys: passed off as the quantized model, it does not come back."""
    made = measured(0.22, 0.22)
    blind = replace(made, target={FULL: made.target[FULL], "int4": made.unlearned[FULL]})
    verdicts, controls = judge([blind], POLICY)
    assert [one["verdict"] for one in verdicts] == ["NO VERDICT"] and exit_code(verdicts) == 4
    assert "a control failed" in verdicts[0]["reason"]
    assert any(control["passed"] is False for control in controls)


def all_but_two(records: int, int4: float) -> Measured:
    """A target that answers all questions but two, a retrained model that answers none of them, and an unlearned model
    that answers two in full precision and a share of all in int4."""
    random = np.random.default_rng(3)
    target, retrain, full = np.ones((1, records)), np.zeros((1, records)), np.zeros((1, records))
    target[0, :2], retrain[0, 5], full[0, 3:5] = 0.3, 0.2, 1.0
    here = np.maximum(full, random.random((1, records)) < int4)
    at = {FULL: target, "int4": target}
    return Measured(
        "knowmem", [str(i) for i in range(records)], {FULL: full, "int4": here}, {FULL: retrain, "int4": retrain}, at
    )


def test_a_target_that_answers_nearly_all_is_told_from_a_model_that_forgot():
    """Resamples of forty such records often hold one value, and leave a bootstrap without an end."""
    verdicts, controls = judge([all_but_two(40, 0.95)], POLICY)
    assert [one["verdict"] for one in verdicts] == ["RELAPSES"]
    assert all(each["passed"] is not False for each in controls)
    (of_target,) = [each for each in controls if each["control"] == TARGET_PASSED_OFF]
    assert of_target["found"] == "NEVER FORGOT"


def test_where_the_retrained_model_cannot_be_shown_to_forget_nobody_passes():
    (one,), controls = judge([all_but_two(20, 0.0)], POLICY)
    assert one["verdict"] == "INCONCLUSIVE" and one["records_needed"] > 20
    assert "even of the retrained model" in one["reason"] or "interval" in one["reason"]
    (retrained,) = [each for each in controls if each["control"] == RETRAINED]
    assert retrained["passed"] is None and retrained["found"].startswith("not decided")
    (one,), controls = judge([all_but_two(200, 0.0)], POLICY)
    assert one["verdict"] == "FORGETS" and [each["passed"] for each in controls if each["control"] == RETRAINED] == [
        True
    ]
