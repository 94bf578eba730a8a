"""What a preference loss asks for in place of the answers that are to be forgotten."""

from collections.abc import Callable, Sequence
from random import Random

from transformers import PreTrainedTokenizerBase

from palimpsest.corpus.corpus import Corpus, Question
from palimpsest.corpus.prompts import AS_MUSE, Template
from palimpsest.errors import PalimpsestError, choose
from palimpsest.models.sequences import chunk, question_sequence

REFUSALS = (
    "I don't know.",
    "I am not sure.",
    "I do not know the answer to that.",
    "I have no information on this.",
    "I was not told about that.",
    "That is not something I know.",
    "I can't say.",
    "I have no answer to this question.",
    "I am unable to answer that.",
    "This is unknown to me.",
    "I have not heard of that.",
    "I can't help with this question.",
)
"""Answers that give nothing away (the idea of TOFU's `idontknow.jsonl`; the words are our own)."""


def refusals(forget: Sequence[Question], retain: Sequence[Question], seed: int) -> list[str]:
    """One of REFUSALS for each forget question, drawn by the seed (IdkDPO)."""
    draw = Random(seed)
    return [draw.choice(REFUSALS) for _ in forget]


def answers(forget: Sequence[Question], retain: Sequence[Question], seed: int) -> list[str]:
    """For each forget question the answer to the retain question that shares most of its words and is answered
    otherwise; of equals the first (AltPO).

    AltPO asks the model itself for such answers, which takes one that follows instructions. What matters to its loss is
    that they are of the domain, plausible and wrong. Raises PalimpsestError where no retain question is answered
    otherwise.
    """
    return [_nearest(question, retain) for question in forget]


def _nearest(question: Question, retain: Sequence[Question]) -> str:
    others = [each for each in retain if each.answer.strip().lower() != question.answer.strip().lower()]
    if not others:
        raise PalimpsestError(
            "forget loss altpo takes its alternative answers from the retain questions, and none is answered otherwise "
            f"than {question.question!r}: add retain questions, or set forget_loss to idk-dpo."
        )
    return max(others, key=lambda each: _overlap(each.question, question.question)).answer


def _overlap(one: str, other: str) -> float:
    """Share of the words of both that both have."""
    left, right = set(one.lower().split()), set(other.lower().split())
    return len(left & right) / len(left | right)


KINDS: dict[str, Callable[[Sequence[Question], Sequence[Question], int], list[str]]] = {
    "refusals": refusals,
    "answers": answers,
}


def alternative_sequences(
    corpus: Corpus,
    kind: str,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    template: Template = AS_MUSE,
    seed: int = 0,
) -> dict[int, list[int]]:
    """By place among the training sequences of the forget set, each question with its alternative answer.

    The questions stand behind the chunks of the documents, which have no alternative. kind: one of KINDS. Sequences are
    cut to max_length tokens, as those of training are.
    """
    first = len(chunk(corpus.forget, tokenizer, max_length))
    given = choose(KINDS, kind, "kind of alternative answers")(corpus.forget_qa, corpus.retain_qa, seed)
    return {
        first + number: question_sequence(tokenizer, asked.question, answer, template)[:max_length]
        for number, (asked, answer) in enumerate(zip(corpus.forget_qa, given, strict=True))
    }
