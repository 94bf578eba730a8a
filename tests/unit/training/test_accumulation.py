"""A step of several accumulated batches is the step of one batch of all their sequences."""

import copy
from contextlib import contextmanager

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import LlamaConfig, LlamaForCausalLM

from palimpsest.training.batches import Collator
from palimpsest.training.schedule import Schedule
from palimpsest.training.trainer import train
from palimpsest.unlearning.losses import VARIANTS
from palimpsest.unlearning.objective import Objective
from palimpsest.unlearning.saliency import Saliency
from palimpsest.unlearning.unlearn import unlearn

SETTINGS = {
    "beta": 0.5,
    "beta1": 3.0,
    "beta2": 1.0,
    "retain_limit": 1.0,
    "dual_step": 0.1,
    "gamma": 0.2,
    "margin_weight": 0.7,
    "logit_step": 0.3,
    "layer": 0,
    "steering": 2.0,
    "gap": 5.0,
    "reinforcement_epochs": 1,
    "reinforcement_learning_rate": 1e-3,
}
PAIRS = [
    (variant, forget, retain)
    for variant, (forgets, retains) in VARIANTS.items()
    for forget, retain in [*((forget, "gdr") for forget in forgets), *(("ga", retain) for retain in retains)]
    if retain != "rmu" and not (forget in forgets and forgets[forget].alternatives)  # test_more_losses.py has these
] + [("published", "rmu", "rmu")]
TWO_OF_TWO, FOUR = {"batch_size": 2, "gradient_accumulation": 2}, {"batch_size": 4}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**shape, vocab_size=50, max_position_embeddings=64, initializer_range=0.3))


def sequences(seed, number):
    """Of very different lengths, 2 to 40 tokens."""
    draw = torch.Generator().manual_seed(seed)
    lengths = [2 + 38 * (i % 4 == 0) + i for i in range(number)]
    return [torch.randint(50, (min(length, 40),), generator=draw).tolist() for length in lengths]


@contextmanager
def gradients():
    """[steps] the gradient of each step, as the optimizer sees it."""
    found = []

    def note(optimizer, *_):
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        found.append(torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None]).clone())

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield found
    finally:
        handle.remove()


def run(model, method, retain=9, **sizes):
    copied = copy.deepcopy(model)
    exact = {"max_gradient_norm": 1e9, "storage": "float32", "autocast": False}
    with gradients() as found:
        if method is None:
            outcome = train(copied, sequences(0, 6), 0, Schedule(1e-3, 1, **exact, **sizes))
        else:
            objective, saliency = method if isinstance(method, tuple) else (method, None)
            schedule = Schedule(1e-3, 1, **exact, **sizes)
            outcome = unlearn(copied, sequences(0, 6), sequences(1, retain), 0, objective, schedule, saliency)
    return found[-2:], outcome  # the last: WHP trains a second model before


def assert_same(accumulated, whole, bounds=(1e-5, 0.01), of_losses=1e-3):
    """bounds: of the first and the second step; after a step of AdamW, which divides by the gradient, rounding shows.
    A mean of means differs by 0.3 and more."""
    assert len(whole[0]) == 2
    for ours, right, bound in zip(accumulated[0], whole[0], bounds, strict=True):
        assert right.norm() > 0 and (ours - right).norm() < bound * right.norm()
    assert accumulated[1]["steps"] == whole[1]["steps"]
    for key in {"first_loss", "final_loss", "forget_nats"} & whole[1].keys():
        assert accumulated[1][key] == pytest.approx(whole[1][key], rel=of_losses)


@pytest.mark.parametrize(("variant", "forget", "retain"), PAIRS)
def test_every_loss_weighs_as_in_one_batch(model, variant, forget, retain):
    keys = {key for loss in (VARIANTS[variant][0][forget], VARIANTS[variant][1][retain]) for key in loss.keys}
    method = Objective(forget, retain, 1.5, variant=variant, settings={key: SETTINGS[key] for key in keys})
    # QUAIL's hinge has a kink: a logit that lies on it goes one way or the other with the processor's last bit
    loose = {"bounds": (0.1, 0.2), "of_losses": 0.05} if forget == "quail" else {}
    assert_same(run(model, method, **TWO_OF_TWO), run(model, method, **FOUR), **loose)


@pytest.mark.parametrize(
    ("retain", "retain_batch_size"),
    [(9, 1), (9, 3), (3, None), (1, None)],
    ids=["one a batch", "three a batch", "fewer than a step asks for", "one in all"],
)
def test_the_batches_of_a_step_share_its_retain_sequences(model, retain, retain_batch_size):
    """retain_batch_size is of a batch, as batch_size is."""
    of_a_batch = Objective("ga", "gdr", retain_batch_size=retain_batch_size)
    of_a_step = Objective("ga", "gdr", retain_batch_size=retain_batch_size and 2 * retain_batch_size)
    (ours, *_), _ = run(model, of_a_batch, retain, **TWO_OF_TWO)
    (right, *_), _ = run(model, of_a_step, retain, **FOUR)
    assert (ours - right).norm() < 1e-5 * right.norm()


@pytest.mark.parametrize(
    "method",
    [None, Objective("ga", "gdr", sharpness=0.5), (Objective("npo", settings={"beta": 0.5}), Saliency("row", 50.0))],
    ids=["next token", "sharpness", "saliency"],
)
def test_so_does_what_is_put_on_top(model, method):
    assert_same(run(model, method, **TWO_OF_TWO), run(model, method, **FOUR))


def test_more_batches_than_an_epoch_has_make_one_step(model):
    accumulated = run(model, None, batch_size=1, gradient_accumulation=64)
    whole = run(model, None, batch_size=6)
    assert len(accumulated[0]) == len(whole[0]) == 1
    assert (accumulated[0][0] - whole[0][0]).norm() < 1e-5 * whole[0][0].norm()


def test_a_draw_lasts_for_a_step():
    collator = Collator([[1, 2]] * 5, 0, retain=[[i, i] for i in range(10)], seed=0)
    collator.batches_per_step = 2

    def drawn(places):
        return [int(row[0]) for group in collator(places)["retain"] for row in group["input_ids"]]

    for _ in range(2):  # epochs, each with a last step of a single batch
        first, second, third = drawn([0, 1]), drawn([2, 3]), drawn([4])
        assert len({*first, *second}) == 4 and len(third) == 1
    assert collator.batches == 0
