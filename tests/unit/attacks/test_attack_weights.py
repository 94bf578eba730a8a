"""Pruning and relearning: exact counts, bit equality at strength zero, and as many steps as are asked for."""

import copy

import pytest
import torch

from palimpsest.attacks.weights import attack_weights, prune, relearn, relearning_sequences
from palimpsest.corpus.prompts import AS_MUSE
from palimpsest.errors import PalimpsestError
from palimpsest.models.layers import decoder_matrices
from palimpsest.models.sequences import corpus_sequences

GENERIC = {"source": "python-docs", "settings": {"documents": 2}}


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("share", [0.0, 10.0, 33.3, 100.0])
def test_pruning_takes_the_smallest_of_each_layer_and_nothing_else(tiny, share):
    model = copy.deepcopy(tiny[0])
    done = prune(model, share)
    matrices, before = decoder_matrices(model), decoder_matrices(tiny[0])
    for name, weight in matrices.items():
        old = before[name].flatten()
        taken = weight.flatten() == 0
        assert int(taken.sum()) == int(old.numel() * share / 100)
        assert torch.equal(weight.flatten()[~taken], old[~taken])
        if 0 < share < 100:
            assert old[taken].abs().max() <= old[~taken].abs().min()
    others = {n: w for n, w in model.state_dict().items() if n not in matrices}
    assert all(torch.equal(weight, tiny[0].state_dict()[name]) for name, weight in others.items())
    assert done["zero"] == sum(int(w.numel() * share / 100) for w in matrices.values())
    assert same(model, tiny[0]) == (share == 0)


def test_of_equal_weights_the_first_are_taken(tiny):
    model = copy.deepcopy(tiny[0])
    first = next(iter(decoder_matrices(model).values()))
    first.data.fill_(0.5)
    prune(model, 25.0)
    zero = first.flatten() == 0
    quarter = first.numel() // 4
    assert zero[:quarter].all() and not zero[quarter:].any()
    with pytest.raises(PalimpsestError, match="give percent, from 0 to 100"):
        prune(model, 120.0)


def test_relearning_makes_as_many_steps_as_are_asked_for(tiny):
    model, tokenizer, corpus = tiny
    forget = corpus_sequences(corpus, "forget", tokenizer, 64, True)
    settings = {"learning_rate": 1e-3, "batch_size": 4, "storage": "float32"}
    unchanged = copy.deepcopy(model)
    assert relearn(unchanged, forget, tokenizer.pad_token_id, settings | {"steps": 0}, 0) == {"steps": 0}
    assert same(unchanged, model)
    for steps in (1, 5):  # an epoch has three or more batches
        trained = copy.deepcopy(model)
        outcome = relearn(trained, forget, tokenizer.pad_token_id, settings | {"steps": steps}, 0)
        assert outcome["steps"] == steps and not same(trained, model)
    assert outcome["final_loss"] < outcome["first_loss"]


def test_what_is_relearned_is_the_text_that_is_named(tiny):
    _, tokenizer, corpus = tiny
    given = (corpus, GENERIC, tokenizer, 64, True, AS_MUSE)
    texts = {text: relearning_sequences(text, *given) for text in ("forget", "related", "benign")}
    assert texts["forget"] == corpus_sequences(corpus, "forget", tokenizer, 64, True)
    assert texts["related"] == corpus_sequences(corpus, "retain", tokenizer, 64, True)
    assert not {tuple(row) for row in texts["benign"]} & {tuple(row) for row in texts["forget"] + texts["related"]}
    with pytest.raises(PalimpsestError, match="text to relearn from"):
        relearning_sequences("all", *given)


def test_one_call_makes_either_attack(tiny):
    model, tokenizer, corpus = tiny
    settings = {"generic": GENERIC, "max_length": 64, "questions": True}
    pruned = copy.deepcopy(model)
    attack_weights(pruned, tokenizer, corpus, settings | {"attack": {"kind": "prune", "share": 50.0}}, AS_MUSE, 0)
    again = copy.deepcopy(model)
    prune(again, 50.0)
    assert same(pruned, again)
