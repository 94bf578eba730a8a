"""What a loss needs of the model before unlearning, computed once."""

import copy
import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from palimpsest import losses
from palimpsest.losses import Loss
from palimpsest.sequences import pad_by_length

log = logging.getLogger(__name__)

CACHE_BYTES = 1 << 30

Groups = Sequence[Mapping[str, Tensor]]


def forward(model: torch.nn.Module, groups: Groups) -> tuple[losses.Tokens, Tensor]:
    """Logits of every real token of the groups (each a `Padded` as a mapping), and [sequences] their places in the data."""
    parts = []
    for group in groups:
        logits = model(input_ids=group["input_ids"], attention_mask=group["mask"], use_cache=False).logits
        parts.append(losses.flatten(logits, group["labels"], group["mask"]))
    return losses.concatenate(parts), torch.cat([group["index"] for group in groups])


class Reference:
    """The reference of a loss on a data set, asked for by batch.

    `sequence_log_probs` keeps one number a sequence, so no second model stays in memory; `logits` are kept for the whole data set
    where they fit CACHE_BYTES, else a frozen copy of the model computes them batch by batch.
    """

    def __init__(
        self, loss: Loss | None, model: torch.nn.Module, sequences: Sequence[Sequence[int]], pad_token: int
    ) -> None:
        self.kind = loss.reference if loss else "none"
        self.table: list[Tensor] = []
        self.model: torch.nn.Module | None = None
        if self.kind == "none":
            return
        vocabulary = model.get_output_embeddings().weight.shape[0]  # type: ignore[operator, union-attr]
        size = 4 * vocabulary * sum(len(sequence) for sequence in sequences)
        if self.kind == "sequence_log_probs" or size <= CACHE_BYTES:
            self.table = [torch.empty(0)] * len(sequences)
            device = next(model.parameters()).device
            with torch.no_grad():
                for i, sequence in enumerate(sequences):
                    groups = [
                        {k: v.to(device) for k, v in vars(g).items()} for g in pad_by_length([sequence], [i], pad_token)
                    ]
                    tokens, _ = forward(model, groups)
                    kept = (
                        losses.sequence_log_probs(tokens)
                        if self.kind == "sequence_log_probs"
                        else tokens.logits.float()
                    )
                    self.table[i] = kept
        else:
            log.info(
                "reference logits of %.1f GiB exceed the cache: keeping a frozen copy of the model", size / (1 << 30)
            )
            self.model = copy.deepcopy(model).eval().requires_grad_(False)

    def __call__(self, groups: Groups, index: Tensor) -> Tensor | None:
        """[sequences] log-probabilities or [tokens, vocab] logits of the batch, in the batch's order; None where nothing is needed."""
        if self.model is not None:
            with torch.no_grad():
                return forward(self.model, groups)[0].logits
        return torch.cat([self.table[i] for i in index.tolist()]) if self.table else None
