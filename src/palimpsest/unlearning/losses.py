"""Forget and retain losses of unlearning, per their published equations;
`released` holds what the paper's code does instead.

All losses see a batch as its real tokens, flattened: `logits` [tokens, vocab], `targets` [tokens] (the next token,
IGNORED at the last token of each sequence) and `sequence` [tokens] (which sequence a token belongs to, ascending).
Padding is not part of it, so no loss can depend on padding, and sequences of any lengths mix freely.

Planning checks params.yaml against the tables at the end, so torch is imported when a loss is computed, and not before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from palimpsest.models.tokens import Tokens, Unit, cross_entropy, sequence_log_probs
from palimpsest.runtime.startup import Deferred

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import functional
else:
    torch, functional = Deferred("torch"), Deferred("torch.nn.functional")


Alternatives = Literal["refusals", "answers"]
Reference = Literal["none", "sequence_log_probs", "logits", "hidden", "direction", "generic_tokens"]


def kl_divergence(current: Tensor, reference: Tensor, positions: Tensor) -> Tensor:
    """Mean over `positions` [tokens] of KL(reference || current) in nats; both are logits [tokens, vocab]."""
    if not isinstance(current, torch.Tensor):  # see head.Unprojected
        return (current.kl(reference) * positions).sum() / positions.sum()
    log_current = current[positions].float().log_softmax(-1)
    log_reference = reference[positions].float().log_softmax(-1)
    return functional.kl_div(log_current, log_reference, log_target=True, reduction="sum") / log_current.shape[0]


def _log_likelihoods(tokens: Tokens) -> Tensor:
    """[predicted] the log-probability of each next token, nats."""
    logits = tokens.logits[tokens.scored].float()
    return -functional.cross_entropy(logits, tokens.targets[tokens.scored], reduction="none")


def gradient_ascent(tokens: Tokens, reference: None = None) -> Tensor:
    """GA (Jang et al. 2023; MUSE section 3): minus the cross-entropy on the forget set."""
    return -cross_entropy(tokens)


def negative_preference(tokens: Tokens, reference: Tensor, beta: float) -> Tensor:
    """NPO (Zhang et al. 2024, equation 3):
    -(2/beta) E log sigmoid(-beta (log p - log p_ref)), `reference` [sequences] log p_ref."""
    ratio = sequence_log_probs(tokens) - reference
    return -2 / beta * functional.logsigmoid(-beta * ratio).mean()


def simple_negative_preference(tokens: Tokens, reference: None = None, *, beta: float, gamma: float) -> Tensor:
    """SimNPO (Fan et al. 2024, equation 5):
    NPO with each sequence's mean log-probability and a margin instead of a reference."""
    lengths = torch.bincount(tokens.sequence[tokens.scored], minlength=tokens.sequences)
    return -2 / beta * functional.logsigmoid(-beta * sequence_log_probs(tokens) / lengths - gamma).mean()


def uniform_kl(tokens: Tokens, reference: None = None) -> Tensor:
    """KL(current || uniform) per predicted token, nats (Yuan et al. 2024, maximising entropy):
    bounded, unlike gradient ascent."""
    log_probs = tokens.logits[tokens.scored].float().log_softmax(-1)
    return (log_probs.exp() * log_probs).sum(-1).mean() + math.log(log_probs.shape[-1])


def logit_margin(tokens: Tokens, reference: Tensor, *, margin_weight: float, logit_step: float) -> Tensor:
    """QUAIL (arXiv 2601.15538): gradient ascent and a hinge
    that asks every logit of a predicted token to move by half a step.

    reference: [tokens, vocab] logits of the target; logit_step: the assumed quantization step of a logit.
    """
    moved = (tokens.logits[tokens.scored].float() - reference[tokens.scored].float()).abs()
    return gradient_ascent(tokens) + margin_weight * (logit_step / 2 - moved).clamp_min(0).mean()


def misdirection(tokens: Tokens, reference: Tensor, *, layer: int, steering: float) -> Tensor:
    """RMU's forget loss (Li et al. 2024, WMDP, equation 1): |h - c u|^2 per token.

    tokens.hidden: h [tokens, width], what decoder layer `layer` hands on; reference: u [tokens, width], one
    unit vector, drawn once; steering: c. It trains the embeddings and all layers up to that one; WMDP's
    code trains three matrices.
    """
    return _squared_distance(tokens, steering * reference)


def retain_hidden(tokens: Tokens, reference: Tensor, *, layer: int) -> Tensor:
    """RMU's retain loss (Li et al. 2024, WMDP, equation 2):
    |h - h_target|^2 per token of what decoder layer `layer` hands on."""
    return _squared_distance(tokens, reference)


def _squared_distance(tokens: Tokens, goal: Tensor) -> Tensor:
    assert tokens.hidden is not None
    return (tokens.hidden.float() - goal.float()).square().sum(-1).mean()


