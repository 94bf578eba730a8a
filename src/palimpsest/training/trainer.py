"""Training on transformers' Trainer: batches of similar lengths, in any weight storage."""

import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed

from palimpsest.errors import choose
from palimpsest.models.sequences import check_room, pad_by_length
from palimpsest.models.tokens import UNITS, Tokens, Unit, count_units, cross_entropy, forward
from palimpsest.training.batches import Batch, Collator, Places
from palimpsest.training.health import FiniteWeights, check_number, check_weights
from palimpsest.training.processes import rank_and_size, run_on_ranks, sum_over_processes
from palimpsest.training.schedule import Schedule
from palimpsest.training.sharding import Published, is_sharded, part_of_mean, published, refuse, sharded
from palimpsest.training.storage import SHARDED, WEIGHT_STORAGE
from palimpsest.vocabulary import FORGET

log = logging.getLogger(__name__)


SHORT = 512
"""Tokens up to which a matrix of all attention weights is no burden."""


class StopAtLoss(TrainerCallback):
    """Ends training once the mean loss over an epoch is at most the stated one:
    the text is recalled, not over-learned."""

    def __init__(self, trainer: "NextTokenTrainer", threshold: float | None) -> None:
        self.trainer, self.threshold, self.start = trainer, threshold, 0
        self.reached = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        epoch = self.trainer.history[self.start :]
        self.start = len(self.trainer.history)
        if self.threshold is not None and sum(epoch) / len(epoch) <= self.threshold:
            self.reached = control.should_training_stop = True


