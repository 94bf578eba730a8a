"""Small random checkpoints that the quantizers are tried on, and what is fed through them."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = 64
TEXTS = [" ".join(f"w{3 + (i * i + 7 * j) % (WORDS - 3)}" for i in range(90)) for j in range(6)]

SHAPES = ("aligned", "ragged")


def save_checkpoint(folder: Path, dtype: torch.dtype = torch.bfloat16, **shape: int | bool) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=WORDS, num_attention_heads=4, max_position_embeddings=256, **shape)
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>").save_pretrained(folder)
    return folder


def dense(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def bfloat16_input(width: int) -> torch.Tensor:
    """[identity rows, then random rows]: the identity shows single weights, the random rows their sum."""
    random = torch.randn(8, width, generator=torch.Generator().manual_seed(1))
    return torch.cat([torch.eye(width), random]).to(torch.bfloat16)
