"""The metrics, by name. A metric reads what inference wrote and gives a record; it never loads a model.

A metric is a function `(files, *, setting, ...) -> record` and one line in METRICS. Its settings are keyword-only and have no
default: they come from the caller (docs/adding-a-metric.md).
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from palimpsest.errors import PalimpsestError, choose
from palimpsest.inference.files import InferenceFiles
from palimpsest.metrics.perplexity import perplexity
from palimpsest.metrics.privleak import privleak
from palimpsest.metrics.rouge import mean_rouge

Metric = Callable[..., dict[str, Any]]

METRICS: dict[str, Metric] = {
    "verbmem": partial(mean_rouge, task="verbmem"),
    "knowmem": partial(mean_rouge, task="knowmem_forget"),
    "utility": partial(mean_rouge, task="knowmem_retain"),
    "privleak": privleak,
    "perplexity": perplexity,
}


def score(
    metric: str,
    settings: Mapping[str, Any],
    responses: Path | str,
    logprobs: Path | str,
    retrain_logprobs: Path | str,
) -> dict[str, Any]:
    """Score one model at one precision from the files of results/infer.

    responses: responses.jsonl; logprobs: logprobs.parquet; retrain_logprobs: logprobs.parquet of the retrained model at the same
    precision. Returns {"metric", "n", "score" (percent but for perplexity, or None with a reason in "status"), "ci" ([low, high] of the score, or None),
    "per_example", "settings", ...}. Raises PalimpsestError for an unknown metric or setting, a missing setting and unusable files.
    """
    function = choose(METRICS, metric, "metric")
    check_settings(metric, function, settings)
    files = InferenceFiles(Path(responses), Path(logprobs), Path(retrain_logprobs))
    return {"metric": metric} | function(files, **settings) | {"settings": dict(settings)}


def check_settings(metric: str, function: Metric, settings: Mapping[str, Any]) -> None:
    """Raise PalimpsestError unless `settings` are exactly the keyword-only arguments that the metric asks for."""
    bound = function.keywords if isinstance(function, partial) else {}
    parameters = inspect.signature(function).parameters.values()
    known = {each.name: each for each in parameters if each.kind is each.KEYWORD_ONLY and each.name not in bound}
    for name in settings:
        choose(known, name, f"setting of metric {metric}")
    missing = [name for name in known if name not in settings]
    if missing:
        raise PalimpsestError(f"metrics.{metric} lacks the setting {missing[0]!r}: add it (it has no default).")
