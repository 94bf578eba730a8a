"""What a model is asked: the prompts of each task and how its response ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from palimpsest.corpus.corpus import Corpus, asked_questions
from palimpsest.corpus.prompts import AS_MUSE, Template
from palimpsest.errors import PalimpsestError
from palimpsest.models.asking import Asking
from palimpsest.models.encoding import encode
from palimpsest.models.text import text_tokens
from palimpsest.vocabulary import FORGET, HOLDOUT, KNOWMEM_FORGET, KNOWMEM_RETAIN, RETAIN, VERBMEM

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Request", "corpus_requests", "encode"]


@dataclass(frozen=True)
class Request:
    """A prompt of a task, its true answer, and how generation ends: after max_new_tokens, at a stop string, or at one
    of the tokens `ends` beside the checkpoint's EOS. tokens: of the prompt; none: those of its text."""

    task: str
    id: int
    prompt: str
    answer: str
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()


def corpus_requests(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    verbmem_tokens: int,
    knowmem_tokens: int,
    in_context_examples: int,
    template: Template = AS_MUSE,
) -> list[Request]:
    """What MUSE asks: to continue the verbatim prompts, and the questions on the forget and the retain set.

    Sets of further questions (TOFU's on the world) are asked without examples, but for a holdout set, of which only
    likelihoods are compared. Questions are put as the template has it, by default as MUSE does. A true continuation is
    cut to as many tokens as may be generated, as MUSE does. Raises PalimpsestError when the corpus has fewer in-context
    examples than wanted.
    """
    requests = []
    asking = Asking(template, tokenizer)
    for i, prompt in enumerate(corpus.verbmem):
        truth = text_tokens(tokenizer, prompt.gt)[:verbmem_tokens]
        requests.append(Request(VERBMEM, i, prompt.prompt, str(tokenizer.decode(truth)).strip(), verbmem_tokens))
    for split, task in ((FORGET, KNOWMEM_FORGET), (RETAIN, KNOWMEM_RETAIN)):
        examples = getattr(corpus, f"{split}_icl")
        if len(examples) < in_context_examples:
            raise PalimpsestError(
                f"inference.in_context_examples is {in_context_examples}, "
                f"the corpus has {len(examples)} for the {split} set."
            )
        shots = [(each.question, each.answer) for each in examples[:in_context_examples]]
        for i, each in asked_questions(corpus, split):
            put = asking.prompt(each.question, shots)
            ending = (knowmem_tokens, put.stop, put.tokens, put.ends)
            requests.append(Request(task, i, put.text, each.answer, *ending))
    for name in (each for each in corpus.others if each != HOLDOUT):
        for i, each in asked_questions(corpus, name):
            put = asking.prompt(each.question)
            ending = (knowmem_tokens, put.stop, put.tokens, put.ends)
            requests.append(Request(name, i, put.text, each.answer, *ending))
    return requests
