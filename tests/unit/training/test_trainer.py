"""Unlearning on a real, small Llama: directions of the losses, references, determinism, weight storage, refusals."""

import copy
import math
from functools import cached_property

import pytest
import torch
from transformers import TrainingArguments

from palimpsest.errors import PalimpsestError
from palimpsest.models.checkpoint import store_weights
from palimpsest.models.sequences import corpus_sequences, pad_by_length
from palimpsest.models.tokens import cross_entropy, forward
from palimpsest.training.batches import Collator
from palimpsest.training.schedule import Schedule
from palimpsest.training.trainer import train
from palimpsest.unlearning import losses
from palimpsest.unlearning.objective import Objective
from palimpsest.unlearning.reference import Reference
from palimpsest.unlearning.unlearn import unlearn


@pytest.fixture(scope="module")
def learned(tiny):
    """The tiny model after a few epochs on everything, with its forget and retain sequences."""
    model, tokenizer, corpus = tiny
    model = copy.deepcopy(model)
    forget, retain = (corpus_sequences(corpus, split, tokenizer, 64, True) for split in ("forget", "retain"))
    outcome = train(model, forget + retain, tokenizer.pad_token_id, Schedule(3e-3, 12, storage="float32"))
    assert outcome["final_loss"] < outcome["first_loss"] - 1
    store_weights(model, torch.bfloat16)
    return model, forget, retain, tokenizer.pad_token_id


def likelihood(model, sequences, pad_token):
    """Nats per token."""
    with torch.no_grad():
        groups = [vars(group) for group in pad_by_length(sequences, list(range(len(sequences))), pad_token)]
        return cross_entropy(forward(model.float(), groups)[0]).item()


@pytest.mark.parametrize("retain_loss", [None, "gdr", "klr"])
@pytest.mark.parametrize("forget_loss", ["ga", "npo"])
def test_each_method_forgets_and_its_retain_loss_protects(learned, forget_loss, retain_loss):
    model, forget, retain, pad = learned
    model = copy.deepcopy(model)
    before = likelihood(copy.deepcopy(model), forget, pad), likelihood(copy.deepcopy(model), retain, pad)
    settings = {"beta": 0.1} if forget_loss == "npo" else {}
    objective = Objective(forget_loss, retain_loss, 1.0, settings=settings)
    outcome = unlearn(model, forget, retain, pad, objective, Schedule(1e-3, 6, storage="float32"))
    after = likelihood(model, forget, pad), likelihood(model, retain, pad)
    assert outcome["steps"] == 6
    assert after[0] > before[0] + 0.2
    assert after[0] - before[0] > after[1] - before[1]


def test_training_shows_its_progress(learned, capsys):
    model, forget, _, pad = learned
    train(copy.deepcopy(model), forget, pad, Schedule(1e-3, 3))
    assert "3/3 [" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_weights_and_another_does_not(learned):
    model, forget, retain, pad = learned

    def run(seed):
        copied = copy.deepcopy(model)
        objective = Objective("ga", "gdr", retain_batch_size=3)
        unlearn(copied, forget, retain, pad, objective, Schedule(1e-3, 2, storage="bfloat16-stochastic", seed=seed))
        return torch.cat([weight.flatten() for weight in copied.parameters()])

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_two_accumulated_batches_are_one_twice_as_large(learned):
    model, forget, _, pad = learned
    sequences = [sequence for sequence in forget if len(sequence) == 64][:4]
    assert len(sequences) == 4

    def run(**sizes):
        copied = copy.deepcopy(model)
        outcome = unlearn(copied, sequences, [], pad, Objective("ga"), Schedule(1e-3, 2, storage="float32", **sizes))
        return outcome["steps"], torch.cat([weight.flatten() for weight in copied.parameters()])

    (steps, whole), (accumulated_steps, accumulated) = run(batch_size=4), run(batch_size=2, gradient_accumulation=2)
    assert steps == accumulated_steps == 2
    assert torch.nn.functional.mse_loss(accumulated, whole) < 1e-3 * torch.nn.functional.mse_loss(
        run(batch_size=2)[1], whole
    )


