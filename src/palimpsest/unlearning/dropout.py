"""Unlearning without dropout: a loss with a reference compares two passes of one model, which must be alike."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

log = logging.getLogger(__name__)

RANDOM = ("drop", "jitter")
"""What the rates of a model's random layers are named after in transformers: resid_pdrop, hidden_dropout, layerdrop,
router_jitter_noise."""


@contextmanager
def dropout_off(model: nn.Module) -> Iterator[dict[str, float]]:
    """The model without the random layers of its own, in training as in evaluation; they are put back on leaving.

    References are taken in evaluation. Under dropout the model would differ from its own reference before any step: NPO
    (equation 3) would not start at 2/beta log 2, nor a KL at 0. Gives the rates that the config states, by name. An
    adapter, put on afterwards, keeps its dropout, which does nothing before the first step either.
    """
    configs = {id(part.config): vars(part.config) for part in model.modules() if hasattr(part, "config")}
    stated = [*configs.values()]
    holders: list[dict[str, Any]] = [*stated, *map(vars, model.modules())]
    found = [(holder, name, value) for holder in holders for name, value in holder.items() if _is_rate(name, value)]
    found += [(vars(part), "p", part.p) for part in model.modules() if isinstance(part, nn.modules.dropout._DropoutNd)]
    rates = {name: value for holder, name, value in found if any(holder is each for each in stated)}
    for holder, name, _ in found:
        holder[name] = 0.0
    if rates:
        log.info("unlearning without the model's dropout (%s)", ", ".join(f"{k} {v:g}" for k, v in rates.items()))
    try:
        yield rates
    finally:
        for holder, name, value in found:
            holder[name] = value


def _is_rate(name: str, value: Any) -> bool:
    return isinstance(value, float) and value > 0 and any(word in name for word in RANDOM)
