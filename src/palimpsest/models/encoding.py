"""From text to tokens as the model's own tokenizer and training begin and end it. Nothing here imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from palimpsest.errors import PalimpsestError
from palimpsest.models.text import text_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STARTS_WITH_BOS = "texts_start_with_bos"
"""In tokenizer_config.json, true: texts start with the BOS, although the tokenizer does not add it by itself."""
PROBE = "a"


def start_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What stands before every text: what the tokenizer puts there by itself. A BOS mostly, of a few tokenizers more
    than one token, of others (Qwen, GPT-2, Phi-3) nothing, even if they name a BOS.

    A token that a model never saw there changes everything behind it. Tokenizers of models from scratch add nothing
    and say that training put a BOS (`STARTS_WITH_BOS` in tokenizer_config.json). Raises PalimpsestError for a tokenizer
    that splits a text otherwise when it adds to it.
    """
    if tokenizer.init_kwargs.get(STARTS_WITH_BOS):
        return [tokenizer.bos_token_id]
    alone, whole = _ids(tokenizer, PROBE, False), _ids(tokenizer, PROBE, True)
    for start in range(len(whole) - len(alone) + 1):
        if whole[start : start + len(alone)] == alone:
            return whole[:start]
    called = tokenizer.name_or_path or type(tokenizer).__name__
    raise PalimpsestError(
        f"the tokenizer {called} splits {PROBE!r} otherwise when it adds its special tokens: "
        "mend the post-processor in its tokenizer.json."
    )


def end_token(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """[EOS], which ends an answer in training; empty where the tokenizer has none: a response then ends at its length
    or a stop string."""
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def padding_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """What fills the masked places of a batch: the tokenizer's padding token, else its EOS, else the first entry of the
    vocabulary. No number depends on it, for it is never attended to and never predicted."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of a text behind `start_tokens`: what chunks and prompts start with."""
    return [*start_tokens(tokenizer), *text_tokens(tokenizer, text)]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, special: bool) -> list[int]:
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])
