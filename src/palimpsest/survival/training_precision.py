"""How the weights were stored while an update was trained, told from which of them moved: two checkpoints are enough.

bfloat16 keeps 8 significant bits: for |w| in [2^k, 2^(k+1)), an octave, half an ulp is 2^(k-8). A step of AdamW is the
learning rate eta times a normalized gradient u, whose size is 1 in the first step and seldom above 1 afterwards: up to
about 3, (1 - beta1) / sqrt(1 - beta2), where gradients suddenly grow, and up to 2 after some 300 steps in bfloat16,
where PyTorch keeps the second moment in bfloat16 too and its small increments are lost. Let D be the sum of all steps.

*Weights in bfloat16, updated in place.* A step under half an ulp is rounded away, step after step, and nothing adds up:
a weight moves only if one step does it, eta |u| > 2^(k-8), that is in the octaves with 2^k < 256 eta |u|, however large
D is. The lower edge C of the first octave that stays lies between 256 eta |u| and 512 eta |u|, so that eta |u| is
between C / 512 and C / 256.

*Float32 masters, or a merged adapter, rounded to bfloat16 once.* The target lies on the grid of bfloat16, so a weight
changes exactly if |D| > 2^(k-8). The share that changes in an octave is P(|D| > 2^(k-8)), the upper tail of D: smooth
where D is spread out, abrupt where all |D| are alike. So how abrupt it is does not tell the two cases apart; D does.

*Stochastic rounding in every step.* A weight changes with a probability of about min(|D| / ulp, 1) or, where steps go
back and forth, more: at least about half of that tail.

D shows in the smallest weights, whose ulp is finer than any step, in every storage. AdamW makes steps of similar size
for all weights of a matrix, so they predict how many weights of each octave would have changed if steps added up:
P(|D| > 2^(k-8)) of them.

The rule:

1. Fewer than a quarter of the predicted ones changed in some octave (of 50 predicted ones or more):
   bfloat16 in place, and the
   first such octave gives C.
2. Never so few, and a quarter or less changed in some octave (of 200 weights or more):
   the change is finer than bfloat16, for
   it falls off where D says.
3. Otherwise undecided: weights of all sizes changed (eta so large, or |D| so far above the ulp, that both look alike).

A quarter lies between what the two cases give: next to nothing, and about all (half under stochastic rounding). It
assumes steps of similar size for large and small weights of a matrix; plain SGD does not make them.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from palimpsest.models.tensors import Float32
from palimpsest.survival.records import TrainingPrecision

IN_PLACE, FINER, UNDECIDED, UNCHANGED = "bfloat16 in place", "finer than bfloat16", "undecided", "nothing changed"
QUARTER = 0.25
EXPECTED = 50
ENOUGH = 200
SMALLEST, PART = 2000, 32
"""Weights of a matrix, the smallest, in which D is read off: enough for its tail down to a few percent. Of a small
matrix only one in 32, for in larger weights D is already rounded by their own ulp."""
OCTAVES = 64
LOWEST = -40
"""Octave i holds 2^(i-40) <= x < 2^(i-39); octave 0 also what is smaller, and zero."""
HALF_ULP = 8
"""Octaves between a weight and half its ulp."""


def octave_counts(weights: Float32, shifts: Float32) -> NDArray[np.int64]:
    """[64, 64] how many weights lie in each octave of |w| (rows) and of the shift |W - W0| (columns; 0: unchanged)."""
    pairs = octaves(weights) * np.uint16(OCTAVES) + octaves(shifts)
    return np.bincount(pairs.reshape(-1), minlength=OCTAVES**2).reshape(OCTAVES, OCTAVES)


def lower_edge(octave: int) -> float:
    return 2.0 ** (octave + LOWEST) if octave else 0.0


def infer_training_precision(matrices: Iterable[NDArray[np.int64]], beyond_bfloat16: bool = False) -> TrainingPrecision:
    """The verdict of the rule above, from the `octave_counts` of each matrix.

    beyond_bfloat16: the unlearned checkpoint holds values that bfloat16 does not have, which settles it.
    Its moved_below is C, and its learning rate [C / 512, C / 256], where the verdict is IN_PLACE.
    """
    counts = [matrix for matrix in matrices if matrix[:, 1:].any()]
    if not counts:
        return _verdict(UNCHANGED, "no weight differs")
    if beyond_bfloat16:
        return _verdict(FINER, "the unlearned checkpoint holds values that bfloat16 does not have")
    weights = np.sum([matrix.sum(1) for matrix in counts], axis=0)
    changed = np.sum([matrix[:, 1:].sum(1) for matrix in counts], axis=0)
    expected = np.sum([expected_changes(matrix) for matrix in counts], axis=0)
    tested = [int(octave) for octave in np.flatnonzero(expected >= EXPECTED) if octave]
    if not tested:
        return _verdict(UNDECIDED, "too few weights changed to see where it stops")
    shares = changed / np.maximum(weights, 1)
    for octave in tested:
        if changed[octave] < QUARTER * expected[octave]:
            edge = lower_edge(octave)
            reason = (
                f"{shares[octave - 1]:.1%} of the weights just below |w| = {edge:.3g} changed "
                f"and {shares[octave]:.2%} just above, "
            )
            reason += f"where {expected[octave] / weights[octave]:.0%} would have if small steps added up"
            return _verdict(IN_PLACE, reason, edge)
    common = weights >= ENOUGH
    common[0] = False  # zeros may be there by design
    lowest = float(shares[common].min()) if common.any() else 1.0
    if lowest <= QUARTER:
        return _verdict(
            FINER,
            f"the share that changed falls to {lowest:.2%} with growing |w|, where small steps that add up let it fall",
        )
    return _verdict(
        UNDECIDED, f"{lowest:.0%} or more of the weights changed in every octave, as with any storage at large rates"
    )


def expected_changes(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """[64] how many weights of each octave would have changed had D been added at once,
    from the smallest weights of the matrix."""
    small = counts[1:].sum(1).cumsum() >= min(SMALLEST, counts.sum() // PART)
    last = 1 + int(small.argmax()) if small.any() else OCTAVES - 1
    shifts = counts[1 : last + 1].sum(0)
    tail = shifts[::-1].cumsum()[::-1] / max(shifts.sum(), 1)  # [octave] the share of shifts of at least its lower edge
    thresholds = np.maximum(np.arange(OCTAVES) - HALF_ULP, 1)
    expected: NDArray[np.float64] = tail[thresholds] * counts.sum(1)
    return expected


def octaves(values: Float32) -> NDArray[np.uint16]:
    """The octave of each |value|, 0 to 63; see LOWEST."""
    exponents = (
        (values.view(np.uint32) >> np.uint32(23)).astype(np.uint8).astype(np.int16)
    )  # the first cast drops the sign
    exponents -= np.int16(127 + LOWEST)
    return np.clip(exponents, 0, OCTAVES - 1).astype(np.uint16)


def _verdict(verdict: str, reason: str, moved_below: float | None = None) -> TrainingPrecision:
    rate = None if moved_below is None else [moved_below / 512, moved_below / 256]
    return {"verdict": verdict, "reason": reason, "moved_below": moved_below, "learning_rate": rate}
