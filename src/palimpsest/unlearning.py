"""Unlearning: forget loss + alpha x retain loss on a trainer, with the update rules that papers put on top."""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback, set_seed

from palimpsest import losses
from palimpsest.adapters import Adapter, adapted
from palimpsest.errors import PalimpsestError, choose
from palimpsest.losses import Loss, Tokens
from palimpsest.ranks import total
from palimpsest.reference import Groups, Reference, forward
from palimpsest.saliency import Mask, Saliency, decoder_matrices, mean_gradients
from palimpsest.sharding import part_of_mean, refuse
from palimpsest.training import Batch, Collator, NextTokenTrainer, Schedule, fit
from palimpsest.updates import SHARDED

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Objective:
    """forget loss + alpha x retain loss.

    retain_batch_size None: as many retain as forget sequences in a step. variant: which table of losses.VARIANTS. settings: of both
    losses. sharpness: rho, the length of the step uphill at which the forget gradient is taken (SAM); None: at the weights.
    negate: how often the change of the weights is taken off the target instead of added (task vectors); None: train as usual.
    forget_until: nats per token on a step's forget sequences at which training ends, so that methods are compared at equal
    forgetting; None: train for all epochs.
    """

    forget: str
    retain: str | None = None
    alpha: float = 1.0
    retain_batch_size: int | None = None
    variant: str = "published"
    settings: Mapping[str, float] = field(default_factory=dict)
    sharpness: float | None = None
    negate: float | None = None
    forget_until: float | None = None

    def __post_init__(self) -> None:
        """Refuse names and settings that do not fit, before anything is computed."""
        taken = set()
        for loss in (self.forget_loss(), self.retain_loss()):
            taken |= set(loss.keys) if loss else set()
        if taken != set(self.settings):
            raise PalimpsestError(
                f"forget loss {self.forget!r} with retain loss {self.retain!r} takes the settings {sorted(taken)}, given are "
                f"{sorted(self.settings)}."
            )

    @classmethod
    def from_settings(cls, method: Mapping[str, Any]) -> "Objective":
        """From a method's block in params.yaml."""
        return cls(
            forget=method["forget_loss"],
            retain=method["retain_loss"],
            alpha=method["alpha"],
            retain_batch_size=method["retain_batch_size"],
            variant=method["losses"],
            settings={key: method[key] for key in losses.SETTINGS if key in method},
            sharpness=method.get("sharpness"),
            negate=method.get("negate"),
            forget_until=method.get("forget_until"),
        )

    def forget_loss(self) -> Loss:
        return choose(self._tables()[0], self.forget, "forget loss")

    def retain_loss(self) -> Loss | None:
        return None if self.retain is None else choose(self._tables()[1], self.retain, "retain loss")

    def _tables(self) -> tuple[dict[str, Loss], dict[str, Loss]]:
        return choose(losses.VARIANTS, self.variant, "variant of the losses (key `losses`)")


