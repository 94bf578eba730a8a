"""IdkDPO, AltPO, UNDIAL, WGA, SatImp, CE-U and PDU: values from loops in float64 NumPy, gradients from differences,
what holds at the start, and what each needs of the corpus."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from test_unlearn import learned, likelihood  # noqa: F401

from palimpsest.corpus.corpus import Question
from palimpsest.errors import PalimpsestError
from palimpsest.models.sequences import corpus_sequences
from palimpsest.models.tokens import IGNORED, flatten, sequence_log_probs
from palimpsest.training.schedule import Schedule
from palimpsest.unlearning import losses
from palimpsest.unlearning.alternatives import REFUSALS, alternative_sequences, answers
from palimpsest.unlearning.objective import Objective
from palimpsest.unlearning.trainer import UnlearningTrainer
from palimpsest.unlearning.unlearn import unlearn

LENGTHS = [6, 4, 2]
VOCAB = 9


@pytest.fixture
def double_precision(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def drawn(seed=0):
    """Logits, labels and mask of three sequences of unequal lengths, as arrays."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, (3, 6, VOCAB))
    labels = draw.integers(0, VOCAB, (3, 6))
    mask = np.array([[i < length for i in range(6)] for length in LENGTHS])
    return logits, np.where(mask, labels, IGNORED), mask.astype(int)


def batch_of(logits, labels, mask):
    return flatten(torch.as_tensor(logits), torch.tensor(labels), torch.tensor(mask))


def predicted(logits, labels):
    """(row, logits of the position, next token) of every predicted token, by loops."""
    for row, length in enumerate(LENGTHS):
        for place in range(length - 1):
            yield row, logits[row, place], labels[row, place + 1]


def log_softmax(z):
    return z - z.max() - np.log(np.exp(z - z.max()).sum())


def sums(logits, labels):
    found = np.zeros(3)
    for row, z, token in predicted(logits, labels):
        found[row] += log_softmax(z)[token]
    return found


def undial(logits, labels, before, beta):
    nats = []
    for (_, z, token), (_, old, _) in zip(predicted(logits, labels), predicted(before, labels), strict=True):
        goal = old.copy()
        goal[token] -= beta
        nats.append(-(np.exp(log_softmax(goal)) * log_softmax(z)).sum())
    return np.mean(nats)


def weighted(logits, labels, weigh):
    values = [log_softmax(z)[token] for _, z, token in predicted(logits, labels)]
    return np.mean([weigh(math.exp(value)) * value for value in values])


def without_the_token(logits, labels):
    nats = []
    for _, z, token in predicted(logits, labels):
        rest = [i for i in range(VOCAB) if i != token]
        goal = np.exp(log_softmax(z[rest]))
        nats.append(-(goal * log_softmax(z)[rest]).sum())
    return np.mean(nats)


def flattened(logits, labels):
    return np.mean([(z.max() - z.mean()) ** 2 for _, z, _ in predicted(logits, labels)])


def dpo(logits, labels, before, preferred, beta):
    gained = preferred - (sums(logits, labels) - sums(before, labels))
    return np.mean([2 / beta * math.log1p(math.exp(-beta * each)) for each in gained])


PREFERRED = np.array([0.4, -1.3, 0.0])


def cases():
    """name: (loss of a batch, the same by loops)."""
    logits, labels, mask = drawn()
    before, _, _ = drawn(1)
    reference = torch.tensor(before)[torch.tensor(mask).bool()]
    old = torch.tensor(sums(before, labels))
    return {
        "undial": (
            lambda batch: losses.adjusted_distillation(batch, reference, beta=3.0),
            undial(logits, labels, before, 3.0),
        ),
        "wga": (
            lambda batch: losses.weighted_ascent(batch, beta=0.7),
            weighted(logits, labels, lambda p: p**0.7),
        ),
        "satimp": (
            lambda batch: losses.saturation_importance(batch, beta1=5.0, beta2=1.5),
            weighted(logits, labels, lambda p: p**5 * (1 - p) ** 1.5),
        ),
        "ce-u": (losses.self_distillation, without_the_token(logits, labels)),
        "pdu": (losses.logit_flattening, flattened(logits, labels)),
        "dpo": (
            lambda batch: losses.preference(batch, old, beta=0.3, preferred=torch.tensor(PREFERRED)),
            dpo(logits, labels, before, PREFERRED, 0.3),
        ),
    }


