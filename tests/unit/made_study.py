"""A study made up for the tests of audit and report: generated responses that go through the real metrics."""

import copy
import json
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from palimpsest.inference.files import ANSWERS, AnswerTokens, write_answers
from palimpsest.metrics import score
from palimpsest.report.figures import draw_retained, draw_survival
from palimpsest.report.page import render
from palimpsest.report.samples import select_samples

BOOTSTRAP = {"resamples": 200, "confidence": 0.95, "seed": 0}
RULES = {"minimum_gap": 5.0, "forgotten_below": 50.0, "negligible": 10.0, "utility_floor": 50.0, **BOOTSTRAP}
METRICS = {
    "verbmem": {"rouge": "rougeL_f1", **BOOTSTRAP},
    "knowmem": {"rouge": "rougeL_f1", **BOOTSTRAP},
    "utility": {"rouge": "rougeL_f1", **BOOTSTRAP},
    "privleak": {"min_k_ratio": 0.4, "reference": "retrain", **BOOTSTRAP},
    "perplexity": {"split": "retain", **BOOTSTRAP},
}
TASKS = {"verbmem": 24, "knowmem_forget": 40, "knowmem_retain": 40}
PRECISIONS = ("bf16", "bnb-int8", "bnb-nf4", "bnb-fp4", "rtn-int4")
CONSTRAINED = ["ga_gdr", "ga_klr", "npo_gdr", "npo_klr"]
WEIGHTS = dict.fromkeys(["target", "retrain", "ga", *CONSTRAINED, "npo"], "bfloat16") | {"ga_gdr_fp32": "float32"}
ERASED = {"bnb-int8": 0.99, "bnb-nf4": 0.45, "bnb-fp4": 0.2, "rtn-int4": 0.02}
VOCABULARY = [
    f"{a}{b}" for a in ("bar", "mel", "tor", "kin", "sul", "ven") for b in ("da", "go", "rim", "sta", "lo", "pek")
]


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(VOCABULARY, k=count))


def knowledge(model: str, precision: str) -> dict[str, float]:
    """How much of an answer a model gives right, by task: the regime that rounding undoes bfloat16 updates."""
    if model in ("target", "retrain"):
        recall = 0.85 if model == "target" else 0.1
        return {"verbmem": recall, "knowmem_forget": recall, "knowmem_retain": 0.8}
    back = 0.0 if precision == "bf16" or WEIGHTS[model] == "float32" else 1 - ERASED[precision]
    forgotten = {"npo_gdr": 0.35, "npo_klr": 0.3}.get(model, 0.12)
    utility = 0.6 if model in CONSTRAINED or WEIGHTS[model] == "float32" else 0.02
    recall = forgotten + (0.85 - forgotten) * back
    return {"verbmem": recall, "knowmem_forget": recall, "knowmem_retain": utility + (0.8 - utility) * back}


Made = tuple[str, int, tuple[tuple[str, float], ...]]
"""What a model's files depend on: its name, a seed, and what it knows. Precisions at which it knows the same answer
the same."""
_written: dict[Made, dict[str, bytes]] = {}
_scored: dict[tuple[str, Made, Made], Any] = {}
"""Of this process, whose tests make many studies that differ in a model or two."""


def write_inference(folder: Path, made: Made) -> dict[str, Path]:
    if made not in _written:
        with TemporaryDirectory() as new:
            _infer(Path(new), *made)
            _written[made] = {file.name: file.read_bytes() for file in Path(new).iterdir()}
    folder.mkdir(parents=True)
    for name, content in _written[made].items():
        (folder / name).write_bytes(content)
    return {"responses": folder / "responses.jsonl", "logprobs": folder / "logprobs.parquet"}


def score_of(metric: str, made: Made, files: dict[str, Path], retrain: Made, logprobs: Path) -> Any:
    if (metric, made, retrain) not in _scored:
        _scored[metric, made, retrain] = score(metric, METRICS[metric], **files, retrain_logprobs=logprobs)
    return copy.deepcopy(_scored[metric, made, retrain])


