"""Forget and retain losses of unlearning, per their published equations; `released` holds what the paper's code does instead.

All losses see a batch as its real tokens, flattened: `logits` [tokens, vocab], `targets` [tokens] (the next token,
IGNORED at the last token of each sequence) and `sequence` [tokens] (which sequence a token belongs to). Padding is not part of it,
so no loss can depend on padding, and sequences of any lengths mix freely.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100

Reference = Literal["none", "sequence_log_probs", "logits"]


@dataclass(frozen=True)
class Tokens:
    """The tokens of a batch: logits [tokens, vocab], targets [tokens], sequence [tokens] in 0..sequences-1."""

    logits: Tensor
    targets: Tensor
    sequence: Tensor
    sequences: int

    @property
    def scored(self) -> Tensor:
        """[tokens] bool: the tokens that have a next token to predict."""
        return self.targets != IGNORED


def flatten(logits: Tensor, labels: Tensor, mask: Tensor) -> Tokens:
    """Tokens of a padded batch: logits [batch, time, vocab], labels [batch, time] unshifted as transformers uses them,
    mask [batch, time] 1 where a token is real."""
    targets = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    real = mask.bool()
    rows = torch.arange(labels.shape[0], device=labels.device).unsqueeze(1).expand_as(labels)
    return Tokens(logits[real], targets[real], rows[real], labels.shape[0])


def concatenate(parts: list[Tokens]) -> Tokens:
    """One batch from several, sequences renumbered in order."""
    starts = [sum(part.sequences for part in parts[:i]) for i in range(len(parts))]
    return Tokens(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.targets for part in parts]),
        torch.cat([part.sequence + start for part, start in zip(parts, starts, strict=True)]),
        sum(part.sequences for part in parts),
    )


def cross_entropy(tokens: Tokens) -> Tensor:
    """Mean negative log-likelihood per predicted token, nats."""
    return functional.cross_entropy(tokens.logits.float(), tokens.targets, ignore_index=IGNORED)


def sequence_log_probs(tokens: Tokens) -> Tensor:
    """[sequences] sum of the log-probabilities of each sequence's predicted tokens, nats."""
    nll = functional.cross_entropy(tokens.logits.float(), tokens.targets, ignore_index=IGNORED, reduction="none")
    return torch.zeros(tokens.sequences, dtype=nll.dtype, device=nll.device).index_add(0, tokens.sequence, -nll)


def kl_divergence(current: Tensor, reference: Tensor, positions: Tensor) -> Tensor:
    """Mean over `positions` [tokens] of KL(reference || current) in nats; both are logits [tokens, vocab]."""
    log_current = current[positions].float().log_softmax(-1)
    log_reference = reference[positions].float().log_softmax(-1)
    return functional.kl_div(log_current, log_reference, log_target=True, reduction="sum") / log_current.shape[0]


def gradient_ascent(tokens: Tokens, reference: None = None) -> Tensor:
    """GA (Jang et al. 2023; MUSE section 3): minus the cross-entropy on the forget set."""
    return -cross_entropy(tokens)


def negative_preference(tokens: Tokens, reference: Tensor, beta: float) -> Tensor:
    """NPO (Zhang et al. 2024, equation 3): -(2/beta) E log sigmoid(-beta (log p - log p_ref)), `reference` [sequences] log p_ref."""
    ratio = sequence_log_probs(tokens) - reference
    return -2 / beta * functional.logsigmoid(-beta * ratio).mean()


def retain_cross_entropy(tokens: Tokens, reference: None = None) -> Tensor:
    """GDR (Maini et al. 2024, gradient difference): cross-entropy on the retain set."""
    return cross_entropy(tokens)


def retain_kl(tokens: Tokens, reference: Tensor) -> Tensor:
    """KLR (Maini et al. 2024, KL minimisation): KL(target || current) per predicted retain token, `reference` [tokens, vocab] logits."""
    return kl_divergence(tokens.logits, reference, tokens.scored)


def released_negative_preference(tokens: Tokens, reference: Tensor, beta: float) -> Tensor:
    """What the paper's released code calls NPO: raw logits, averaged over the vocabulary, labels unused."""
    return -2 / beta * functional.logsigmoid(-beta * (tokens.logits.float() - reference.float())).mean()


def released_retain_kl(tokens: Tokens, reference: Tensor) -> Tensor:
    """What the paper's released code calls KLR: kl_div on raw logits over the batch size; not a divergence, may be negative."""
    total = functional.kl_div(tokens.logits.float(), reference.float(), log_target=True, reduction="sum")
    return total / tokens.sequences


@dataclass(frozen=True)
class Loss:
    """A loss and what it needs of the model before unlearning: nothing, a number per sequence, or logits."""

    function: Callable[..., Tensor]
    reference: Reference = "none"
    settings: tuple[str, ...] = ()


FORGET_LOSSES = {
    "ga": Loss(gradient_ascent),
    "npo": Loss(negative_preference, "sequence_log_probs", ("beta",)),
}
RETAIN_LOSSES = {
    "gdr": Loss(retain_cross_entropy),
    "klr": Loss(retain_kl, "logits"),
}
RELEASED_FORGET_LOSSES = FORGET_LOSSES | {"npo": Loss(released_negative_preference, "logits", ("beta",))}
RELEASED_RETAIN_LOSSES = RETAIN_LOSSES | {"klr": Loss(released_retain_kl, "logits")}