NAMES = ("undial", "wga", "satimp", "ce-u", "pdu", "dpo")


@pytest.mark.parametrize("name", NAMES)
def test_values_equal_those_of_loops_in_numpy(double_precision, name):
    loss, expected = cases()[name]
    assert loss(batch_of(*drawn())).item() == pytest.approx(expected, abs=1e-12)


def differences(value, logits):
    """(L(x + h) - L(x - h)) / 2h of a function of an array."""
    found, step = np.zeros_like(logits), 1e-5
    for place in np.ndindex(*logits.shape):
        for sign in (1, -1):
            moved = logits.copy()
            moved[place] += sign * step
            found[place] += sign * value(moved) / (2 * step)
    return found


def frozen(logits, labels):
    """Of what a loss holds without a gradient: the weights of tokens, and their goals."""
    return {i: z.copy() for i, (_, z, _) in enumerate(predicted(logits, labels))}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_differences_of_the_loops(double_precision, name):
    logits, labels, mask = drawn()
    before, _, _ = drawn(1)
    start = frozen(logits, labels)

    def held(moved, weigh):
        values = [log_softmax(z)[token] for _, z, token in predicted(moved, labels)]
        weights = [
            weigh(math.exp(log_softmax(start[i])[token])) for i, (_, _, token) in enumerate(predicted(logits, labels))
        ]
        return np.mean([weight * value for weight, value in zip(weights, values, strict=True)])

    def held_goal(moved):
        nats = []
        for i, (_, z, token) in enumerate(predicted(moved, labels)):
            rest = [k for k in range(VOCAB) if k != token]
            nats.append(-(np.exp(log_softmax(start[i][rest])) * log_softmax(z)[rest]).sum())
        return np.mean(nats)

    loops = {
        "undial": lambda moved: undial(moved, labels, before, 3.0),
        "wga": lambda moved: held(moved, lambda p: p**0.7),
        "satimp": lambda moved: held(moved, lambda p: p**5 * (1 - p) ** 1.5),
        "ce-u": held_goal,
        "pdu": lambda moved: flattened(moved, labels),
        "dpo": lambda moved: dpo(moved, labels, before, PREFERRED, 0.3),
    }
    leaf = torch.tensor(logits, requires_grad=True)
    (gradient,) = torch.autograd.grad(cases()[name][0](batch_of(leaf, labels, mask)), leaf)
    assert gradient.norm().item() > 1e-3
    assert np.abs(gradient.numpy() - differences(loops[name], logits)).max() < 1e-8


def test_without_alternatives_preference_is_npo(double_precision):
    logits, labels, mask = drawn()
    batch, old = batch_of(logits, labels, mask), torch.tensor(sums(drawn(1)[0], labels))
    npo = losses.negative_preference(batch, old, 0.3)
    assert torch.equal(losses.preference(batch, old, beta=0.3, preferred=torch.zeros(3)), npo)