class StopWhenForgotten(TrainerCallback):
    """Ends training after the first step whose forget sequences had at least the stated loss, if one is."""

    def __init__(self, trainer: "UnlearningTrainer", threshold: float | None) -> None:
        self.trainer, self.threshold = trainer, threshold

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.step_nats.clear()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.threshold is not None and self.trainer.forget_nats >= self.threshold:
            control.should_training_stop = True


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
        self.mask = Mask(self.model, self._forget_gradients(), saliency) if saliency else None
        self.step_nats: list[float] = []  # of the accumulated batches of a step
        self.add_callback(StopWhenForgotten(self, method.forget_until))

    @property
    def forget_nats(self) -> float:
        """Nats per token that the last step's forget sequences had before it: the mean of its batches, as of the loss."""
        return sum(self.step_nats) / len(self.step_nats)

    def batch_loss(self, model: nn.Module, inputs: Batch) -> Tensor:
        loss, tokens = self._forget_term(model, inputs["forget"])
        with torch.no_grad():  # of the model itself, not of the one uphill
            nats = part_of_mean(lambda: losses.cross_entropy(tokens), tokens, "predicted")
            self.step_nats.append(total(nats).item())
        if self.method.sharpness is not None:
            loss, _ = self._forget_term(uphill(model, loss, self.method.sharpness), inputs["forget"])
        if self.retain_loss:
            loss = loss + self.method.alpha * self._retain_term(model, inputs["retain"], self.retain_loss)
        return loss

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(*args, **kwargs)
        if self.mask:
            optimizer.register_step_post_hook(self.mask.restore)
        return optimizer

    def result(self) -> dict[str, Any]:
        """With the loss of the last step's forget sequences."""
        result = super().result() | {"forget_nats": self.forget_nats}
        if self.method.forget_until is not None:
            result["reached_forget_until"] = self.forget_nats >= self.method.forget_until
        return result | ({"mask": self.mask.summary()} if self.mask else {})

    def _forget_term(self, model: Callable[..., Any], groups: Groups) -> tuple[Tensor, Tokens]:
        tokens, index = forward(model, groups, self.forget_reference.layer)
        return self._loss(self.forget_loss, tokens, groups, index, self.forget_reference), tokens

    def _retain_term(self, model: nn.Module, groups: Groups, loss: Loss) -> Tensor:
        tokens, index = forward(model, groups, self.retain_reference.layer)
        return self._loss(loss, tokens, groups, index, self.retain_reference)

    def _loss(self, loss: Loss, tokens: Tokens, groups: Groups, index: Tensor, reference: Reference) -> Tensor:
        def mean() -> Tensor:
            with self.accelerator.autocast():
                before = reference(groups, tokens, index)
            settings = {name: self.method.settings[name] for name in loss.settings}
            return loss.function(tokens, before, **settings)

        return part_of_mean(mean, tokens, loss.mean_over)

    def _forget_gradients(self) -> dict[str, Tensor]:
        """Of the forget loss over the whole forget set, at the weights before unlearning."""
        assert self.model is not None
        return mean_gradients(decoder_matrices(self.model), self._forget_batches())

    def _forget_batches(self) -> Iterator[tuple[Tensor, float]]:
        """(loss, share of the forget set) batch by batch; a share is of what the loss is a mean over."""
        given: Any = self.data_collator
        collator = Collator(given.sequences, given.pad_token)
        places = list(range(len(collator.sequences)))
        counts = {"sequences": lambda _: 1, "tokens": len, "predicted": lambda sequence: len(sequence) - 1}
        sizes = [counts[self.forget_loss.mean_over](sequence) for sequence in collator.sequences]
        step = self.args.per_device_train_batch_size
        for start in range(0, len(places), step):
            part = places[start : start + step]
            batch = self._prepare_inputs(collator(part))  # type: ignore[arg-type]
            with self.accelerator.autocast():
                loss, _ = self._forget_term(self.model, batch["forget"])  # type: ignore[arg-type]
            yield loss, sum(sizes[i] for i in part) / sum(sizes)


def uphill(model: nn.Module, loss: Tensor, length: float) -> Callable[..., Any]:
    """The model at w + rho g / |g|, g the gradient of the forget loss (Foret et al. 2021, equation 2; Fan et al. 2025, arXiv
    2502.05374, for unlearning). Its gradient counts as that of w.

    That model is in float32 and multiplies in float32, whatever w is stored in: in bfloat16 most weights would be rounded back to w.
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    norm = torch.stack([gradient.float().norm() for gradient in gradients if gradient is not None]).norm()
    moved = {name: weight.float() for name, weight in model.named_parameters() if weight.is_floating_point()}
    for name, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            moved[name] = moved[name] + length / norm * gradient.float()

    def call(**inputs: Tensor) -> Any:
        with torch.autocast(loss.device.type, enabled=False):
            return torch.func.functional_call(
                _Plain(model), {f"model.{name}": w for name, w in moved.items()}, kwargs=inputs
            )

    return call


class _Plain(nn.Module):
    """A model without the autocast that accelerate puts around its forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Any:
        return type(self.model).forward(self.model, **inputs)


def settings_of(method: Mapping[str, Any], seed: int, processes: int = 1) -> dict[str, Any]:
    """What `unlearn` is to be given for a method's block in params.yaml; refuses what does not go together."""
    settings: dict[str, Any] = {
        "method": Objective.from_settings(method),
        "schedule": Schedule.from_settings(method, seed),
        "saliency": Saliency(**method["saliency"]) if "saliency" in method else None,
        "adapter": Adapter(**method["adapter"]) if "adapter" in method else None,
        "processes": processes,
    }
    _check_combination(**settings)
    return settings


