"""Products by blocks: the bits of the usual way, or the usual way itself."""

import copy

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from palimpsest.inference import products
from palimpsest.inference.products import LEAST, as_multiplied, has_the_same_bits, multiplied, multiply_by_blocks

COLUMNS = (64, 192, 200, 256, 512, 576, 1024, 1536)
pytestmark = pytest.mark.usefixtures("one_thread")
FAST = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()


@pytest.fixture
def network() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 512, "intermediate_size": 576, "num_hidden_layers": 1, "num_attention_heads": 8}
    return LlamaForCausalLM(LlamaConfig(vocab_size=300, **sizes)).eval()


@pytest.mark.parametrize("columns", COLUMNS)
def test_blocks_are_taken_only_where_all_bits_agree(columns: int) -> None:
    drawn = torch.Generator().manual_seed(1)
    weight = torch.randn(200, columns, generator=drawn)
    inputs = torch.randn(100, columns, generator=drawn)
    usual, ours = inputs @ weight.T, multiplied(inputs, as_multiplied(weight))
    assert torch.allclose(ours, usual, rtol=1e-4, atol=1e-4)
    assert torch.equal(ours, usual) or not has_the_same_bits(weight)


@torch.no_grad()
def test_a_model_says_the_same_to_the_last_bit(network: LlamaForCausalLM) -> None:
    tokens = torch.randint(0, 300, (4, 30), generator=torch.Generator().manual_seed(0))
    before = [network(tokens[:rows, :length]).logits for rows, length in ((4, 30), (1, LEAST - 1), (1, LEAST))]
    multiply_by_blocks(network)
    after = [network(tokens[:rows, :length]).logits for rows, length in ((4, 30), (1, LEAST - 1), (1, LEAST))]
    assert all(map(torch.equal, before, after))


@pytest.mark.skipif(not FAST, reason="no AVX-512 or no oneDNN: no layer is tried")
def test_other_bits_leave_a_layer_as_it_is(network: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = sum(type(module) is nn.Linear for module in network.modules())
    monkeypatch.setattr(products, "BLOCK", 100)  # nobody's
    assert multiply_by_blocks(copy.deepcopy(network)) < layers


def test_where_a_gradient_is_asked_for_there_is_one(network: LlamaForCausalLM) -> None:
    tokens = torch.randint(0, 300, (2, 20), generator=torch.Generator().manual_seed(0))
    multiply_by_blocks(network)
    network(tokens).logits.square().mean().backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_weights_that_cannot_be_held_twice_stay(network: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "MEMORY", 1 << 20)
    assert multiply_by_blocks(network) == 0
    assert not any("forward" in vars(module) for module in network.modules())
