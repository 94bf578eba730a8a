"""The saliency mask against independent numbers, and what it keeps still during training."""

import copy
import json
from pathlib import Path

import pytest
import torch
from families import FAMILIES, make_model, make_tokenizer

from palimpsest.errors import PalimpsestError
from palimpsest.models.checkpoint import store_weights
from palimpsest.models.layers import MLP, decoder_matrices, ends_with, turned_matrices
from palimpsest.models.sequences import corpus_sequences
from palimpsest.training.schedule import Schedule
from palimpsest.unlearning.objective import Objective
from palimpsest.unlearning.saliency import (
    GRANULARITIES,
    Mask,
    Saliency,
    kept_units,
    mean_gradients,
    modules,
    rows,
    threshold,
    unit_saliency,
    units_of,
)
from palimpsest.unlearning.unlearn import unlearn

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def oracle():
    return json.loads((DATA / "losses.json").read_text())["sure"]


@pytest.mark.parametrize("case", ["repo_all_parameters", "matrices_only"])
@pytest.mark.parametrize("percentile", ["50", "90"])
def test_rows_thresholds_and_masks_equal_the_oracle(oracle, case, percentile):
    expected = oracle[case][percentile]
    gradients = {name: torch.tensor(oracle["grad"][name], dtype=torch.float64) for name in expected["mask"]}
    units = rows({name: tuple(gradient.shape) for name, gradient in gradients.items()}, 1)
    saliency = unit_saliency(gradients, units)
    assert threshold(saliency, float(percentile)) == pytest.approx(expected["gamma"], abs=1e-12)
    kept = kept_units(saliency, float(percentile))
    assert int(kept.sum()) == expected["kept"]
    for name, mask in expected["mask"].items():
        assert saliency[units[name].ids].tolist() == pytest.approx(oracle["row_norms"][name], abs=1e-12)
        assert kept[units[name].ids].int().tolist() == mask


def test_matrix_norms_equal_the_oracle(oracle):
    gradients = {name: torch.tensor(oracle["grad"][name], dtype=torch.float64) for name in oracle["matrix_norms"]}
    units = GRANULARITIES["matrix"]({name: tuple(gradient.shape) for name, gradient in gradients.items()}, 1)
    saliency = unit_saliency(gradients, units)
    assert saliency.tolist() == pytest.approx(list(oracle["matrix_norms"].values()), abs=1e-12)


def test_modules_are_heads_with_their_columns_of_the_output_and_mlp_blocks():
    shapes = {f"layers.0.self_attn.{name}_proj.weight": (8, 8) for name in "qkvo"}
    shapes |= {"layers.0.mlp.up_proj.weight": (12, 8), "layers.0.mlp.down_proj.weight": (8, 12)}
    units = modules(shapes, 2)
    assert units["layers.0.self_attn.q_proj.weight"].ids.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert units["layers.0.self_attn.o_proj.weight"].dim == 1
    assert torch.equal(units["layers.0.self_attn.o_proj.weight"].ids, units["layers.0.self_attn.q_proj.weight"].ids)
    assert set(units["layers.0.mlp.up_proj.weight"].ids.tolist()) == {2}
    assert set(units["layers.0.mlp.down_proj.weight"].ids.tolist()) == {2}
    grouped = modules({"a.self_attn.q_proj.weight": (16, 8), "a.self_attn.k_proj.weight": (8, 8)}, 2)
    assert grouped["a.self_attn.q_proj.weight"].ids.tolist() == [0] * 8 + [1] * 8
    with pytest.raises(PalimpsestError, match=r"not h.c_attn.weight: use row or matrix"):
        modules({"h.c_attn.weight": (8, 8)}, 2)


def test_saliency_of_a_module_is_the_norm_over_all_its_parts():
    shapes = {f"l.self_attn.{name}_proj.weight": (4, 4) for name in "qkvo"}
    generator = torch.Generator().manual_seed(0)
    gradients = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    saliency = unit_saliency(gradients, modules(shapes, 2))
    first = [gradients[f"l.self_attn.{name}_proj.weight"][:2].flatten() for name in "qkv"]
    first.append(gradients["l.self_attn.o_proj.weight"][:, :2].flatten())
    assert saliency[0].item() == pytest.approx(torch.cat(first).norm().item(), rel=1e-6)


