"""A model that is no longer made of numbers is never handed on."""

import copy
import importlib.util
import json
from pathlib import Path

import pytest
import torch

from palimpsest.artefacts import MANIFEST, Origin
from palimpsest.corpus.layout import write_corpus
from palimpsest.errors import PalimpsestError
from palimpsest.models.checkpoint import write_model
from palimpsest.models.sequences import corpus_sequences
from palimpsest.training import health
from palimpsest.training.batches import Collator
from palimpsest.training.schedule import Schedule
from palimpsest.training.trainer import NextTokenTrainer, fit, train
from palimpsest.unlearning.adapters import Adapter
from palimpsest.unlearning.objective import Objective
from palimpsest.unlearning.unlearn import unlearn

STEP = Path(__file__).parents[3] / "workflow/scripts/unlearn.py"
LOST = r"training left no finite weights in .*, at learning_rate 1e\+39: lower learning_rate.* The model was not saved"
HUGE, ONE_STEP = 1e39, 1


@pytest.fixture(scope="module")
def start(tiny):
    model, tokenizer, corpus = tiny
    forget = corpus_sequences(corpus, "forget", tokenizer, 64, True)[:3]
    return model, forget, tokenizer.pad_token_id


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_one_step_at_a_huge_rate(start, storage):
    """The loss that the Trainer sees is the one before the step, and finite."""
    model, forget, pad = start
    schedule = Schedule(HUGE, ONE_STEP, storage=storage)
    with pytest.raises(PalimpsestError, match=LOST):
        train(copy.deepcopy(model), forget, pad, schedule)
    with pytest.raises(PalimpsestError, match=LOST):
        unlearn(copy.deepcopy(model), forget, [], pad, Objective("ga"), schedule)


@pytest.mark.parametrize(
    ("method", "adapter"),
    [(Objective("descent", negate=1e300), None), (Objective("ga"), Adapter("lora", 2, 1e300, 0.0))],
    ids=["task vector", "adapter"],
)
def test_what_is_put_together_after_training(start, method, adapter):
    model, forget, pad = start
    with pytest.raises(PalimpsestError, match=r"no finite weights|became (nan|inf)"):
        unlearn(copy.deepcopy(model), forget, [], pad, method, Schedule(1e-3, 1, storage="float32"), adapter=adapter)


def test_finite_weights_without_an_answer(start):
    """Products of finite weights overflow."""
    model, forget, pad = start
    draw = torch.Generator().manual_seed(0)

    class LastStep(NextTokenTrainer):
        """Ends where a huge rate could: finite weights, whose products are none."""

        def check_outcome(self):
            with torch.no_grad():
                self.model.lm_head.weight.copy_(
                    1e38 * torch.randn(self.model.lm_head.weight.shape, generator=draw).sign()
                )
            super().check_outcome()

    with pytest.raises(PalimpsestError, match=r"the answer of the trained model became (nan|inf) at step 1: lower"):
        fit(LastStep, copy.deepcopy(model), Collator(forget, pad), Schedule(1e-3, 1, storage="float32"))


@pytest.mark.parametrize(
    ("storage", "optimizer"), [("bfloat16-stochastic", "adamw"), ("bfloat16", "adamw-float32-moments")]
)
def test_a_rate_that_no_weight_can_take(start, storage, optimizer):
    model, forget, pad = start
    with pytest.raises(PalimpsestError, match=r"learning_rate is 1e\+39.* lower it"):
        train(copy.deepcopy(model), forget, pad, Schedule(HUGE, ONE_STEP, storage=storage, optimizer=optimizer))


def test_a_gradient_that_is_no_number_moves_no_weight(start):
    model, forget, pad = copy.deepcopy(start[0]), *start[1:]

    class Kinked(NextTokenTrainer):
        def batch_loss(self, model, inputs):
            weight = model.lm_head.weight
            return super().batch_loss(model, inputs) + (weight - weight.detach()).square().sum().sqrt()

    before = model.lm_head.weight.detach().clone()
    with pytest.raises(PalimpsestError, match="the gradient became nan at step 0: lower learning_rate"):
        fit(Kinked, model, Collator(forget, pad), Schedule(1e-3, 1, storage="float32"))
    assert torch.equal(model.lm_head.weight, before)


def test_weights_that_no_loss_sees_end_training_soon(start, monkeypatch):
    monkeypatch.setattr(health, "EVERY", 2)
    model, forget, pad = copy.deepcopy(start[0]), *start[1:]
    unseen = (set(range(model.config.vocab_size)) - {pad, *(token for sequence in forget for token in sequence)}).pop()
    with torch.no_grad():
        model.model.embed_tokens.weight[unseen] = float("inf")
    steps = []

    class Counting(NextTokenTrainer):
        def batch_loss(self, model, inputs):
            steps.append(self.state.global_step)
            return super().batch_loss(model, inputs)

    with pytest.raises(PalimpsestError, match=r"no finite weights in model\.embed_tokens\.weight, at"):
        fit(Counting, model, Collator(forget, pad), Schedule(1e-4, 50, storage="float32"))
    assert steps == [0, 1]


def test_the_step_saves_nothing(start, tiny, tmp_path):
    spec = importlib.util.spec_from_file_location("unlearn_step", STEP)
    step = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(step)
    corpus, target, folder = (
        tmp_path / "results" / each for each in ("corpus", "models/target/seed0", "models/ga/seed0")
    )
    write_corpus(tiny[2], corpus, Origin())
    write_model(target, copy.deepcopy(start[0]), tiny[1], Origin({"model": "target"}, inputs=[corpus / MANIFEST]))
    method = {"forget_loss": "ga", "retain_loss": None, "alpha": 1.0, "retain_batch_size": None, "losses": "published"}
    method |= {"learning_rate": HUGE, "epochs": 1, "batch_size": None, "storage": "float32"}
    settings = {"method": method, "max_length": 32, "questions": False}
    origin = Origin({"model": "ga", "seed": 0}, {"methods/ga": method}, code=[STEP])
    with pytest.raises(PalimpsestError, match=LOST):
        step.unlearn_model(origin, settings, corpus, target, folder, 1)
    assert not folder.exists()
    step.unlearn_model(origin, settings | {"method": method | {"learning_rate": 1e-4}}, corpus, target, folder, 1)
    assert json.loads((folder / MANIFEST).read_text())["training"]["steps"] == 1
