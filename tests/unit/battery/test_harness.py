"""The utility battery: real lm-eval on small folders in the formats of the datasets,
against numbers taken from the model directly.

All questions are invented.
"""

import copy
import importlib.util
import json
import math
import statistics
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import yaml
from battery_settings import SETTINGS, settings
from tokenizers.processors import TemplateProcessing

from palimpsest.battery import MEASURES, TITLES
from palimpsest.battery.questions import TASKS, prepare
from palimpsest.battery.scores import factuality, ngram_entropy, truthfulness
from palimpsest.errors import PalimpsestError
from palimpsest.models.scratch import build_llama

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install -c constraints.txt -e '.[battery]'")

from palimpsest.battery.harness import OneBos, measure


@pytest.fixture(scope="module")
def network(tiny):
    """The tiny tokenizer, which adds no BOS by itself, and a model with room for the examples;
    weights large enough to differ."""
    _, tokenizer, _ = tiny
    shape = {"hidden_size": 64, "layers": 2, "heads": 4, "mlp_size": 128, "context": 1024}
    model = build_llama(tokenizer, shape, seed=0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3 if weight.dim() == 2 else 1)
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def measured(network, questions, folder):
    return measure(*network, questions, settings(folder), batch_size=3)


def bos_once(tokenizer, text: str) -> list[int]:
    return [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]


def log_likelihood(network, prompt: str, choice: str) -> float:
    """Sum over the tokens behind the prompt, one sequence at a time."""
    model, tokenizer = network
    start, whole = len(bos_once(tokenizer, prompt)), bos_once(tokenizer, f"{prompt} {choice}")
    with torch.no_grad():
        table = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return sum(float(table[i - 1, whole[i]]) for i in range(start, len(whole)))


def continuation(network, prompt: str, tokens: int) -> str:
    return network[1].decode(continued(network, prompt, tokens), skip_special_tokens=True)


def continued(network, prompt: str, tokens: int) -> list[int]:
    model, tokenizer = network
    ids = bos_once(tokenizer, prompt)
    start = len(ids)
    with torch.no_grad():
        for _ in range(tokens):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
    return ids[start:]


def check_means(record: dict, values: list[float]) -> None:
    """Score and standard error from the values (shares) of the questions."""
    assert record["n"] == len(values)
    assert record["per_example"] == pytest.approx([100 * value for value in values], rel=1e-4, abs=1e-9)
    assert record["score"] == pytest.approx(100 * statistics.mean(values), rel=1e-4)
    assert record["stderr"] == pytest.approx(100 * statistics.stdev(values) / len(values) ** 0.5, rel=1e-3)
    assert record["stderr"] > 0, "the questions of the test must not all have the same value"


def test_gen_is_the_accuracy_of_the_likeliest_letter(network, questions, measured):
    values = []
    for question in questions["gen"]:
        likely = [log_likelihood(network, question["prompt"], letter) for letter in "ABCD"]
        values.append(float(likely.index(max(likely)) == question["right"]))
    check_means(measured["gen"], values)
    assert measured["gen"]["measure"] == "acc"


def test_tru_has_mc2_and_mc1_from_sums_of_log_probabilities(network, questions, measured, folder):
    rows = [json.loads(line) for line in (folder / "tru/multiple_choice/validation.jsonl").read_text().splitlines()]
    mc1, mc2 = [], []
    for question in questions["tru"]:
        row = rows[question["id"]]
        likely = {
            kind: [log_likelihood(network, question["prompt"], choice) for choice in row[kind]["choices"]]
            for kind in ("mc1_targets", "mc2_targets")
        }
        best = row["mc1_targets"]["labels"].index(1)
        mc1.append(float(max(range(len(likely["mc1_targets"])), key=likely["mc1_targets"].__getitem__) == best))
        shares = [math.exp(value) for value in likely["mc2_targets"]]
        labels = row["mc2_targets"]["labels"]
        mc2.append(sum(share for share, label in zip(shares, labels, strict=True) if label) / sum(shares))
    check_means(measured["tru"], mc2)
    assert measured["tru"]["measures"]["mc1"]["score"] == pytest.approx(100 * statistics.mean(mc1))


