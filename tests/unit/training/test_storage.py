"""Weight storage: what each rule keeps of a small step."""

import pytest
import torch
from families import FAMILIES, make_model, make_tokenizer
from safetensors.torch import load_file, save_file

from palimpsest.errors import PalimpsestError
from palimpsest.models.checkpoint import check_savable, load_model
from palimpsest.training.storage import (
    WEIGHT_STORAGE,
    Float32MomentsAdamW,
    check_comparable,
    round_stochastically,
    saved_share,
)


def train(storage, steps=50, lr=1e-5, seed=3, optimizer="adamw"):
    """Steps under a constant gradient: AdamW then moves every weight by lr a step, as far as storage lets it."""
    rule = WEIGHT_STORAGE[storage]
    start = torch.empty(64, 64).normal_(0, 0.02, generator=torch.Generator().manual_seed(0)).bfloat16()
    weight = torch.nn.Parameter(start.to(rule.dtype, copy=True))
    optimizer_class, settings = rule.optimizers[optimizer](lr, 0.0, seed)
    optimizer = optimizer_class([weight], **settings)
    for _ in range(steps):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    return start.float(), (weight.detach().float() - start.float())


@pytest.mark.parametrize("optimizer", ["adamw", "adamw-8bit", "adamw-float32-moments"])
def test_bfloat16_moves_only_weights_near_zero(optimizer):
    start, moved = train("bfloat16", optimizer=optimizer)
    reach = 256 * 1e-5  # a step of lr is at least half an ulp below this
    assert (moved[start.abs() > 2 * reach] == 0).all()
    assert (moved[start.abs() < reach / 2] != 0).all()


@pytest.mark.parametrize(
    ("storage", "optimizer", "dtype"),
    [
        ("bfloat16", "adamw", torch.bfloat16),
        ("bfloat16", "adamw-float32-moments", torch.float32),
        ("bfloat16-stochastic", "adamw", torch.float32),
        ("float32", "adamw", torch.float32),
    ],
)
def test_the_type_of_the_moments(storage, optimizer, dtype):
    rule = WEIGHT_STORAGE[storage]
    weight = torch.nn.Parameter(torch.ones(4, dtype=rule.dtype))
    optimizer_class, settings = rule.optimizers[optimizer](1e-5, 0.0, 0)
    steps = optimizer_class([weight], **settings)
    weight.grad = torch.ones_like(weight)
    steps.step()
    moments = [each for each in steps.state[weight].values() if torch.is_tensor(each) and each.dim()]
    assert [moment.dtype for moment in moments] == [dtype] * 2


def test_float32_moments_change_nothing_about_the_rounding_of_a_step():
    """Just below and just above half an ulp of 1.0 (1/256 upwards), a step is lost and taken, in every step alike."""
    for size, end in ((0.9 / 256, 1.0), (1.1 / 256, 1.0 + 3 / 128)):
        weight = torch.nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
        optimizer_class, settings = WEIGHT_STORAGE["bfloat16"].optimizers["adamw-float32-moments"](size, 0.0, 0)
        optimizer = optimizer_class([weight], **settings)
        for _ in range(3):
            weight.grad = -torch.ones_like(weight)
            optimizer.step()
        assert (weight.detach().float() == end).all()


def test_with_float32_moments_the_reach_does_not_grow_in_long_runs():
    """In bfloat16 the second moment stalls, so that steps grow up to twice the rate.

    Statement 3 of docs/explanation/theory.md."""
    beyond = {}
    for optimizer in ("adamw", "adamw-float32-moments"):
        start, moved = train("bfloat16", steps=1000, optimizer=optimizer)
        octave = (start.abs() > 2**-8) & (start.abs() < 2**-7)  # 256 times the rate is below 2^-8
        beyond[optimizer] = (moved[octave] != 0).float().mean().item()
    assert beyond == {"adamw": 1.0, "adamw-float32-moments": 0.0}


