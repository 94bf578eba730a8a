"""Families whose attention or positions depend on where a token stands in its batch: responses do not."""

import pytest
import torch
from tokenizers_of_families import SMALL
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MptConfig,
    MptForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)

from palimpsest.inference.batches import places_by_length, sees_all_by_position, switch_of
from palimpsest.inference.generation import generate
from palimpsest.inference.likelihood import token_log_probs
from palimpsest.inference.requests import corpus_requests

GEMMA = SMALL | {"head_dim": 16, "sliding_window": 24}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [9.0] * 8,
    "original_max_position_embeddings": 90,
}


def small(kind, config, **settings):
    def build(tokens):
        torch.manual_seed(1)
        model = kind(config(vocab_size=tokens, pad_token_id=0, **settings)).float().eval()
        with torch.no_grad():  # far from one answer to everything
            for weight in model.parameters():
                weight.mul_(4 if weight.dim() == 2 else 1)
        return model

    return build


FAMILIES = {
    "llama": (small(LlamaForCausalLM, LlamaConfig, **SMALL), True, None),
    "mistral": (small(MistralForCausalLM, MistralConfig, sliding_window=24, **SMALL), False, None),
    "gemma2": (small(Gemma2ForCausalLM, Gemma2Config, **GEMMA), False, None),
    "gemma3": (
        small(Gemma3ForCausalLM, Gemma3TextConfig, layer_types=["sliding_attention", "full_attention"], **GEMMA),
        False,
        None,
    ),
    "phi3": (small(Phi3ForCausalLM, Phi3Config, sliding_window=24, **SMALL), False, None),
    "phi3 long": (
        small(Phi3ForCausalLM, Phi3Config, rope_parameters=LONGROPE, original_max_position_embeddings=90, **SMALL),
        True,
        90,
    ),
    "bloom": (small(BloomForCausalLM, BloomConfig, hidden_size=64, n_layer=2, n_head=4), False, None),
    "mpt": (small(MptForCausalLM, MptConfig, d_model=64, n_layers=2, n_heads=4, max_seq_len=512), False, None),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_response_and_a_likelihood_are_those_of_the_text_alone(name, tiny):
    """With in-context examples, so that prompts share a start longer than the window, and batches of unlike lengths."""
    build, shares, switch = FAMILIES[name]
    _, tokenizer, corpus = tiny
    model = build(len(tokenizer))
    assert (sees_all_by_position(model), switch_of(model)) == (shares, switch)
    requests = corpus_requests(corpus, tokenizer, 6, 6, 2)
    requests = [each for each in requests if each.task != "knowmem_retain"][::2]
    alone = [generate(model, tokenizer, [request], 1)[0].response for request in requests]
    assert len(set(alone)) > 2
    for size in (3, 64):
        assert [each.response for each in generate(model, tokenizer, requests, size)] == alone
    texts = [*corpus.forget, *(text[:90] for text in corpus.holdout)]
    single = [token_log_probs(model, tokenizer, [text], 200, 1)[0] for text in texts]
    for row, lone in zip(token_log_probs(model, tokenizer, texts, 200, 8), single, strict=True):
        assert row == pytest.approx(lone, abs=2e-3)


def test_batches_take_the_longest_first_and_beyond_a_switch_one_length():
    lengths = [5, 9, 7, 9, 3, 7, 8]
    assert places_by_length(lengths, 3, None) == [[1, 3, 6], [2, 5, 0], [4]]
    assert places_by_length(lengths, 3, 6) == [[1, 3], [6], [2, 5], [0, 4]]
    assert places_by_length([], 3, None) == []