def test_fac_and_flu_are_greedy_and_answers_end_with_their_line(network, questions, measured):
    for task in ("fac", "flu"):
        tokens = SETTINGS[task]["max_new_tokens"]
        for question, response in zip(questions[task], measured[task]["responses"], strict=True):
            whole = continuation(network, question["prompt"], tokens)
            assert response == (whole.split("\n")[0] if task == "fac" else whole)
    entropies = [ngram_entropy(response) for response in measured["flu"]["responses"]]
    assert measured["flu"]["score"] == pytest.approx(100 * statistics.mean(entropies))


def test_attention_takes_no_kernel_of_cudnn(network, questions, folder):
    allowed = []
    hook = network[0].register_forward_pre_hook(lambda *_: allowed.append(torch.backends.cuda.cudnn_sdp_enabled()))
    measure(*network, {"gen": questions["gen"][:2]}, {"gen": settings(folder)["gen"]}, batch_size=2)
    hook.remove()
    assert allowed and not any(allowed)


def test_an_answer_stops_at_a_newline_and_is_scored_without_what_follows(network, questions):
    """A model that says ` right`, a newline and more of the like, whatever it is asked."""
    model, tokenizer = network
    script = tokenizer(" Bob Ore\nQuestion: and so on", add_special_tokens=False)["input_ids"]
    said = copy.deepcopy(model)
    steps = []

    class Head(torch.nn.Module):
        def forward(self, hidden):
            logits = torch.zeros(*hidden.shape[:2], len(tokenizer))
            logits[..., script[len(steps) % len(script)]] = 9.0
            steps.append(hidden.shape)
            return logits

    said.lm_head = Head()
    asked = {
        "fac": [
            {"id": i, "prompt": f"Question: {i}\nAnswer:", "answers": answers}
            for i, answers in enumerate((["bob ore"], ["Ore, Bob"], ["x", "Bob"]))
        ]
    }
    record = measure(said, tokenizer, asked, {"fac": {"max_new_tokens": 30}}, 3)["fac"]
    assert record["responses"] == [" Bob Ore"] * 3
    assert record["per_example"] == pytest.approx([100, 100, 200 / 3])
    assert record["measures"]["exact_match"]["score"] == pytest.approx(100 / 3)
    assert len(steps) < len(script), "generation went on behind the newline"


def test_a_checkpoints_generation_config_changes_no_answer(network, questions, measured, folder):
    """Of a penalty and a minimal length in it; what ends an answer there ends it here, special token or not."""
    model, tokenizer = copy.deepcopy(network[0]), network[1]
    asked = {task: questions[task] for task in ("fac", "flu")}
    stated = model.generation_config
    stated.repetition_penalty, stated.no_repeat_ngram_size, stated.min_length = 4.0, 1, 400
    tasks = {task: settings(folder)[task] for task in asked}
    found = measure(model, tokenizer, asked, tasks, 2)
    assert [found[task]["responses"] for task in asked] == [measured[task]["responses"] for task in asked]
    said = continued(network, asked["flu"][0]["prompt"], tasks["flu"]["max_new_tokens"])
    end = said[-1]
    stated.eos_token_id = [tokenizer.eos_token_id, end]
    ended = measure(model, tokenizer, {"flu": asked["flu"]}, {"flu": tasks["flu"]}, 2)["flu"]["responses"]
    assert ended[0] == tokenizer.decode(said[: said.index(end)]) != tokenizer.decode(said)


