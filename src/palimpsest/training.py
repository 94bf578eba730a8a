"""Training on transformers' Trainer: batches of similar lengths, in any weight storage."""

import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed

from palimpsest import losses
from palimpsest.errors import PalimpsestError, choose
from palimpsest.reference import forward
from palimpsest.sequences import pad_by_length
from palimpsest.updates import WEIGHT_STORAGE

log = logging.getLogger(__name__)

Batch = dict[str, list[dict[str, Tensor]]]

SHORT = 512
"""Tokens up to which a matrix of all attention weights is no burden."""


@dataclass(frozen=True)
class Schedule:
    """How to train. `batch_size` None: every sequence in each step. `stop_at_loss`: nats per token, mean over an epoch.

    optimizer: of those that updates.WEIGHT_STORAGE has for the weights. gradient_checkpointing: compute activations again in the
    backward pass instead of keeping them: a third more work, a small part of the memory.
    """

    learning_rate: float
    epochs: int
    batch_size: int | None = None
    gradient_accumulation: int = 1
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    weights: str = "float32"
    stop_at_loss: float | None = None
    seed: int = 0
    optimizer: str = "adamw"
    gradient_checkpointing: bool = False


class Places(Dataset[int]):
    """0 .. size-1: the collator looks the sequences up, so that a batch knows where each of its sequences came from."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


class Collator:
    """Batches of the sequences at the given places, joined by as many retain sequences, drawn anew from all of them each time.

    The released code pairs forget sequence i with retain sequence i in every epoch, so that the rest is never seen.
    """

    def __init__(
        self,
        sequences: Sequence[Sequence[int]],
        pad_token: int,
        retain: Sequence[Sequence[int]] = (),
        retain_batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        self.sequences, self.retain, self.pad_token = sequences, retain, pad_token
        self.retain_batch_size = retain_batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, places: list[int]) -> Batch:
        batch = {"forget": self._groups(self.sequences, places)}
        if self.retain:
            size = min(self.retain_batch_size or len(places), len(self.retain))
            drawn = torch.randperm(len(self.retain), generator=self.generator)[:size].tolist()
            batch["retain"] = self._groups(self.retain, drawn)
        return batch

    def _groups(self, sequences: Sequence[Sequence[int]], places: list[int]) -> list[dict[str, Tensor]]:
        return [vars(group) for group in pad_by_length([sequences[i] for i in places], places, self.pad_token)]


class StopAtLoss(TrainerCallback):
    """Ends training once the mean loss over an epoch is at most the stated one: the text is recalled, not over-learned."""

    def __init__(self, trainer: "NextTokenTrainer", threshold: float | None) -> None:
        self.trainer, self.threshold, self.start = trainer, threshold, 0
        self.reached = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        epoch = self.trainer.history[self.start :]
        self.start = len(self.trainer.history)
        if self.threshold is not None and sum(epoch) / len(epoch) <= self.threshold:
            self.reached = control.should_training_stop = True


class NextTokenTrainer(Trainer):
    """Next-token cross-entropy over all tokens of a batch; refuses a loss that is no number."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False  # a loss is a mean: the Trainer divides it by the accumulation steps
        self.history: list[float] = []

    def batch_loss(self, model: nn.Module, inputs: Batch) -> Tensor:
        return losses.cross_entropy(forward(model, inputs["forget"])[0])

    def result(self) -> dict[str, Any]:
        """What happened, for the manifest."""
        return {"steps": self.state.global_step, "first_loss": self.history[0], "final_loss": self.history[-1]}

    def compute_loss(  # type: ignore[override]
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        loss = self.batch_loss(model, inputs)
        self.history.append(loss.item())
        if not math.isfinite(self.history[-1]):
            raise PalimpsestError(
                f"the loss became {self.history[-1]} at step {self.state.global_step}: lower learning_rate, or check the "
                "weights that training started from."
            )
        return loss


def train(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], pad_token: int, schedule: Schedule
) -> dict[str, Any]:
    """Next-token training in place; returns what happened (steps, loss in nats per token, whether stop_at_loss was reached)."""
    collator = Collator(sequences, pad_token, seed=schedule.seed)
    return fit(NextTokenTrainer, model, collator, schedule)


@contextmanager
def quickest_attention(model: Any, longest: int) -> Iterator[None]:
    """On a CPU, for texts of at most SHORT tokens, eager attention: a step in bfloat16 is a seventh faster than with torch's fused kernel."""
    before = model.config._attn_implementation
    if longest <= SHORT and not torch.cuda.is_available():
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def fit(
    make_trainer: Callable[..., NextTokenTrainer], model: nn.Module, collator: Collator, schedule: Schedule
) -> dict[str, Any]:
    """Train what requires a gradient, in the schedule's weight storage; returns what happened."""
    storage = choose(WEIGHT_STORAGE, schedule.weights, "weight storage (key `weights`)")
    make_optimizer = choose(storage.optimizers, schedule.optimizer, f"optimizer of weights in {schedule.weights}")
    set_seed(schedule.seed)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(storage.dtype)
    longest = max(map(len, (*collator.sequences, *collator.retain)))
    with tempfile.TemporaryDirectory() as scratch, quickest_attention(model, longest):
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=schedule.epochs,
            per_device_train_batch_size=schedule.batch_size or len(collator.sequences),
            gradient_accumulation_steps=schedule.gradient_accumulation,
            learning_rate=schedule.learning_rate,
            weight_decay=schedule.weight_decay,
            max_grad_norm=schedule.max_gradient_norm,
            gradient_checkpointing=schedule.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            lr_scheduler_type="constant",
            bf16=storage.dtype == torch.float32,  # autocast
            seed=schedule.seed,
            use_cpu=not torch.cuda.is_available(),
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        trainer = make_trainer(
            model=model,
            args=arguments,
            train_dataset=Places(len(collator.sequences)),
            data_collator=collator,
            optimizer_cls_and_kwargs=make_optimizer(schedule.learning_rate, schedule.weight_decay, schedule.seed),
        )
        stop = StopAtLoss(trainer, schedule.stop_at_loss)
        trainer.add_callback(stop)
        started = time.monotonic()
        trainer.train()
    result = trainer.result() | {"reached_stop_loss": stop.reached if schedule.stop_at_loss is not None else None}
    if schedule.gradient_checkpointing:
        model.gradient_checkpointing_disable()  # type: ignore[operator]
    # leave no trace of accelerate's autocast to whoever uses the model next; its unwrap_model takes off transformers' wrapper too
    for trace in ("forward", "_original_forward", "_is_accelerate_prepared"):
        vars(model).pop(trace, None)
    if schedule.stop_at_loss is not None and not stop.reached:
        log.warning("the loss never fell to stop_at_loss = %s in %d epochs", schedule.stop_at_loss, schedule.epochs)
    log.info("%d steps in %.1f s", trainer.state.global_step, time.monotonic() - started)
    return result
