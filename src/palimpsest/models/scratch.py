"""Models from scratch: a tokenizer of the corpus and a Llama with random weights; and what training starts from."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from palimpsest.corpus import Corpus
from palimpsest.models.checkpoint import check_tokenizer, load_model, load_tokenizer

BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with `vocabulary` entries, special tokens included;
    knows every byte, so no text is unknown to it."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.train_from_iterator(
        texts,
        BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[BOS, EOS, PAD],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
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
    base: str, scratch: Mapping[str, Any], corpus: Corpus, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """What training starts from: `scratch` (a random Llama, a tokenizer of the whole corpus)
    or a checkpoint, in float32.

    The tokenizer has seen the holdout text too, so that PrivLeak compares texts which it splits alike.
    """
    if base != "scratch":
        model, tokenizer = load_model(base, torch.float32, key="models.base"), load_tokenizer(base, key="models.base")
        check_tokenizer(model, tokenizer, base)
        return model, tokenizer
    tokenizer = train_tokenizer([*corpus.forget, *corpus.retain, *corpus.holdout], scratch["vocabulary"])
    return build_llama(tokenizer, scratch, seed), tokenizer
