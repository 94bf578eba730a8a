"""How likely a model finds the true answers to the questions, token by token, and what it would say in their place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.attention import sdpa_kernel
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palimpsest.corpus.corpus import Corpus, Question, RecordQuestion, asked_questions
from palimpsest.corpus.prompts import AS_MUSE, Template
from palimpsest.errors import PalimpsestError
from palimpsest.inference.batches import places_by_length, switch_of
from palimpsest.inference.files import AnswerTokens, zlib_size
from palimpsest.inference.likelihood import KERNELS, chosen_log_probs
from palimpsest.models.asking import Asking
from palimpsest.models.encoding import padding_token
from palimpsest.models.sequences import check_room, pad
from palimpsest.vocabulary import FORGET, HOLDOUT, KNOWMEM_FORGET, KNOWMEM_RETAIN, RETAIN, paraphrased_task, wrong_task


@dataclass(frozen=True)
class Truth:
    """A question with its true answer, or another whose likelihood is asked. start: the place of the answer's first
    token; the last `ending` tokens, none or one, end it. text: the answer."""

    task: str
    id: int
    tokens: tuple[int, ...]
    start: int
    ending: int
    text: str = ""


def true_answers(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    knowmem_tokens: int,
    in_context_examples: int,
    template: Template = AS_MUSE,
) -> list[Truth]:
    """The questions of the corpus, as `corpus_requests` asks them, with their true answers: cut to as many tokens as
    may be generated, those that are not cut with the token that ends them in training.

    Raises PalimpsestError for an answer without a token.
    """
    asking = Asking(template, tokenizer)
    found: list[Truth] = []
    for split, task in ((FORGET, KNOWMEM_FORGET), (RETAIN, KNOWMEM_RETAIN)):
        shots = [(each.question, each.answer) for each in getattr(corpus, f"{split}_icl")[:in_context_examples]]
        found += _truths(asking, task, asked_questions(corpus, split), shots, knowmem_tokens)
    for name in corpus.others:
        found += _truths(asking, name, asked_questions(corpus, name), (), knowmem_tokens)
    return found


def _truths(
    asking: Asking, task: str, asked: Iterable[tuple[int, Question]], shots: Sequence[tuple[str, str]], limit: int
) -> Iterator[Truth]:
    """Of the questions, each with its place: the true answers, and where there are some the paraphrased and the wrong
    ones, each kind a task of its own."""
    for i, each in asked:
        answers = {task: each.answer}
        if isinstance(each, RecordQuestion):
            answers |= {paraphrased_task(task): each.paraphrased} if each.paraphrased is not None else {}
            answers |= {wrong_task(task, number): wrong for number, wrong in enumerate(each.wrong)}
        for name, answer in answers.items():
            put = asking.answered(each.question, answer, shots)
            if put.end <= put.start:
                raise PalimpsestError(f"the answer {answer!r} to {each.question!r} has no token: mend the record.")
            cut = put.end - put.start > limit
            end = put.start + limit if cut else min(put.end + 1, len(put.tokens))
            yield Truth(name, i, put.tokens[:end], put.start, 0 if cut else end - put.end, answer)


@sdpa_kernel(KERNELS)
@torch.inference_mode()
def answer_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    truths: Sequence[Truth],
    batch_size: int,
    spread: bool = False,
) -> list[AnswerTokens]:
    """Of each true answer, in the order given, its tokens' log-probabilities (nats, computed in float32), and the
    tokens that the model finds likeliest there, each given the question and all true tokens before.

    spread: whether the sizes, means and variances that membership attacks need are recorded. Raises PalimpsestError
    when the model has too few positions.
    """
    sequences = [truth.tokens[:-1] for truth in truths]  # what follows the last token is not asked
    longest = max(map(len, sequences), default=0)
    check_room(model, longest, "a question with its answer", "lower inference.knowmem_tokens")
    found: list[AnswerTokens | None] = [None] * len(truths)
    batches = places_by_length([len(sequence) for sequence in sequences], batch_size, switch_of(model))
    for batch in tqdm(batches, desc="true answers", unit="batch"):
        padded = pad([list(sequences[i]) for i in batch], batch, padding_token(tokenizer))
        ids, mask = padded.input_ids.to(model.device), padded.mask.to(model.device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for i, row in zip(batch, logits, strict=True):
            truth = truths[i]
            true = truth.tokens[truth.start :]
            mine = row[truth.start - 1 : len(truth.tokens) - 1].float()
            found[i] = AnswerTokens(
                truth.task,
                truth.id,
                chosen_log_probs(mine, torch.tensor(true, device=mine.device)),
                mine.argmax(-1).tolist(),
                list(true),
                truth.ending,
                **(_spread(mine, truth.text) if spread else {}),
            )
    return [each for each in found if each is not None]


def _spread(logits: torch.Tensor, text: str) -> dict[str, Any]:
    """Of the logits [tokens, vocabulary] of an answer: how its log-probabilities spread at each place."""
    log_probs = logits.log_softmax(-1)
    means = (log_probs.exp() * log_probs).sum(-1)
    variances = (log_probs.exp() * (log_probs - means[:, None]).square()).sum(-1)
    return {"size": zlib_size(text), "means": means.tolist(), "variances": variances.tolist()}


def with_gradients(
    model: PreTrainedModel, truths: Sequence[Truth], answers: Sequence[AnswerTokens]
) -> list[AnswerTokens]:
    """The answers, those of the tasks in ATTACKED with their gradients. One forward and backward pass for each."""
    places = [i for i, truth in enumerate(truths) if truth.task in ATTACKED]
    norms = dict(zip(places, gradient_norms(model, [truths[i] for i in places]), strict=True))
    return [replace(answer, gradient=norms.get(i)) for i, answer in enumerate(answers)]


ATTACKED = (KNOWMEM_FORGET, HOLDOUT)
"""Tasks whose true answers a membership attack parts."""


def gradient_norms(model: PreTrainedModel, truths: Sequence[Truth]) -> list[float]:
    """Of each answer the norm of the gradient, by all weights of the model, of the mean loss of the tokens that do not
    end it."""
    weights = [weight for weight in model.parameters() if weight.is_floating_point()]
    trained = [weight.requires_grad for weight in weights]
    norms = []
    try:
        for weight in weights:
            weight.requires_grad_(True)
        for truth in tqdm(truths, desc="gradients", unit="answer"):
            tokens = torch.tensor([truth.tokens[: len(truth.tokens) - truth.ending]], device=model.device)
            logits = model(input_ids=tokens[:, :-1], use_cache=False).logits[0, truth.start - 1 :].float()
            loss = torch.nn.functional.cross_entropy(logits, tokens[0, truth.start :])
            found = torch.autograd.grad(loss, weights, allow_unused=True)
            norms.append(float(torch.nn.utils.get_total_norm([each.float() for each in found if each is not None])))
    finally:
        for weight, before in zip(weights, trained, strict=True):
            weight.requires_grad_(before)
    return norms
