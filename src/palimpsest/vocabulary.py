"""The words that several rooms share: models, precisions, splits, tasks, metrics, outcomes of a score."""

TARGET, RETRAIN, UNLEARNED = "target", "retrain", "unlearned"
"""Kinds of model: before unlearning, never trained on the forget set, after unlearning."""

FULL, UNQUANTIZED = "bf16", "none"
"""The precision that is not quantized, and its backend."""

SPLITS = ("forget", "retain", "holdout")
"""Of the corpus, whose passages may have log-probabilities."""

FORGET_METRICS = ("verbmem", "knowmem")
REQUIRED_METRICS = (*FORGET_METRICS, "privleak", "utility", "perplexity")

HEADLINE = "same_precision"
"""The denominator of retained knowledge that headlines use."""
