"""Text as the tokens of text: what a corpus says is never a command to the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from palimpsest.errors import PalimpsestError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def text_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of a text, nothing put around it, and nothing in it taken for a special token.

    HTML has `<s>` and `</s>`, chat logs `<|endoftext|>` or `[INST]`: as control tokens they would end the text there,
    be left out of responses, and be learned as what they are not. Added tokens that are not special (runs of spaces,
    `<think>`) stay one token: they stand for their text. Raises PalimpsestError for a tokenizer that makes a special
    token of such text all the same, as those do whose model, not their list of added tokens, has it as a word.
    """
    tokens: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    there = set(tokens)
    for number, name in _special(tokenizer):
        if number in there and name in text:
            start = max(text.index(name) - 20, 0)
            raise PalimpsestError(
                f"the tokenizer makes its special token {name!r} of the text {text[start : start + 60]!r}, and cannot "
                "be told to read it as text: write it otherwise there, or remove that text."
            )
    return tokens


def _special(tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[int, str]]:
    """Number and text of each, without the one for what is unknown, which is no command."""
    roles = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    for number, token in tokenizer.added_tokens_decoder.items():
        if token.special and (number != tokenizer.unk_token_id or number in roles):
            yield number, token.content
