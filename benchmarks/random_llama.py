"""Random Llamas of known shapes, for the benchmarks that need a size and no knowledge."""

import time
from itertools import pairwise
from typing import Any

import torch

from palimpsest.runtime.startup import import_transformers

import_transformers(training=True)

from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

SHAPES = {
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 512,
    },
    "54m": {
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 4,
        "num_attention_heads": 16,
        "vocab_size": 1024,
    },
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "13b": {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "vocab_size": 32000,
    },
    "70b": {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
    },
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def random_llama(shape: str, context: int = 4096, device: str = DEVICE) -> LlamaForCausalLM:
    """bfloat16 weights, N(0, 0.02), seed 0;
    the numbers come from the GPU where there is one, which is faster by far."""
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**SHAPES[shape], max_position_embeddings=context))
    model = model.to(torch.bfloat16).to_empty(device=device)
    model.model.rotary_emb = LlamaRotaryEmbedding(model.config).to(device)  # its frequencies are no weights
    generator = torch.Generator(DEVICE).manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            made = torch.empty_like(weight, device=DEVICE)  # the weight itself would be drawn where it is
            weight.copy_(made.fill_(1) if "norm" in name else made.normal_(0, 0.02, generator=generator))
    return model


def clock() -> float:
    """Seconds, once the device has done all it was given."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()


def mark() -> Any:
    """A moment, for `seconds_between`: on a GPU the one at which it gets here, and nothing waits for it."""
    if DEVICE == "cpu":
        return time.monotonic()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(marks: list[Any]) -> list[float]:
    """Of each mark to the next."""
    clock()
    return [b - a if DEVICE == "cpu" else a.elapsed_time(b) / 1000 for a, b in pairwise(marks)]


def matmul_rate(size: int = 8192, repeats: int = 10) -> float:
    """Operations per second of a bfloat16 matrix product of random numbers, measured here."""
    size = size if DEVICE == "cuda" else 1024
    left, right = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    started = clock()
    for _ in range(repeats):
        left @ right
    return repeats * 2 * size**3 / (clock() - started)


def peak_memory() -> float:
    """GB that tensors held at most on the GPU since the last reset; 0 without a GPU."""
    return torch.cuda.max_memory_allocated() / 1e9 if DEVICE == "cuda" else 0.0
