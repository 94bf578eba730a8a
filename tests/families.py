"""A tiny random model of every family, with a tokenizer, for tests that go through families."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

SPECIAL = ["<s>", "</s>", "<pad>"]
TEXT = "The council met on Monday, and it's 1,024 pages; they'll pay 12 345 678 for the line of the year. "
FAMILIES = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3"),
    *("gpt_neox", "gpt2", "opt", "bloom", "falcon", "mixtral"),
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """BPE over bytes as GPT-2 cuts them; every text starts with <s>."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def shape_of(family: str, width: int, layers: int, vocabulary: int) -> dict[str, Any]:
    """What a configuration of the family takes: `layers` of `width`, four heads, 128 positions."""
    ids = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    usual = ids | {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 4}
    usual |= {"max_position_embeddings": 128}
    gated = usual | {"num_key_value_heads": 2, "intermediate_size": 2 * width}
    window = {"sliding_window": 32}
    shapes = {
        "mistral": gated | window,
        "qwen3": gated | {"head_dim": width // 4},
        "gemma2": gated | window | {"head_dim": width // 4, "query_pre_attn_scalar": width // 4},
        "gemma3_text": gated | window | {"head_dim": width // 4, "query_pre_attn_scalar": width // 4},
        "gpt_neox": usual | {"intermediate_size": 2 * width},
        "gpt2": ids | {"n_embd": width, "n_layer": layers, "n_head": 4, "n_positions": 128},
        "opt": usual | {"ffn_dim": 2 * width, "word_embed_proj_dim": width},
        "bloom": ids | {"hidden_size": width, "n_layer": layers, "n_head": 4},
        "falcon": usual | {"new_decoder_architecture": False, "multi_query": True, "alibi": False},
        "mixtral": gated | {"num_local_experts": 4, "num_experts_per_tok": 2},
    }
    return shapes.get(family, gated)


def make_model(family: str, tokenizer: PreTrainedTokenizerFast, width: int = 64, layers: int = 2) -> PreTrainedModel:
    """In bfloat16, with norms and biases that are not their initial ones and zeros, and rows without a token."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **shape_of(family, width, layers, len(tokenizer) + 8))
    model = AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            weight.data += 0.1 * torch.randn_like(weight)
        if name.endswith("fc1.bias"):
            weight.data += 0.3  # so that OPT's ReLU lets something of every channel through: GPTQ erases the others
        weight.data = weight.data.to(torch.bfloat16)
    return model.eval()


def save_family(family: str, folder: Path, width: int = 64, layers: int = 2) -> Path:
    tokenizer = make_tokenizer()
    make_model(family, tokenizer, width, layers).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
