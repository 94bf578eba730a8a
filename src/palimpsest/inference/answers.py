"""How likely a model finds the true answers to the questions, token by token, and what it would say in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.attention import sdpa_kernel
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palimpsest.corpus.corpus import Corpus
from palimpsest.corpus.prompts import AS_MUSE, Template
from palimpsest.errors import PalimpsestError
from palimpsest.inference.batches import places_by_length, switch_of
from palimpsest.inference.files import AnswerTokens
from palimpsest.inference.likelihood import KERNELS, chosen_log_probs
from palimpsest.models.asking import Asking
from palimpsest.models.encoding import padding_token
from palimpsest.models.sequences import check_room, pad
from palimpsest.vocabulary import FORGET, KNOWMEM_FORGET, KNOWMEM_RETAIN, RETAIN


@dataclass(frozen=True)
class Truth:
    """A question with its true answer. start: the place of the answer's first token; the last `ending` tokens, none or
    one, end it."""

    task: str
    id: int
    tokens: tuple[int, ...]
    start: int
    ending: int


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
    asking, found = Asking(template, tokenizer), []
    for split, task in ((FORGET, KNOWMEM_FORGET), (RETAIN, KNOWMEM_RETAIN)):
        shots = [(each.question, each.answer) for each in getattr(corpus, f"{split}_icl")[:in_context_examples]]
        for i, each in enumerate(getattr(corpus, f"{split}_qa")):
            put = asking.answered(each.question, each.answer, shots)
            if put.end <= put.start:
                raise PalimpsestError(f"the answer {each.answer!r} to {each.question!r} has no token: mend the record.")
            cut = put.end - put.start > knowmem_tokens
            end = put.start + knowmem_tokens if cut else min(put.end + 1, len(put.tokens))
            found.append(Truth(task, i, put.tokens[:end], put.start, 0 if cut else end - put.end))
    return found


@sdpa_kernel(KERNELS)
@torch.inference_mode()
def answer_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, truths: Sequence[Truth], batch_size: int
) -> list[AnswerTokens]:
    """Of each true answer, in the order given, its tokens' log-probabilities (nats, computed in float32), and the
    tokens that the model finds likeliest there, each given the question and all true tokens before.

    Raises PalimpsestError when the model has too few positions.
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
            )
    return [each for each in found if each is not None]
