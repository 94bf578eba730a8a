"""Token log-probabilities of texts."""

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palimpsest.errors import PalimpsestError
from palimpsest.inference.batches import places_by_length, switch_of
from palimpsest.models.encoding import encode, padding_token, start_tokens
from palimpsest.models.sequences import check_room, pad

KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Of attention: all but cuDNN's. On a GPU these are planned anew for every length, half the time of generation, and for
one query without a mask they give other last bits each time (docs/how-to/scaling.md)."""


def split_log_probs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, Sequence[str]],
    max_length: int,
    batch_size: int,
) -> dict[str, list[list[float]]]:
    """`token_log_probs` of every split's texts, in one pass over all of them.

    Raises PalimpsestError, which names it, for a text of which no token can be predicted.
    """
    first = first_predicted(tokenizer)
    for name, split in splits.items():
        for i, text in enumerate(split):
            if len(encode(tokenizer, text)) <= first:
                raise PalimpsestError(
                    f"text {i} of privleak/{name} ({text!r}) has no token that follows another, and so no likelihood: "
                    "remove it from the corpus."
                )
    texts = [text for split in splits.values() for text in split]
    rows = iter(token_log_probs(model, tokenizer, texts, max_length, batch_size))
    return {name: list(itertools.islice(rows, len(split))) for name, split in splits.items()}


@sdpa_kernel(KERNELS)
@torch.inference_mode()
def token_log_probs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int,
    batch_size: int,
) -> list[list[float]]:
    """Per text the log-probability (nats, computed in float32) of each of its tokens; texts are cut to
    max_length tokens.

    Behind a BOS these are all tokens of the text. A tokenizer that starts texts with nothing leaves the first one out:
    no token stands before it that could predict it. Means per token and Min-K% are then over one token less.

    Raises PalimpsestError when the model has too few positions.
    """
    first = first_predicted(tokenizer)
    sequences = [encode(tokenizer, text)[:max_length] for text in texts]
    check_room(model, max(map(len, sequences), default=0), "a text", "lower inference.logprob_tokens")
    rows: list[list[float]] = [[]] * len(sequences)
    batches = places_by_length([len(sequence) for sequence in sequences], batch_size, switch_of(model))
    for batch in tqdm(batches, desc="log-probabilities", unit="batch"):
        padded = pad([sequences[i] for i in batch], batch, padding_token(tokenizer))
        ids, mask = padded.input_ids.to(model.device), padded.mask.to(model.device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for i, row, tokens in zip(batch, logits, ids, strict=True):  # one by one: in float32 a row is large
            end = len(sequences[i])
            rows[i] = chosen_log_probs(row[first - 1 : end - 1].float(), tokens[first:end]) if end > first else []
    return rows


def first_predicted(tokenizer: PreTrainedTokenizerBase) -> int:
    """The place of the first token of a text that has a likelihood: behind what starts every text, and never the first
    of all."""
    return max(1, len(start_tokens(tokenizer)))


def chosen_log_probs(logits: torch.Tensor, tokens: torch.Tensor) -> list[float]:
    """Log-probabilities [tokens] of the tokens under the logits [tokens, vocabulary]."""
    return (logits.gather(-1, tokens[:, None]).squeeze(-1) - logits.logsumexp(-1)).tolist()
