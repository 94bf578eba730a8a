"""What is put on top of forget and retain losses:
adapters, sharpness, task vectors, representations, generic answers."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from families import make_model, make_tokenizer

from palimpsest.errors import PalimpsestError
from palimpsest.models.checkpoint import store_weights
from palimpsest.models.layers import decoder_matrices
from palimpsest.models.sequences import corpus_sequences, pad_by_length
from palimpsest.models.tokens import cross_entropy, exact_memorization, forward
from palimpsest.training.schedule import Schedule
from palimpsest.training.storage import WEIGHT_STORAGE, saved_share
from palimpsest.training.trainer import train
from palimpsest.unlearning import losses, trainer
from palimpsest.unlearning.adapters import Adapter
from palimpsest.unlearning.objective import Objective
from palimpsest.unlearning.reference import Reference
from palimpsest.unlearning.saliency import Saliency
from palimpsest.unlearning.sharpness import uphill
from palimpsest.unlearning.unlearn import unlearn


@pytest.fixture(scope="module")
def learned(tiny):
    """The tiny model after a few epochs on everything, with its forget and retain sequences."""
    model, tokenizer, corpus = tiny
    model = copy.deepcopy(model)
    forget, retain = (corpus_sequences(corpus, split, tokenizer, 64, True) for split in ("forget", "retain"))
    train(model, forget + retain, tokenizer.pad_token_id, Schedule(3e-3, 12, storage="float32"))
    store_weights(model, torch.bfloat16)
    return model, forget, retain, tokenizer.pad_token_id


def likelihood(model, sequences, pad_token, of=cross_entropy):
    """Nats per token, or what `of` says of the tokens."""
    model = copy.deepcopy(model).float()
    with torch.no_grad():
        groups = [vars(group) for group in pad_by_length(sequences, list(range(len(sequences))), pad_token)]
        return of(forward(model, groups)[0]).item()


METHODS = {
    "simnpo": (Objective("simnpo", settings={"beta": 0.5, "gamma": 0.0}), 1e-3),
    "uniform-kl": (Objective("uniform-kl", "gdr"), 1e-3),
    "quail": (Objective("quail", "gdr", settings={"margin_weight": 1.0, "logit_step": 0.5}), 1e-3),
    "whp": (
        Objective(
            "whp",
            None,
            settings={"gap": 5.0, "reinforcement_epochs": 6, "reinforcement_learning_rate": 3e-3},
        ),
        3e-3,
    ),
    "task vector": (Objective("descent", negate=1.0), 1e-3),
    "sharpness": (Objective("ga", "gdr", sharpness=0.05), 1e-3),
}


@pytest.mark.parametrize("weights", WEIGHT_STORAGE)
@pytest.mark.parametrize("name", METHODS)
def test_each_method_forgets(learned, name, weights):
    model, forget, retain, pad = learned
    objective, rate = METHODS[name]
    copied = copy.deepcopy(model)
    unlearn(copied, forget, retain, pad, objective, Schedule(rate, 6, storage=weights))
    assert likelihood(copied, forget, pad) > likelihood(model, forget, pad) + 0.1


@pytest.mark.parametrize("weights", WEIGHT_STORAGE)
def test_rmu_moves_the_chosen_layer_towards_one_direction_and_holds_it_on_retain_text(learned, weights):
    model, forget, retain, pad = learned
    settings = {"layer": 0, "steering": 20.0}
    objective = Objective("rmu", "rmu", alpha=1.0, settings=settings)
    copied = copy.deepcopy(model)
    outcome = unlearn(copied, forget, retain, pad, objective, Schedule(3e-3, 15, storage=weights))
    assert outcome["final_loss"] < 0.9 * outcome["first_loss"]

    def hidden(network, sequences):
        groups = [vars(group) for group in pad_by_length(sequences, list(range(len(sequences))), pad)]
        with torch.no_grad():
            return forward(network.float(), groups, layer=0)[0].hidden

    direction = Reference(losses.FORGET_LOSSES["rmu"], model, forget, pad, settings, seed=0).direction
    before, after = hidden(copy.deepcopy(model), forget), hidden(copied, forget)
    assert ((after - before) @ direction).mean() > 0.5
    moved = [
        (hidden(copied, text) - hidden(copy.deepcopy(model), text)).norm(dim=1).mean() for text in (forget, retain)
    ]
    assert moved[0] > 1.2 * moved[1]
    assert direction.norm().item() == pytest.approx(1, abs=1e-6)
    with pytest.raises(PalimpsestError, match="the model has 2: give 0 to 0"):
        unlearn(
            copied, forget, retain, pad, Objective("rmu", settings={"layer": 1, "steering": 2.0}), Schedule(1e-3, 1)
        )


def test_a_task_vector_is_the_opposite_of_training(learned):
    model, forget, _, pad = learned
    schedule = Schedule(1e-3, 3, storage="float32")
    trained, negated = copy.deepcopy(model), copy.deepcopy(model)
    unlearn(trained, forget, [], pad, Objective("descent"), schedule)
    unlearn(negated, forget, [], pad, Objective("descent", negate=2.0), schedule)
    for start, one, two in zip(model.parameters(), trained.parameters(), negated.parameters(), strict=True):
        assert torch.allclose(two, start.float() - 2 * (one - start.float()), atol=1e-7)


def test_the_gradient_of_sharpness_is_that_at_the_step_uphill(learned):
    """functional_call at w + rho g/|g| gives the gradient of the loss there, with respect to w."""
    model, forget, _, pad = learned
    model = copy.deepcopy(model).float()
    groups = [vars(group) for group in pad_by_length(forget, list(range(len(forget))), pad)]

    def loss(network):
        return losses.gradient_ascent(forward(network, groups)[0])

    weights = list(model.parameters())
    ours = torch.autograd.grad(loss(uphill(model, loss(model), 0.1)), weights)
    gradients = torch.autograd.grad(loss(model), weights)
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.add_(0.1 / norm * gradient)
    there = torch.autograd.grad(loss(model), weights)
    assert not torch.allclose(ours[1], gradients[1], rtol=1e-3, atol=1e-6)
    for one, two in zip(ours, there, strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("weights", ["bfloat16", "float32", "bfloat16-stochastic"])
def test_the_step_uphill_arrives_whatever_the_weights_are_stored_in(learned, monkeypatch, weights):
    """In float32, in weights and products alike;
    the weights stay as they are, and so does what is reported of the model."""
    model, forget, retain, pad = learned
    model, length, found = copy.deepcopy(model), 0.01, {}

    def watched(network, loss, size):
        names, weights = zip(*network.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, weights, retain_graph=True)
        norm = torch.cat([gradient.float().flatten() for gradient in gradients]).norm()
        wanted = {name: size / norm * gradient.float() for name, gradient in zip(names, gradients, strict=True)}
        start = {name: weight.detach().clone() for name, weight in network.named_parameters()}
        call = uphill(network, loss, size)

        def note(layer, inputs, output, name):
            step = layer.weight.detach().double() - start[name].double()
            arrived = (step * wanted[name]).sum().item()
            found[name] = arrived, wanted[name].double().square().sum().item(), output.dtype

        def noted(**inputs):
            layers = {name: network.get_submodule(name.removesuffix(".weight")) for name in names if "norm" not in name}
            handles = [layer.register_forward_hook(partial(note, name=name)) for name, layer in layers.items()]
            output = call(**inputs)
            for handle in handles:
                handle.remove()
            assert all(torch.equal(weight, start[name]) for name, weight in network.named_parameters())
            return output

        return noted

    monkeypatch.setattr(trainer, "uphill", watched)
    nats = likelihood(model, forget, pad)
    outcome = unlearn(
        model, forget, retain, pad, Objective("ga", "gdr", sharpness=length), Schedule(1e-5, 1, storage=weights)
    )
    assert len(found) == 16 and {dtype for _, _, dtype in found.values()} == {torch.float32}
    share = sum(arrived for arrived, _, _ in found.values()) / sum(whole for _, whole, _ in found.values())
    assert share == pytest.approx(1, abs=0.01)
    assert outcome["forget_nats"] == pytest.approx(nats, rel=2e-3)


@pytest.mark.parametrize("kind", ["lora", "qlora"])
@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_an_adapter_is_merged_into_the_target(learned, kind, weights, tmp_path):
    model, forget, retain, pad = learned
    model.save_pretrained(tmp_path)
    copied = copy.deepcopy(model)
    schedule = Schedule(1e-2, 6, storage=weights)
    adapter = Adapter(kind, rank=4, scale=8.0, dropout=0.0)
    unlearn(copied, forget, retain, pad, Objective("ga", "gdr"), schedule, adapter=adapter)
    assert type(copied) is type(model)
    assert [name for name, _ in copied.named_parameters()] == [name for name, _ in model.named_parameters()]
    starts = dict(model.named_parameters())
    for name, weight in copied.named_parameters():
        difference = weight.detach().float() - starts[name].float()
        if name in decoder_matrices(model):
            assert weight.dtype == torch.float32
            assert 0 < torch.linalg.matrix_rank(difference, rtol=1e-3) <= 4
        else:
            assert not difference.any()
    assert likelihood(copied, forget, pad) > likelihood(model, forget, pad) + 0.1
    saved = saved_share(copied, tmp_path)
    assert saved["rho"] == pytest.approx(1, abs=0.1)
    assert 0 < saved["saved_share"] < saved["moved_share"]


def test_the_merge_is_the_model_that_was_trained(learned):
    """Target plus adapter, merged, answers as the adapted model did: same logits up to rounding."""
    from palimpsest.unlearning.adapters import adapted

    model, forget, _, _ = learned
    copied = copy.deepcopy(model).float()
    torch.manual_seed(0)
    with adapted(copied, Adapter("lora", 4, 8.0, 0.0)) as wrapped, torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1)
        expected = wrapped(input_ids=torch.tensor([forget[0]])).logits
    with torch.no_grad():
        found = copied(input_ids=torch.tensor([forget[0]])).logits
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found, model.float()(input_ids=torch.tensor([forget[0]])).logits, atol=1e-2)
    store_weights(model, torch.bfloat16)


@pytest.mark.parametrize("kind", ["lora", "qlora"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "qwen2", "gemma3_text", "phi3", "falcon"])
def test_the_merge_is_target_plus_adapter_in_every_family(family, kind):
    """The trained difference is added to the target's own weights, turned where those are, and nothing else changes."""
    from palimpsest.unlearning.adapters import adapted

    model = make_model(family, make_tokenizer(), layers=1)
    before = {name: weight.detach().float().clone() for name, weight in model.named_parameters()}
    classes = {name: type(module) for name, module in model.named_modules()}
    tokens = torch.arange(5, 25).unsqueeze(0)
    torch.manual_seed(0)
    with adapted(model, Adapter(kind, 4, 8.0, 0.0)) as wrapped, torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1)
        expected = wrapped.float()(input_ids=tokens).logits if kind == "lora" else None
    assert {name: type(module) for name, module in model.named_modules()} == classes
    for name, weight in model.named_parameters():
        difference = weight.detach().float() - before[name]
        assert (name in decoder_matrices(model)) == bool(difference.any()), name
        if difference.any():
            assert torch.linalg.matrix_rank(difference, rtol=1e-4) <= 4
    if kind == "lora":
        with torch.no_grad():
            assert torch.allclose(model.float()(input_ids=tokens).logits, expected, atol=1e-4)


