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
from palimpsest.models.head import LIMIT, Unprojected
from palimpsest.models.sequences import check_room, pad_by_length
from palimpsest.models.tokens import UNITS, Groups, Tokens, Unit, count_units, cross_entropy, forward
from palimpsest.training import packed
from palimpsest.training.batches import Batch, Collator, Places
from palimpsest.training.fused import (
    added_gradients,
    adds,
    cut_while_stepping,
    decoder_of,
    is_cut_by,
    is_fused,
    kernels,
    optimizer_of,
)
from palimpsest.training.health import FiniteWeights, check_number, check_weights
from palimpsest.training.memory import RecomputeAsNeeded, chooses_by_memory
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
        self.parts: list[Tensor] = []  # of the step's loss, one of each batch
        self.fused = False  # see `fused`; while training only
        self.packed = packed.is_packed(self.model)
        self.batches: list[Batch] = []  # of the step
        self.whole: dict[str, Counter[Unit]] = {}  # units in all batches of the step, where it has several

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], int]:
        """The batches of a step; counts what the losses are means over before the first of them is run."""
        self.batches = list(islice(epoch_iterator, num_batches))
        self.parts = []
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
        tokens, _ = self.tokens_of(model, inputs[FORGET])
        return self.part_of_step(lambda: cross_entropy(tokens), tokens, "predicted")

    def tokens_of(
        self, model: Any, groups: Groups, layer: int | None = None, fused: bool = True
    ) -> tuple[Tokens, Tensor]:
        """As `forward`; where training is fused and the loss can be, without logits, and where it can be, without
        padding."""
        if self.packed and layer is None and model is self.model:
            return packed.forward(model, groups, self.accelerator.autocast)
        if not (self.fused and fused and layer is None):
            return forward(model, groups, layer)
        trained: Any = self.model
        with self.accelerator.autocast():
            tokens, index = forward(decoder_of(trained), groups)
            weight = trained.get_output_embeddings().weight
            return replace(tokens, logits=Unprojected.of(tokens.logits, weight, adds(weight))), index  # type: ignore[arg-type]

    @contextmanager
    def fusing(self, wanted: bool) -> Iterator[None]:
        """Within, training takes the short ways of `fused`, where the kernels are there and the model is the whole."""
        if not (wanted and self.can_fuse and isinstance(self.model, PreTrainedModel)):
            yield
            return
        self.fused = True
        try:
            with added_gradients(self.model):
                yield
        finally:
            self.fused = False

    @property
    def can_fuse(self) -> bool:
        """Whether the losses want no gradient of their own."""
        return True

    def result(self) -> dict[str, Any]:
        """What happened, for the manifest."""
        return {"steps": self.state.global_step, "first_loss": self.history[0], "final_loss": self.history[-1]}

    def compute_loss(  # type: ignore[override]
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        loss = self.batch_loss(model, inputs)
        whole = sum_over_processes(loss.detach())
        self.parts.append(whole)
        number = rank_and_size()[1]
        if number == 1:
            return loss
        scaled = number * loss  # FSDP takes the mean of the ranks' gradients, and these are parts of a sum
        return scaled + (whole - scaled.detach())  # the value is for the Trainer's log

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        if not (self.fused and is_cut_by(optimizer)):
            return super()._clip_grad_norm(model)
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        return cut_while_stepping(optimizer, gradients, self.args.max_grad_norm)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The last look before a step: at its loss, and at the gradient. A step along one that is no number would leave
        no weight a number. Nothing waits for the GPU before."""
        self.history.append(sum(part.item() for part in self.parts))
        check_number("the loss", self.history[-1], self.state.global_step)
        norm = super()._get_grad_norm(model, grad_norm)
        check_number("the gradient", norm, self.state.global_step)
        return norm

    def largest_passes(self) -> tuple[list[Groups], int]:
        """The longest sequences that one batch may have, each pass by itself; bytes of their logits and gradients."""
        given: Any = self.data_collator
        passes = []
        for sequences, size in given.sizes(self.args.per_device_train_batch_size):
            places = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))[:size]
            groups = [vars(group) for group in pad_by_length([sequences[i] for i in places], places, given.pad_token)]
            batch: Any = self._prepare_inputs({FORGET: groups})  # type: ignore[dict-item]
            passes.append(batch[FORGET])
        trained: Any = self.model
        tokens = [sum(group["mask"].sum().item() for group in groups) for groups in passes]
        if self.fused:  # in two bytes, of the batch and its reference
            return passes, 4 * min(LIMIT, max(tokens) * trained.config.vocab_size)
        return passes, 14 * sum(tokens) * trained.config.vocab_size  # and in four, with log-softmax and gradient

    def decoder_pass(self, groups: Groups) -> None:
        """A forward pass through the decoder's layers, as training makes it."""
        trained: Any = self.model
        with self.accelerator.autocast():
            forward(decoder_of(trained) if self.fused else trained, groups)

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
    longest = max(map(len, (*collator.sequences, *collator.retain, *collator.alternatives.values())))
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
    fused = is_fused(model)
    by_memory = chooses_by_memory(model)
    checkpointing = by_memory if schedule.gradient_checkpointing is None else schedule.gradient_checkpointing
    with tempfile.TemporaryDirectory() as scratch, quickest_attention(model, longest), kernels(model, fused):
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=schedule.epochs,
            per_device_train_batch_size=schedule.batch_size or len(collator.sequences),
            gradient_accumulation_steps=schedule.gradient_accumulation,
            learning_rate=schedule.learning_rate,
            weight_decay=schedule.weight_decay,
            max_grad_norm=schedule.max_gradient_norm,
            gradient_checkpointing=checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            lr_scheduler_type="constant",
            bf16=autocast,
            seed=schedule.seed,
            use_cpu=not torch.cuda.is_available(),
            logging_steps=10,
            logging_nan_inf_filter=False,  # it would wait for the GPU, and training ends at such a loss
            save_strategy="no",
            report_to="none",
            disable_tqdm=rank_and_size()[0] > 0 or None,
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        if arguments.n_gpu > 1:  # the Trainer would make each batch as many times larger, and split it over all it sees
            arguments._n_gpu = 1
        recipe = make_optimizer(schedule.learning_rate, schedule.weight_decay, schedule.seed)
        collator.batches_per_step = schedule.gradient_accumulation
        trainer = make_trainer(
            model=model,
            args=arguments,
            train_dataset=Places(len(collator.sequences)),
            data_collator=collator,
            optimizer_cls_and_kwargs=optimizer_of(model, recipe) if fused else recipe,
        )
        stop = StopAtLoss(trainer, schedule.stop_at_loss)
        trainer.add_callback(stop)
        trainer.add_callback(FiniteWeights())
        if checkpointing and by_memory:
            trainer.add_callback(RecomputeAsNeeded(trainer))
        started = time.monotonic()
        with trainer.fusing(fused):
            trainer.train()
        trainer.check_outcome()
    result = trainer.result() | {"reached_stop_loss": stop.reached if schedule.stop_at_loss is not None else None}
    if checkpointing:
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
