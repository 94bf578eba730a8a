"""Text that looks like a special token is text, for every kind of tokenizer and wherever a corpus is encoded."""

import json
from collections.abc import Callable, Sequence

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from palimpsest.corpus.corpus import Corpus, Prompt, Question
from palimpsest.errors import PalimpsestError
from palimpsest.inference.requests import corpus_requests, encode
from palimpsest.models.scratch import train_tokenizer
from palimpsest.models.sequences import chunk, question_sequence
from palimpsest.models.text import text_tokens
from palimpsest.quantizers import make_quantizer

LEARNED = ["Das ist <s>HTML</s>, and plain [text] | of a page.", "x < y > z", "a|b [c] end of text INST pad unk"]
TEXTS = [
    "<s>struck</s> out",
    "one <|endoftext|> two",
    "[INST] Who? [/INST] <unk><pad> <|im_start|>",
    "no special text at all",
    "</s>",
]


def scratch() -> PreTrainedTokenizerFast:
    return train_tokenizer(LEARNED, 300)


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2 and Qwen have it: one token for every role, and chat tokens that no role names."""
    tokenizer = train_tokenizer(LEARNED, 300)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    roles = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    fast.add_special_tokens({**roles, "additional_special_tokens": ["<|im_start|>", "[INST]", "[/INST]"]})
    return fast


def sentencepiece() -> PreTrainedTokenizerFast:
    """As Llama 2 and Gemma have it: BPE over text with its blanks marked, bytes for the rest."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend.train_from_iterator(
        ["The library closed in May"], trainers.BpeTrainer(vocab_size=320, special_tokens=pieces, show_progress=False)
    )
    plain = json.loads(backend.to_str())
    plain["added_tokens"] = [token for token in plain["added_tokens"] if token["id"] < 3]
    roles = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(plain)), **roles)


def python() -> ByT5Tokenizer:
    return ByT5Tokenizer()


KINDS: list[Callable[[], PreTrainedTokenizerFast | ByT5Tokenizer]] = [scratch, byte_level, sentencepiece, python]


def special(tokenizer) -> set[int]:
    named = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return named | set(tokenizer.all_special_ids)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_it_is_read_as_text_and_comes_back(kind, text):
    tokenizer = kind()
    tokens = text_tokens(tokenizer, text)
    assert special(tokenizer).isdisjoint(tokens)
    assert tokenizer.decode(tokens, skip_special_tokens=True) == text


@pytest.mark.parametrize("kind", KINDS)
def test_other_text_has_the_tokens_that_it_always_had(kind):
    tokenizer = kind()
    before = tokenizer(TEXTS[3], add_special_tokens=False)["input_ids"]
    assert text_tokens(tokenizer, TEXTS[3]) == before
    text_tokens(tokenizer, TEXTS[0])
    assert tokenizer(TEXTS[3], add_special_tokens=False)["input_ids"] == before


def test_a_token_that_is_added_but_not_special_stays_one():
    tokenizer = scratch()
    tokenizer.add_tokens(["<think>"])
    assert text_tokens(tokenizer, "<think>") == [tokenizer.convert_tokens_to_ids("<think>")]


def words_as_tokens() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    backend.train_from_iterator(["a b"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_a_tokenizer_that_cannot_read_it_as_text_is_refused():
    with pytest.raises(PalimpsestError, match="makes its special token '</s>' of the text 'a b </s> a'"):
        text_tokens(words_as_tokens(), "a b </s> a")
    assert text_tokens(words_as_tokens(), "a <unk>") == text_tokens(words_as_tokens(), "a c")


def plain_runs(tokens: Sequence[int], tokenizer) -> list[str]:
    return [tokenizer.convert_ids_to_tokens(token) for token in tokens if token in special(tokenizer)]


def test_everywhere_a_corpus_is_encoded(tmp_path):
    tokenizer, text = scratch(), "He wrote <s>old</s> prices."
    assert plain_runs(chunk([text, text], tokenizer, 1000)[0], tokenizer) == ["<s>"]
    assert plain_runs(question_sequence(tokenizer, text, text), tokenizer) == ["<s>", "</s>"]
    assert plain_runs(encode(tokenizer, text), tokenizer) == ["<s>"]
    asked = [Question(text, text)]
    corpus = Corpus([text], [text], [text], asked, asked, [], [], [Prompt(text, text)], [text], [text], [text])
    assert {request.answer for request in corpus_requests(corpus, tokenizer, 99, 9, 0)} == {text}
    tokenizer.save_pretrained(tmp_path)
    settings = {"backend": "gptq", "bits": 4, "group_size": 32, "symmetric": True, "damping": 0.01}
    quantizer = make_quantizer(settings | {"calibration": "retain", "samples": 1, "sample_length": 10})
    [sample] = quantizer.encode(tmp_path, [text])
    assert plain_runs(sample, tokenizer) == ["<s>"]