def test_at_the_start_each_loss_is_what_its_paper_says(double_precision):
    """DPO: (2/beta) log 2, with the gradient of the difference of likelihoods, so none where the alternative is the
    answer; UNDIAL without a penalty and KL to the target: no gradient; WGA with beta 0: gradient ascent; SatImp with
    beta2 0: WGA; CE-U: no gradient where the text's token has no probability; PDU: none where all logits are equal."""
    logits, labels, mask = drawn()
    leaf = torch.tensor(logits, requires_grad=True)
    batch = batch_of(leaf, labels, mask)
    log_probs = sequence_log_probs(batch)
    start = losses.preference(batch, log_probs.detach(), beta=0.3, preferred=torch.zeros(3))
    assert start.item() == pytest.approx(2 / 0.3 * math.log(2), abs=1e-12)
    same = losses.preference(batch, log_probs.detach(), beta=0.3, preferred=log_probs - log_probs.detach())

    def gradient(value):
        return torch.autograd.grad(value, leaf, retain_graph=True)[0]

    assert gradient(same).abs().max().item() == 0
    assert gradient(losses.adjusted_distillation(batch, batch.logits.detach(), beta=0.0)).abs().max() < 1e-15
    assert torch.allclose(gradient(losses.weighted_ascent(batch, beta=0.0)), gradient(losses.gradient_ascent(batch)))
    bare = losses.saturation_importance(batch, beta1=0.7, beta2=0.0)
    assert bare.item() == pytest.approx(losses.weighted_ascent(batch, beta=0.7).item(), abs=1e-14)
    hopeless = logits.copy()
    for row, length in enumerate(LENGTHS):
        for place in range(length - 1):
            hopeless[row, place, labels[row, place + 1]] = -60
    leaf = torch.tensor(hopeless, requires_grad=True)
    assert gradient(losses.self_distillation(batch_of(leaf, labels, mask))).abs().max() < 1e-15
    leaf = torch.full((3, 6, VOCAB), 2.0, requires_grad=True)
    flat = losses.logit_flattening(batch_of(leaf, labels, mask))
    assert flat.item() == 0
    assert gradient(flat).abs().max() == 0


def test_a_certain_token_weighs_nothing_in_satimp(double_precision):
    _, labels, mask = drawn()
    certain = np.zeros((3, 6, VOCAB))
    for row, length in enumerate(LENGTHS):
        for place in range(length - 1):
            certain[row, place, labels[row, place + 1]] = 50.0
    leaf = torch.tensor(certain, requires_grad=True)
    value = losses.saturation_importance(batch_of(leaf, labels, mask), beta1=1.0, beta2=1.0)
    assert torch.autograd.grad(value, leaf)[0].abs().max() < 1e-20


SETTINGS = {
    "idk-dpo": {"beta": 0.5},
    "altpo": {"beta": 0.5},
    "undial": {"beta": 10.0},
    "wga": {"beta": 1.0},
    "satimp": {"beta1": 1.0, "beta2": 0.5},
    "ce-u": {},
    "pdu": {"retain_limit": 1.0, "dual_step": 1.0},
}


@pytest.fixture(scope="module")
def asked(tiny):
    """By kind, the alternatives of the tiny corpus."""
    _, tokenizer, corpus = tiny
    return {kind: alternative_sequences(corpus, kind, tokenizer, 64) for kind in ("refusals", "answers")}


@pytest.mark.parametrize("name", SETTINGS)
def test_each_method_forgets(learned, asked, name):  # noqa: F811
    model, forget, retain, pad = learned
    objective = Objective(name, "gdr" if name == "pdu" else None, settings=SETTINGS[name])
    given = asked.get(objective.forget_loss().alternatives)
    copied = copy.deepcopy(model)
    schedule = Schedule(3e-3, 6, storage="float32")
    outcome = unlearn(copied, forget, retain, pad, objective, schedule, alternatives=given)
    assert likelihood(copied, forget, pad) > likelihood(model, forget, pad) + 0.1
    if name == "pdu":
        assert outcome["final_alpha"] >= 0
    if given:
        wanted, old = list(given.values()), [forget[i] for i in given]
        likelier, before = (likelihood(each, wanted, pad) - likelihood(each, old, pad) for each in (copied, model))
        assert likelier < before - 0.1  # nats: the alternatives gain on the answers


def test_a_first_step_of_a_preference_is_two_over_beta_log_two(learned, asked):  # noqa: F811
    model, forget, retain, pad = learned
    schedule = Schedule(1e-6, 1, storage="float32")
    objective = Objective("altpo", settings={"beta": 0.5})
    outcome = unlearn(copy.deepcopy(model), forget, retain, pad, objective, schedule, alternatives=asked["answers"])
    assert outcome["first_loss"] == pytest.approx(4 * math.log(2), rel=1e-3)