def test_gradients_of_batches_add_up_to_those_of_the_whole():
    weight = torch.nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    data = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    loss = (data @ weight.T).square().mean()
    (whole,) = torch.autograd.grad(loss, weight)
    parts = [((data[i : i + 2] @ weight.T).square().mean(), 1 / 3) for i in (0, 2, 4)]
    assert torch.allclose(mean_gradients({"w": weight}, parts)["w"], whole, atol=1e-6)


@pytest.mark.parametrize("weights", ["bfloat16", "float32", "bfloat16-stochastic"])
@pytest.mark.parametrize("granularity", ["module", "row", "matrix"])
def test_weights_outside_the_mask_stay_bit_for_bit(tiny, granularity, weights):
    model, tokenizer, corpus = tiny
    model = copy.deepcopy(model)
    store_weights(model, torch.bfloat16)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    forget, retain = (corpus_sequences(corpus, split, tokenizer, 64, True) for split in ("forget", "retain"))
    schedule = Schedule(1e-3, 4, storage=weights, weight_decay=0.1)
    saliency = Saliency(granularity, 60)
    outcome = unlearn(model, forget, retain, tokenizer.pad_token_id, Objective("ga", "gdr"), schedule, saliency)
    store_weights(model, torch.bfloat16)
    mask, moved, moved_rows = outcome["mask"], 0, 0
    assert mask["kept_units"] == pytest.approx(0.4 * mask["units"], abs=1)
    matrices = decoder_matrices(model)
    for name, weight in model.named_parameters():
        changed = weight != before[name]
        moved += int(changed.sum())
        if name in matrices:
            moved_rows += int(changed.any(1).sum())
        else:
            assert not changed.any()
    if granularity == "row":
        assert moved_rows == mask["kept_units"]
    assert 0.5 * mask["kept_weights"] < moved <= mask["kept_weights"]
    assert all(weight.requires_grad for weight in model.parameters())


def test_the_saliency_is_that_of_the_whole_forget_set_at_the_target(tiny):
    """The mask does not depend on the batch size: it is made once, from all of the forget set."""
    model, tokenizer, corpus = tiny
    forget = corpus_sequences(corpus, "forget", tokenizer, 64, True)

    def kept(batch_size):
        copied = copy.deepcopy(model)
        schedule = Schedule(1e-9, 1, batch_size, storage="float32")
        return unlearn(copied, forget, [], tokenizer.pad_token_id, Objective("ga"), schedule, Saliency("row", 90))[
            "mask"
        ]

    whole, parts = kept(None), kept(3)
    assert parts["kept_units"] == whole["kept_units"]
    assert parts["threshold"] == pytest.approx(whole["threshold"], rel=0.02)  # products in bfloat16


@pytest.mark.parametrize(
    "objective",
    [
        Objective("ga"),
        Objective("npo", settings={"beta": 0.1}),
        Objective("simnpo", settings={"beta": 0.5, "gamma": 0.0}),
        Objective("rmu", settings={"layer": 0, "steering": 5.0}),
        Objective("npo", settings={"beta": 0.1}, variant="released"),
    ],
    ids=lambda objective: f"{objective.variant} {objective.forget}",
)
def test_batches_weigh_by_what_the_loss_is_a_mean_over(tiny, objective):
    """Sequences of 4 to 54 tokens, three a batch: the saliency is that of the whole set at once."""
    model, tokenizer, corpus = tiny
    forget = corpus_sequences(corpus, "forget", tokenizer, 64, True)
    forget = [sequence[: 4 + 10 * i] for i, sequence in enumerate(forget[:6])]

    def of(batch_size):
        schedule = Schedule(1e-9, 1, batch_size, storage="float32", autocast=False)
        mask = unlearn(
            copy.deepcopy(model), forget, [], tokenizer.pad_token_id, objective, schedule, Saliency("row", 90)
        )["mask"]
        return mask["threshold"], mask["kept_units"]

    (whole, kept), (parts, kept_of_parts) = of(None), of(3)
    assert kept == kept_of_parts and whole > 0 and parts == pytest.approx(whole, rel=1e-4)


