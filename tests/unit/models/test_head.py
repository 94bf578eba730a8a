"""Likelihoods without logits, against the same numbers from logits, and against independent ones."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from palimpsest.models import head
from palimpsest.models.head import Unprojected
from palimpsest.models.tokens import IGNORED, Tokens, cross_entropy, exact_memorization, flatten, sequence_log_probs
from palimpsest.unlearning import losses

DATA = Path(__file__).parents[2] / "data"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WIDTH, VOCAB = 24, 5000  # more than one block of the kernels
FUSED = [
    (name, loss) for table in (losses.FORGET_LOSSES, losses.RETAIN_LOSSES) for name, loss in table.items() if loss.fused
]
KLR = {"": "klr_published_predicted_positions", "_masked": "klr_published_scored_positions_masked"}
SETTINGS = {"beta": 0.1, "gamma": 0.3}


def batch(dtype=torch.float32, seed=0):
    """Three sequences of 3, 9 and 2 tokens; states and weight with a gradient."""
    draw = torch.Generator().manual_seed(seed)
    lengths = [3, 9, 2]
    targets = torch.randint(VOCAB, (sum(lengths),), generator=draw)
    targets[torch.tensor(lengths).cumsum(0) - 1] = IGNORED
    sequence = torch.arange(3).repeat_interleave(torch.tensor(lengths))
    states, weight = (torch.randn(size, WIDTH, generator=draw).to(DEVICE, dtype) for size in (len(targets), VOCAB))
    states, weight = states.requires_grad_(True), weight.mul(0.5).detach().requires_grad_(True)
    return Tokens(states @ weight.T, targets.to(DEVICE), sequence.to(DEVICE), 3), states, weight


def reference_of(loss, tokens, unprojected):
    draw = torch.Generator().manual_seed(1)
    if loss.reference == "sequence_log_probs":
        return torch.tensor([-30.0, -60.0, 0.0], device=DEVICE)
    if loss.reference == "none":
        return None
    states, weight = (torch.randn(size, WIDTH, generator=draw).to(tokens.logits.device) for size in (14, VOCAB))
    before = Unprojected(states.to(tokens.logits.dtype), weight.mul(0.5).to(tokens.logits.dtype))
    return before if unprojected else before.float()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("name", "loss"), FUSED, ids=[name for name, _ in FUSED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_losses_and_gradients_are_those_of_logits(monkeypatch, name, loss, dtype, chunked):
    if chunked:
        monkeypatch.setattr(head, "LIMIT", 4 * VOCAB)
    settings = {key: SETTINGS[key] for key in loss.settings}
    tokens, *leaves = batch(dtype)
    expected = loss.function(tokens, reference_of(loss, tokens, False), **settings)
    right = torch.autograd.grad(expected, leaves)
    tight = 1e-5 if dtype == torch.float32 else 0.01
    for unprojected in (False, True):
        given = replace(tokens, logits=Unprojected(*leaves))
        value = loss.function(given, reference_of(loss, tokens, unprojected), **settings)
        assert value.item() == pytest.approx(expected.item(), rel=1e-5 if dtype == torch.float32 else 1e-3)
        for ours, theirs in zip(torch.autograd.grad(value, leaves), right, strict=True):
            assert (ours - theirs).float().norm() <= tight * theirs.float().norm()


def test_gradients_can_be_added_where_they_are_kept():
    tokens, states, weight = batch()
    cross_entropy(tokens).backward()
    expected, states.grad = 2 * weight.grad, None
    given = replace(tokens, logits=Unprojected(states, weight, into_grad=True))
    cross_entropy(given).backward()
    assert torch.allclose(weight.grad, expected, atol=1e-7)


def test_the_likelihood_is_computed_once(monkeypatch):
    tokens, states, weight = batch()
    given = replace(tokens, logits=Unprojected(states, weight))
    value = sequence_log_probs(given)
    monkeypatch.setattr(head._Nll, "forward", None)
    assert cross_entropy(given).item() == pytest.approx(-value.sum().item() / 11)


@pytest.mark.parametrize("chunked", [False, True])
def test_first_choices_are_those_of_logits_and_the_last_token_of_a_sequence_has_none(monkeypatch, chunked):
    if chunked:
        monkeypatch.setattr(head, "LIMIT", 4 * VOCAB)
    tokens, states, weight = batch()
    choices = tokens.logits.argmax(-1)
    targets = tokens.targets.clone()
    targets[[0, 4, 9]] = choices[[0, 4, 9]]  # three of the eleven that are predicted
    for logits in (tokens.logits, Unprojected(states, weight)):
        share = exact_memorization(replace(tokens, logits=logits, targets=targets))
        assert share.item() == pytest.approx(3 / 11) and not share.requires_grad


def test_under_autocast_the_head_multiplies_as_it_would():
    _, states, weight = batch()
    with torch.autocast(DEVICE, torch.bfloat16):
        given = Unprojected.of(states, weight, into_grad=True)
    assert given.states.dtype == given.weight.dtype == torch.bfloat16 and not given.into_grad


@pytest.mark.parametrize("masked", ["", "_masked"])
@pytest.mark.parametrize("name", ["ga", "gdr", "npo_published", "klr_published_"])
def test_the_values_are_the_independent_ones(name, masked):
    """tests/data/losses.json (NumPy, float64): logits as states of a head that hands them on."""
    oracle = json.loads((DATA / "losses.json").read_text())

    def of(logits, labels):
        rows = torch.tensor(oracle["inputs"][logits], dtype=torch.float32, device=DEVICE)
        labels = torch.tensor(oracle["inputs"][f"{labels}{masked}"], device=DEVICE)
        tokens = flatten(rows, labels, torch.ones(rows.shape[:2], device=DEVICE))
        return replace(tokens, logits=Unprojected(tokens.logits, torch.eye(rows.shape[-1], device=DEVICE)))

    forget, retain = of("logits_forget", "labels_forget"), of("logits_retain", "labels_retain")
    value = {
        "ga": lambda: losses.gradient_ascent(forget),
        "gdr": lambda: losses.retain_cross_entropy(retain),
        "npo_published": lambda: losses.negative_preference(
            forget, sequence_log_probs(of("logits_forget_ref", "labels_forget")), 0.1
        ),
        "klr_published_": lambda: losses.retain_kl(retain, of("logits_retain_ref", "labels_retain").logits),
    }[name]()
    key = f"{name}{masked}" if name != "klr_published_" else KLR[masked]
    assert value.item() == pytest.approx(oracle["losses"][key], rel=2e-6)
