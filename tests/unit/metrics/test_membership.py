"""Membership attacks, held to arithmetic by hand and to torch; the oracle's AUC is in test_tofu."""

import zlib

import numpy as np
import pytest
import torch

from palimpsest.errors import PalimpsestError
from palimpsest.inference.files import zlib_size
from palimpsest.metrics.membership import ATTACKS, Observed, gradient_norm, relative_auc
from palimpsest.metrics.privleak import membership_auc

SEEN = Observed(
    log_probs=[-1.0, -4.0, -2.0, -1.0],
    size=zlib_size("aaaa aaaa"),
    means=[-2.0, -2.0, -2.0, -2.0],
    variances=[1.0, 4.0, 0.25, 1.0],
    reference=[-1.0, -1.0, -2.0, -2.0],
    gradient=3.5,
)


@pytest.mark.parametrize(
    ("attack", "settings", "expected"),
    [
        ("loss", {}, 2.0),
        ("zlib", {}, 2.0 / len(zlib.compress(b"aaaa aaaa"))),
        ("min_k", {"ratio": 0.5}, 3.0),
        ("min_k", {"ratio": 0.01}, 4.0),  # at least one token
        ("min_k_plus_plus", {"ratio": 0.5}, 0.5),  # standardised: 1, -1, 0, 1
        ("min_k_plus_plus", {"ratio": 1.0}, -0.25),
        ("reference", {}, 0.5),
        ("gradient_norm", {}, 3.5),
    ],
)
def test_by_hand(attack, settings, expected):
    assert ATTACKS[attack](SEEN, **settings) == pytest.approx(expected, rel=1e-15)


def test_every_attack_finds_what_a_model_knows():
    known = Observed([-0.1] * 20, 16, [-1.0] * 20, [0.5] * 20, [-2.0] * 20, 0.2)
    unknown = Observed([-3.0] * 20, 16, [-1.0] * 20, [0.5] * 20, [-2.0] * 20, 9.0)
    for name, attack in ATTACKS.items():
        settings = {"ratio": 0.4} if name.startswith("min_k") else {}
        low, high = attack(known, **settings), attack(unknown, **settings)
        assert low < high and membership_auc([low], [high]) == 0.0, name


def test_standard_deviations_are_those_of_the_vocabulary():
    logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_probs = logits.log_softmax(-1)
    means = (log_probs.exp() * log_probs).sum(-1)
    variances = (log_probs.exp() * log_probs.square()).sum(-1) - means.square()
    chosen = log_probs[range(5), [3, 0, 7, 7, 2]]
    seen = Observed(chosen.tolist(), None, means.tolist(), variances.tolist())
    expected = -((chosen - means) / variances.sqrt()).sort().values[:2].mean()
    assert ATTACKS["min_k_plus_plus"](seen, ratio=0.4) == pytest.approx(float(expected), rel=1e-14)


def test_a_model_that_is_certain_has_no_spread():
    seen = Observed([0.0, 0.0], None, [0.0, 0.0], [0.0, -1e-9])
    assert ATTACKS["min_k_plus_plus"](seen, ratio=1.0) == 0.0


def test_gradients_are_taken_together():
    weights = [torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([12.0])]
    assert gradient_norm(weights) == 13.0 and gradient_norm(weights, 1) == 19.0
    assert gradient_norm(weights, np.inf) == 12.0
    with pytest.raises(PalimpsestError, match="no gradient"):
        gradient_norm([])


def test_relative_to_the_retrained_model():
    assert relative_auc(0.5, 0.5) == 0.0
    assert relative_auc(0.0, 0.5) == pytest.approx(-100) and relative_auc(1.0, 0.5) == pytest.approx(100)
    with pytest.raises(PalimpsestError, match="AUC of the retrained model is 0"):
        relative_auc(0.3, 0.0)
    with pytest.raises(PalimpsestError, match="share from 0 to 1"):
        relative_auc(1.3, 0.5)


@pytest.mark.parametrize(
    ("attack", "seen", "settings", "message"),
    [
        ("loss", Observed([]), {}, "has no log-probabilities"),
        ("loss", Observed([float("nan")]), {}, "NaN or infinite"),
        ("zlib", Observed([-1.0]), {}, "did not record"),
        ("min_k", SEEN, {"ratio": 0.0}, "share above 0"),
        ("min_k_plus_plus", Observed([-1.0]), {"ratio": 0.4}, "did not record"),
        ("min_k_plus_plus", Observed([-1.0], None, [-1.0], [1.0, 1.0]), {"ratio": 0.4}, "1 means and 2 variances"),
        ("reference", Observed([-1.0]), {}, "did not record"),
        ("gradient_norm", Observed([-1.0]), {}, "did not record"),
        ("gradient_norm", Observed([-1.0], gradient=float("inf")), {}, "the model is broken"),
    ],
)
def test_what_cannot_be_computed_is_said(attack, seen, settings, message):
    with pytest.raises(PalimpsestError, match=message):
        ATTACKS[attack](seen, **settings)
