"""One model over several processes (FSDP2): the training of one process, a part of everything in each."""

import copy
import importlib.util
import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from processes import NUMBER, two_processes
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import LlamaConfig, LlamaForCausalLM

from palimpsest.artefacts import MANIFEST, Origin
from palimpsest.corpus.layout import write_corpus
from palimpsest.errors import PalimpsestError
from palimpsest.models.checkpoint import store_weights, write_model
from palimpsest.models.sequences import corpus_sequences
from palimpsest.training.batches import Collator
from palimpsest.training.processes import gather_from_all, run_on_ranks
from palimpsest.training.schedule import Schedule
from palimpsest.training.sharding import local, published, sharded
from palimpsest.training.trainer import NextTokenTrainer, fit, train
from palimpsest.unlearning import reference
from palimpsest.unlearning.adapters import Adapter
from palimpsest.unlearning.objective import Objective
from palimpsest.unlearning.saliency import Saliency
from palimpsest.unlearning.trainer import UnlearningTrainer
from palimpsest.unlearning.unlearn import settings_of, unlearn

pytestmark = pytest.mark.usefixtures("all_forks")

EXACT = partial(Schedule, 1e-3, 2, batch_size=5, storage="float32", autocast=False)
"""Five sequences a step, of very different lengths:
shares are uneven, and a last batch of one leaves a process without any."""
NPO_KLR = Objective("npo", "klr", settings={"beta": 0.1})
CASES = {
    "next token": (None, EXACT(stop_at_loss=4.5)),
    "ga_gdr": (Objective("ga", "gdr", retain_batch_size=3), EXACT()),
    "npo_klr": (NPO_KLR, EXACT()),
    "npo_klr, the head kept": (NPO_KLR, EXACT()),
    "released npo_klr": (Objective("npo", "klr", settings={"beta": 0.1}, variant="released"), EXACT()),
    "rmu": (Objective("rmu", "rmu", settings={"layer": 0, "steering": 5.0}), EXACT()),
    "accumulated": (
        Objective("ga", "gdr", forget_until=5.0),
        EXACT(gradient_accumulation=2, gradient_checkpointing=True),
    ),
    "tied": (Objective("ga", "gdr"), EXACT()),
    "float32": (NPO_KLR, Schedule(1e-3, 3, batch_size=5, storage="float32")),
    "bfloat16": (Objective("ga", "gdr"), Schedule(1e-3, 3, batch_size=5, storage="bfloat16")),
    "stochastic": (Objective("ga", "gdr"), Schedule(1e-3, 3, batch_size=5, storage="bfloat16-stochastic")),
    "float32 moments": (
        Objective("ga", "gdr"),
        Schedule(1e-3, 3, batch_size=5, storage="bfloat16", optimizer="adamw-float32-moments"),
    ),
}
TWICE = ("bfloat16", "stochastic")


def weights_of(model):
    return torch.cat([weight.detach().float().flatten().cpu() for weight in model.parameters()])


def cache_of(name):
    """Bytes that reference logits may take."""
    return 0 if "head" in name else 1 << 30


def do_all(works):
    """In each of the processes: the outcome of every work, and the elements that each process held."""
    found = []
    for name, make_trainer, given, products, collator, schedule in works:
        held = {}

        def note(optimizer, *_, held=held):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            moments = [moment for weight in weights for moment in optimizer.state[weight].values()]
            held["weights"] = sum(local(weight).numel() for weight in weights)
            held["gradients"] = sum(local(weight.grad).numel() for weight in weights if weight.grad is not None)
            held["moments"] = sum(local(each).numel() for each in moments if torch.is_tensor(each) and each.dim())

        reference.CACHE_BYTES = cache_of(name)
        handle = register_optimizer_step_post_hook(note)
        with sharded(given, products) as model:
            outcome = fit(make_trainer, model, collator, schedule)
        handle.remove()
        found.append((outcome, gather_from_all(held)))
    return found


@pytest.fixture(scope="module")
def learned(tiny):
    model, tokenizer, corpus = tiny
    model = copy.deepcopy(model)
    forget, retain = (corpus_sequences(corpus, split, tokenizer, 64, True) for split in ("forget", "retain"))
    forget = [sequence[: 4 + 6 * i] for i, sequence in enumerate(forget[:11])]  # see EXACT
    train(model, forget + retain, tokenizer.pad_token_id, Schedule(3e-3, 12, storage="float32"))
    store_weights(model, torch.bfloat16)
    return model, forget, retain, tokenizer.pad_token_id


