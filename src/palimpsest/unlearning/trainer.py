"""The trainer of unlearning: forget loss + alpha x retain loss, each with its own reference."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from palimpsest.models.layers import decoder_matrices
from palimpsest.models.tokens import Groups, Tokens, cross_entropy, exact_memorization, forward, sequence_log_probs
from palimpsest.training.batches import ALTERNATIVES, Batch, Collator
from palimpsest.training.processes import sum_over_processes
from palimpsest.training.trainer import NextTokenTrainer
from palimpsest.unlearning.losses import Loss
from palimpsest.unlearning.objective import Objective
from palimpsest.unlearning.reference import Reference, compute_by_sequence
from palimpsest.unlearning.saliency import Mask, Saliency, mean_gradients
from palimpsest.unlearning.sharpness import uphill
from palimpsest.vocabulary import FORGET, RETAIN


class StopWhenForgotten(TrainerCallback):
    """Ends training after the first step whose forget sequences were as forgotten as the method asks, if it does."""

    def __init__(self, trainer: "UnlearningTrainer") -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if any(self.trainer.reached().values()):
            control.should_training_stop = True


class DualStep(TrainerCallback):
    """After each step the weight of the retain loss rises by how far that loss is above its limit, and falls by how far
    it is below (PDU)."""

    def __init__(self, trainer: "UnlearningTrainer") -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        settings, trainer = self.trainer.method.settings, self.trainer
        above = sum(part.item() for part in trainer.step_retain) - settings["retain_limit"]
        trainer.alpha = max(0.0, trainer.alpha + settings["dual_step"] * above)


class UnlearningTrainer(NextTokenTrainer):
    """forget loss + alpha x retain loss, each with its own reference from the model before unlearning.

    References are computed under the autocast of training: at the start, current model and reference agree.
    """

    def __init__(
        self,
        *args: Any,
        method: Objective,
        data_collator: Collator,
        saliency: Saliency | None,
        reinforced: nn.Module | None,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, data_collator=data_collator, **kwargs)
        assert self.model is not None
        self.method = method
        self.forget_loss, self.retain_loss = method.forget_loss(), method.retain_loss()
        forget, retain, pad = data_collator.sequences, data_collator.retain, data_collator.pad_token
        if reinforced is not None:
            reinforced.to(self.args.device)
        with self.accelerator.autocast():
            self.forget_reference = Reference(
                self.forget_loss, self.model, forget, pad, method.settings, seed, reinforced
            )
            self.retain_reference = Reference(self.retain_loss, self.model, retain, pad, method.settings, seed)
            self.likelihoods = self._likelihoods(data_collator) if self.forget_loss.alternatives else {}
        self.mask = Mask(self.model, self._forget_gradients(), saliency) if saliency else None
        self.step_nats: list[Tensor] = []  # of the batches of a step, each its part
        self.step_memorized: list[Tensor] = []  # likewise, where the method ends by it
        self.uphill: Callable[..., Any] | None = None  # of the step, where it has several batches
        self.alpha = method.alpha
        self.step_retain: list[Tensor] = []  # of the batches of a step, each its part of the retain loss
        self.add_callback(StopWhenForgotten(self))
        if self.forget_loss.trained_with:
            self.add_callback(DualStep(self))

    @property
    def forget_nats(self) -> float:
        """Nats per token that the last step's forget sequences had before it."""
        return sum(part.item() for part in self.step_nats)

    @property
    def exact_memorization(self) -> float:
        """Share of the last step's forget tokens that were the model's first choice before it; where that is asked."""
        return sum(part.item() for part in self.step_memorized)

    def reached(self) -> dict[str, bool]:
        """Whether the last step's forget sequences were as forgotten as the method asks, by the key that asks."""
        method, found = self.method, {}
        if method.forget_until is not None:
            found["reached_forget_until"] = self.forget_nats >= method.forget_until
        if method.memorized_until is not None:
            found["reached_memorized_until"] = self.exact_memorization <= method.memorized_until
        return found

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], int]:
        self.step_nats.clear()
        self.step_memorized.clear()
        self.step_retain.clear()
        self.uphill = None
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def batch_loss(self, model: nn.Module, inputs: Batch) -> Tensor:
        loss, tokens = self._forget_term(model, inputs)
        with torch.no_grad():  # of the model itself, not of the one uphill
            nats = self.part_of_step(lambda: cross_entropy(tokens), tokens, "predicted")
            self.step_nats.append(sum_over_processes(nats))
            if self.method.memorized_until is not None:
                share = self.part_of_step(lambda: exact_memorization(tokens), tokens, "predicted")
                self.step_memorized.append(sum_over_processes(share))
        if self.method.sharpness is not None:
            loss, _ = self._forget_term(self._uphill(model, loss, self.method.sharpness), inputs)
        if self.retain_loss and inputs[RETAIN]:
            if self.fused:  # so that the activations of one pass are held at a time
                self.accelerator.backward(loss)
                loss = loss.detach()
            retained = self._retain_term(model, inputs[RETAIN], self.retain_loss)
            if self.forget_loss.trained_with:
                self.step_retain.append(sum_over_processes(retained.detach()))
            loss = loss + self.alpha * retained
        return loss

    def _uphill(self, model: nn.Module, loss: Tensor, length: float) -> Callable[..., Any]:
        """Where the forget loss of the whole step leads: the first batch's is known, the others' are computed here."""
        if len(self.batches) == 1:
            return uphill(model, loss, length)
        if self.uphill is None:
            others = (self._forget_term(model, batch)[0] for batch in self.batches[1:])
            self.uphill = uphill(model, loss, length, others)
        return self.uphill

    @property
    def can_fuse(self) -> bool:
        return self.method.sharpness is None

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(*args, **kwargs)
        if self.mask:
            optimizer.register_step_post_hook(self.mask.restore)
        return optimizer

    def result(self) -> dict[str, Any]:
        """With the loss of the last step's forget sequences."""
        result = super().result() | {"forget_nats": self.forget_nats} | self.reached()
        if self.method.memorized_until is not None:
            result["exact_memorization"] = self.exact_memorization
        if self.forget_loss.trained_with:
            result["final_alpha"] = self.alpha
        return result | ({"mask": self.mask.summary()} if self.mask else {})

    def _forget_term(self, model: Callable[..., Any], batch: Batch) -> tuple[Tensor, Tokens]:
        groups = batch[FORGET]
        tokens, index = self.tokens_of(model, groups, self.forget_reference.layer, self.forget_loss.fused)
        extra: dict[str, Any] = {}
        if self.forget_loss.alternatives:
            extra["preferred"] = self._preferred(model, batch.get(ALTERNATIVES, []), index)
        return self._loss(self.forget_loss, tokens, groups, index, self.forget_reference, **extra), tokens

    def _preferred(self, model: Callable[..., Any], groups: Groups, index: Tensor) -> Tensor:
        """[sequences] by how many nats the alternative to each sequence of a batch has become likelier than it was
        before unlearning, 0 where there is none; `index` has the places of the batch."""
        if not groups:
            return torch.zeros(len(index), device=index.device)
        tokens, places = forward(model, groups)
        change = sequence_log_probs(tokens) - torch.stack([self.likelihoods[i] for i in places.tolist()])
        rows = {place: row for row, place in enumerate(index.tolist())}
        where = torch.tensor([rows[place] for place in places.tolist()], device=change.device)
        return change.new_zeros(len(index)).scatter(0, where, change)

    def _likelihoods(self, given: Collator) -> dict[int, Tensor]:
        """By place, the log-probability of each alternative before unlearning, nats."""
        assert self.model is not None
        places, model = list(given.alternatives), self.model
        sequences = [given.alternatives[place] for place in places]
        with torch.no_grad():
            found = compute_by_sequence(
                sequences, given.pad_token, model, lambda groups: sequence_log_probs(forward(model, groups)[0])[0]
            )
            device = next(model.parameters()).device
            return {place: value.to(device) for place, value in zip(places, found, strict=True)}

    def _retain_term(self, model: nn.Module, groups: Groups, loss: Loss) -> Tensor:
        tokens, index = self.tokens_of(model, groups, self.retain_reference.layer, loss.fused)
        return self._loss(loss, tokens, groups, index, self.retain_reference)

    def _loss(
        self, loss: Loss, tokens: Tokens, groups: Groups, index: Tensor, reference: Reference, **extra: Any
    ) -> Tensor:
        def mean() -> Tensor:
            with self.accelerator.autocast():
                before = reference(groups, tokens, index)
            settings = {name: self.method.settings[name] for name in loss.settings}
            return loss.function(tokens, before, **settings, **extra)

        split = FORGET if reference is self.forget_reference else RETAIN
        return self.part_of_step(mean, tokens, loss.mean_over, split)

    def _forget_gradients(self) -> dict[str, Tensor]:
        """Of the forget loss over the whole forget set, at the weights before unlearning."""
        assert self.model is not None
        return mean_gradients(decoder_matrices(self.model), self._forget_batches())

    def _forget_batches(self) -> Iterator[tuple[Tensor, float]]:
        """(loss, share of the forget set) batch by batch; a share is of what the loss is a mean over."""
        given: Any = self.data_collator
        collator = Collator(given.sequences, given.pad_token, alternatives=given.alternatives)
        places = list(range(len(collator.sequences)))
        counts = {"sequences": lambda _: 1, "tokens": len, "predicted": lambda sequence: len(sequence) - 1}
        sizes = [counts[self.forget_loss.mean_over](sequence) for sequence in collator.sequences]
        step = self.args.per_device_train_batch_size
        for start in range(0, len(places), step):
            part = places[start : start + step]
            batch = self._prepare_inputs(collator(part))  # type: ignore[arg-type]
            with self.accelerator.autocast():
                loss, _ = self._forget_term(self.model, batch)  # type: ignore[arg-type]
            yield loss, sum(sizes[i] for i in part) / sum(sizes)
