"""Unlearning compares a model with itself before: nothing random may stand between the two."""

import copy
import math

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    PhiConfig,
)

from palimpsest.training.schedule import Schedule
from palimpsest.training.trainer import train
from palimpsest.unlearning.adapters import Adapter
from palimpsest.unlearning.dropout import dropout_off
from palimpsest.unlearning.objective import Objective
from palimpsest.unlearning.unlearn import unlearn

HALF = 0.5
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 60}
WIDE = SHAPE | {"intermediate_size": 48, "max_position_embeddings": 64}
FAMILIES = {
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=60, n_positions=64),
    "opt": OPTConfig(
        **SHAPE, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=64, dropout=HALF, layerdrop=0.1
    ),
    "gpt-neox": GPTNeoXConfig(**WIDE, hidden_dropout=HALF, attention_dropout=HALF),
    "falcon": FalconConfig(**SHAPE, hidden_dropout=HALF, attention_dropout=HALF),
    "bloom": BloomConfig(hidden_size=32, n_layer=2, n_head=2, vocab_size=60, hidden_dropout=HALF),
    "phi": PhiConfig(**WIDE, resid_pdrop=HALF, embd_pdrop=HALF),
    "llama": LlamaConfig(**WIDE, attention_dropout=HALF),
    "mixtral": MixtralConfig(**WIDE, num_key_value_heads=2, num_local_experts=2, router_jitter_noise=HALF),
}
FORGET = [[i, *range(2, 12 + i)] for i in range(4)]
NPO = Objective("npo", "klr", settings={"beta": 0.1})


@pytest.fixture(params=FAMILIES, scope="module")
def model(request):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(copy.deepcopy(FAMILIES[request.param]))


def test_a_pass_in_training_is_that_of_evaluation(model):
    ids = torch.tensor([FORGET[0]])

    def logits():
        with torch.no_grad():
            return model(input_ids=ids).logits

    before, expected = model.config.to_dict(), model.eval().requires_grad_(True)(input_ids=ids).logits
    model.train()
    assert not torch.equal(logits(), logits())
    with dropout_off(model) as rates:
        assert torch.allclose(logits(), expected, atol=1e-6) and torch.equal(logits(), logits())
        assert set(rates) == {name for name in rates if before[name] > 0} and rates
    assert not torch.equal(logits(), logits())
    assert model.config.to_dict() == before


GPT2 = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"), 0.1)


@pytest.mark.parametrize(
    ("model", "adapter", "rates"),
    [("gpt2", None, GPT2), ("llama", Adapter("lora", 4, 8.0, 0.5), {"attention_dropout": HALF})],
    indirect=["model"],
)
def test_npo_and_klr_start_where_their_equations_say(model, adapter, rates):
    """2/beta ln 2 + 0: GPT-2's dropout of 0.1 made it 13.29."""
    copied = copy.deepcopy(model)
    schedule = Schedule(1e-5, 1, storage="float32", autocast=False)
    outcome = unlearn(copied, FORGET, FORGET, 0, NPO, schedule, adapter=adapter)
    assert outcome["first_loss"] == pytest.approx(20 * math.log(2), abs=1e-4)
    assert outcome["dropout_off"] == rates
    assert {name: getattr(copied.config, name) for name in rates} == rates


def test_a_model_without_any_says_nothing():
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(LlamaConfig(**WIDE))
    assert "dropout_off" not in unlearn(plain, FORGET, FORGET, 0, NPO, Schedule(1e-5, 1))


@pytest.mark.parametrize("model", ["gpt2"], indirect=True)
def test_training_a_target_keeps_the_model_s_dropout(model):
    losses = {
        train(copy.deepcopy(model), FORGET, 0, Schedule(1e-5, 1, autocast=False, seed=seed))["first_loss"]
        for seed in (0, 1)
    }
    assert len(losses) == 2
