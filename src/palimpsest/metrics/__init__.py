"""The metrics, by name. A metric reads what inference wrote and gives a record; it never loads a model.

A metric is a function `(files, *, setting, ...) -> Score` and one line in METRICS. Its settings are keyword-only and
have no default: they come from the caller (docs/how-to/adding-a-metric.md). Only a setting that came after the first
version of a metric may be left out, and then means what held before it.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from palimpsest.corpus.corpus import PARTS
from palimpsest.errors import PalimpsestError, choose
from palimpsest.inference.files import InferenceFiles
from palimpsest.metrics.answers import exact_memorization, extraction_strength, mean_of_answers, probability
from palimpsest.metrics.benchmark import forget_quality, membership, membership_of_share, model_utility, truth_ratio
from palimpsest.metrics.perplexity import perplexity
from palimpsest.metrics.privleak import privleak
from palimpsest.metrics.records import NamedScore, Score
from palimpsest.metrics.rouge import mean_rouge
from palimpsest.vocabulary import (
    ANSWER_METRICS,
    EXTRACTION,
    FORGET,
    HOLDOUT,
    KNOWMEM,
    KNOWMEM_FORGET,
    KNOWMEM_RETAIN,
    MEMORIZATION,
    PERPLEXITY,
    PRIVLEAK,
    PROBABILITY,
    UTILITY,
    VERBMEM,
    undefined,
)

Metric = Callable[..., Score]

METRICS: dict[str, Metric] = {
    VERBMEM: partial(mean_rouge, task=VERBMEM),
    KNOWMEM: partial(mean_rouge, task=KNOWMEM_FORGET),
    UTILITY: partial(mean_rouge, task=KNOWMEM_RETAIN),
    PRIVLEAK: privleak,
    PERPLEXITY: perplexity,
    PROBABILITY: partial(mean_of_answers, value=probability),
    EXTRACTION: partial(mean_of_answers, value=extraction_strength),
    MEMORIZATION: partial(mean_of_answers, value=exact_memorization),
    "truth_ratio": truth_ratio,
    "forget_quality": forget_quality,
    "model_utility": model_utility,
    "mia_loss": partial(membership, attack="loss"),
    "mia_zlib": partial(membership, attack="zlib"),
    "mia_min_k": partial(membership_of_share, attack="min_k"),
    "mia_min_k_plus_plus": partial(membership_of_share, attack="min_k_plus_plus"),
    "mia_reference": partial(membership, attack="reference"),
    "mia_gradient_norm": partial(membership, attack="gradient_norm"),
}

NEEDS: dict[str, tuple[str, ...]] = {
    VERBMEM: ("verbmem",),
    KNOWMEM: ("forget_qa",),
    UTILITY: ("retain_qa",),
    PRIVLEAK: (f"privleak_{FORGET}", f"privleak_{HOLDOUT}"),
    **dict.fromkeys(ANSWER_METRICS, ("forget_qa",)),
}
"""The parts of a corpus (palimpsest.corpus.corpus.PARTS) that a metric needs; perplexity those of its setting."""


def score(
    metric: str,
    settings: Mapping[str, Any],
    responses: Path | str,
    logprobs: Path | str,
    retrain_logprobs: Path | str | None,
    absent: Collection[str] = (),
) -> NamedScore:
    """Score one model at one precision from the files of results/infer.

    responses: responses.jsonl; logprobs: logprobs.parquet; retrain_logprobs: logprobs.parquet of the retrained model at
    the same precision, None where the study has none; absent: parts of which the corpus has nothing. A metric that
    needs one of them has no score and a status that says why. Raises PalimpsestError for an unknown metric or setting,
    a missing setting and unusable files.
    """
    function = choose(METRICS, metric, "metric")
    check_settings(metric, function, settings)
    if missing := [part for part in parts_needed(metric, settings) if part in absent]:
        return _nothing_asked(metric, settings, PARTS[missing[0]])
    control = None if retrain_logprobs is None else Path(retrain_logprobs)
    files = InferenceFiles(Path(responses), Path(logprobs), control)
    return {"metric": metric, **function(files, **settings), "settings": dict(settings)}


def parts_needed(metric: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Of the corpus, by a metric with these settings."""
    return (f"privleak_{settings['split']}",) if metric == PERPLEXITY else NEEDS.get(metric, ())


def _nothing_asked(metric: str, settings: Mapping[str, Any], why: str) -> NamedScore:
    reason = undefined(why)
    return {
        "metric": metric,
        "n": 0,
        "score": None,
        "status": reason,
        "ci": None,
        "ci_note": reason,
        "ids": [],
        "per_example": [],
        "settings": dict(settings),
    }


def check_settings(metric: str, function: Metric, settings: Mapping[str, Any]) -> None:
    """Raise PalimpsestError unless `settings` are the keyword-only arguments that the metric asks for, without those
    that may be left out."""
    bound = function.keywords if isinstance(function, partial) else {}
    parameters = inspect.signature(function).parameters.values()
    known = {each.name: each for each in parameters if each.kind is each.KEYWORD_ONLY and each.name not in bound}
    for name in settings:
        choose(known, name, f"setting of metric {metric}")
    missing = [name for name, each in known.items() if each.default is each.empty and name not in settings]
    if missing:
        raise PalimpsestError(f"metrics.{metric} lacks the setting {missing[0]!r}: add it (it has no default).")
