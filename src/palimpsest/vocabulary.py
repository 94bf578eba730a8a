"""The words that several rooms share: models, precisions, splits, tasks, metrics, storages, outcomes of a score.

They are what files, params and wildcards hold, so a word that changes here changes artefacts. Types of records live in
the room that writes them: every step that uses a word counts this file as its code, and a type should not ask for a
training anew.
"""

TARGET, RETRAIN, UNLEARNED = "target", "retrain", "unlearned"
"""Kinds of model: before unlearning, never trained on the forget set, after unlearning."""

NO_RETRAIN = "the study has no retrained model (models.retrain is null)"
"""Why a number that needs one cannot be had."""

SCRATCH, PRETRAINED = "scratch", "pretrained"
"""What models.base is beside a checkpoint: random weights, or such weights pretrained on the text of the study."""

FULL, UNQUANTIZED = "bf16", "none"
"""The precision that is not quantized, and its backend."""

FORGET, RETAIN, HOLDOUT = SPLITS = ("forget", "retain", "holdout")
"""Of the corpus, whose passages may have log-probabilities."""

BFLOAT16, STOCHASTIC, FLOAT32 = STORAGES = ("bfloat16", "bfloat16-stochastic", "float32")
"""How weights are stored while a model is trained: bfloat16 updated in place, bfloat16 rounded at random, float32."""

JOINED, LINES = "joined", "lines"
"""What of a document is a training sequence: the published pieces of the joined text, or each of its lines."""

VERBMEM = "verbmem"
"""A task, to continue a passage of the forget set, and the metric of its responses."""

KNOWMEM_FORGET, KNOWMEM_RETAIN = "knowmem_forget", "knowmem_retain"
"""Tasks: questions on the forget set, which the metric KNOWMEM scores, and on the retain set, which UTILITY scores."""

REAL_AUTHORS, WORLD_FACTS = "real_authors", "world_facts"
"""Tasks: TOFU's questions on what no model was trained on here."""


def paraphrased_task(task: str) -> str:
    """That of the true answers to the questions of a task in other words."""
    return f"{task}/paraphrased"


def wrong_task(task: str, number: int) -> str:
    """That of the wrong answers to the questions of a task, of each the one with this number, from 0."""
    return f"{task}/wrong{number}"


KNOWMEM, PRIVLEAK, UTILITY, PERPLEXITY = "knowmem", "privleak", "utility", "perplexity"
"""Metrics, beside VERBMEM."""

PROBABILITY, EXTRACTION, MEMORIZATION = ANSWER_METRICS = ("probability", "extraction_strength", "exact_memorization")
"""Metrics of the tokens of true answers, where a study asks for them."""

FORGET_METRICS = (VERBMEM, KNOWMEM)
REQUIRED_METRICS = (*FORGET_METRICS, PRIVLEAK, UTILITY, PERPLEXITY)

BOTH = "mean"
"""Of the two FORGET_METRICS, beside them in what an audit says is retained."""

HEADLINE = "same_precision"
"""The denominator of retained knowledge that headlines use."""

SHARE_OF_TARGET = "ratio_bf16"
"""That of a study without a retrained model: the score itself over the target's, both as they are before any format.
Over the quantized target's a model that shows no more than before would seem to where the target shows less."""

CHECKPOINT = "checkpoint"
"""The key of a method that was unlearned elsewhere: where its checkpoint is."""

NOT_STATED = "not stated"
"""The storage of a model of which nobody says how its weights were stored while it was trained."""

CONSTRAINED, CONTRAST, BROUGHT = "utility_constrained", "contrast", "brought"
"""Groups of methods that an audit averages: with a retain loss and bfloat16 weights, with more precise weights, and
checkpoints that were unlearned elsewhere."""

OK = "ok"
"""The status of a number that is there."""

UNDEFINED = "undefined: "
"""How the status of a number that cannot be had begins; the reason follows."""


def undefined(reason: str) -> str:
    """The status of a number that cannot be had."""
    return f"{UNDEFINED}{reason}"
