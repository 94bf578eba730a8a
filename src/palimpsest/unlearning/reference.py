"""What a loss needs of the model before unlearning, computed once."""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from palimpsest.errors import PalimpsestError
from palimpsest.models.head import Unprojected
from palimpsest.models.sequences import pad_by_length
from palimpsest.models.tokens import Groups, Tokens, forward, sequence_log_probs
from palimpsest.training.processes import gather_from_all, rank_and_size
from palimpsest.training.sharding import frozen_linear, is_sharded
from palimpsest.unlearning import losses
from palimpsest.unlearning.losses import Loss

log = logging.getLogger(__name__)

CACHE_BYTES = 1 << 30
"""Of reference rows beside the model."""
HOST_BYTES = 32 << 30
"""Of reference rows in the host's memory."""


class Reference:
    """The reference of a loss on a data set, asked for by batch.

    Kept for the whole data set: one number a sequence (`sequence_log_probs`), one token a token (`generic_tokens`),
    and the rows of `logits` and `hidden` where they fit CACHE_BYTES. Logits that do not are computed again from the
    rows that enter the output head, which are kept in the host's memory, by a frozen copy of the head; beyond
    HOST_BYTES, and for models that change what the head gives, a frozen copy of the model computes each batch.
    `direction` is one random unit vector. settings: of the loss; reinforced: the model after more training on the
    forget text, for `generic_tokens`.
    """

    def __init__(
        self,
        loss: Loss | None,
        model: nn.Module,
        sequences: Sequence[Sequence[int]],
        pad_token: int,
        settings: Mapping[str, Any] | None = None,
        seed: int = 0,
        reinforced: nn.Module | None = None,
    ) -> None:
        self.kind = loss.reference if loss else "none"
        self.settings = settings or {}
        self.layer = loss_layer(loss, self.settings, model)
        self.table: list[Tensor] = []
        self.model: nn.Module | None = None
        self.head: nn.Linear | None = None
        self.direction: Tensor | None = None
        if self.kind == "direction":
            config: Any = model.config
            drawn = torch.rand(config.hidden_size, generator=torch.Generator().manual_seed(seed))
            drawn = drawn.to(next(model.parameters()).device)
            self.direction = drawn / drawn.norm()
        elif self.kind in ("logits", "hidden") and self._row_bytes(model) * sum(map(len, sequences)) > CACHE_BYTES:
            self._keep_what_computes_rows(model, sequences, pad_token)
        elif self.kind != "none":
            with torch.no_grad():
                rows = compute_by_sequence(
                    sequences, pad_token, model, lambda groups: self._of(model, groups, reinforced)
                )
                self.table = [row.to(next(model.parameters()).device) for row in rows]

    def __call__(self, groups: Groups, tokens: Tokens, index: Tensor) -> Any:
        """The reference of a batch in the order of its tokens or sequences; None where nothing is needed."""
        if self.direction is not None:
            return self.direction.expand(len(tokens.targets), -1)
        if self.model is not None:
            with torch.no_grad():
                return self._of(self.model, groups, None)
        rows = torch.cat([self.table[i] for i in index.tolist()]) if self.table else None
        if self.head is None or rows is None:
            return rows
        states = rows.to(tokens.logits.device)
        if not isinstance(tokens.logits, Tensor):
            return Unprojected.of(states, self.head.weight)
        with torch.no_grad():
            return self.head(states)

    def _keep_what_computes_rows(self, model: nn.Module, sequences: Sequence[Sequence[int]], pad_token: int) -> None:
        config: Any = model.config
        head = model.get_output_embeddings()  # type: ignore[operator]
        bytes_of_inputs = head.weight.element_size() * config.hidden_size * sum(map(len, sequences))
        if (
            self.kind == "logits"
            and bytes_of_inputs <= HOST_BYTES // rank_and_size()[1]
            and isinstance(head, nn.Linear)
        ):
            frozen = frozen_linear(head)

            def inputs_of_head(groups: Groups) -> Tensor | None:
                tokens, _ = forward(model, groups, config.num_hidden_layers - 1)  # after the final norm
                assert tokens.hidden is not None
                if not self.table and not torch.allclose(frozen(tokens.hidden), tokens.logits, rtol=0.02, atol=0.02):
                    return None  # the model does more to its logits
                return tokens.hidden.cpu()

            with torch.no_grad():
                for row in compute_by_sequence(sequences, pad_token, model, inputs_of_head):
                    if row is None:
                        break
                    self.table.append(row)
                else:
                    self.head = frozen
                    log.info("the reference logits exceed the cache: keeping what enters the output head")
                    return
            self.table = []
        if is_sharded(model):
            raise PalimpsestError(
                f"the reference {self.kind} exceed the memory that is set aside for them, and a second model is not "
                "sharded: use gpu=1, fewer retain sequences or a retain loss without a reference (gdr)."
            )
        log.info("the reference %s exceed the cache: keeping a frozen copy of the model", self.kind)
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    def _of(self, model: nn.Module, groups: Groups, reinforced: nn.Module | None) -> Tensor:
        tokens, _ = forward(model, groups, self.layer)
        if self.kind == "sequence_log_probs":
            return sequence_log_probs(tokens)
        if self.kind == "generic_tokens":
            assert reinforced is not None
            return losses.generic_tokens(tokens.logits, forward(reinforced, groups)[0].logits, self.settings["gap"])
        rows = tokens.hidden if self.kind == "hidden" else tokens.logits
        assert rows is not None
        return rows.float()

    def _row_bytes(self, model: nn.Module) -> int:
        """Of one token's logits or hidden state in float32."""
        config: Any = model.config
        return 4 * (config.hidden_size if self.kind == "hidden" else config.vocab_size)


def compute_by_sequence(
    sequences: Sequence[Sequence[int]],
    pad_token: int,
    model: nn.Module,
    compute: Callable[[Groups], Any],
) -> Iterator[Any]:
    """compute(sequence) of each sequence in order, as a batch of its own on the model's device.

    Several processes work in rounds of one sequence each, and all get all, in the host's memory;
    in the last round some compute one twice.
    """
    device = next(model.parameters()).device
    rank, number = rank_and_size()
    for start in range(0, len(sequences), number):
        i = min(start + rank, len(sequences) - 1)
        groups = [vars(group) for group in pad_by_length([sequences[i]], [i], pad_token)]
        value = compute([{k: v.to(device) for k, v in group.items()} for group in groups])
        if number == 1:
            yield value
        else:
            yield from gather_from_all(None if value is None else value.cpu())[: len(sequences) - start]


def loss_layer(loss: Loss | None, settings: Mapping[str, Any], model: nn.Module) -> int | None:
    """The decoder layer whose output a loss looks at, if any;
    raises PalimpsestError when the model has no such layer."""
    if loss is None or "layer" not in loss.settings:
        return None
    config: Any = model.config
    last = config.num_hidden_layers - 1
    if not 0 <= settings["layer"] < last:
        raise PalimpsestError(
            f"layer is {settings['layer']}, the model has {last + 1}: give 0 to {last - 1} (the last one's output goes "
            "through the final norm)."
        )
    return settings["layer"]