def tied_model(model):
    """Its vocabulary is odd, so that parts are uneven, and its output head is its embedding."""
    torch.manual_seed(0)
    settings = model.config.to_dict() | {"vocab_size": 401, "tie_word_embeddings": True}
    tied = LlamaForCausalLM(LlamaConfig(**settings))
    store_weights(tied, torch.bfloat16)
    return tied


@pytest.fixture(scope="module")
def runs(learned):
    """Of each case, and again of those in TWICE:
    start, weights and outcome of one and of two processes, and what these held."""
    model, forget, retain, pad = learned
    found, works = {}, []
    with ExitStack() as stack:
        for name in (*CASES, *(f"{name} again" for name in TWICE)):
            method, schedule = CASES[name.removesuffix(" again")]
            one = tied_model(model) if name == "tied" else copy.deepcopy(model)
            two = copy.deepcopy(one).to(torch.float32 if schedule.storage == "float32" else torch.bfloat16)
            size = method.retain_batch_size if method else None
            collator = Collator(forget, pad, retain if method else (), size)
            rest = {"method": method, "saliency": None, "reinforced": None, "seed": 0}
            make_trainer = partial(UnlearningTrainer, **rest) if method else NextTokenTrainer
            products = torch.bfloat16 if schedule.autocast else torch.float32
            works.append((name, make_trainer, stack.enter_context(published(two)), products, collator, schedule))
            start = weights_of(one)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(reference, "CACHE_BYTES", cache_of(name))
                single = fit(make_trainer, one, copy.deepcopy(collator), schedule)
            found[name] = SimpleNamespace(start=start, one=weights_of(one), single=single, model=two)
        for run, (outcome, held) in zip(found.values(), run_on_ranks(NUMBER, do_all, works), strict=True):
            run.two, run.outcome, run.held = weights_of(run.model), outcome, held
    return found


def difference(run):
    """Of the two updates, relative to the one of a single process."""
    return ((run.two - run.one).norm() / (run.one - run.start).norm()).item()


@pytest.mark.parametrize("name", [name for name, (_, schedule) in CASES.items() if not schedule.autocast])
def test_several_processes_train_as_one_does(runs, name):
    run = runs[name]
    assert difference(run) < 1e-3
    assert run.outcome["steps"] == run.single["steps"] > 1
    for key, value in run.single.items():
        assert run.outcome[key] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value)


def test_both_ways_to_stop_were_taken(runs):
    assert runs["next token"].single["reached_stop_loss"] and runs["next token"].single["steps"] == 3
    assert runs["accumulated"].single["reached_forget_until"]


@pytest.mark.parametrize(
    ("name", "bound"), [("float32", 0.02), ("bfloat16", 0.05), ("float32 moments", 0.05), ("stochastic", 0.3)]
)
def test_storage_differs_by_its_rounding_alone(runs, name, bound):
    assert difference(runs[name]) < bound
    assert difference(runs[name]) > 0 or NUMBER == 1
    assert runs[name].outcome["final_loss"] == pytest.approx(runs[name].single["final_loss"], rel=0.01)


@pytest.mark.parametrize("name", TWICE)
def test_the_same_seed_gives_the_same_weights(runs, name):
    assert torch.equal(runs[name].two, runs[f"{name} again"].two)


@pytest.mark.parametrize("name", CASES)
def test_each_process_holds_its_part_of_the_weights_gradients_and_moments(runs, name):
    run = runs[name]
    size = run.start.numel()
    assert sum(held["weights"] for held in run.held) == size
    for held in run.held:
        assert held["weights"] == pytest.approx(size / NUMBER, rel=0.01)
        assert held["gradients"] <= held["weights"] and held["moments"] <= 2 * held["weights"]
        if name != "rmu":  # whose loss does not reach the last layers
            assert held["gradients"] == held["weights"] and held["moments"] == 2 * held["weights"]


