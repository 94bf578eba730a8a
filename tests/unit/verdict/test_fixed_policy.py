"""The policy of a study: checked before the run, fixed in its first step, and not to be changed after it."""

from pathlib import Path

import pytest

from palimpsest.artefacts import Origin, write_record
from palimpsest.cli import main
from palimpsest.errors import PalimpsestError
from palimpsest.study.run_checks import check_verdict
from palimpsest.verdict.fixed import LATE, RECORD, check_fixed, fix, fixed_policy
from palimpsest.verdict.policy import default_policy, read_policy

PARAMS = {
    "quantizers": {"bf16": {}, "bnb-nf4": {}, "rtn-int4": {}},
    "metrics": {"verbmem": {}, "knowmem": {}},
    "verdict": {"policy": "policy.yaml"},
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study with a policy, before its first step; the process works in it."""
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(default_policy().read_text())
    return tmp_path


def edit(old: str, new: str) -> None:
    text = Path("policy.yaml").read_text()
    assert old in text
    Path("policy.yaml").write_text(text.replace(old, new))


def first_step() -> Path:
    record = Path("results", RECORD)
    write_record(record, Origin(), fix(Path("policy.yaml"), record))
    return record


def test_the_policy_of_the_first_step_is_the_policy_of_the_run(study):
    record = first_step()
    policy, notes = fixed_policy(record)
    assert policy == read_policy(Path("policy.yaml")) and notes == []
    check_verdict(PARAMS, Path("results"))
    edit("margin: 10", "margin: 10 # points")
    assert check_fixed(Path("policy.yaml"), record) == policy, "a comment decides nothing"


def test_a_policy_that_changed_after_the_run_began_is_refused(study, capsys):
    record = first_step()
    edit("allowed: 0", "allowed: 400")
    with pytest.raises(PalimpsestError, match=r"policy.yaml is not the policy that this run began with .*take the old"):
        check_verdict(PARAMS, Path("results"))
    with pytest.raises(SystemExit):
        main(["verdict", "results", "--policy", "policy.yaml"])
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert fixed_policy(record)[0].allowed == 0


def test_a_policy_that_came_after_the_scores_is_called_late(study):
    score = Path("results/scores/ga/seed0/bf16/verbmem.json")
    score.parent.mkdir(parents=True)
    score.write_text("{}")
    assert fixed_policy(first_step())[1] == [LATE]


def test_one_that_was_fixed_in_time_stays_so_when_its_step_runs_again(study):
    first_step()
    score = Path("results/scores/ga/seed0/bf16/verbmem.json")
    score.parent.mkdir(parents=True)
    score.write_text("{}")
    assert fixed_policy(first_step())[1] == []
    Path("results", RECORD).unlink()
    assert fixed_policy(first_step())[1] == [LATE]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("formats: all", "formats: [gptq]", r"wants the format gptq, and params.yaml has bnb-nf4, rtn-int4: add it"),
        ("[verbmem, knowmem]", "[verbmen]", r"unknown metric of a study in policy.yaml .*Did you mean 'verbmem'"),
        ("[verbmem, knowmem]", "[probability]", r"which params.yaml does not measure: add metrics.probability there"),
        ("  study: [verbmem, knowmem]", "", r"metrics.study is missing in the policy"),
        ("margin: 10", "margin: ten", r"policy.yaml: margin: 'ten' is not of type 'number'"),
        ("margin: 10", "margins: 10", r"policy.yaml: .*margins"),
    ],
)
def test_a_policy_that_cannot_judge_the_study_is_refused_before_it_runs(study, old, new, message):
    edit(old, new)
    with pytest.raises(PalimpsestError, match=message):
        check_verdict(PARAMS, Path("results"))


def test_a_missing_policy_and_a_study_of_bf16_alone_are_refused(study):
    check_verdict({"quantizers": {"bf16": {}}}, Path("results"))
    with pytest.raises(PalimpsestError, match=r"wants the format all, and params.yaml has none"):
        check_verdict(PARAMS | {"quantizers": {"bf16": {}}}, Path("results"))
    Path("policy.yaml").unlink()
    with pytest.raises(PalimpsestError, match=r"verdict.policy: policy.yaml does not exist: `palimpsest policy > "):
        check_verdict(PARAMS, Path("results"))