@pytest.mark.parametrize(
    ("storage", "optimizer"),
    [("float32", "adamw"), ("float32", "adamw-8bit"), ("bfloat16-stochastic", "adamw")],
)
def test_exact_storage_moves_every_weight_on_average(storage, optimizer):
    _, moved = train(storage, optimizer=optimizer)
    assert moved.mean().item() == pytest.approx(-50 * 1e-5, rel=0.05)


def test_stochastic_rounding_is_unbiased_and_leaves_representable_values():
    value = torch.full((200_000,), 1.0 + 0.3 / 128)
    rounded = round_stochastically(value, torch.Generator().manual_seed(0)).float()
    assert set(rounded.unique().tolist()) == {1.0, 1.0 + 1 / 128}
    assert rounded.mean().item() == pytest.approx(value[0].item(), abs=4e-5)
    exact = torch.randn(1000).bfloat16()
    assert torch.equal(round_stochastically(exact.float()), exact)
    negative = round_stochastically(-value, torch.Generator().manual_seed(0)).float()
    assert negative.mean().item() == pytest.approx(-value[0].item(), abs=4e-5)


def test_stochastic_adamw_takes_the_steps_of_adamw():
    """With weights so small that bfloat16 resolves a step exactly enough, both trajectories agree."""
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.zeros(2000, dtype=torch.bfloat16))
    theirs = torch.nn.Parameter(torch.zeros(2000))
    optimizers = (
        Float32MomentsAdamW([ours], lr=1e-3, weight_decay=0.1),
        torch.optim.AdamW([theirs], lr=1e-3, weight_decay=0.1),
    )
    for _ in range(20):
        gradient = torch.randn(2000).bfloat16()
        ours.grad, theirs.grad = gradient, gradient.float()
        for optimizer in optimizers:
            optimizer.step()
    assert (ours.float() - theirs).abs().max() < 4e-4
    assert (ours.float() - theirs).mean().abs() < 2e-6


def test_the_same_seed_gives_the_same_weights():
    assert torch.equal(train("bfloat16-stochastic")[1], train("bfloat16-stochastic")[1])
    assert not torch.equal(train("bfloat16-stochastic")[1], train("bfloat16-stochastic", seed=4)[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_what_training_changed_is_measured_in_every_family(family, tmp_path):
    """GPT-NeoX's head and Mixtral's experts have other names in memory than in the file."""
    make_model(family, make_tokenizer()).save_pretrained(tmp_path)
    model = load_model(tmp_path, torch.float32)
    check_comparable(model, tmp_path)
    assert saved_share(model, tmp_path) == {"rho": None, "moved_share": 0.0, "saved_share": 0.0}
    weights = [weight for weight in model.parameters() if weight.dim() > 1]
    with torch.no_grad():
        for weight in weights:
            weight[0] += 0.5  # one row, or one expert
    found = saved_share(model, tmp_path)
    moved = sum(weight[0].numel() for weight in weights) / model.num_parameters()
    assert found["moved_share"] == pytest.approx(moved, rel=1e-12)
    assert found["saved_share"] == pytest.approx(moved, rel=0.02) and found["rho"] == pytest.approx(1, abs=0.01)


def test_what_could_not_be_measured_after_training_is_refused_before_it(tmp_path):
    make_model("gpt_neox", make_tokenizer()).save_pretrained(tmp_path)
    model = load_model(tmp_path, torch.bfloat16)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("embed_out.weight")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(PalimpsestError, match=r"has embed_out.weight of shape None.*Save the checkpoint again"):
        check_comparable(model, tmp_path)


def test_what_could_not_be_saved_after_training_is_refused_before_it():
    tokenizer = make_tokenizer()
    model = make_model("gpt2", tokenizer)
    check_savable(model, tokenizer, "somewhere")
    model.generation_config.do_sample, model.generation_config.temperature = False, 0.3
    with pytest.raises(PalimpsestError, match=r"GenerationConfig of somewhere could not be saved.*temperature"):
        check_savable(model, tokenizer, "somewhere")