def test_a_host_with_several_gpus_trains_in_the_same_steps(learned, monkeypatch):
    """A process that sees two GPUs, which transformers' Trainer would take both of, with batches twice as large."""
    model, forget, _, pad = learned
    devices_of_one = TrainingArguments._setup_devices

    def two_gpus(arguments):
        device = devices_of_one.func(arguments)
        arguments._n_gpu = 2
        return device

    def run():
        copied = copy.deepcopy(model)
        outcome = unlearn(copied, forget[:4], [], pad, Objective("ga"), Schedule(1e-3, 2, batch_size=2))
        return outcome["steps"], torch.cat([weight.flatten() for weight in copied.parameters()])

    alone = run()
    patched = cached_property(two_gpus)
    patched.__set_name__(TrainingArguments, "_setup_devices")
    monkeypatch.setattr(TrainingArguments, "_setup_devices", patched)
    assert TrainingArguments(report_to="none").n_gpu == 2
    steps, weights = run()
    assert steps == alone[0] == 4 and torch.equal(weights, alone[1])


def test_storage_decides_how_many_weights_move(learned):
    model, forget, retain, pad = learned

    def moved(weights):
        copied = copy.deepcopy(model)
        unlearn(copied, forget, retain, pad, Objective("ga"), Schedule(1e-5, 3, storage=weights))
        store_weights(copied, torch.bfloat16)
        pairs = zip(copied.parameters(), model.parameters(), strict=True)
        changed, total = map(sum, zip(*(((a != b).sum().item(), a.numel()) for a, b in pairs), strict=True))
        return changed / total

    assert 0 < moved("bfloat16") < 0.25 * moved("bfloat16-stochastic") + 0.2
    assert moved("bfloat16") < moved("bfloat16-stochastic")


def test_the_kl_reference_is_the_model_before_unlearning(learned):
    model, _, retain, pad = learned
    loss = losses.RETAIN_LOSSES["klr"]
    cached = Reference(loss, model, retain, pad)
    groups = [vars(group) for group in pad_by_length(retain[:5], list(range(5)), pad)]
    tokens, index = forward(model, groups)
    assert losses.retain_kl(tokens, cached(groups, tokens, index)).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_references_are_computed_as_training_computes(learned, weights):
    """NPO starts at 2/beta ln 2 and KLR at 0 in every weight storage;
    a reference outside autocast would be another model's."""
    model, forget, retain, pad = learned
    for retain_loss in (None, "klr"):
        objective = Objective("npo", retain_loss, settings={"beta": 0.1})
        outcome = unlearn(copy.deepcopy(model), forget, retain, pad, objective, Schedule(1e-5, 1, storage=weights))
        assert outcome["first_loss"] == pytest.approx(20 * math.log(2), abs=0.005)


def test_gradient_checkpointing_changes_no_weight(learned):
    model, forget, retain, pad = learned
    trained = []
    for checkpointing in (False, True):
        copied = copy.deepcopy(model)
        schedule = Schedule(1e-4, 2, storage="float32", gradient_checkpointing=checkpointing)
        unlearn(copied, forget, retain, pad, Objective("ga", "gdr"), schedule)
        trained.append([*copied.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*trained, strict=True))
    assert not copied.is_gradient_checkpointing


def test_an_optimizer_that_the_weights_do_not_have_is_refused(learned):
    model, forget, retain, pad = learned
    schedule = Schedule(1e-5, 1, storage="bfloat16-stochastic", optimizer="adamw-8bit")
    with pytest.raises(PalimpsestError, match="optimizer of weights in bfloat16-stochastic"):
        unlearn(copy.deepcopy(model), forget, retain, pad, Objective("ga"), schedule)


def test_training_leaves_no_wrapper_around_the_model(learned):
    """accelerate wraps forward in autocast; a model that kept it would answer in bfloat16 wherever it is used next."""
    model, forget, retain, pad = learned
    copied = copy.deepcopy(model)
    unlearn(copied, forget, retain, pad, Objective("ga"), Schedule(1e-5, 1, storage="float32"))
    assert "forward" not in vars(copied)