def preference(tokens: Tokens, reference: Tensor, *, beta: float, preferred: Tensor) -> Tensor:
    """DPO for unlearning (IdkDPO of Zhang et al. 2024, equation 2; AltPO of Mekala et al. 2025, arXiv 2409.13474):
    -(2/beta) E log sigmoid(beta ((log p(alternative) - log p_ref(alternative)) - (log p - log p_ref))).

    reference: [sequences] log p_ref; preferred: [sequences] the first difference, 0 for a sequence that has no
    alternative, of which the loss is NPO's. The tokens of the question are in both differences and cancel. The factor
    is OpenUnlearning's 2/beta, as in NPO; Zhang et al. write 1/beta.
    """
    ratio = sequence_log_probs(tokens) - reference
    return -2 / beta * functional.logsigmoid(beta * (preferred - ratio)).mean()


def adjusted_distillation(tokens: Tokens, reference: Tensor, *, beta: float) -> Tensor:
    """UNDIAL (Dong et al. 2025, arXiv 2402.10052, equation 3): cross-entropy with softmax(z_target - beta onehot),
    the target's distribution with the logit of the text's next token lowered by beta; per predicted token, nats.

    reference: [tokens, vocab] logits z_target.
    """
    goal = reference[tokens.scored].float().clone()
    goal.scatter_add_(1, tokens.targets[tokens.scored].unsqueeze(1), torch.full_like(goal[:, :1], -beta))
    return functional.cross_entropy(tokens.logits[tokens.scored].float(), goal.softmax(-1))


def weighted_ascent(tokens: Tokens, reference: None = None, *, beta: float) -> Tensor:
    """WGA (Wang et al. 2025, arXiv 2502.19301): gradient ascent in which a token weighs by p^beta, a weight without a
    gradient: what is forgotten is pushed no further."""
    log_probs = _log_likelihoods(tokens)
    return ((beta * log_probs.detach()).exp() * log_probs).mean()


def saturation_importance(tokens: Tokens, reference: None = None, *, beta1: float, beta2: float) -> Tensor:
    """SatImp (Yang et al. 2025, arXiv 2505.11953): gradient ascent in which a token weighs by p^beta1 (1 - p)^beta2,
    a weight without a gradient: neither what is forgotten nor what is certain."""
    log_probs = _log_likelihoods(tokens)
    saturation = beta1 * log_probs.detach()
    importance = (-torch.expm1(log_probs.detach())).clamp_min(0) ** beta2
    return (saturation.exp() * importance * log_probs).mean()


def self_distillation(tokens: Tokens, reference: None = None) -> Tensor:
    """CE-U (Yang 2025, arXiv 2503.01224): cross-entropy with the model's own distribution, without a gradient, once the
    text's next token has none of it; per predicted token, nats.

    The paper leaves out the first token of an answer; a text has no such token, so that all count here.
    """
    logits = tokens.logits[tokens.scored].float()
    goal = logits.detach().scatter(1, tokens.targets[tokens.scored].unsqueeze(1), -math.inf)
    return functional.cross_entropy(logits, goal.softmax(-1))


def logit_flattening(tokens: Tokens, reference: None = None) -> Tensor:
    """PDU's forget loss (Entesari et al. 2025, arXiv 2506.05314): (max z - mean z)^2 per predicted token, z its logits.

    The trainer then solves the constrained problem: after each step alpha, the weight of the retain loss, becomes
    max(0, alpha + dual_step (retain loss - retain_limit)). The paper's warm start is not part of it.
    """
    logits = tokens.logits[tokens.scored].float()
    return (logits.max(-1).values - logits.mean(-1)).square().mean()


def generic_cross_entropy(tokens: Tokens, reference: Tensor) -> Tensor:
    """WHP (Eldan and Russinovich 2023, section 2):
    cross-entropy with the generic tokens, `reference` [tokens], instead of the text's.

    The generic tokens are those of equation 1 alone:
    the paper's replacement of anchored terms (names and the like) is not implemented.
    """
    return functional.cross_entropy(tokens.logits[tokens.scored].float(), reference[tokens.scored])


def generic_tokens(baseline: Tensor, reinforced: Tensor, gap: float) -> Tensor:
    """[tokens] the likeliest tokens once those that training on the forget text made likelier are pushed down.

    Eldan and Russinovich 2023, equation 1:
    argmax of baseline - gap * relu(reinforced - baseline), both logits [tokens, vocab].
    """
    return (baseline.float() - gap * (reinforced.float() - baseline.float()).clamp_min(0)).argmax(-1)


def retain_cross_entropy(tokens: Tokens, reference: None = None) -> Tensor:
    """GDR (Maini et al. 2024, gradient difference): cross-entropy on the retain set."""
    return cross_entropy(tokens)


def retain_kl(tokens: Tokens, reference: Tensor) -> Tensor:
    """KLR (Maini et al. 2024, KL minimisation):
    KL(target || current) per predicted retain token, `reference` [tokens, vocab] logits."""
    return kl_divergence(tokens.logits, reference, tokens.scored)


