"""Tokenizers in GGUF files: llama.cpp tokenizes as the checkpoint does, or the file is refused."""

import json
import shutil
from pathlib import Path

import pytest
from checkpoints import TEXTS
from gguf_models import (
    BYTE_LEVEL,
    LLAMA3_WORDS,
    PLAIN_BYTES,
    PROMPT,
    TOKENIZERS,
    Model,
    byte_level,
    gguf,
    save,
    sentencepiece,
)
from tokenizers import Regex, normalizers, pre_tokenizers, processors
from transformers import (
    AutoTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
)

from palimpsest.errors import PalimpsestError
from palimpsest.models.checkpoint import load_tokenizer
from palimpsest.models.text import text_tokens

SAMPLES = (
    PROMPT,
    *TEXTS[:2],
    "don't  wait:\n\n\t'tis   I'LL  \r\n x  ",
    "Zoë paid 3.50 €, ½ of 日本語 текст 🙂",
    "",
)
SPECIAL = "after </s> comes <s> again"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_llama_cpp_tokenizes_as_the_checkpoint_does(tmp_path, name):
    checkpoint, folder = save(tmp_path / "checkpoint", TOKENIZERS[name]()), tmp_path / "quantized"
    gguf("q4_0").quantize(checkpoint, folder, [])
    model = Model(str(folder / "model.gguf"), verbose=False)
    vocabulary = model.get_vocab()  # lives as long as the model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    alone = tmp_path / "alone"  # without the tokenizer's files, which transformers would read instead
    alone.mkdir()
    of_the_file = load_tokenizer(Path(shutil.copy(folder / "model.gguf", alone)))
    for text in SAMPLES:
        tokens = tokenizer(text)["input_ids"]
        if name in ("gpt-2", "smollm", "llama-3", "qwen-2", "gpt-neox"):
            assert of_the_file(text, add_special_tokens=False)["input_ids"] == text_tokens(tokenizer, text)
            words, own = (
                [piece for piece, _ in each.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]
                for each in (of_the_file, tokenizer)
            )
            assert words == own  # the few merges of these vocabularies would hide most of what is cut otherwise
            assert of_the_file.decode(text_tokens(tokenizer, text)) == text
        assert vocabulary.tokenize(text, True, True) == tokens
        assert "".join(vocabulary.detokenize(tokens).split()) == "".join(text.split())
    # after a special token the pre-tokenizer puts no second space before a space, llama.cpp does
    same = vocabulary.tokenize(SPECIAL, True, True) == tokenizer(SPECIAL)["input_ids"]
    assert same == (name != "llama-2-metaspace")
    assert (vocabulary.token_bos(), vocabulary.token_eos()) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert vocabulary.n_vocab == len(tokenizer) + 4  # rows of the embedding


def test_a_tokenizer_without_bos_starts_texts_with_nothing(tmp_path):
    """Qwen's: llama.cpp is told a number for BOS, and never to add it."""
    tokenizer = TOKENIZERS["qwen-2"]()
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.bos_token = None
    checkpoint, folder = save(tmp_path / "checkpoint", tokenizer), tmp_path / "quantized"
    gguf("q4_0").quantize(checkpoint, folder, [])
    model = Model(str(folder / "model.gguf"), verbose=False)
    vocabulary = model.get_vocab()
    tokens = AutoTokenizer.from_pretrained(checkpoint)(PROMPT)["input_ids"]
    assert vocabulary.tokenize(PROMPT, True, True) == tokens and vocabulary.token_eos() == tokenizer.eos_token_id
    assert vocabulary.token_bos() == tokenizer.eos_token_id not in tokens


def incomplete_merges() -> PreTrainedTokenizerBase:
    """As trained by the tokenizers package: one merge for each token, where llama.cpp knows them all."""
    model = json.loads(sentencepiece(prepend=True).backend_tokenizer.to_str())["model"]
    merges, made = [], set()
    for left, right in model["merges"]:
        if left + right not in made:
            merges.append((left, right))
            made.add(left + right)
    return LlamaTokenizer(vocab=model["vocab"], merges=merges)


def without_bos() -> PreTrainedTokenizerBase:
    tokenizer = byte_level(BYTE_LEVEL)
    tokenizer.bos_token = None
    return tokenizer


def lower_case() -> PreTrainedTokenizerBase:
    tokenizer = byte_level(BYTE_LEVEL)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (incomplete_merges, "no merge of .* which llama.cpp would make"),
        (without_bos, "has no bos_token"),
        (lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
         "the pre-tokenizer .*'add_prefix_space': True"),
        (lambda: byte_level(pre_tokenizers.Split(Regex("a+"), "isolated"), PLAIN_BYTES),
         "the pre-tokenizers .'a.', 'bytes'"),
        (lambda: byte_level(LLAMA3_WORDS, PLAIN_BYTES), "ignore_merges False"),
        (lambda: byte_level(BYTE_LEVEL, dropout=0.1), "dropout 0.1"),
        (lower_case, "the normalizer .*Lowercase"),
    ],
)  # fmt: skip
def test_a_tokenizer_that_llama_cpp_does_not_have_is_refused(tmp_path, tokenizer, message):
    checkpoint = save(tmp_path / "checkpoint", tokenizer())
    with pytest.raises(PalimpsestError, match=message):
        gguf("q4_0").quantize(checkpoint, tmp_path / "quantized", [])


def test_a_tokenizer_without_bytes_is_refused(checkpoints, tmp_path):
    with pytest.raises(PalimpsestError, match="has a WordLevel model that is not BPE"):
        gguf("q4_0").quantize(checkpoints["aligned"], tmp_path, [])


def test_a_tokenizer_that_llama_cpp_runs_otherwise_is_refused(llamas, tmp_path, monkeypatch):
    monkeypatch.setattr("palimpsest.quantizers.gguf.tokenizer._word_splitter", lambda *_: "qwen2")
    with pytest.raises(PalimpsestError, match=r"llama.cpp tokenizes .* to .*, the tokenizer of .* to "):
        gguf("q4_0").quantize(llamas["plain"], tmp_path, [])


def test_a_tokenizer_with_more_tokens_than_rows_is_refused(llamas, tmp_path):
    checkpoint = shutil.copytree(llamas["plain"], tmp_path / "checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.add_tokens([f"extra{i}" for i in range(5)])
    tokenizer.save_pretrained(checkpoint)
    with pytest.raises(PalimpsestError, match=r"has \d+ tokens, the embedding \d+ rows"):
        gguf("q4_0").quantize(checkpoint, tmp_path / "quantized", [])