@pytest.mark.parametrize("host", ["roomy", "full"])
def test_a_reference_that_does_not_fit_is_computed_by_a_frozen_head_or_model(learned, monkeypatch, host):
    model, _, retain, pad = learned
    loss = losses.RETAIN_LOSSES["klr"]
    groups = [vars(group) for group in pad_by_length(retain[:5], list(range(5)), pad)]
    tokens, index = forward(model, groups)
    cached = Reference(loss, model, retain, pad)(groups, tokens, index)
    monkeypatch.setattr("palimpsest.unlearning.reference.CACHE_BYTES", 0)
    if host == "full":
        monkeypatch.setattr("palimpsest.unlearning.reference.HOST_BYTES", 0)
    fresh = Reference(loss, model, retain, pad)
    frozen = fresh.head if host == "roomy" else fresh.model
    assert frozen is not None and not any(weight.requires_grad for weight in frozen.parameters())
    assert (fresh.table == []) == (host == "full") and (fresh.model is None) == (host == "roomy")
    assert torch.allclose(cached, fresh(groups, tokens, index).float(), atol=0.1)  # bfloat16, other batches


def test_a_head_that_does_not_explain_the_logits_is_not_relied_on(learned, monkeypatch):
    """Some architectures scale or cap their logits after the head."""
    model, _, retain, pad = learned
    monkeypatch.setattr("palimpsest.unlearning.reference.CACHE_BYTES", 0)
    capped = copy.deepcopy(model)
    inner = capped.forward

    def forward_capped(**inputs):
        output = inner(**inputs)
        output.logits = 30 * torch.tanh(output.logits / 2)
        return output

    capped.forward = forward_capped
    fresh = Reference(losses.RETAIN_LOSSES["klr"], capped, retain, pad)
    assert fresh.head is None and fresh.model is not None


def test_only_weights_change_their_type(learned):
    """Rotary frequencies in bfloat16 would move the positions
    that unlearning sees away from those that inference uses."""
    model, forget, retain, pad = learned
    for weights in ("bfloat16", "float32"):
        copied = copy.deepcopy(model)
        copied.model.rotary_emb.inv_freq = copied.model.rotary_emb.inv_freq.float() * 1.0001
        before = copied.model.rotary_emb.inv_freq.clone()
        unlearn(copied, forget, retain, pad, Objective("ga"), Schedule(1e-5, 1, storage=weights))
        assert torch.equal(copied.model.rotary_emb.inv_freq, before)
        assert {weight.dtype for weight in copied.parameters()} == {getattr(torch, weights)}


def test_retain_sequences_are_drawn_from_all_of_them():
    """The released code pairs forget i with retain i,
    so that retain text beyond the forget set's length is never seen."""
    collator = Collator([[1, 2]] * 2, 0, retain=[[i, i] for i in range(3, 13)], seed=0)
    seen = {
        int(group["input_ids"][row, 0]) for _ in range(40) for group in collator([0, 1])["retain"] for row in range(2)
    }
    assert seen == set(range(3, 13))


def test_stops_at_the_stated_loss(tiny):
    model, tokenizer, corpus = tiny
    sequences = corpus_sequences(corpus, "forget", tokenizer, 64, True)
    outcome = train(copy.deepcopy(model), sequences, tokenizer.pad_token_id, Schedule(3e-3, 200, stop_at_loss=3.0))
    assert outcome["reached_stop_loss"] and outcome["steps"] < 200
    assert outcome["final_loss"] <= 3.0


def test_a_loss_that_is_no_number_ends_the_run(learned):
    model, forget, retain, pad = learned
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    with pytest.raises(PalimpsestError, match="loss became nan"):
        unlearn(broken, forget, retain, pad, Objective("ga"), Schedule(1e-5, 2, storage="bfloat16"))


def test_wrong_settings_are_named(learned):
    model, forget, _, pad = learned
    with pytest.raises(PalimpsestError, match="Did you mean 'npo'"):
        Objective("nppo")
    with pytest.raises(PalimpsestError, match="beta"):
        Objective("npo")
    with pytest.raises(PalimpsestError, match="retain split is empty"):
        unlearn(model, forget, [], pad, Objective("ga", "gdr"), Schedule(1e-5, 1))


def test_released_losses_are_behind_the_switch():
    block = {"forget_loss": "npo", "retain_loss": "klr", "alpha": 1.0, "beta": 0.1, "retain_batch_size": None}
    published, released, sure = (
        Objective.from_settings(block | {"losses": name}) for name in ("published", "released", "released-sure")
    )
    assert published.forget_loss().function is losses.negative_preference
    assert published.retain_loss().function is losses.retain_kl
    assert released.forget_loss().function is losses.released_negative_preference
    assert released.retain_loss().function is losses.released_retain_kl
    assert sure.retain_loss().function is losses.released_sure_retain_kl