def released_negative_preference(tokens: Tokens, reference: Tensor, beta: float) -> Tensor:
    """What the paper's released code calls NPO: raw logits, averaged over the vocabulary, labels unused."""
    return -2 / beta * functional.logsigmoid(-beta * (tokens.logits.float() - reference.float())).mean()


def released_retain_kl(tokens: Tokens, reference: Tensor) -> Tensor:
    """What the paper's released code calls KLR: kl_div on raw logits over the batch size;
    not a divergence, may be negative."""
    total = functional.kl_div(tokens.logits.float(), reference.float(), log_target=True, reduction="sum")
    return total / tokens.sequences


def released_sure_retain_kl(tokens: Tokens, reference: Tensor) -> Tensor:
    """KLR in the released code of SURE: a divergence, but over the batch size instead of the tokens."""
    everywhere = torch.ones_like(tokens.scored)
    return kl_divergence(tokens.logits, reference, everywhere) * len(tokens.targets) / tokens.sequences


def twice(loss: Loss) -> Loss:
    """The loss counted twice: the released code of SURE runs its backward pass beside the trainer's,
    into the same gradients."""
    return replace(loss, function=lambda *arguments, **settings: 2 * loss.function(*arguments, **settings))


@dataclass(frozen=True)
class Loss:
    """A loss, what it needs of the model before unlearning, and its settings.

    function: (tokens, reference, **settings) -> scalar. reference: nothing, a number per sequence
    (sequence_log_probs), a row per token (logits; hidden, of the layer in the setting `layer`; direction, the same for
    all), or a token per token (generic_tokens).
    prepared_with: settings that only the making of the reference takes. mean_over: what the loss is a mean over.
    fused: it asks the logits for no more than the likelihood of the targets, or a KL, and so needs none.
    trained_with: settings that only the trainer takes. alternatives: what stands in place of the answers (one of
    alternatives.KINDS); the function is then given `preferred`, how much likelier each has become.
    """

    function: Callable[..., Tensor]
    reference: Reference = "none"
    settings: tuple[str, ...] = ()
    prepared_with: tuple[str, ...] = ()
    mean_over: Unit = "predicted"
    fused: bool = False
    trained_with: tuple[str, ...] = ()
    alternatives: Alternatives | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """What it takes from a method's block in params.yaml."""
        return (*self.settings, *self.prepared_with, *self.trained_with)


FORGET_LOSSES = {
    "ga": Loss(gradient_ascent, fused=True),
    "npo": Loss(negative_preference, "sequence_log_probs", ("beta",), mean_over="sequences", fused=True),
    "simnpo": Loss(simple_negative_preference, settings=("beta", "gamma"), mean_over="sequences", fused=True),
    "uniform-kl": Loss(uniform_kl),
    "quail": Loss(logit_margin, "logits", ("margin_weight", "logit_step")),
    "rmu": Loss(misdirection, "direction", ("layer", "steering"), mean_over="tokens"),
    "whp": Loss(
        generic_cross_entropy,
        "generic_tokens",
        prepared_with=("gap", "reinforcement_epochs", "reinforcement_learning_rate"),
    ),
    "idk-dpo": Loss(preference, "sequence_log_probs", ("beta",), mean_over="sequences", alternatives="refusals"),
    "altpo": Loss(preference, "sequence_log_probs", ("beta",), mean_over="sequences", alternatives="answers"),
    "undial": Loss(adjusted_distillation, "logits", ("beta",)),
    "wga": Loss(weighted_ascent, settings=("beta",)),
    "satimp": Loss(saturation_importance, settings=("beta1", "beta2")),
    "ce-u": Loss(self_distillation),
    "pdu": Loss(logit_flattening, trained_with=("retain_limit", "dual_step")),
    "descent": Loss(retain_cross_entropy, fused=True),  # towards the forget text: what a task vector negates
}
RETAIN_LOSSES = {
    "gdr": Loss(retain_cross_entropy, fused=True),
    "klr": Loss(retain_kl, "logits", fused=True),
    "rmu": Loss(retain_hidden, "hidden", ("layer",), mean_over="tokens"),
}
_RELEASED_NPO = {"npo": Loss(released_negative_preference, "logits", ("beta",), mean_over="tokens")}
VARIANTS: dict[str, tuple[dict[str, Loss], dict[str, Loss]]] = {
    "published": (FORGET_LOSSES, RETAIN_LOSSES),
    "released": (
        FORGET_LOSSES | _RELEASED_NPO,
        RETAIN_LOSSES | {"klr": Loss(released_retain_kl, "logits", mean_over="sequences")},
    ),
    "released-sure": (
        {name: twice(loss) for name, loss in (FORGET_LOSSES | _RELEASED_NPO).items()},
        RETAIN_LOSSES | {"klr": Loss(released_sure_retain_kl, "logits", mean_over="sequences")},
    ),
}
"""Forget and retain losses: per the published equations, as the paper's code computes them,
and as its code of SURE does."""

SETTINGS = sorted(
    {key for tables in VARIANTS.values() for table in tables for loss in table.values() for key in loss.keys}
)
"""The keys of a method's block that belong to its losses."""