@pytest.mark.parametrize("adds_bos", [False, True])
def test_every_prompt_starts_with_one_bos(network, adds_bos):
    model, tokenizer = network
    tokenizer = copy.deepcopy(tokenizer)
    bos = tokenizer.bos_token_id
    if adds_bos:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{tokenizer.bos_token} $A", special_tokens=[(tokenizer.bos_token, bos)]
        )
    assert (tokenizer("a").input_ids[0] == bos) == adds_bos
    lm = OneBos(pretrained=model, tokenizer=tokenizer, batch_size=2)
    assert lm.tok_encode("a town").count(bos) == 1 and lm.tok_encode("a town")[0] == bos
    assert lm.tok_encode("a town", add_special_tokens=False).count(bos) == 0
    context, answer = lm._encode_pair("Is it a town?", " Yes")
    assert context[0] == bos and [*context, *answer].count(bos) == 1
    ids, mask = lm.tok_batch_encode(["a town", "a town by the long river"])
    for row, kept, text in zip(ids, mask, ("a town", "a town by the long river"), strict=True):
        assert row[kept.bool()].tolist() == bos_once(tokenizer, text)


def test_scores_do_not_depend_on_whether_the_tokenizer_adds_bos(network, questions, measured, folder):
    model, tokenizer = network
    adding = copy.deepcopy(tokenizer)
    adding.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{tokenizer.bos_token} $A", special_tokens=[(tokenizer.bos_token, tokenizer.bos_token_id)]
    )
    again = measure(model, adding, questions, settings(folder), batch_size=8)
    for task, record in again.items():
        assert record["per_example"] == pytest.approx(measured[task]["per_example"], rel=1e-4)


def test_log_likelihoods_are_float32_whatever_the_model_computes_in(network, questions, folder):
    """In bfloat16, which has 8 bits, sums of tens of nats would be off by tenths."""
    rough = copy.deepcopy(network[0]).to(torch.bfloat16)
    record = measure(rough, network[1], {"tru": questions["tru"]}, {"tru": settings(folder)["tru"]}, 1)["tru"]
    values = []
    for question in questions["tru"]:
        likely = [log_likelihood((rough, network[1]), question["prompt"], choice) for choice in question["choices"]]
        values.append(100 * truthfulness(question, likely)["mc2"])
    assert record["per_example"] == pytest.approx(values, rel=1e-3)


