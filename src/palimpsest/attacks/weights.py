"""Attacks on the weights: training for a few steps, and setting the smallest weights to zero."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from palimpsest.attacks.kinds import PRUNE
from palimpsest.corpus.corpus import Corpus
from palimpsest.corpus.generic import generic_texts
from palimpsest.corpus.prompts import Template
from palimpsest.errors import PalimpsestError, choose
from palimpsest.models.encoding import padding_token
from palimpsest.models.layers import decoder_matrices
from palimpsest.models.sequences import chunk, corpus_sequences
from palimpsest.training.batches import Collator
from palimpsest.training.schedule import Schedule
from palimpsest.training.trainer import NextTokenTrainer, fit
from palimpsest.vocabulary import FORGET, RETAIN

SPLITS = {"forget": FORGET, "related": RETAIN, "benign": None}
"""What is trained on: the forget set, the retain set (of its domain), or generic text."""


@torch.no_grad()
def prune(model: PreTrainedModel, share: float) -> dict[str, Any]:
    """Set the smallest weights of each linear layer but the output head to zero, in place; of equal ones the first.

    share: percent of a layer's weights, rounded down. Unstructured magnitude pruning, layer by layer (Han et al. 2015).
    Returns how many weights are zero now, and how many there are.
    """
    if not 0 <= share <= 100:
        raise PalimpsestError(f"prune: share is {share}: give percent, from 0 to 100.")
    zero = total = 0
    for weight in decoder_matrices(model).values():
        flat = weight.data.view(-1)
        smallest = flat.abs().argsort(stable=True)[: int(flat.numel() * share / 100)]
        flat[smallest] = 0
        zero += int((flat == 0).sum())
        total += flat.numel()
    return {"zero": zero, "weights": total}


class StopAfter(TrainerCallback):
    """Ends training after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.steps


def _stopping(steps: int, *arguments: Any, **settings: Any) -> NextTokenTrainer:
    trainer = NextTokenTrainer(*arguments, **settings)
    trainer.add_callback(StopAfter(steps))
    return trainer


def relearn(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], pad_token: int, settings: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """`steps` steps of ordinary training on the sequences, in place; without one the weights stay bit for bit.

    settings: steps, learning_rate, batch_size (null: all sequences in a step) and storage. Returns what happened.
    """
    steps = settings["steps"]
    if steps == 0:
        return {"steps": 0}
    schedule = Schedule(
        settings["learning_rate"], steps, settings["batch_size"], storage=settings["storage"], seed=seed
    )
    return fit(partial(_stopping, steps), model, Collator(sequences, pad_token, seed=seed), schedule)


def relearning_sequences(
    text: str,
    corpus: Corpus,
    generic: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    questions: bool,
    template: Template,
) -> list[list[int]]:
    """What relearning trains on. text: one of SPLITS; generic: the block calibration.generic, for benign text."""
    split = choose(SPLITS, text, "text to relearn from (key `text`)")
    if split is None:
        return chunk(generic_texts(generic["source"], generic["settings"]), tokenizer, max_length)
    if not (getattr(corpus, split) or (questions and getattr(corpus, f"{split}_qa"))):
        raise PalimpsestError(f"relearn: text is {text}, and the corpus has no {split} text: take another text.")
    return corpus_sequences(corpus, split, tokenizer, max_length, questions, template)


def attack_weights(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    settings: Mapping[str, Any],
    template: Template,
    seed: int,
) -> dict[str, Any]:
    """Attack the model in place. settings: attack, generic, max_length and questions. Returns what happened."""
    attack = settings["attack"]
    if attack["kind"] == PRUNE:
        return prune(model, attack["share"])
    where = settings["max_length"], settings["questions"], template
    sequences = relearning_sequences(attack["text"], corpus, settings["generic"], tokenizer, *where)
    return relearn(model, sequences, padding_token(tokenizer), attack, seed)
