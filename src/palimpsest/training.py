"""Training on transformers' Trainer: batches of similar lengths, in any weight storage."""

import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed

from palimpsest import losses
from palimpsest.errors import PalimpsestError, choose
from palimpsest.ranks import place, run_on_ranks, total
from palimpsest.reference import forward
from palimpsest.sequences import Padded, check_room, pad_by_length
from palimpsest.sharding import Published, is_sharded, part_of_mean, published, refuse, sharded
from palimpsest.updates import SHARDED, WEIGHT_STORAGE

log = logging.getLogger(__name__)

Batch = dict[str, list[dict[str, Tensor]]]

SHORT = 512
"""Tokens up to which a matrix of all attention weights is no burden."""


@dataclass(frozen=True)
class Schedule:
    """How to train. `batch_size` None: every sequence in each step. `stop_at_loss`: nats per token, mean over an epoch.

    optimizer: of those that updates.WEIGHT_STORAGE has for the weights. gradient_checkpointing: compute activations again in the
    backward pass instead of keeping them: a third more work, a small part of the memory. autocast: multiply float32 weights in
    bfloat16.
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
    autocast: bool = True

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], seed: int) -> "Schedule":
        """From a block of params.yaml that may hold more."""
        return cls(**{key: settings[key] for key in cls.__dataclass_fields__ if key in settings}, seed=seed)


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

    The released code pairs forget sequence i with retain sequence i in every epoch, so that the rest is never seen. Several processes
    all draw the same batch, and each takes its share.
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
        rank, number = place()
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
        """The loss of a batch; of several processes each gives its part."""
        tokens, _ = forward(model, inputs["forget"])
        return part_of_mean(lambda: losses.cross_entropy(tokens), tokens, "predicted")

    def result(self) -> dict[str, Any]:
        """What happened, for the manifest."""
        return {"steps": self.state.global_step, "first_loss": self.history[0], "final_loss": self.history[-1]}

    def compute_loss(  # type: ignore[override]
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        loss = self.batch_loss(model, inputs)
        whole = total(loss.detach())
        self.history.append(whole.item())
        if not math.isfinite(self.history[-1]):
            raise PalimpsestError(
                f"the loss became {self.history[-1]} at step {self.state.global_step}: lower learning_rate, or check the "
                "weights that training started from."
            )
        number = place()[1]
        if number == 1:
            return loss
        scaled = number * loss  # FSDP takes the mean of the ranks' gradients, and these are parts of a sum
        return scaled + (whole - scaled.detach())  # the value is for the Trainer's log

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        if not is_sharded(model):  # whose parts are in their places
            super()._move_model_to_device(model, device)


def train(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    pad_token: int,
    schedule: Schedule,
    processes: int = 1,
) -> dict[str, Any]:
    """Next-token training in place; returns what happened (steps, loss in nats per token, whether stop_at_loss was reached).

    processes: over how many the model is sharded, each with a GPU of its own.
    """
    collator = Collator(sequences, pad_token, seed=schedule.seed)
    return fit(NextTokenTrainer, model, collator, schedule, processes)


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
    make_trainer: Callable[..., NextTokenTrainer],
    model: nn.Module,
    collator: Collator,
    schedule: Schedule,
    processes: int = 1,
) -> dict[str, Any]:
    """Train what requires a gradient, in the schedule's weight storage, on the GPU if there is one; returns what happened. The model
    is handed back where it was.

    processes: over how many the model is sharded, each with a GPU of its own.
    """
    longest = max(map(len, (*collator.sequences, *collator.retain)))
    check_room(model, longest, "a training sequence", "lower training.max_length")
    home = next(model.parameters()).device
    storage = choose(WEIGHT_STORAGE, schedule.weights, "weight storage (key `weights`)")
    make_optimizer = choose(storage.optimizers, schedule.optimizer, f"optimizer of weights in {schedule.weights}")
    autocast = schedule.autocast and storage.dtype == torch.float32
    set_seed(schedule.seed)
    for weight in model.parameters():
        if weight.requires_grad and weight.dtype != storage.dtype:
            weight.data = weight.data.to(storage.dtype)
    if processes > 1:
        refuse({f"the optimizer {schedule.optimizer}": schedule.optimizer not in SHARDED})
        products = torch.bfloat16 if autocast else storage.dtype
        with published(model) as given:
            outcome = run_on_ranks(processes, fit_shard, make_trainer, given, products, collator, schedule)
        return outcome | {"processes": processes}
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
            bf16=autocast,
            seed=schedule.seed,
            use_cpu=not torch.cuda.is_available(),
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=place()[0] > 0 or None,
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        if arguments.n_gpu > 1:  # the Trainer would make each batch as many times larger, and split it over all it sees
            arguments._n_gpu = 1
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
    model.to(home)
    if schedule.stop_at_loss is not None and not stop.reached:
        log.warning("the loss never fell to stop_at_loss = %s in %d epochs", schedule.stop_at_loss, schedule.epochs)
    log.info("%d steps in %.1f s", trainer.state.global_step, time.monotonic() - started)
    return result


def fit_shard(
    make_trainer: Callable[..., NextTokenTrainer],
    given: Published,
    products: torch.dtype,
    collator: Collator,
    schedule: Schedule,
) -> dict[str, Any]:
    """What each of several processes does for `fit`."""
    with sharded(given, products) as model:
        return fit(make_trainer, model, collator, schedule)
