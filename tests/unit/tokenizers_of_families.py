"""Tokenizers as families have them, built here from a few sentences, and a small model for each."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)

SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
}
ENDOFTEXT = "<|endoftext|>"


def byte_level(texts: Sequence[str], special: Sequence[str]) -> Tokenizer:
    """Byte-level BPE, the special tokens first."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=400, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def sentencepiece_like(texts: Sequence[str]) -> Tokenizer:
    """BPE with ▁ for blanks and bytes for what it does not know, as Llama 2 has it."""
    tokenizer = Tokenizer(BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(texts, BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False))
    return tokenizer


def parts(tokenizer: Tokenizer) -> dict[str, Any]:
    """The vocabulary and the merges of one, which families' classes are made from."""
    model = json.loads(tokenizer.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


def qwen2(texts: Sequence[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    tokenizer = Qwen2Tokenizer(**parts(byte_level(texts, [ENDOFTEXT, "<|im_start|>", "<|im_end|>"])))
    tokenizer.add_tokens([AddedToken(name, special=True) for name in ("<|im_start|>", "<|im_end|>")])
    config = Qwen2Config(vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=0, **SMALL)
    return Qwen2ForCausalLM(config), tokenizer


def gpt2(texts: Sequence[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """<|endoftext|> is BOS, EOS and unknown, and padding by our choice; texts do not start with it."""
    tokenizer = GPT2Tokenizer(**parts(byte_level(texts, [ENDOFTEXT])))
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **sizes)), tokenizer


def llama(texts: Sequence[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Puts the BOS by itself; has no padding token."""
    tokenizer = LlamaTokenizer(**parts(sentencepiece_like(texts)), add_bos_token=True)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SMALL)), tokenizer


def bare(texts: Sequence[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """No special token at all."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level(texts, []))
    config = LlamaConfig(vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=None, **SMALL)
    return LlamaForCausalLM(config), tokenizer


def bos_alone(texts: Sequence[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A BOS that it puts by itself, neither EOS nor padding."""
    backend = byte_level(texts, ["<s>"])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")
    config = LlamaConfig(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=None, **SMALL)
    return LlamaForCausalLM(config), tokenizer


FAMILIES: dict[str, Callable[[Sequence[str]], tuple[PreTrainedModel, PreTrainedTokenizerBase]]] = {
    "qwen2": qwen2,
    "gpt2": gpt2,
    "llama": llama,
    "bare": bare,
    "bos_alone": bos_alone,
}
