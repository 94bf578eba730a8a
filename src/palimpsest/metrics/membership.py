"""Membership attacks: was a text among those that a model was trained on?

Each gives a text a number that is lower where the model knows it. `privleak.membership_auc` tells how well the number
parts the forget set from texts that no model saw, and `relative_auc` how far that is from the retrained model's.
Numbers are those of OpenUnlearning (arXiv 2506.12618), whose AUC is 1 minus ours.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from palimpsest.errors import PalimpsestError
from palimpsest.metrics.privleak import min_k

EPSILON = 1e-10
LEAST_VARIANCE = 1e-6
"""Squared nats. Where a model is certain of the next token, its log-probabilities do not spread at all."""


@dataclass(frozen=True)
class Observed:
    """What a model makes of a text. None: inference did not record it.

    size: bytes that zlib makes of the text. log_probs: [tokens] nats. means, variances: [tokens] of the
    log-probabilities of the whole vocabulary at each place, weighted by the probabilities; nats, squared nats.
    reference: [tokens] the log_probs of another model. gradient: the norm of the gradient of the mean loss.
    """

    log_probs: ArrayLike
    size: int | None = None
    means: ArrayLike | None = None
    variances: ArrayLike | None = None
    reference: ArrayLike | None = None
    gradient: float | None = None


def loss(seen: Observed) -> float:
    """Mean nats per token (Yeom et al. 2018)."""
    return -float(np.mean(_tokens(seen.log_probs, "log-probabilities")))


def compressed(seen: Observed) -> float:
    """`loss` over the bytes that zlib makes of the text, so that a dull text is not taken for a known one
    (Carlini et al. 2021)."""
    return loss(seen) / float(_given(seen.size, "the zlib attack", "size of the compressed text"))


def least_likely(seen: Observed, *, ratio: float) -> float:
    """Min-K% (Shi et al., arXiv 2310.16789): mean nats of the least likely `ratio` of the tokens."""
    return min_k(seen.log_probs, _share(ratio))


def least_likely_standardised(seen: Observed, *, ratio: float) -> float:
    """Min-K%++ (Zhang et al., arXiv 2404.02936): the same of log-probabilities in standard deviations from what the
    model expects at each place."""
    values, means, variances = (
        _tokens(each, what)
        for each, what in (
            (seen.log_probs, "log-probabilities"),
            (_given(seen.means, "Min-K%++", "means of the vocabulary"), "means"),
            (_given(seen.variances, "Min-K%++", "variances of the vocabulary"), "variances"),
        )
    )
    if not values.size == means.size == variances.size:
        raise PalimpsestError(
            f"Min-K%++ has {values.size} log-probabilities, {means.size} means and {variances.size} variances: record "
            "all three of the same tokens."
        )
    return min_k((values - means) / np.sqrt(np.maximum(variances, LEAST_VARIANCE)), _share(ratio))


def beside_reference(seen: Observed) -> float:
    """`loss` beyond that of a reference model, which need not be trained on either set (Carlini et al. 2021)."""
    other = _given(seen.reference, "the reference attack", "log-probabilities of a reference model")
    return loss(seen) + float(np.mean(_tokens(other, "log-probabilities of the reference")))


def gradient(seen: Observed) -> float:
    """The norm of the gradient of `loss`: a text that was trained on has little left to teach
    (Wang et al., arXiv 2402.17012)."""
    norm = _given(seen.gradient, "the gradient attack", "norm of the gradient")
    if not np.isfinite(norm) or norm < 0:
        raise PalimpsestError(f"the norm of a gradient is {norm}: the model is broken there.")
    return float(norm)


ATTACKS: dict[str, Callable[..., float]] = {
    "loss": loss,
    "zlib": compressed,
    "min_k": least_likely,
    "min_k_plus_plus": least_likely_standardised,
    "reference": beside_reference,
    "gradient_norm": gradient,
}
"""By name, what makes a number of `Observed` and the attack's settings."""


def gradient_norm(gradients: Iterable[ArrayLike], order: float = 2) -> float:
    """The p-norm of all gradients taken together, p being `order`; arrays of any shape."""
    norms = [float(np.linalg.norm(np.ravel(np.asarray(each, dtype=np.float64)), order)) for each in gradients]
    if not norms:
        raise PalimpsestError("there is no gradient: no weight of the model is trained.")
    return float(np.linalg.norm(norms, order))


def relative_auc(auc: float, auc_retrain: float) -> float:
    """Percent by which an AUC lies above (less known) or below (known) that of the retrained model; 0 where they agree.

    PrivLeak of OpenUnlearning, whose sign and EPSILON it has. Raises PalimpsestError where the retrained model's is 0:
    then no number is meant.
    """
    for name, value in (("the model", auc), ("the retrained model", auc_retrain)):
        if not 0 <= value <= 1:
            raise PalimpsestError(f"the AUC of {name} is {value}: give a share from 0 to 1.")
    if auc_retrain == 0:
        raise PalimpsestError(
            "AUC of the retrained model is 0 (every holdout text is unlikelier to it than every forget text), so "
            "nothing can be relative to it: choose a holdout set of the kind of the forget set."
        )
    return 100 * (auc - auc_retrain) / (auc_retrain + EPSILON)


def _tokens(values: ArrayLike, what: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise PalimpsestError(f"a text has no {what}, or one that is NaN or infinite: leave it out.")
    return array


def _given(value: Any, attack: str, what: str) -> Any:
    if value is None:
        raise PalimpsestError(f"{attack} needs the {what}, which inference did not record for this text.")
    return value


def _share(ratio: float) -> float:
    if not 0 < ratio <= 1:
        raise PalimpsestError(f"Min-K%'s ratio is {ratio}: give a share above 0 and up to 1.")
    return ratio
