"""A study on records of the user's own, before anything runs: the files are read and checked, and counted aloud."""

from collections.abc import Mapping
from logging import Logger
from pathlib import Path
from typing import Any

from palimpsest.corpus.corpus import Corpus
from palimpsest.corpus.from_records import lines_of
from palimpsest.corpus.sources import OF_QUESTIONS, PATHS, TOFU, checked_corpus
from palimpsest.corpus.words import tokenizers_of
from palimpsest.errors import PalimpsestError
from palimpsest.unlearning.losses import FORGET_LOSSES
from palimpsest.vocabulary import FORGET, RETAIN, RETRAIN, TARGET

Params = Mapping[str, Any]
TRAIN = "train"
NO_RETAIN = "corpus.settings has no retain records"


def check_records_settings(params: Params) -> None:
    """Raise PalimpsestError for what no corpus of records has, whatever its files hold."""
    if params["corpus"]["source"] in OF_QUESTIONS and params["inference"]["in_context_examples"]:
        raise PalimpsestError(
            f"inference.in_context_examples is {params['inference']['in_context_examples']}, and records have no "
            "in-context examples: set it to 0."
        )


def announce(params: Params, log: Logger, made: Path | None = None) -> None:
    """Read and check the records of a study, if it is on such, and tell the log how many there are, by split and
    subject.

    made: the manifest of what was made of them, which stands when they are gone. Raises PalimpsestError for records
    that cannot be used, and where what is trained or calibrated needs some that are not there.
    """
    block = params["corpus"]
    if block["source"] not in OF_QUESTIONS:
        return
    if block["source"] == TOFU and not Path(block["settings"]["path"]).is_dir():
        return  # of the hub, which no dry run asks
    files = [block["settings"].get(key) for key in PATHS]
    if made is not None and made.is_file() and not all(Path(file).exists() for file in files if file):
        log.info(f"Records: the files are gone, and {made} stands.")
        return
    corpus, counted = checked_corpus(block, tokenizers_of(params["metrics"]))
    check_needs(params, corpus)
    for line in lines_of(counted["by_split"]):
        log.info(f"Records, {line}.")


def check_needs(params: Params, corpus: Corpus) -> None:
    """Raise PalimpsestError where the retain set, or text to train on, is needed and is not there."""
    models, questions = params["models"], params["training"]["questions"]
    has_retain = bool(corpus.retain or corpus.retain_qa)
    if not has_retain:
        if models[RETRAIN] == TRAIN:
            raise PalimpsestError(
                f"models.retrain is train, and {NO_RETAIN} to train it on: add them, or give a checkpoint."
            )
        for name, method in params["methods"].items():
            if method.get("retain_loss"):
                raise PalimpsestError(
                    f"methods.{name}.retain_loss is {method['retain_loss']!r}, and {NO_RETAIN}: add them, or set it to "
                    "null."
                )
        for name, quantizer in params["quantizers"].items():
            if quantizer.get("calibration") == RETAIN:
                raise PalimpsestError(
                    f"quantizers.{name}.calibration is retain, and {NO_RETAIN}: add them, or set it to generic."
                )
    _check_alternatives(params, corpus)
    trained = TRAIN in (models[TARGET], models[RETRAIN]) or any("forget_loss" in m for m in params["methods"].values())
    for split in (FORGET, RETAIN) if has_retain else (FORGET,):
        if trained and not questions and not getattr(corpus, split):
            raise PalimpsestError(
                f"training.questions is false, and no {split} record has a text: set it to true, to train on questions "
                "with their answers."
            )


def _check_alternatives(params: Params, corpus: Corpus) -> None:
    """Raise PalimpsestError where a loss prefers alternative answers, and the records have no questions for them."""
    needs = {"refusals": (FORGET,), "answers": (FORGET, RETAIN)}
    for name, method in params["methods"].items():
        loss = FORGET_LOSSES.get(method.get("forget_loss"))
        splits = needs[loss.alternatives] if loss and loss.alternatives else ()
        if missing := [split for split in splits if not getattr(corpus, f"{split}_qa")]:
            raise PalimpsestError(
                f"methods.{name}.forget_loss is {method['forget_loss']}, which needs questions of the "
                f"{' and the '.join(missing)} set for its alternative answers, and those records have texts alone: add "
                "records with a question and an answer, or set the loss to npo."
            )
