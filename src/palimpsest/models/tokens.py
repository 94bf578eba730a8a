"""A batch as its real tokens, and how likely a model finds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from palimpsest.runtime.startup import Deferred

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import functional
else:
    torch, functional = Deferred("torch"), Deferred("torch.nn.functional")


IGNORED = -100

Unit = Literal["predicted", "tokens", "sequences"]
UNITS: tuple[Unit, ...] = ("predicted", "tokens", "sequences")


@dataclass(frozen=True)
class Tokens:
    """The tokens of a batch: logits [tokens, vocab], targets [tokens], sequence [tokens] in 0..sequences-1.

    logits may be `head.Unprojected` for what asks no more than cross_entropy, exact_memorization, sequence_log_probs
    or a KL of them.
    hidden: [tokens, width] what a decoder layer hands on, where a loss asks for one.
    """

    logits: Tensor
    targets: Tensor
    sequence: Tensor
    sequences: int
    hidden: Tensor | None = None
    known: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def log_probs(self) -> Tensor:
        """[tokens, vocab] log-softmax of the logits in float32: of a batch that is trained on computed once, whoever
        asks."""
        if "log_probs" in self.known:
            return self.known["log_probs"]
        found = self.logits.float().log_softmax(-1)
        if found.requires_grad:
            self.known["log_probs"] = found
        return found

    @property
    def scored(self) -> Tensor:
        """[tokens] bool: the tokens that have a next token to predict."""
        return self.targets != IGNORED

    def count(self, unit: Unit) -> int | Tensor:
        """How many there are: predicted tokens, tokens or sequences."""
        if unit == "sequences":
            return self.sequences
        return len(self.targets) if unit == "tokens" else self.scored.sum()


def flatten(logits: Tensor, labels: Tensor, mask: Tensor, hidden: Tensor | None = None) -> Tokens:
    """Tokens of a padded batch: logits [batch, time, vocab], labels [batch, time] unshifted as transformers uses them,
    mask [batch, time] 1 where a token is real, hidden [batch, time, width]."""
    targets = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    real = mask.bool()
    rows = torch.arange(labels.shape[0], device=labels.device).unsqueeze(1).expand_as(labels)
    return Tokens(logits[real], targets[real], rows[real], labels.shape[0], None if hidden is None else hidden[real])


def concatenate(parts: list[Tokens]) -> Tokens:
    """One batch from several, sequences renumbered in order."""
    starts = [sum(part.sequences for part in parts[:i]) for i in range(len(parts))]
    hidden = [part.hidden for part in parts if part.hidden is not None]
    return Tokens(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.targets for part in parts]),
        torch.cat([part.sequence + start for part, start in zip(parts, starts, strict=True)]),
        sum(part.sequences for part in parts),
        torch.cat(hidden) if hidden else None,
    )


def cross_entropy(tokens: Tokens) -> Tensor:
    """Mean negative log-likelihood per predicted token, nats."""
    if not isinstance(tokens.logits, torch.Tensor):
        return tokens.logits.nll(tokens.targets).sum() / tokens.scored.sum()
    return functional.nll_loss(tokens.log_probs(), tokens.targets, ignore_index=IGNORED)


def exact_memorization(tokens: Tokens) -> Tensor:
    """Share of the predicted tokens that are the model's first choice after the true tokens before them, 0 to 1
    (Tirumala et al. 2022, exact memorization; Jang et al. 2023, equation 3)."""
    logits = tokens.logits
    choices = logits.argmax(-1) if isinstance(logits, torch.Tensor) else logits.first_choices()
    return ((choices == tokens.targets) & tokens.scored).sum() / tokens.scored.sum()


def sequence_log_probs(tokens: Tokens) -> Tensor:
    """[sequences] sum of the log-probabilities of each sequence's predicted tokens, nats.

    In the same order every time (tokens.sequence ascends):
    index_add of a GPU does not, and the same run gives another model.
    """
    if isinstance(tokens.logits, torch.Tensor):
        nll = functional.nll_loss(tokens.log_probs(), tokens.targets, ignore_index=IGNORED, reduction="none")
    else:
        nll = tokens.logits.nll(tokens.targets)
    lengths = torch.bincount(tokens.sequence, minlength=tokens.sequences)
    return torch.segment_reduce(-nll, "sum", lengths=lengths, unsafe=True)


Groups: TypeAlias = "Sequence[Mapping[str, Tensor]]"


def count_units(groups: Groups) -> dict[Unit, int]:
    """What forward() will hand over of these groups, counted before any pass."""
    lengths = [length for group in groups for length in group["mask"].sum(1).tolist()[: len(group["index"])]]
    return {"predicted": sum(lengths) - len(lengths), "tokens": sum(lengths), "sequences": len(lengths)}


def forward(model: Callable[..., Any], groups: Groups, layer: int | None = None) -> tuple[Tokens, Tensor]:
    """Logits of every real token of the groups (each a `Padded` as a mapping),
    and [sequences] their places in the data.

    layer: the decoder layer, counted from 0, whose output is handed over as `hidden`.
    A row without a place is run and left out.
    """
    parts = []
    for group in groups:
        output = model(
            input_ids=group["input_ids"],
            attention_mask=group["mask"],
            use_cache=False,
            output_hidden_states=layer is not None,
        )
        hidden = None if layer is None else output.hidden_states[layer + 1]  # the first are the embeddings
        rows: Any = [output.logits, group["labels"], group["mask"], hidden]
        placed = len(group["index"])
        if placed < len(group["labels"]):
            rows = [None if row is None else row[:placed] for row in rows]
        parts.append(flatten(*rows))
    return concatenate(parts), torch.cat([group["index"] for group in groups])
