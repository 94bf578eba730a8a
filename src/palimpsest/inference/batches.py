"""Which texts may share a batch, and a start, without one changing what the model makes of another."""

import inspect
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer


def sees_all_by_position(model: PreTrainedModel) -> bool:
    """Whether every layer attends to all tokens before, and finds them by their position ids alone.

    Then padding may stand between a start and the rest of a prompt. Sliding windows and chunks (Mistral, Gemma, Phi-3)
    count places in the batch, where padding counts, and so does a model that is given no position ids (BLOOM, MPT).
    """
    layers = DynamicCache(config=model.config).layers
    by_position = "position_ids" in inspect.signature(model.forward).parameters
    return by_position and all(type(layer) is DynamicLayer for layer in layers)


def switch_of(model: PreTrainedModel) -> int | None:
    """Tokens up to which positions are those of pretraining; None where this never changes.

    Behind it LongRoPE (Phi-3's long contexts) and dynamic scaling turn the positions of the whole batch by its longest
    text.
    """
    stated = getattr(model.config.get_text_config(decoder=True), "rope_parameters", None) or {}
    kinds: list[Any] = [stated, *stated.values()] if isinstance(stated, dict) else []
    bounds = [
        kind.get("original_max_position_embeddings") or model.config.max_position_embeddings
        for kind in kinds
        if isinstance(kind, dict) and kind.get("rope_type") in ("longrope", "dynamic")
    ]
    return min(bounds, default=None)


def places_by_length(lengths: Sequence[int], size: int, switch: int | None) -> list[list[int]]:
    """Batches of at most `size` places, longest first, so that lack of memory shows at once.

    lengths: tokens of each text, those it may grow by included; switch: beyond it only texts of one length share a
    batch.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        last = batches[-1] if batches else []
        alike = not last or switch is None or lengths[last[0]] <= switch or lengths[last[0]] == lengths[i]
        if not last or len(last) == size or not alike:
            batches.append([])
        batches[-1].append(i)
    return batches
