"""Which weights moved tells how they were stored:
AdamW's steps in the three storages, at several learning rates and scales."""

import ml_dtypes
import numpy as np
import pytest
import torch

from palimpsest.survival.training_precision import (
    FINER,
    IN_PLACE,
    OCTAVES,
    UNCHANGED,
    UNDECIDED,
    expected_changes,
    infer_training_precision,
    lower_edge,
    octave_counts,
)
from palimpsest.training.storage import WEIGHT_STORAGE

WEIGHTS = 1 << 18
STEPS = [("coherent", 50), ("coherent", 300), ("noisy", 100)]
SCALES = [0.02, 0.2]
RATES = [1e-6, 8e-6, 1e-4]


def train(storage: str, scale: float, rate: float, gradients: str, steps: int) -> np.ndarray:
    """Octave counts of N(0, scale) weights after `steps` of AdamW on gradients
    that agree in every step, or mostly do not."""
    generator = torch.Generator().manual_seed(0)
    start = (torch.randn(WEIGHTS, generator=generator) * scale).to(torch.bfloat16)
    settings = WEIGHT_STORAGE[storage]
    weights = torch.nn.Parameter(start.to(settings.dtype, copy=True))
    recipe, arguments = settings.optimizers["adamw"](rate, 0.0, 0)
    optimizer = recipe([weights], **arguments)
    direction = torch.randn(WEIGHTS, generator=generator)
    for _ in range(steps):
        noise = 0 if gradients == "coherent" else torch.randn(WEIGHTS, generator=generator) - 0.8 * direction
        weights.grad = (direction + noise).to(settings.dtype)
        optimizer.step()
    before, after = start.float().numpy(), weights.detach().to(torch.bfloat16).float().numpy()
    return octave_counts(before, after - before)


@pytest.mark.parametrize(("gradients", "steps"), STEPS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("rate", RATES)
def test_bfloat16_in_place_is_recognized_and_so_is_its_learning_rate(scale, rate, gradients, steps):
    found = infer_training_precision([train("bfloat16", scale, rate, gradients, steps)])
    assert found["verdict"] == IN_PLACE
    low, high = found["learning_rate"]
    assert low <= rate <= high and high == 2 * low == found["moved_below"] / 256


@pytest.mark.parametrize(("gradients", "steps"), STEPS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("storage", ["float32", "bfloat16-stochastic"])
def test_steps_that_add_up_are_never_taken_for_bfloat16_in_place(storage, scale, rate, gradients, steps):
    counts = train(storage, scale, rate, gradients, steps)
    found = infer_training_precision([counts])
    assert found["verdict"] in (FINER, UNDECIDED) and found["learning_rate"] is None
    weights, changed = counts.sum(1), counts[:, 1:].sum(1)
    large = max(octave for octave in range(OCTAVES) if weights[octave] >= 200)
    falls_off = (
        min(changed[octave] / weights[octave] for octave in range(1, large + 1) if weights[octave] >= 200) <= 0.25
    )
    assert found["verdict"] == (FINER if falls_off else UNDECIDED)


def test_enough_of_these_are_decided():
    """At the rates of unlearning (1e-6 to 1e-5) and with gradients that do not all agree,
    the share falls off within reach."""
    for storage in ("float32", "bfloat16-stochastic"):
        for scale in SCALES:
            assert infer_training_precision([train(storage, scale, 1e-6, "noisy", 100)])["verdict"] == FINER


@pytest.mark.parametrize("scale", SCALES)
def test_float32_masters_change_as_many_weights_as_the_smallest_ones_predict(scale):
    counts = train("float32", scale, 8e-6, "noisy", 100)
    expected, changed = expected_changes(counts), counts[:, 1:].sum(1)
    enough = expected > 500
    assert enough.sum() > 4
    assert np.allclose(changed[enough], expected[enough], rtol=0.15)


def test_a_rate_that_moves_every_weight_is_undecided():
    assert infer_training_precision([train("bfloat16", 0.02, 1e-2, "coherent", 50)])["verdict"] == UNDECIDED


def test_nothing_changed_and_values_finer_than_bfloat16_settle_it():
    weights = np.full(1000, 0.5, np.float32)
    nothing, little = octave_counts(weights, 0 * weights), octave_counts(weights, weights * 1e-6)
    assert infer_training_precision([nothing])["verdict"] == UNCHANGED
    assert infer_training_precision([nothing, little], beyond_bfloat16=True)["verdict"] == FINER


def test_matrices_without_a_change_say_nothing():
    """An adapter on some layers: the others, whose weights are larger, would look like a border."""
    adapted = train("float32", 0.02, 1e-6, "noisy", 100)
    frozen = octave_counts(np.full(WEIGHTS, 0.6, np.float32), np.zeros(WEIGHTS, np.float32))
    assert infer_training_precision([adapted, frozen]) == infer_training_precision([adapted])


def test_octaves_hold_what_they_say():
    magnitudes = np.array([0, 2.0**-41, 2.0**-40, 2.0**-10, 1.99 * 2.0**-10, -(2.0**-10), 1.0], np.float32)
    counts = octave_counts(magnitudes, magnitudes)
    assert counts.sum() == 7 and counts[0, 0] == 3 and lower_edge(0) == 0.0
    octave = next(i for i in range(OCTAVES) if lower_edge(i) == 2.0**-10)
    assert counts[octave, octave] == 3 and counts[octave + 10, octave + 10] == 1
    half_ulp = np.spacing(np.array(2.0**-10, ml_dtypes.bfloat16)).astype(float) / 2
    assert half_ulp == lower_edge(octave - 8)