def test_accumulated_batches_of_a_preference_make_the_step_of_one_batch(learned, asked):  # noqa: F811
    model, forget, retain, pad = learned
    found = []
    for size, number in ((None, 1), (5, len(forget))):
        copied = copy.deepcopy(model).float()
        schedule = Schedule(1e-3, 1, size, number, storage="float32", autocast=False)
        objective = Objective("idk-dpo", settings={"beta": 0.5})
        unlearn(copied, forget, retain, pad, objective, schedule, alternatives=asked["refusals"])
        found.append(copied)
    moved = [(a - b).abs().max().item() for a, b in zip(*(m.parameters() for m in found), strict=True)]
    assert max(moved) < 1e-4


def test_the_weight_of_pdu_rises_above_the_limit_and_ends_at_zero_below(learned):  # noqa: F811
    model, forget, retain, pad = learned
    ends = {}
    for limit in (0.0, 100.0):
        objective = Objective("pdu", "gdr", alpha=2.0, settings={"retain_limit": limit, "dual_step": 0.1})
        seen = []

        class Watched(UnlearningTrainer):
            def get_batch_samples(self, *arguments, seen=seen):
                seen.append((self.alpha, sum(part.item() for part in self.step_retain)))
                return super().get_batch_samples(*arguments)

        schedule = Schedule(1e-4, 4, storage="float32")
        outcome = unlearn(copy.deepcopy(model), forget, retain, pad, objective, schedule, trainer=Watched)
        ends[limit] = outcome["final_alpha"]
        for (before, _), (after, loss) in pairwise(seen):
            assert after == pytest.approx(max(0.0, before + 0.1 * (loss - limit)), abs=1e-6)
    assert ends[0.0] > 2.0
    assert ends[100.0] == 0.0


def test_alternatives_stand_at_the_places_of_their_questions(tiny, asked):
    _, tokenizer, corpus = tiny
    forget = corpus_sequences(corpus, "forget", tokenizer, 64, True)
    for kind, given in asked.items():
        assert sorted(given) == list(range(len(forget) - len(corpus.forget_qa), len(forget)))
        for place, question in zip(sorted(given), corpus.forget_qa, strict=True):
            both = [tokenizer.decode(row, skip_special_tokens=True) for row in (given[place], forget[place])]
            prompts = [text[: text.index("Answer:")] for text in both]
            assert prompts[0] == prompts[1]
            assert question.question in prompts[0]
            answer = both[0].split("Answer:")[1].strip()
            assert (answer in REFUSALS) == (kind == "refusals")
            assert answer != question.answer


def test_the_alternative_is_the_answer_of_the_likest_retain_question():
    forget = [Question("Who leads the mill in Arn?", "Ada")]
    retain = [Question("Where is it?", "Oslo"), Question("Who leads the mill in Bex?", "Bo"), Question("Who?", "Ada")]
    assert answers(forget, retain, 0) == ["Bo"]
    with pytest.raises(PalimpsestError, match="add retain questions, or set forget_loss to idk-dpo"):
        answers(forget, [Question("Who else?", " ada ")], 0)


def test_what_a_loss_needs_and_is_not_there_is_refused(learned):  # noqa: F811
    model, forget, retain, pad = learned
    with pytest.raises(PalimpsestError, match="set forget_loss to npo, which is the same loss without alternatives"):
        unlearn(model, forget, retain, pad, Objective("idk-dpo", settings={"beta": 0.1}), Schedule(1e-5, 1))
    with pytest.raises(PalimpsestError, match="takes the settings"):
        Objective("satimp", settings={"beta1": 1.0})
    with pytest.raises(PalimpsestError, match="set retain_loss to gdr or klr"):
        Objective("pdu", settings=SETTINGS["pdu"])
