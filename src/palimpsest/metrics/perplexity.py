"""Perplexity: how well a model still predicts text, the usual measure of what quantization costs."""

import math

import numpy as np

from palimpsest.inference.files import InferenceFiles, read_logprobs, recorded_splits
from palimpsest.metrics.records import Outcome, PerplexityScore
from palimpsest.metrics.statistics import percentile_interval, resample_counts
from palimpsest.vocabulary import OK, undefined

LARGEST = 700.0  # nats, just below where exp leaves float64


def perplexity(files: InferenceFiles, *, split: str, resamples: int, confidence: float, seed: int) -> PerplexityScore:
    """exp of the mean negative log-probability per token of the texts of `split` (no percentage; 1 is certainty).

    `per_example` are nats per token of each text in the order of `ids`; `nats_per_token` gives the mean over the tokens
    of every split that inference recorded. The first token of a text counts only where a BOS stands before it: a
    tokenizer without one leaves nothing to predict it from. The interval resamples texts.
    """
    texts = {name: read_logprobs(files.logprobs, name) for name in {*recorded_splits(files.logprobs), split}}
    sums = {name: np.array([-values.sum() for values in each.log_probs]) for name, each in texts.items()}
    sizes = {name: np.array([values.size for values in each.log_probs]) for name, each in texts.items()}
    counts = resample_counts(len(sums[split]), resamples, seed)
    low, high = percentile_interval((counts @ sums[split]) / (counts @ sizes[split]), confidence)
    nats = {name: float(sums[name].sum() / sizes[name].sum()) for name in sorted(texts)}
    if max(nats[split], high) > LARGEST:
        reason = undefined(f"{nats[split]:.0f} nats per token are beyond what exp can give; the model is broken")
        outcome: Outcome = {"score": None, "status": reason, "ci": None, "ci_note": reason}
    else:
        ci = [math.exp(low), math.exp(high)]
        outcome = {"score": math.exp(nats[split]), "status": OK, "ci": ci, "ci_note": ""}
    return {
        "n": len(texts[split].ids),
        "ids": texts[split].ids,
        "per_example": (sums[split] / sizes[split]).tolist(),
        "nats_per_token": nats,
        **outcome,
    }