class NextTokenTrainer(Trainer):
    """Next-token cross-entropy over all tokens of a step; refuses a loss, a gradient and weights that are no numbers.

    A step of several accumulated batches is the step of one batch of all their sequences: a loss is a mean over tokens
    or sequences, and each batch weighs by how many of these it has.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # what get_batch_samples counts: the Trainer divides nothing itself
        self.history: list[float] = []  # of each step
        self.batches: list[Batch] = []  # of the step
        self.whole: dict[str, Counter[Unit]] = {}  # units in all batches of the step, where it has several

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], int]:
        """The batches of a step; counts what the losses are means over before the first of them is run."""
        self.batches = list(islice(epoch_iterator, num_batches))
        self.history.append(0.0)
        self.whole = {}
        if len(self.batches) > 1:
            for split in self.batches[0]:
                here = sum((Counter(count_units(batch[split])) for batch in self.batches), Counter())
                counts = sum_over_processes(torch.tensor([here[unit] for unit in UNITS], device=device))
                self.whole[split] = Counter(dict(zip(UNITS, counts.tolist(), strict=True)))
        return self.batches, len(self.batches)

    def part_of_step(self, loss: Callable[[], Tensor], tokens: Tokens, unit: Unit, split: str = FORGET) -> Tensor:
        """The part that a batch of the split has in the step's mean over units; see part_of_mean."""
        return part_of_mean(loss, tokens, unit, self.whole[split][unit] if self.whole else None)

    def batch_loss(self, model: nn.Module, inputs: Batch) -> Tensor:
        """The loss of a step; each of its batches, and of several processes each, gives its part."""
        tokens, _ = forward(model, inputs[FORGET])
        return self.part_of_step(lambda: cross_entropy(tokens), tokens, "predicted")

    def result(self) -> dict[str, Any]:
        """What happened, for the manifest."""
        return {"steps": self.state.global_step, "first_loss": self.history[0], "final_loss": self.history[-1]}

    def compute_loss(  # type: ignore[override]
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        loss = self.batch_loss(model, inputs)
        whole = sum_over_processes(loss.detach())
        self.history[-1] += whole.item()
        check_number("the loss", self.history[-1], self.state.global_step)
        number = rank_and_size()[1]
        if number == 1:
            return loss
        scaled = number * loss  # FSDP takes the mean of the ranks' gradients, and these are parts of a sum
        return scaled + (whole - scaled.detach())  # the value is for the Trainer's log

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        norm = super()._clip_grad_norm(model)
        check_number("the gradient", norm, self.state.global_step)  # a step along it would leave no weight a number
        return norm

    @torch.no_grad()
    def check_outcome(self) -> None:
        """Refuses a model whose weights, or whose answer to the shortest sequence, are no numbers after the last step,
        which no loss has seen."""
        assert self.model is not None
        check_weights(self.model, self.args.learning_rate)
        given: Any = self.data_collator
        sequence = min(given.sequences, key=len)
        groups: Any = {FORGET: [vars(group) for group in pad_by_length([sequence], [0], given.pad_token)]}
        inputs: Any = self._prepare_inputs(groups)
        self.model.eval()
        tokens, _ = forward(self.model, inputs[FORGET])
        self.model.train()
        check_number("the answer of the trained model", tokens.logits.float().abs().max(), self.state.global_step)

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        if not is_sharded(model):  # whose parts are in their places
            super()._move_model_to_device(model, device)


def train(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    pad_token: int,
    schedule: Schedule,
) -> dict[str, Any]:
    """Next-token training in place; returns what happened
    (steps, loss in nats per token, whether stop_at_loss was reached)."""
    collator = Collator(sequences, pad_token, seed=schedule.seed)
    return fit(NextTokenTrainer, model, collator, schedule)


@contextmanager
def quickest_attention(model: Any, longest: int) -> Iterator[None]:
    """On a CPU, for texts of at most SHORT tokens, eager attention:
    a step in bfloat16 is a seventh faster than with torch's fused kernel."""
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
) -> dict[str, Any]:
    """Train what requires a gradient, in the schedule's weight storage, on the GPU if there is one; returns what
    happened. The model is handed back where it was.
    """
    longest = max(map(len, (*collator.sequences, *collator.retain)))
    check_room(model, longest, "a training sequence", "lower training.max_length")
    home = next(model.parameters()).device
    storage = choose(WEIGHT_STORAGE, schedule.storage, "weight storage (key `storage`)")
    make_optimizer = choose(storage.optimizers, schedule.optimizer, f"optimizer of weights in {schedule.storage}")
    autocast = schedule.autocast and storage.dtype == torch.float32
    set_seed(schedule.seed)
    for weight in model.parameters():
        if weight.requires_grad and weight.dtype != storage.dtype:
            weight.data = weight.data.to(storage.dtype)
    if schedule.processes > 1:
        refuse({f"the optimizer {schedule.optimizer}": schedule.optimizer not in SHARDED})
        products = torch.bfloat16 if autocast else storage.dtype
        with published(model) as given:
            alone = replace(schedule, processes=1)
            outcome = run_on_ranks(schedule.processes, fit_shard, make_trainer, given, products, collator, alone)
        return outcome | {"processes": schedule.processes}
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
            disable_tqdm=rank_and_size()[0] > 0 or None,
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        if arguments.n_gpu > 1:  # the Trainer would make each batch as many times larger, and split it over all it sees
            arguments._n_gpu = 1
        collator.batches_per_step = schedule.gradient_accumulation
        trainer = make_trainer(
            model=model,
            args=arguments,
            train_dataset=Places(len(collator.sequences)),
            data_collator=collator,
            optimizer_cls_and_kwargs=make_optimizer(schedule.learning_rate, schedule.weight_decay, schedule.seed),
        )
        stop = StopAtLoss(trainer, schedule.stop_at_loss)
        trainer.add_callback(stop)
        trainer.add_callback(FiniteWeights())
        started = time.monotonic()
        trainer.train()
        trainer.check_outcome()
    result = trainer.result() | {"reached_stop_loss": stop.reached if schedule.stop_at_loss is not None else None}
    if schedule.gradient_checkpointing:
        model.gradient_checkpointing_disable()  # type: ignore[operator]
    # leave no trace of accelerate's autocast to whoever uses the model next;
    # its unwrap_model takes off transformers' wrapper too
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