def test_a_mask_that_keeps_every_module_holds_embeddings_norms_and_head_alone(tiny):
    model, tokenizer, corpus = tiny
    model = copy.deepcopy(model)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    forget = corpus_sequences(corpus, "forget", tokenizer, 64, True)
    schedule = Schedule(1e-3, 1, storage="float32")
    mask = unlearn(model, forget, [], tokenizer.pad_token_id, Objective("ga"), schedule, Saliency("module", 0.0))[
        "mask"
    ]
    assert mask["kept_units"] == mask["units"] > 0
    matrices = decoder_matrices(model)
    assert mask["kept_weights"] == sum(weight.numel() for weight in matrices.values()) < mask["weights"]
    for name, weight in model.named_parameters():
        assert (weight != before[name]).any() == (name in matrices), name


def test_momentum_cannot_move_what_the_mask_holds():
    """An optimizer that already has moments, and decay: the mask puts the weights back after the step."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 6, bias=False))
    network.config = type("Config", (), {"num_attention_heads": 1})()
    network.get_output_embeddings = lambda: None
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.5)
    network(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    before = network[0].weight.detach().clone()
    gradients = {"0.weight": torch.arange(24.0).view(6, 4)}
    mask = Mask(network, gradients, Saliency("row", 50))
    optimizer.register_step_post_hook(mask.restore)
    network(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    changed = (network[0].weight != before).any(1)
    assert changed.tolist() == [False, False, False, True, True, True]


def test_wrong_settings_are_named():
    with pytest.raises(PalimpsestError, match="Did you mean 'module'"):
        Saliency("modul", 90)
    with pytest.raises(PalimpsestError, match="give 0 to 100"):
        Saliency("row", 101)


FIRST = {  # of four heads, sixteen wide: what the first that has keys of its own owns
    "llama": {"self_attn.q_proj": range(32), "self_attn.k_proj": range(16), "self_attn.o_proj": range(32)},
    "phi3": {"self_attn.qkv_proj": [*range(32), *range(64, 80), *range(96, 112)], "self_attn.o_proj": range(32)},
    "gpt2": {"attn.c_attn": [*range(16), *range(64, 80), *range(128, 144)], "attn.c_proj": range(16)},
    "gpt_neox": {"attention.query_key_value": range(48), "attention.dense": range(16)},
    "bloom": {"self_attention.query_key_value": range(48), "self_attention.dense": range(16)},
    "opt": {"self_attn.v_proj": range(16), "self_attn.out_proj": range(16)},
    "falcon": {"self_attention.query_key_value": range(96), "self_attention.dense": range(64)},
}


@pytest.mark.parametrize("family", FIRST)
def test_a_group_of_heads_owns_what_the_family_stores_of_it(family):
    """Of the query, key and value rows, in whatever order they lie, and of the output matrix."""
    model = make_model(family, make_tokenizer(), layers=1).float()
    units, turned = units_of(model, "module"), turned_matrices(model)
    assert bool(turned) == (family == "gpt2")
    for name, part in units.items():
        assert len(part.ids) == model.get_parameter(name).shape[part.dim]
        module = name.removesuffix(".weight")
        for end, places in FIRST[family].items():
            if ends_with(module, [end]):
                assert torch.nonzero(part.ids == part.ids.min()).flatten().tolist() == list(places)
                assert part.dim == (end.endswith(("o_proj", "out_proj", "dense", "attn.c_proj"))) ^ (name in turned)
        if ends_with(module, MLP):
            assert len(set(part.ids.tolist())) == 1
    rows = units_of(model, "row")
    assert all(part.dim == (name in turned) for name, part in rows.items())


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"mixtral"}))
def test_a_mask_freezes_all_but_the_kept_units_in_every_family(family):
    model = make_model(family, make_tokenizer(), layers=1).float()
    sequences = [[0, *range(10 + i, 30 + i)] for i in range(3)]
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    schedule = Schedule(1e-2, 1, storage="float32")
    outcome = unlearn(model, sequences, [], 2, Objective("ga"), schedule, Saliency("row", 50.0))
    moved = {name: weight.detach() != before[name] for name, weight in model.named_parameters()}
    matrices, turned = decoder_matrices(model), turned_matrices(model)
    assert not any(changed.any() for name, changed in moved.items() if name not in matrices)
    kept = sum(int(moved[name].any(0 if name in turned else 1).sum()) for name in matrices)
    assert kept == outcome["mask"]["kept_units"] and 0 < kept < outcome["mask"]["units"]
