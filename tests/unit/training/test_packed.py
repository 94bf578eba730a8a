"""Training without padding: the bits of training with it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from palimpsest.models import tokens as padded
from palimpsest.models.sequences import pad_by_length
from palimpsest.models.tokens import cross_entropy
from palimpsest.training import packed
from palimpsest.training.schedule import Schedule
from palimpsest.unlearning.unlearn import settings_of, unlearn

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
AUTOCAST = partial(torch.autocast, "cpu", torch.bfloat16)
METHOD = {
    "forget_loss": "npo",
    "retain_loss": "klr",
    "alpha": 1.0,
    "beta": 0.1,
    "learning_rate": 1.0e-3,
    "epochs": 3,
    "batch_size": None,
    "retain_batch_size": 12,
    "losses": "published",
}


def llama(**settings: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**(SIZES | settings), attn_implementation="eager"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1 if "norm" in name else 0.0)
    return model


def sequences(number: int, seed: int) -> list[list[int]]:
    drawn = torch.Generator().manual_seed(seed)
    lengths = torch.randint(8, 40, (number,), generator=drawn).tolist()
    return [torch.randint(1, 100, (length,), generator=drawn).tolist() for length in lengths]


@pytest.mark.parametrize(
    ("dtype", "autocast"),
    [(torch.bfloat16, nullcontext), (torch.float32, AUTOCAST), (torch.float32, nullcontext)],
    ids=["bfloat16", "autocast", "float32"],
)
@pytest.mark.parametrize("heads", [{}, {"num_key_value_heads": 2, "hidden_size": 96}], ids=["64", "grouped-96"])
def test_logits_and_gradients_have_the_same_bits(
    dtype: torch.dtype, autocast: Callable[[], AbstractContextManager[None]], heads: dict[str, int]
) -> None:
    model, given = llama(**heads).to(dtype).train(), sequences(40, 1)
    groups = [vars(group) for group in pad_by_length(given, range(40), 0)]
    found = []
    for pack in (False, True):
        model.zero_grad()
        if pack:
            tokens, index = packed.forward(model, groups, autocast)
        else:
            each_pass = autocast()(model) if autocast is AUTOCAST else model
            tokens, index = padded.forward(each_pass, groups)
        cross_entropy(tokens).backward()
        gradients = [weight.grad for weight in model.parameters()]
        found.append([tokens.logits.float(), tokens.targets, tokens.sequence, index, *gradients])
    assert [place for place, pair in enumerate(zip(*found, strict=True)) if not torch.equal(*pair)] == []


@pytest.mark.parametrize("storage", ["bfloat16", "float32"])
def test_an_unlearned_model_has_the_same_bits(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, packs = [], []
    monkeypatch.setattr(packed._Places, "of", lambda *given, of=packed._Places.of: packs.append(1) or of(*given))
    for share in (packed.WORTH_IT, 2.0):
        monkeypatch.setattr(packed, "WORTH_IT", share)
        model = llama().to(torch.bfloat16)
        forget, retain = sequences(30, 2), sequences(30, 3)
        outcome = unlearn(model, forget, retain, 0, **settings_of(METHOD | {"storage": storage}, 0))
        found.append((outcome, list(model.parameters()), len(packs)))
    (ours, weights, often), (usual, others, no_more) = found
    assert often == no_more >= METHOD["epochs"] * 2
    assert ours == usual
    assert all(map(torch.equal, weights, others))


def test_groups_of_one_length_are_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed._Places, "of", lambda *_: pytest.fail("packed"))
    groups = [vars(group) for group in pad_by_length([[1, 2, 3, 4]] * 3, range(3), 0)]
    tokens, _ = packed.forward(llama(), groups, nullcontext)
    assert tokens.logits.shape == (12, 100)


def test_models_with_more_than_llamas_layers_are_not_packed() -> None:
    assert packed.is_packed(llama())
    assert not packed.is_packed(llama(attention_bias=True))
    assert not packed.is_packed(llama(attention_dropout=0.1))
    assert not packed.is_packed(LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="sdpa")))
    assert not packed.is_packed(GPT2LMHeadModel(GPT2Config(vocab_size=100, n_embd=64, n_layer=1, n_head=4)))
    hooked, adapted, recomputing = llama(), llama(), llama()
    hooked.model.layers[0].register_forward_hook(lambda *_: None)
    adapted.model.layers[0].mlp.up_proj = nn.Sequential(nn.Linear(64, 96, bias=False))
    adapted.model.layers[0].mlp.gate_proj.register_forward_pre_hook(lambda *_: None)
    recomputing.gradient_checkpointing_enable()
    assert not any(map(packed.is_packed, (hooked, adapted, recomputing)))


def test_a_schedule_of_a_sharpness_trains_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step uphill is a function of weights that are not the model's."""
    settings = settings_of(METHOD | {"storage": "float32", "sharpness": 0.01}, 0)
    assert isinstance(settings["schedule"], Schedule)
    outcome = unlearn(llama(), sequences(12, 2), sequences(12, 3), 0, **settings)
    assert outcome["steps"] == METHOD["epochs"]