def _infer(folder: Path, model: str, seed: int, known: tuple[tuple[str, float], ...]) -> None:
    know = dict(known)
    rng = random.Random(
        f"{model} {seed}"
    )  # the same draws at every precision: rounding changes what the knowledge changes
    corpus = random.Random(7)
    with open(folder / "responses.jsonl", "w") as file:
        for task, count in TASKS.items():
            for index in range(count):
                prompt, answer = words(corpus, 20), words(corpus, 32 if task == "verbmem" else 4)
                draws = [(word, rng.random(), rng.choice(VOCABULARY)) for word in answer.split()]
                said = [word if chance < know[task] else other for word, chance, other in draws]
                row = {
                    "task": task,
                    "id": index,
                    "prompt": f"<b>{prompt}</b>?",
                    "answer": answer,
                    "response": " ".join(said),
                }
                file.write(json.dumps(row) + "\n")
    draw = np.random.default_rng(rng.randrange(1 << 30))
    texts = [(split, i) for split in ("forget", "retain", "holdout") for i in range(20)]
    scale = {"forget": 1.2 - know["verbmem"], "retain": 1.2 - know["knowmem_retain"], "holdout": 1.15}
    table = {
        "split": [split for split, _ in texts],
        "id": [index for _, index in texts],
        "log_probs": pyarrow.array(
            [(-draw.gamma(2, scale[split], 30)).tolist() for split, _ in texts], pyarrow.list_(pyarrow.float32())
        ),
    }
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "logprobs.parquet")
    write_answers(
        [made_answer(rng, task, index, know[task]) for task in list(TASKS)[1:] for index in range(TASKS[task])],
        folder / ANSWERS,
    )


def made_answer(rng: random.Random, task: str, index: int, known: float) -> AnswerTokens:
    """Four tokens, as probable as the model knows them, and one that ends the answer."""
    true, predicted = [10, 11, 12, 13, 1], [token if rng.random() < known else 0 for token in (10, 11, 12, 13)]
    log_probs = [float(np.log(max(known, 0.01))) - rng.random() / 10 for _ in predicted]
    return AnswerTokens(task, index, [*log_probs, -0.001], [*predicted, 1], true, 1)


def make_study(folder: Path, know: Any = knowledge, models: Any = tuple(WEIGHTS), seeds: Any = (1,)) -> dict[str, Any]:
    """Records of a study, scored by the real metrics from generated responses."""
    made = {
        (model, seed, precision): (model, seed, tuple(know(model, precision).items()))
        for model in models
        for seed in seeds
        for precision in PRECISIONS
    }
    files = {key: write_inference(folder / "-".join(map(str, key)), each) for key, each in made.items()}
    scores, weights, manifests = [], [], []
    for (model, seed, precision), each in files.items():
        key = {"model": model, "seed": seed, "precision": precision}
        retrain = "retrain", seed, precision
        for metric in METRICS:
            found = score_of(metric, made[model, seed, precision], each, made[retrain], files[retrain]["logprobs"])
            scores.append(key | found)
        if model not in ("target", "retrain") and precision != "bf16":
            rho = 1.0 if WEIGHTS[model] == "float32" else ERASED[precision] + 0.01 * len(model)
            whole = {"rho": rho, "rho_status": "ok", "same_code_share": 0.97, "changed_share": 0.1}
            weights.append(key | {"all": whole, "matrices": []})
    for model in models:
        for seed in seeds:
            manifest = {"model": model, "seed": seed, "kind": model if model in ("target", "retrain") else "unlearned"}
            manifest |= {"method": None, "storage": WEIGHTS[model], "parameters": 22_500_000, "extra": "tolerated"}
            manifest |= {"versions": {"python": "3.11.2", "torch": "2.13.0"}, "files": {"model.safetensors": "ab" * 32}}
            manifests.append(manifest)
    settings = {
        "corpus": {"documents": 16, "seed": 3},
        "methods": {"ga_gdr": {"lr": 8e-6, "steps": 220}},
        "precisions": list(PRECISIONS),
    }
    records = {"scores": scores, "survival": weights, "manifests": manifests, "settings": settings}
    return {"files": files, "records": records | {"constrained": CONSTRAINED, "rules": RULES}}


def find(rows: list[dict], **wanted: Any) -> dict:
    return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))


def scores_of(study: dict[str, Any], model: str, precision: str, metric: str) -> dict:
    return find(study["records"]["scores"], model=model, precision=precision, metric=metric)


def draw(audit: dict, folder: Path) -> dict[str, Path]:
    charts = {"retained": folder / "retained.svg", "survival": folder / "survival.svg"}
    draw_retained(audit, charts["retained"])
    draw_survival(audit, charts["survival"])
    return charts


def pages(study: dict, audit: dict, folder: Path) -> Path:
    draw_retained(audit, folder / "retained.svg")
    draw_survival(audit, folder / "survival.svg")
    shown = {
        "target, bf16": ("target", 1, "bf16"),
        "unlearned (ga_gdr), bf16": ("ga_gdr", 1, "bf16"),
        "unlearned (ga_gdr), rtn-int4": ("ga_gdr", 1, "rtn-int4"),
        "retrain, bf16": ("retrain", 1, "bf16"),
    }
    responses = {label: study["files"][key]["responses"] for label, key in shown.items()}
    samples = [s for task in ("verbmem", "knowmem_forget") for s in select_samples(responses, "target, bf16", task, 1)]
    render(
        audit,
        {"retained": folder / "retained.svg", "survival": folder / "survival.svg"},
        samples,
        folder / "report.html",
    )
    return folder / "report.html"
