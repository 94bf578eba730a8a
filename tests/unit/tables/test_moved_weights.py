"""The reach of really unlearned models:
predicted from the learning rate, read off the checkpoints, and told apart by storage."""

import copy

import pytest
import torch

from palimpsest.artefacts import write_json
from palimpsest.models.checkpoint import save_checkpoint, store_weights
from palimpsest.models.sequences import corpus_sequences
from palimpsest.survival.training_precision import FINER, IN_PLACE
from palimpsest.tables.moved_weights import movable_below, moved, text
from palimpsest.training.schedule import Schedule
from palimpsest.unlearning.objective import Objective
from palimpsest.unlearning.unlearn import unlearn

RATE = 1e-5
METHODS = {"stored_coarse": "bfloat16", "stored_fine": "float32"}
FORMAT = {"backend": "rtn", "bits": 4, "group_size": None, "symmetric": True}


@pytest.fixture(scope="module")
def results(tiny, tmp_path_factory):
    model, tokenizer, corpus = tiny
    folder = tmp_path_factory.mktemp("results")
    target = copy.deepcopy(model)
    store_weights(target, torch.bfloat16)
    save_checkpoint(copy.deepcopy(target), tokenizer, folder / "models/target/seed0")
    forget = corpus_sequences(corpus, "forget", tokenizer, 64, True)
    models = []
    for name, weights in METHODS.items():
        unlearned = copy.deepcopy(target)
        unlearn(unlearned, forget, [], tokenizer.pad_token_id, Objective("ga"), Schedule(RATE, 4, storage=weights))
        save_checkpoint(unlearned, tokenizer, folder / f"models/{name}/seed0")
        models.append({"model": name, "kind": "unlearned", "method": {"storage": weights, "learning_rate": RATE}})
    audit = {
        "models": [{"model": "target", "kind": "target"}, *models],
        "settings": {"quantizers": {"rtn-int4": FORMAT}},
    }
    write_json(folder / "audit.json", audit)
    return folder


def test_weights_move_below_the_power_of_two_above_256_rates():
    assert movable_below(1e-5) == 2.0**-8 and movable_below(8e-6) == 2.0**-8 and movable_below(1.6e-5) == 2.0**-7
    assert movable_below(2.0**-16) == 2.0**-8


def test_bfloat16_moves_what_lies_below_its_reach_and_float32_the_rest_too(results):
    coarse, fine = moved(results, 0)
    assert (coarse.verdict, fine.verdict) == (IN_PLACE, FINER)
    assert coarse.moved_below == coarse.movable_below == 2.0**-8 and fine.moved_below is None
    assert coarse.below > 0.9 and coarse.above < 1e-3 < fine.above
    assert coarse.dead["rtn-int4"] > 0.8 and fine.dead["rtn-int4"] < coarse.dead["rtn-int4"]


def test_the_table_counts_what_was_inferred_rightly(results):
    table, summary = text(moved(results, 0)).split("\n\n")
    assert len(table.splitlines()) == 4
    assert "right for 2 of 2 models, wrong for 0, undecided for 0" in summary
    assert "As predicted for 1 of the 1 bfloat16 models" in summary


def test_what_an_adapter_trained_counts_as_finer(results):
    coarse, _ = moved(results, 0)
    adapted = type(coarse)(**vars(coarse) | {"adapter": True})
    assert "right for 0 of 1 models, wrong for 1" in text([adapted])