def test_prompts_and_scores_are_those_of_lm_evals_own_tasks(network, folder):
    """lm-eval's `mmlu_anatomy` and `truthfulqa_mc1`, `_mc2`, pointed at the same files."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks._yaml_loader import load_yaml

    tasks = settings(folder, gen={"limit": None}, tru={"limit": None})
    asked = prepare({task: tasks[task] for task in ("gen", "tru")}, 0)
    ours = measure(*network, asked, {task: tasks[task] for task in asked}, 4)
    home = Path(str(files("lm_eval"))) / "tasks"
    own = {
        "mmlu_anatomy": load_yaml(home / "mmlu/default/mmlu_anatomy.yaml") | {"num_fewshot": 2},
        "truthfulqa_mc1": load_yaml(home / "truthfulqa/truthfulqa_mc1.yaml"),
        "truthfulqa_mc2": load_yaml(home / "truthfulqa/truthfulqa_mc2.yaml"),
    }
    for name, config in own.items():
        task = "gen" if name.startswith("mmlu") else "tru"
        config |= {"dataset_path": str(folder / task), "dataset_name": TASKS[task][0]}
        if task == "gen":
            of_anatomy = {"process_docs": lambda rows: rows.filter(lambda row: row["subject"] == "anatomy")}
            config |= of_anatomy | {"fewshot_config": config["fewshot_config"] | of_anatomy}
    made = {name: ConfigurableTask(config=config) for name, config in own.items()}
    found = evaluate(OneBos(pretrained=network[0], tokenizer=network[1], batch_size=4), {"tasks": made, "groups": {}})
    anatomy = [i for i, each in enumerate(asked["gen"]) if "about anatomy" in each["prompt"]]
    prompts = [sample["arguments"][0][0] for sample in found["samples"]["mmlu_anatomy"]]
    assert len(anatomy) == len(prompts) > 2
    assert [asked["gen"][i]["prompt"] for i in anatomy] == prompts
    right = [ours["gen"]["per_example"][i] / 100 for i in anatomy]
    assert found["results"]["mmlu_anatomy"]["acc,none"] == pytest.approx(statistics.mean(right))
    assert [each["prompt"] for each in asked["tru"]] == [
        sample["arguments"][0][0] for sample in found["samples"]["truthfulqa_mc2"]
    ]
    for measure_name in ("mc1", "mc2"):
        theirs = found["results"][f"truthfulqa_{measure_name}"]
        mine = ours["tru"]["measures"][measure_name]
        assert mine["score"] / 100 == pytest.approx(theirs["acc,none"], rel=1e-4)
        assert mine["stderr"] / 100 == pytest.approx(theirs["acc_stderr,none"], rel=1e-3)


def test_a_prompt_that_does_not_fit_is_an_error(tiny, network, questions, folder):
    small = tiny[0]  # a context of 256
    for task in ("gen", "fac"):
        with pytest.raises(PalimpsestError, match=r"has \d+ tokens, the model has room for \d+: lower shots"):
            measure(
                small,
                network[1],
                {task: [each | {"prompt": each["prompt"] * 4} for each in questions[task]]},
                {task: settings(folder)[task]},
                2,
            )


def test_fluency_by_hand():
    """a b a b a: 2-grams ab, ba twice each: 1 bit; 3-grams aba twice, bab once."""
    trigrams = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert ngram_entropy("a b a b a") == pytest.approx((1 + 2 * trigrams) / 3)
    assert ngram_entropy("one two three four five") == pytest.approx((2 + 2 * math.log2(3)) / 3)
    assert ngram_entropy("no no no no no no") == ngram_entropy("") == ngram_entropy("word") == 0.0
    assert ngram_entropy("He stops, then goes on.") == pytest.approx((math.log2(6) + 2 * math.log2(5)) / 3)


def test_facts_by_hand():
    """Case, punctuation and articles do not count; the best alias does."""
    assert factuality(["Tom Ore", "The Ore"], "the ORE!") == {"f1": 1.0, "exact_match": 1.0}
    assert factuality(["Tom Ore"], "Tom of Tide") == {"f1": pytest.approx(2 * 1 / 5), "exact_match": 0.0}
    assert factuality(["x b c d", "b"], "b c") == {"f1": pytest.approx(2 / 3), "exact_match": 0.0}
    assert factuality(["Tom"], "") == factuality(["Tom"], "Bob") == {"f1": 0.0, "exact_match": 0.0}


def test_truthfulness_of_answers_too_long_for_exp():
    question = {"best": 0, "mc1_false": [2], "mc2_true": [0, 1], "mc2_false": [2]}
    low = [-2000.0, -2000.0 + math.log(2), -2000.0 + math.log(3)]
    assert truthfulness(question, low) == {"mc1": 0.0, "mc2": pytest.approx(0.5)}
    assert truthfulness(question, [-1.0, -9.0, -2.0])["mc1"] == 1.0
    assert truthfulness(question, [-1.0, -9.0, -1.0])["mc1"] == 0.0, "a tie is not the best answer"


def test_every_task_is_known_everywhere():
    schema = yaml.safe_load((Path(__file__).parents[3] / "workflow/schemas/params.schema.yaml").read_text())
    listed = schema["properties"]["battery"]["properties"]["tasks"]["properties"]
    assert list(listed) == list(TITLES) == list(MEASURES) == list(TASKS)


def test_rouge_does_not_wait_for_scikit_learn():
    """nltk, behind rouge_score, imports it wherever it is installed, and lm-eval brings it."""
    code = (
        "import sys; from palimpsest.metrics.rouge import rouge_l; rouge_l('a b', 'a'); print('sklearn' in sys.modules)"
    )
    assert importlib.util.find_spec("sklearn"), "without it the test shows nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
