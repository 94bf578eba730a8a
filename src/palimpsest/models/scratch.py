"""Models from scratch: a tokenizer of the corpus and a Llama with random weights; and what training starts from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from palimpsest.artefacts import verify_files
from palimpsest.corpus.corpus import Corpus, whole_texts
from palimpsest.models.bpe import BOS, EOS, PAD, train_bpe
from palimpsest.models.checkpoint import check_finite, check_tokenizer, load_model, load_tokenizer
from palimpsest.models.encoding import STARTS_WITH_BOS
from palimpsest.vocabulary import FORGET, PRETRAINED, RETAIN, SCRATCH


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """That of palimpsest.models.bpe, as transformers takes it. It adds no BOS by itself; those who use it do."""
    return PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(texts, vocabulary),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        **{STARTS_WITH_BOS: True},
    )


def build_llama(tokenizer: PreTrainedTokenizerBase, shape: Mapping[str, Any], seed: int) -> LlamaForCausalLM:
    """A Llama with random float32 weights, N(0, 0.02) as transformers initialises them.

    shape: hidden_size, layers, heads, mlp_size, context (positions).
    """
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape["hidden_size"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            num_key_value_heads=shape["heads"],
            intermediate_size=shape["mlp_size"],
            max_position_embeddings=shape["context"],
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_base(
    base: str, scratch: Mapping[str, Any], corpus: Corpus, seed: int, pretrained: Path | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """What training starts from: `scratch` (a random Llama, a tokenizer of the whole corpus)
    or a checkpoint, in float32.

    pretrained: the folder of the study's own base, where `base` is `pretrained`.

    The tokenizer has seen the holdout text too, so that PrivLeak compares texts which it splits alike.
    """
    if base == PRETRAINED:
        assert pretrained is not None
        verify_files(pretrained)
        return load_model(pretrained, torch.float32), load_tokenizer(pretrained)
    if base != SCRATCH:
        model, tokenizer = load_model(base, torch.float32, key="models.base"), load_tokenizer(base, key="models.base")
        check_tokenizer(model, tokenizer, base)
        check_finite(model, "models.base")
        return model, tokenizer
    texts = [*whole_texts(corpus, FORGET), *whole_texts(corpus, RETAIN), *corpus.holdout]
    tokenizer = train_tokenizer(texts, scratch["vocabulary"])
    return build_llama(tokenizer, scratch, seed), tokenizer
