"""Random Llamas with trained tokenizers, for the tests of GGUF; the fixture `llamas` is in conftest.py."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from checkpoints import TEXTS
from cyllama.llama import llama_cpp
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from palimpsest.quantizers import make_quantizer
from palimpsest.quantizers.base import Quantizer
from palimpsest.quantizers.gguf.tokenizer import BYTES, SPACE, WORDS

PROMPT = "The council met on Monday, and w12 said w7; it's 1,024 pages."
MERGES = [
    PROMPT * 3,
    *TEXTS,
    "don't wait: it's the line of the year, and they'll pay 12 345 678 for the pages they met.",
]
PLAIN = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
FULL = {
    "num_hidden_layers": 1,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "attention_bias": True,
    "rms_norm_eps": 1e-4,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 5e4,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}


def byte_level(*steps: pre_tokenizers.PreTokenizer, **settings: float) -> PreTrainedTokenizerFast:
    """BPE over bytes that starts every text with <s>."""
    tokenizer = Tokenizer(models.BPE(**settings))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), ["<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(MERGES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def sentencepiece(prepend: bool) -> PreTrainedTokenizerBase:
    """BPE over text with a fallback to bytes, with every merge of two tokens into a third,
    as converted from SentencePiece.

    prepend: with the normalizer of older conversions, else with transformers' own pre-tokenizer.
    """
    trained = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>", *BYTES]
    trained.train_from_iterator(
        MERGES, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    )
    model = json.loads(trained.to_str())["model"]
    vocabulary, made = model["vocab"], dict.fromkeys(left + right for left, right in model["merges"])
    splits = [(token[:cut], token[cut:]) for token in made for cut in range(1, len(token))]
    merges = [pair for pair in splits if vocabulary.keys() >= set(pair)]
    if not prepend:
        return LlamaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=True)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.add_special_tokens(special[:3])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def composing(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """With letters and accents made one, as Qwen's and GPT-NeoX's do first."""
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def gemma() -> PreTrainedTokenizerBase:
    """As Gemma's: spaces become ▁ and none is put before the text."""
    tokenizer = sentencepiece(prepend=True)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return tokenizer


BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)
QWEN2_WORDS = pre_tokenizers.Split(Regex(WORDS[2]), "isolated")
LLAMA3_WORDS = pre_tokenizers.Split(Regex(WORDS[1]), "isolated")
PLAIN_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "gpt-2": lambda: byte_level(BYTE_LEVEL),
    "smollm": lambda: byte_level(pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL),
    "llama-3": lambda: byte_level(LLAMA3_WORDS, PLAIN_BYTES, ignore_merges=True),
    "qwen-2": lambda: composing(byte_level(QWEN2_WORDS, PLAIN_BYTES)),
    "gpt-neox": lambda: composing(byte_level(BYTE_LEVEL)),
    "gemma": lambda: gemma(),
    "llama-2": lambda: sentencepiece(prepend=True),
    "llama-2-metaspace": lambda: sentencepiece(prepend=False),
}


def save(
    folder: Path, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype = torch.bfloat16, **shape: object
) -> Path:
    """A random Llama whose logits differ clearly from place to place."""
    torch.manual_seed(0)
    settings = {"hidden_size": 256, "intermediate_size": 512, "max_position_embeddings": 128, **PLAIN, **shape}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer) + 4, bos_token_id=0, eos_token_id=1, **settings))
    for name, weight in model.named_parameters():
        vector = weight.dim() == 1
        weight.data = weight + 0.1 * torch.randn_like(weight) if vector else 3 * weight.to(torch.bfloat16)
        weight.data = weight.to(dtype if "rotary" not in name else torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def gguf(kind: str, outer: str = "bfloat16") -> Quantizer:
    return make_quantizer({"backend": "gguf", "format": kind, "outer": outer})


class Model(llama_cpp.LlamaModel):
    """cyllama's contexts ask the model for an attribute that it lacks."""

    @property
    def n_vocab(self) -> int:
        return self.get_vocab().n_vocab
