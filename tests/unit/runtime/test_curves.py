"""Training curves in a real MLflow store, and a training that does not know of them."""

import copy
import logging
import shutil
import sqlite3
import subprocess
import sys

import pytest
import torch
from processes import NUMBER, two_processes
from transformers import trainer as of_transformers

from palimpsest.errors import PalimpsestError
from palimpsest.models.sequences import corpus_sequences
from palimpsest.runtime import curves
from palimpsest.training.schedule import Schedule
from palimpsest.training.trainer import train

STEPS = 3


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A store without runs: MLflow takes seconds for its tables."""
    file = tmp_path_factory.mktemp("curves") / "curves.db"
    curves._open(f"sqlite:///{file}")
    return file


@pytest.fixture
def store(empty, tmp_path, monkeypatch):
    """A file without runs that curves go to."""
    shutil.copy(empty, tmp_path)
    monkeypatch.setenv(curves.VARIABLE, f"sqlite:///{tmp_path}/curves.db")
    monkeypatch.setattr(of_transformers, "DEFAULT_CALLBACKS", list(of_transformers.DEFAULT_CALLBACKS))
    monkeypatch.setenv(curves.NAME, "")
    curves.name_run("unlearn", {"model": "ga_gdr", "seed": 0})
    return tmp_path / "curves.db"


def trained(tiny, processes=1):
    """The weights of the tiny model after STEPS steps, and what happened."""
    model, tokenizer, corpus = tiny
    model = copy.deepcopy(model)
    sequences = corpus_sequences(corpus, "forget", tokenizer, 64, True)
    outcome = train(model, sequences, tokenizer.pad_token_id, Schedule(1e-3, STEPS, processes=processes))
    return model.state_dict(), outcome


def runs(store):
    """Every run in the store: its name, its state, and its metrics as (step, value)."""
    import mlflow  # two seconds, which only the worker with this file is to take

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{store}")
    found = client.search_runs([client.get_experiment_by_name(curves.EXPERIMENT).experiment_id])
    return [
        (
            run.info.run_name,
            run.info.status,
            {
                name: sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))
                for name in run.data.metrics
            },
        )
        for run in found
    ]


def test_a_training_is_a_run_and_ends_with_the_same_bits(tiny, store):
    plain, outcome = trained(tiny)
    curves.attach()
    logged, again = trained(tiny)
    assert again == outcome and all(torch.equal(plain[name], logged[name]) for name in plain)
    [(name, status, metrics)] = runs(store)
    assert (name, status, set(metrics)) == ("unlearn/ga_gdr/seed0", "FINISHED", set(curves.LOGGED))
    losses = metrics["loss"]
    assert [step for step, _ in losses] == list(range(1, STEPS + 1))
    # the Trainer rounds what it logs
    assert [losses[0][1], losses[-1][1]] == pytest.approx([outcome["first_loss"], outcome["final_loss"]], rel=1e-3)
    assert losses[-1][1] < losses[0][1]
    curves.attach()  # a process that has trained before
    trained(tiny)
    assert [len(metrics["loss"]) for _, _, metrics in runs(store)] == [STEPS, STEPS]


@two_processes
@pytest.mark.usefixtures("all_forks")
def test_of_two_processes_the_first_writes(tiny, store):
    _, outcome = trained(tiny, NUMBER)
    [(name, _, metrics)] = runs(store)
    assert name == "unlearn/ga_gdr/seed0" and len(metrics["loss"]) == STEPS
    assert metrics["loss"][-1][1] == pytest.approx(outcome["final_loss"], rel=1e-3)


def test_nothing_happens_without_the_variable(monkeypatch):
    monkeypatch.delenv(curves.VARIABLE, raising=False)
    monkeypatch.delenv(curves.NAME, raising=False)
    before = list(of_transformers.DEFAULT_CALLBACKS)
    curves.name_run("train", {"model": "target", "seed": 0})
    curves.attach()
    assert before == of_transformers.DEFAULT_CALLBACKS and curves.NAME not in curves.os.environ


def test_a_store_that_fails_later_costs_the_curve_alone(tiny, store, caplog, monkeypatch):
    curves.attach()
    written = curves.Run.write

    def write(run, step, logs):
        if step == 2:
            with sqlite3.connect(store) as tables:
                tables.execute("DROP TABLE metrics")
        written(run, step, logs)

    monkeypatch.setattr(curves.Run, "write", write)
    with caplog.at_level(logging.WARNING):
        _, outcome = trained(tiny)
    assert outcome["steps"] == STEPS
    said = [record.message for record in caplog.records if record.name == curves.log.name]
    assert len(said) == 1 and said[0].startswith("no more training curve: ") and "no such table: metrics" in said[0]


def test_a_process_that_ends_in_a_training_leaves_a_failed_run(store):
    code = (
        "from palimpsest.runtime import curves; run = curves.Run(*curves._open(curves.os.environ[curves.VARIABLE])); "
        "run.begin(); run.write(1, {'loss': 2.0}); raise ValueError('the loss is no number')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "the loss is no number" in done.stderr
    assert runs(store) == [("unlearn/ga_gdr/seed0", "FAILED", {"loss": [(1, 2.0)]})]


def test_two_steps_may_make_the_store_at_once(store):
    store.unlink()
    command = [
        sys.executable,
        "-c",
        "from palimpsest.runtime import curves; print(curves._open(curves.os.environ[curves.VARIABLE])[1])",
    ]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said[0] == said[1] != ""


@pytest.mark.parametrize(
    "address", ["sqlite:////dev/null/curves.db", "sqlite:///notes.txt", "folder/curves", "nonsense://x"]
)
def test_a_store_that_cannot_be_opened_is_one_line(store, monkeypatch, address, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("a file of something else " * 100)
    monkeypatch.setenv(curves.VARIABLE, address)
    with pytest.raises(PalimpsestError, match=f"PALIMPSEST_CURVES is {address}, which MLflow cannot open .*: give"):
        curves.attach()


def test_a_missing_package_is_named(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(PalimpsestError, match=r"mlflow is not installed: pip install .*\[curves\]"):
        curves.attach()
