"""Pretraining of a base."""

import copy
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from palimpsest.errors import PalimpsestError
from palimpsest.models.pretraining_text import window_starts
from palimpsest.models.scratch import build_llama
from palimpsest.training import pretraining
from palimpsest.training.pretraining import Pretraining, Windows, held_out_loss, next_token_loss, pretrain

SHAPE = {"hidden_size": 64, "layers": 1, "heads": 2, "mlp_size": 128, "context": 33}
SETTINGS = Pretraining(
    learning_rate=3.0e-3, warmup_steps=2, steps=30, batch_size=4, weight_decay=0.1, held_out=0.1, seed=0
)


@pytest.fixture(scope="module")
def text(tiny):
    """A row of tokens in which each follows from the one before it."""
    return (np.arange(4000) * 7 % 50 + 10).astype(np.uint16)


@pytest.fixture
def model(tiny):
    return build_llama(tiny[1], SHAPE, seed=0)


def test_the_loss_is_that_of_transformers(model):
    ids = torch.randint(0, 300, (3, 33), generator=torch.Generator().manual_seed(0))
    assert next_token_loss(model, ids).item() == pytest.approx(model(input_ids=ids, labels=ids).loss.item(), abs=1e-6)


def test_without_logits_the_loss_and_its_gradients_are_the_same(model):
    ids = torch.randint(0, 300, (3, 33), generator=torch.Generator().manual_seed(0))
    losses, gradients = [], []
    for loss_of in (next_token_loss, pretraining.next_token_loss_without_logits):
        loss = loss_of(model, ids)
        losses.append(loss.item())
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    for usual, ours in zip(*gradients, strict=True):
        assert torch.allclose(usual, ours, atol=1e-6)


def test_a_base_in_fused_kernels_is_the_usual_one_up_to_rounding(monkeypatch, tiny, text):
    """On a CPU without the kernels themselves, which need a GPU."""
    outcomes = []
    for wanted in (False, True):
        with monkeypatch.context() as patch:
            if not (wanted and torch.cuda.is_available()):
                patch.setattr(pretraining, "is_fused", lambda model, wanted=wanted: wanted)
                patch.setattr(pretraining, "kernels", lambda model, wanted: nullcontext())
            outcomes.append(pretrain(build_llama(tiny[1], SHAPE, seed=0), text, 0, SETTINGS))
    usual, fused = outcomes
    assert fused["final_loss"] == pytest.approx(usual["final_loss"], abs=0.05)
    assert fused["held_out_nats"] == pytest.approx(usual["held_out_nats"], abs=0.05)


def test_a_window_is_bos_and_the_stretch_of_text(text):
    windows = Windows(text, np.array([0, 64]), 32, bos=5)
    assert len(windows) == 2
    assert windows[1]["input_ids"].tolist() == [5, *text[64:96].tolist()]


def test_a_base_learns_what_predicts_text_that_it_never_saw(model, tiny, text):
    before = held_out_loss(model, Windows(text, window_starts(4000, 32, 0.1, 0)[1], 32, 0), 4)
    outcome = pretrain(model, text, tiny[1].bos_token_id, SETTINGS)
    assert before > 5.5  # 400 tokens: nothing known yet
    assert outcome["held_out_nats"] < 3.0 < math.log(50)  # what counting the tokens would give
    assert outcome["first_loss"] == pytest.approx(before, abs=0.2) and outcome["final_loss"] < 3.0
    assert outcome["steps"] == 30 and outcome["tokens_seen"] == 30 * 4 * 32 and outcome["tokens_of_text"] == 4000
    assert next(model.parameters()).dtype == torch.float32


def test_the_same_settings_give_the_same_weights_and_another_seed_others(tiny, text):
    short = {"steps": 3, "warmup_steps": 1}
    runs = [(seed, build_llama(tiny[1], SHAPE, seed=0)) for seed in (0, 0, 1)]
    for seed, network in runs:
        pretrain(network, text, 0, Pretraining(**vars(SETTINGS) | short | {"seed": seed}))
    first, again, other = (network.lm_head.weight for _, network in runs)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_rate_rises_first_and_ends_at_zero(model, text):
    """In the first of the warm-up's steps the rate is 0; a run that ends there has changed nothing."""
    start = copy.deepcopy(model.lm_head.weight.data)
    pretrain(model, text, 0, Pretraining(**vars(SETTINGS) | {"steps": 1, "warmup_steps": 1}))
    assert torch.equal(model.lm_head.weight, start)


def test_a_text_with_fewer_windows_than_a_batch_is_refused(model, text):
    with pytest.raises(PalimpsestError, match=r"has 3 windows of 32 tokens to train on, fewer than batch_size 4"):
        pretrain(model, text[:128], 0, SETTINGS)


def test_two_batches_of_two_are_one_step_of_four(tiny, text):
    """The same windows in the same order, so the same mean: last bits apart, and AdamW makes much of those."""
    once, twice = (build_llama(tiny[1], SHAPE, seed=0) for _ in range(2))
    short = vars(SETTINGS) | {"steps": 3, "warmup_steps": 1}
    whole = pretrain(once, text, 0, Pretraining(**short))
    parts = pretrain(twice, text, 0, Pretraining(**short | {"batch_size": 2, "gradient_accumulation": 2}))
    assert parts["tokens_seen"] == whole["tokens_seen"] and parts["steps"] == whole["steps"] == 3
    assert parts["final_loss"] == pytest.approx(whole["final_loss"], abs=2e-3)
    assert parts["final_loss"] == pytest.approx(parts["held_out_nats"], abs=0.3)  # of one step, and no sum of steps
    assert parts["held_out_nats"] == pytest.approx(whole["held_out_nats"], abs=2e-3)