def _check_combination(
    method: Objective, schedule: Schedule, saliency: Saliency | None, adapter: Adapter | None, processes: int
) -> None:
    if saliency and adapter:
        raise PalimpsestError(
            "saliency and adapter exclude each other: a mask is over the weights, an adapter leaves them."
        )
    if method.sharpness is not None and schedule.gradient_checkpointing:
        raise PalimpsestError(
            "sharpness and gradient_checkpointing exclude each other: activations would be computed again at other weights."
        )
    if processes > 1:
        refuse(dict.fromkeys(not_sharded(method, schedule, saliency, adapter), True))


def not_sharded(method: Objective, schedule: Schedule, saliency: Saliency | None, adapter: Adapter | None) -> list[str]:
    """What of these sharded training does not do; where there is nothing, several processes can train the model."""
    present = {
        "a saliency mask": saliency is not None,
        "an adapter": adapter is not None,
        "sharpness": method.sharpness is not None,
        f"the forget loss {method.forget}": method.forget_loss().reference == "generic_tokens",
        f"the optimizer {schedule.optimizer}": schedule.optimizer not in SHARDED,
    }
    return [name for name, there in present.items() if there]


def with_processes(settings: Mapping[str, Any], available: int) -> dict[str, Any]:
    """The settings with as many processes as the method can use: all that are available, or one and a warning that says why."""
    parts = {name: settings[name] for name in ("method", "schedule", "saliency", "adapter")}
    found = not_sharded(**parts) if available > 1 else []
    if not found:
        return {**settings, "processes": available}
    log.warning("%s cannot be sharded: of %d GPUs one is used.", " and ".join(found), available)
    return {**settings, "processes": 1}


def unlearn(
    model: PreTrainedModel,
    forget: Sequence[Sequence[int]],
    retain: Sequence[Sequence[int]],
    pad_token: int,
    method: Objective,
    schedule: Schedule,
    saliency: Saliency | None = None,
    adapter: Adapter | None = None,
    processes: int = 1,
    trainer: type[UnlearningTrainer] = UnlearningTrainer,
) -> dict[str, Any]:
    """Unlearn the forget sequences in place; the model given is the reference of every loss that needs one.

    saliency: train the most salient parts alone; adapter: train a low-rank difference and merge it; processes: over how many the model
    is sharded, each with a GPU of its own; trainer: one that also measures, say.
    """
    if method.retain and not retain:
        raise PalimpsestError(f"retain loss {method.retain!r} needs retain text, and the retain split is empty.")
    _check_combination(method, schedule, saliency, adapter, processes)
    before = _copies(model) if method.negate is not None else {}
    collator = Collator(forget, pad_token, retain if method.retain else (), method.retain_batch_size, schedule.seed)
    reinforced = _reinforced(model, forget, pad_token, method, schedule)
    set_seed(schedule.seed)  # adapters start at random
    make_trainer = partial(trainer, method=method, saliency=saliency, reinforced=reinforced, seed=schedule.seed)
    with adapted(model, adapter) as trained:
        outcome = fit(make_trainer, trained, collator, schedule, processes)
    model.requires_grad_(True)
    if method.negate is not None:
        _negate(model, before, method.negate)
    return outcome


def _reinforced(
    model: PreTrainedModel, forget: Sequence[Sequence[int]], pad_token: int, method: Objective, schedule: Schedule
) -> nn.Module | None:
    """A copy of the model after more training on the forget text, for the loss that compares with one (WHP)."""
    if method.forget_loss().reference != "generic_tokens":
        return None
    network = copy.deepcopy(model)
    more = Schedule(
        method.settings["reinforcement_learning_rate"],
        int(method.settings["reinforcement_epochs"]),
        schedule.batch_size,
        weights="float32",
        seed=schedule.seed,
    )
    fit(NextTokenTrainer, network, Collator(forget, pad_token, seed=schedule.seed), more)
    return network.eval()


def _copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().cpu().clone() for name, weight in model.named_parameters()}


@torch.no_grad()
def _negate(model: nn.Module, before: Mapping[str, Tensor], scale: float) -> None:
    """w0 - scale (w - w0) in float32 (task vectors, Ilharco et al. 2023, equation 2): the opposite of what training did."""
    for name, weight in model.named_parameters():
        start = before[name].to(weight.device).float()
        weight.data = start - scale * (weight.detach().float() - start)
