"""The benchmarks that print the figures of docs/results/costs.md, on a tiny model."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from palimpsest.study.params import read_params

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """The module of a benchmark, its command line set."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        return __import__(name)

    return run


def test_training_prints_the_spread_of_its_steps_and_nothing_of_the_first_ones(load, monkeypatch, capsys):
    training = load("training", "tiny", "--length", "32", "--steps", "4", "--methods", "npo", "ga")
    asked, measure = [], training.measure
    monkeypatch.setattr(training, "measure", lambda *given: asked.append(given[:2]) or measure(*given))
    training.main()
    assert asked == [("npo", training.WARM_UP + 1), ("npo", 4), ("ga", 4)]
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    steps = [re.match(r"(\w+) .* (\d+) ms a step \((\d+) to (\d+)\)", line) for line in lines]
    found = {step[1]: [int(number) for number in step.groups()[1:]] for step in steps if step}
    assert list(found) == ["npo", "ga"]
    assert all(0 < least <= median <= most for median, least, most in found.values())


def test_training_leaves_out_what_cannot_be_sharded_before_it_builds_a_model(load, monkeypatch, capsys):
    training = load("training", "tiny", "--gpus", "2", "--methods", "sure")
    monkeypatch.setattr(training, "random_llama", lambda *_, **__: pytest.fail("a model is built"))
    training.main()
    assert "sure     left out: a saliency mask cannot be sharded" in capsys.readouterr().out


def test_evaluation_takes_as_many_long_texts_at_a_time_as_the_workflow(load, monkeypatch):
    """workflow/scripts/infer.py: inference.batch_size for responses and log-probabilities alike."""
    evaluation = load("evaluation", "tiny", "--length", "64", "--batch-size", "48")
    asked = []

    def note(*given):
        asked.append(given[-1])
        raise InterruptedError

    monkeypatch.setattr(evaluation, "split_log_probs", note)
    with pytest.raises(InterruptedError):
        evaluation.main()
    assert asked == [48]


def test_controls_of_attacks_audit_the_models_of_one_seed_against_those_of_another(load, tmp_path):
    study, folder = tmp_path / "studies/one", tmp_path / "elsewhere/controls"
    (tmp_path / "data/tofu").mkdir(parents=True)
    study.mkdir(parents=True)
    shutil.copy(BENCHMARKS.parent / "studies/tofu-cpu/params.yaml", study)
    load("attack_controls", str(study), str(folder)).main()
    made, before = read_params(folder / "params.yaml"), read_params(study / "params.yaml")
    assert made["seeds"] == [1] and made["training"] == before["training"]
    for name, model in (("retrain_seed_0", "retrain"), ("target_seed_0", "target")):
        place = folder / made["methods"][name]["checkpoint"]
        assert place.resolve() == study / "results/models" / model / "seed0"
    assert (folder / made["corpus"]["settings"]["path"]).resolve() == tmp_path / "data/tofu"
    attacks, asked = made["attacks"]["each"], before["attacks"]["each"]
    assert (folder / attacks["paraphrase"]["file"]).resolve() == tmp_path / "data/tofu/forget01.json"
    assert {name: each for name, each in attacks.items() if name != "paraphrase"} == {
        name: each for name, each in asked.items() if name != "paraphrase"
    }
    assert list(made["quantizers"]) == made["attacks"]["precisions"] == before["attacks"]["precisions"]
