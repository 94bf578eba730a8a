"""Batches: the forget sequences of a step, joined by retain sequences that are drawn anew each time."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from palimpsest.models.sequences import Padded, pad_by_length
from palimpsest.training.processes import rank_and_size
from palimpsest.vocabulary import FORGET, RETAIN

ALTERNATIVES = "alternatives"
"""Of a batch: the sequences that are to be preferred to its forget sequences."""

Batch = dict[str, list[dict[str, Tensor]]]


class Places(Dataset[int]):
    """0 .. size-1: the collator looks the sequences up, so that a batch knows where each of its sequences came from."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


class Collator:
    """Batches of the sequences at the given places, joined by as many retain sequences,
    drawn anew from all of them each time.

    The released code pairs forget sequence i with retain sequence i in every epoch, so that the rest is never seen.
    Several processes all draw the same batch, and each takes its share. The batches of one step share one draw, so that
    a step is the same however its sequences are divided into batches.

    alternatives: by place, a sequence that is to be preferred to the one there; a batch has those of its places.
    batches_per_step: how many batches the trainer makes a step of; the last step of an epoch may have fewer.
    """

    batches_per_step = 1

    def __init__(
        self,
        sequences: Sequence[Sequence[int]],
        pad_token: int,
        retain: Sequence[Sequence[int]] = (),
        retain_batch_size: int | None = None,
        seed: int = 0,
        alternatives: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        self.sequences, self.retain, self.pad_token = sequences, retain, pad_token
        self.alternatives = alternatives or {}
        self.retain_batch_size = retain_batch_size
        self.generator = torch.Generator().manual_seed(seed)
        self.drawn: list[int] = []  # of the retain sequences, what the step has not used
        self.batches = self.seen = 0  # of the step, and of the epoch's sequences

    def __call__(self, places: list[int]) -> Batch:
        batch = {FORGET: self._groups(self.sequences, places)}
        if self.alternatives:
            batch[ALTERNATIVES] = self._groups(self.alternatives, [i for i in places if i in self.alternatives])
        if self.retain:
            if self.batches == 0:
                self.drawn = torch.randperm(len(self.retain), generator=self.generator).tolist()
            size = self.retain_batch_size or len(places)
            batch[RETAIN] = self._groups(self.retain, self.drawn[:size])  # none where the step has had all there are
            self.drawn = self.drawn[size:]
        self._count(places)
        return batch

    def sizes(self, batch_size: int) -> list[tuple[Sequence[Sequence[int]], int]]:
        """The data of each pass of a batch, and how many sequences of it there are at most."""
        sizes = [(self.sequences, min(batch_size, len(self.sequences)))]
        if self.alternatives:
            sizes.append((list(self.alternatives.values()), min(batch_size, len(self.alternatives))))
        if self.retain:
            sizes.append((self.retain, min(self.retain_batch_size or batch_size, len(self.retain))))
        return sizes

    def _count(self, places: list[int]) -> None:
        """Where the step and the epoch end, as the trainer counts."""
        self.batches, self.seen = self.batches + 1, self.seen + len(places)
        ended = self.seen >= len(self.sequences)
        if ended or self.batches == self.batches_per_step:
            self.batches = 0
        if ended:
            self.seen = 0

    def _groups(
        self, sequences: Sequence[Sequence[int]] | Mapping[int, Sequence[int]], places: list[int]
    ) -> list[dict[str, Tensor]]:
        rank, number = rank_and_size()
        if number == 1:
            return [vars(group) for group in pad_by_length([sequences[i] for i in places], places, self.pad_token)]
        order = sorted(places, key=lambda i: -len(sequences[i]))  # so that all have about as much to do
        shares = [order[start::number] for start in range(number)]
        batches = [pad_by_length([sequences[i] for i in share], share, self.pad_token) for share in shares]
        missing = max(map(len, batches)) - len(batches[rank])
        return [vars(group) for group in [*batches[rank], *[self._nobodys()] * missing]]

    def _nobodys(self) -> Padded:
        """A row without a place, for a rank that has fewer batches: all ranks must make as many passes."""
        token = torch.full((1, 1), self.pad_token)
        return Padded(token, token, torch.ones_like(token), torch.empty(0, dtype=torch.long))
