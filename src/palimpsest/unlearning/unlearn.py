"""Unlearning: forget loss + alpha x retain loss on a trainer, with the update rules that papers put on top."""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, set_seed

from palimpsest.errors import PalimpsestError
from palimpsest.training.batches import Collator
from palimpsest.training.health import check_weights
from palimpsest.training.schedule import Schedule
from palimpsest.training.sharding import refuse
from palimpsest.training.storage import SHARDED
from palimpsest.training.trainer import NextTokenTrainer, fit
from palimpsest.unlearning.adapters import Adapter, adapted
from palimpsest.unlearning.dropout import dropout_off
from palimpsest.unlearning.objective import Objective
from palimpsest.unlearning.saliency import Saliency
from palimpsest.unlearning.trainer import UnlearningTrainer
from palimpsest.vocabulary import FLOAT32

log = logging.getLogger(__name__)


def settings_of(method: Mapping[str, Any], seed: int, processes: int = 1) -> dict[str, Any]:
    """What `unlearn` is to be given for a method's block in params.yaml; refuses what does not go together."""
    settings: dict[str, Any] = {
        "method": Objective.from_settings(method),
        "schedule": Schedule.from_settings(method, seed, processes),
        "saliency": Saliency(**method["saliency"]) if "saliency" in method else None,
        "adapter": Adapter(**method["adapter"]) if "adapter" in method else None,
    }
    _check_combination(**settings)
    return settings


def _check_combination(
    method: Objective, schedule: Schedule, saliency: Saliency | None, adapter: Adapter | None
) -> None:
    if saliency and adapter:
        raise PalimpsestError(
            "saliency and adapter exclude each other: a mask is over the weights, an adapter leaves them."
        )
    if method.sharpness is not None and schedule.gradient_checkpointing:
        raise PalimpsestError(
            "sharpness and gradient_checkpointing exclude each other: "
            "activations would be computed again at other weights."
        )
    if schedule.processes > 1:
        refuse(dict.fromkeys(not_sharded(method, schedule, saliency, adapter), True))


def not_sharded(method: Objective, schedule: Schedule, saliency: Saliency | None, adapter: Adapter | None) -> list[str]:
    """What of these sharded training does not do; where there is nothing, several processes can train the model."""
    present = {
        "a saliency mask": saliency is not None,
        "an adapter": adapter is not None,
        "sharpness": method.sharpness is not None,
        f"the forget loss {method.forget}": method.forget_loss().reference == "generic_tokens"
        or method.forget_loss().alternatives is not None,
        f"the optimizer {schedule.optimizer}": schedule.optimizer not in SHARDED,
    }
    return [name for name, there in present.items() if there]


def with_processes(settings: Mapping[str, Any], available: int) -> dict[str, Any]:
    """The settings with as many processes as the method can use:
    all that are available, or one and a warning that says why."""
    found = not_sharded(**settings) if available > 1 else []
    if not found:
        return {**settings, "schedule": replace(settings["schedule"], processes=available)}
    log.warning("%s cannot be sharded: of %d GPUs one is used.", " and ".join(found), available)
    return {**settings, "schedule": replace(settings["schedule"], processes=1)}


def unlearn(
    model: PreTrainedModel,
    forget: Sequence[Sequence[int]],
    retain: Sequence[Sequence[int]],
    pad_token: int,
    method: Objective,
    schedule: Schedule,
    saliency: Saliency | None = None,
    adapter: Adapter | None = None,
    trainer: type[UnlearningTrainer] = UnlearningTrainer,
    alternatives: Mapping[int, Sequence[int]] | None = None,
) -> dict[str, Any]:
    """Unlearn the forget sequences in place; the model given is the reference of every loss that needs one.

    The model's own dropout is off meanwhile (see dropout_off); where it had any, `dropout_off` in the outcome says so.
    saliency: train the most salient parts alone; adapter: train a low-rank difference and merge it; trainer: one
    that also measures, say; alternatives: by place among the forget sequences, what a preference loss asks for instead.
    """
    if method.forget_loss().alternatives and not alternatives:
        raise PalimpsestError(
            f"forget loss {method.forget!r} prefers an alternative answer to each question of the forget set, and no "
            "question is trained on: give the forget set questions and set training.questions to true, or set "
            "forget_loss to npo, which is the same loss without alternatives."
        )
    if method.retain and not retain:
        raise PalimpsestError(f"retain loss {method.retain!r} needs retain text, and the retain split is empty.")
    _check_combination(method, schedule, saliency, adapter)
    if method.sharpness is not None:
        schedule = replace(schedule, gradient_checkpointing=False)
    before = _copies(model) if method.negate is not None else {}
    collator = Collator(forget, pad_token, retain if method.retain else (), method.retain_batch_size, schedule.seed)
    if method.forget_loss().alternatives:
        collator.alternatives = alternatives or {}
    with dropout_off(model) as rates:
        reinforced = _reinforced(model, forget, pad_token, method, schedule)
        set_seed(schedule.seed)  # adapters start at random
        make_trainer = partial(trainer, method=method, saliency=saliency, reinforced=reinforced, seed=schedule.seed)
        with adapted(model, adapter) as trained:
            outcome = fit(make_trainer, trained, collator, schedule)
    if rates:
        outcome["dropout_off"] = rates
    model.requires_grad_(True)
    if method.negate is not None:
        _negate(model, before, method.negate)
    if adapter or method.negate is not None:  # the sum may overflow where its parts did not
        check_weights(model, schedule.learning_rate)
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
        schedule.gradient_accumulation,
        storage=FLOAT32,
        seed=schedule.seed,
    )
    fit(NextTokenTrainer, network, Collator(forget, pad_token, seed=schedule.seed), more)
    return network.eval()


def _copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().cpu().clone() for name, weight in model.named_parameters()}


@torch.no_grad()
def _negate(model: nn.Module, before: Mapping[str, Tensor], scale: float) -> None:
    """w0 - scale (w - w0) in float32 (task vectors, Ilharco et al. 2023, equation 2):
    the opposite of what training did."""
    for name, weight in model.named_parameters():
        start = before[name].to(weight.device).float()
        weight.data = start - scale * (weight.detach().float() - start)