@two_processes
def test_unlearning_in_place_in_two_processes(learned, tmp_path):
    """The whole way, as the workflow goes it, and a task vector, for which the caller keeps the start."""
    model, forget, retain, pad = learned
    one, two = copy.deepcopy(model), copy.deepcopy(model)
    method = Objective("descent", negate=1.0)
    assert "processes" not in unlearn(one, forget, retain, pad, method, EXACT())
    assert unlearn(two, forget, retain, pad, method, EXACT(processes=2))["processes"] == 2
    assert (weights_of(two) - weights_of(one)).norm() < 1e-4 * (weights_of(one) - weights_of(model)).norm()
    two.save_pretrained(tmp_path)
    saved = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(weights_of(saved), weights_of(two))


@two_processes
def test_a_loss_that_is_no_number_ends_all_processes(learned):
    model, forget, retain, pad = learned
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    with pytest.raises(PalimpsestError, match="loss became nan at step 0"):
        unlearn(broken, forget, retain, pad, Objective("ga"), EXACT(processes=2))


METHOD = {
    "forget_loss": "ga",
    "retain_loss": None,
    "alpha": 1.0,
    "retain_batch_size": None,
    "losses": "published",
    "learning_rate": 1e-5,
    "epochs": 1,
    "batch_size": 4,
    "storage": "float32",
}
WHP = {"forget_loss": "whp", "gap": 5.0, "reinforcement_epochs": 1, "reinforcement_learning_rate": 1e-5}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"saliency": {"granularity": "row", "percentile": 50}}, "a saliency mask"),
        ({"adapter": {"kind": "lora", "rank": 4, "scale": 8.0, "dropout": 0.0}}, "an adapter"),
        ({"sharpness": 0.05, "optimizer": "adamw-8bit"}, "sharpness and the optimizer adamw-8bit"),
        (WHP, "the forget loss whp"),
        ({"forget_loss": "altpo", "beta": 0.1}, "the forget loss altpo"),
    ],
)
def test_what_is_not_sharded_is_refused_before_a_model_is_loaded(settings, named):
    with pytest.raises(PalimpsestError, match=rf"on several GPUs {named} cannot be had: give the job one \(gpu=1\)"):
        settings_of(METHOD | settings, seed=0, processes=2)
    assert settings_of(METHOD | settings, seed=0)["schedule"].processes == 1


def test_what_is_not_sharded_is_refused_by_the_library_too(learned):
    model, forget, retain, pad = learned
    for extra in ({"saliency": Saliency("row", 50)}, {"adapter": Adapter("lora", 4, 8.0, 0.0)}):
        with pytest.raises(PalimpsestError, match="gpu=1"):
            unlearn(model, forget, retain, pad, Objective("ga"), EXACT(processes=2), **extra)
    with pytest.raises(PalimpsestError, match="adamw-8bit"):
        train(model, forget, pad, EXACT(optimizer="adamw-8bit", processes=2))


STEP = Path(__file__).parents[3] / "workflow/scripts/unlearn.py"


@two_processes
def test_the_step_trains_what_cannot_be_sharded_in_one_process_and_says_why(learned, tiny, tmp_path, caplog):
    """Given two GPUs: `--set-resources unlearn:gpu=2` is for a study, which may have methods of both kinds."""
    spec = importlib.util.spec_from_file_location("unlearn_step", STEP)
    step = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(step)
    corpus, target = tmp_path / "results/corpus", tmp_path / "results/models/target/seed0"
    write_corpus(tiny[2], corpus, Origin())
    write_model(target, copy.deepcopy(learned[0]), tiny[1], Origin({"model": "target"}, inputs=[corpus / MANIFEST]))

    def manifest_of(model, method, processes):
        folder = tmp_path / "results/models" / model / "seed0"
        settings = {"method": method, "max_length": 32, "questions": False}
        origin = Origin({"model": model, "seed": 0}, {"methods/ga": method}, code=[STEP])
        step.unlearn_model(origin, settings, corpus, target, folder, processes)
        return json.loads((folder / "manifest.json").read_text())

    masked = METHOD | {"saliency": {"granularity": "row", "percentile": 50}}
    assert manifest_of("ga", METHOD, 2)["training"]["processes"] == 2
    assert not caplog.records
    assert manifest_of("ga_sure", masked, 2)["training"]["processes"] == 1
    assert "a saliency mask cannot be sharded: of 2 GPUs one is used." in caplog.text
    assert "processes" not in manifest_of("ga_sure", masked, 1)["training"]