def test_saved_share_tells_what_bfloat16_keeps(learned, tmp_path):
    model, *_ = learned
    model.save_pretrained(tmp_path)
    assert saved_share(model, tmp_path) == {"rho": None, "moved_share": 0.0, "saved_share": 0.0}
    moved = copy.deepcopy(model).float()
    with torch.no_grad():
        for weight in moved.parameters():
            weight.add_(1e-5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    found = saved_share(moved, tmp_path)
    assert found["moved_share"] > 0.9 and found["saved_share"] < 0.5
    store_weights(moved, torch.bfloat16)
    assert saved_share(moved, tmp_path)["rho"] == pytest.approx(1, abs=1e-12)


def test_what_cannot_be_combined_is_refused(learned):
    model, forget, _, pad = learned
    with pytest.raises(PalimpsestError, match="exclude each other"):
        both = Saliency("row", 50), Adapter("lora", 4, 8.0, 0.0)
        unlearn(model, forget, [], pad, Objective("ga"), Schedule(1e-3, 1), *both)
    with pytest.raises(PalimpsestError, match="Did you mean 'lora'"):
        Adapter("lorra", 4, 8.0, 0.0)
    with pytest.raises(PalimpsestError, match="sharpness and gradient_checkpointing exclude"):
        unlearn(model, forget, [], pad, Objective("ga", sharpness=0.1), Schedule(1e-3, 1, gradient_checkpointing=True))
    with pytest.raises(PalimpsestError, match="layer"):
        Objective("rmu", settings={"steering": 1.0})


def test_the_forgetting_of_a_step_is_that_of_all_its_batches(learned):
    model, forget, retain, pad = learned
    batches = [forget[0], forget[0][:1] + forget[0][:0:-1]]
    alone = [likelihood(model, [sequence], pad) for sequence in batches]
    assert abs(alone[0] - alone[1]) > 0.5
    schedule = Schedule(1e-9, 1, batch_size=1, gradient_accumulation=2, storage="float32", autocast=False)
    outcome = unlearn(copy.deepcopy(model), batches, retain, pad, Objective("ga"), schedule)
    assert outcome["steps"] == 1 and outcome["forget_nats"] == pytest.approx(sum(alone) / 2, rel=1e-4)


def test_unlearning_ends_at_the_stated_forgetting(learned):
    model, forget, retain, pad = learned
    goal = likelihood(model, forget, pad) + 0.3
    outcomes = {}
    for rate in (3e-4, 1e-3):
        copied = copy.deepcopy(model)
        objective = Objective("ga", "gdr", forget_until=goal)
        outcomes[rate] = unlearn(copied, forget, retain, pad, objective, Schedule(rate, 60, storage="float32"))
        assert outcomes[rate]["reached_forget_until"] and goal <= outcomes[rate]["forget_nats"] < goal + 1
        assert likelihood(copied, forget, pad) > goal
    assert outcomes[1e-3]["steps"] < outcomes[3e-4]["steps"] < 60
    accumulated = Schedule(3e-4, 60, storage="float32", batch_size=-(-len(forget) // 2), gradient_accumulation=2)
    outcome = unlearn(copy.deepcopy(model), forget, retain, pad, Objective("ga", "gdr", forget_until=goal), accumulated)
    assert outcome["steps"] == pytest.approx(outcomes[3e-4]["steps"], abs=2) and outcome["forget_nats"] < goal + 1
    out_of_reach = Objective("ga", "gdr", forget_until=1000.0)
    outcome = unlearn(copy.deepcopy(model), forget, retain, pad, out_of_reach, Schedule(1e-5, 2))
    assert outcome["steps"] == 2 and not outcome["reached_forget_until"]


def test_unlearning_ends_where_so_much_is_memorized(learned):
    model, forget, retain, pad = learned
    known = likelihood(model, forget, pad, exact_memorization)
    goal = known / 2
    assert known > 0.3
    objective, schedule = Objective("ga", "gdr", memorized_until=goal), Schedule(3e-4, 90, storage="float32")
    for sized in ({}, {"batch_size": -(-len(forget) // 2), "gradient_accumulation": 2}):
        copied = copy.deepcopy(model)
        outcome = unlearn(copied, forget, retain, pad, objective, replace(schedule, **sized))
        assert outcome["reached_memorized_until"] and outcome["steps"] < 90
        assert goal - 0.15 < outcome["exact_memorization"] <= goal  # of the last step, before it
        assert likelihood(copied, forget, pad, exact_memorization) < goal + 0.05
    out_of_reach = Objective("ga", "gdr", memorized_until=1e-6)
    outcome = unlearn(copy.deepcopy(model), forget, retain, pad, out_of_reach, Schedule(1e-5, 2))
    assert outcome["steps"] == 2 and not outcome["reached_memorized_until"]
    with pytest.raises(PalimpsestError, match="forget_until and memorized_until both say where unlearning ends"):
        Objective("ga", "gdr", forget_until=3.0, memorized_until=0.5)
