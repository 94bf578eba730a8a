"""The audit and the page, from generated responses that go through the real metrics."""

import copy
import csv
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.stats

from palimpsest.artefacts import write_json
from palimpsest.errors import PalimpsestError
from palimpsest.metrics import score
from palimpsest.report.audit import collect, headline_methods, write_csv
from palimpsest.report.battery import attach
from palimpsest.report.figures import draw_retained, draw_survival
from palimpsest.report.formats import difference_lines, differences
from palimpsest.report.html import render
from palimpsest.report.known import compare
from palimpsest.report.markdown import tables
from palimpsest.report.retained import HEADLINE
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


def write_inference(folder: Path, model: str, precision: str, seed: int, know: dict[str, float]) -> dict[str, Path]:
    folder.mkdir(parents=True)
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
    return {"responses": folder / "responses.jsonl", "logprobs": folder / "logprobs.parquet"}


def make_study(folder: Path, know: Any = knowledge, models: Any = tuple(WEIGHTS), seeds: Any = (1,)) -> dict[str, Any]:
    """Records of a study, scored by the real metrics from generated responses."""
    files = {
        (model, seed, precision): write_inference(
            folder / f"{model}-{seed}-{precision}", model, precision, seed, know(model, precision)
        )
        for model in models
        for seed in seeds
        for precision in PRECISIONS
    }
    scores, weights, manifests = [], [], []
    for (model, seed, precision), each in files.items():
        key = {"model": model, "seed": seed, "precision": precision}
        for metric, settings in METRICS.items():
            reference = files["retrain", seed, precision]["logprobs"]
            scores.append(key | score(metric, settings, **each, retrain_logprobs=reference))
        if model not in ("target", "retrain") and precision != "bf16":
            rho = 1.0 if WEIGHTS[model] == "float32" else ERASED[precision] + 0.01 * len(model)
            whole = {"rho": rho, "rho_status": "ok", "same_code_share": 0.97, "changed_share": 0.1}
            weights.append(key | {"all": whole, "matrices": []})
    for model in models:
        for seed in seeds:
            manifest = {"model": model, "seed": seed, "kind": model if model in ("target", "retrain") else "unlearned"}
            manifest |= {"method": None, "weights": WEIGHTS[model], "parameters": 22_500_000, "extra": "tolerated"}
            manifest |= {"versions": {"python": "3.11.2", "torch": "2.13.0"}, "files": {"model.safetensors": "ab" * 32}}
            manifests.append(manifest)
    settings = {
        "corpus": {"documents": 16, "seed": 3},
        "methods": {"ga_gdr": {"lr": 8e-6, "steps": 220}},
        "precisions": list(PRECISIONS),
    }
    records = {"scores": scores, "weights": weights, "manifests": manifests, "settings": settings}
    return {"files": files, "records": records | {"constrained": CONSTRAINED, "rules": RULES}}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def audit(study: dict[str, Any]) -> dict[str, Any]:
    return collect(**study["records"])


def find(rows: list[dict], **wanted: Any) -> dict:
    return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))


def scores_of(study: dict[str, Any], model: str, precision: str, metric: str) -> dict:
    return find(study["records"]["scores"], model=model, precision=precision, metric=metric)


def test_retained_follows_each_denominator(study: dict, audit: dict) -> None:
    row = find(audit["rows"], model="ga_klr", precision="bnb-fp4")
    means = []
    for metric in ("verbmem", "knowmem"):
        mine, target, retrain = (
            scores_of(study, m, "bnb-fp4", metric)["score"] for m in ("ga_klr", "target", "retrain")
        )
        target_full, retrain_full = (scores_of(study, m, "bf16", metric)["score"] for m in ("target", "retrain"))
        expected = {
            "same_precision": 100 * (mine - retrain) / (target - retrain),
            "bf16": 100 * (mine - retrain_full) / (target_full - retrain_full),
            "ratio_bf16": 100 * mine / target_full,
            "ratio_same_precision": 100 * mine / target,
        }
        for name, value in expected.items():
            assert row["retained"][name][metric]["value"] == pytest.approx(value, abs=1e-9)
        means.append(expected["same_precision"])
    assert row["retained"]["same_precision"]["mean"]["value"] == pytest.approx(sum(means) / 2, abs=1e-9)
    full = find(audit["rows"], model="ga_klr", precision="bf16")["retained"]["same_precision"]["mean"]["value"]
    assert row["recovery"]["value"] == pytest.approx(sum(means) / 2 - full, abs=1e-9)


def test_average_is_over_the_named_methods_and_its_interval_is_paired(study: dict, audit: dict) -> None:
    average = find(audit["averages"]["utility_constrained"]["rows"], precision="rtn-int4")["retained"]["same_precision"]
    rows = [find(audit["rows"], model=m, precision="rtn-int4") for m in CONSTRAINED]
    assert average["value"] == pytest.approx(np.mean([r["retained"]["same_precision"]["mean"]["value"] for r in rows]))
    assert average["ci"][0] < average["value"] < average["ci"][1]

    def statistic(*columns: np.ndarray, axis: int = -1) -> np.ndarray:
        *models, target, retrain = (column.mean(axis=axis) for column in columns)
        return 100 * (np.mean(models, axis=0) - retrain) / (target - retrain)

    records = copy.deepcopy(study["records"])
    for record in records["scores"]:  # the same examples for both metrics leave one paired sample to hand to scipy
        if record["metric"] == "knowmem":
            twin = find(records["scores"], **{k: record[k] for k in ("model", "seed", "precision")}, metric="verbmem")
            record.update(twin | {"metric": "knowmem"})
    records["rules"] = RULES | {"resamples": 4000}
    ours = find(collect(**records)["averages"]["utility_constrained"]["rows"], precision="rtn-int4")["retained"][
        "same_precision"
    ]
    columns = [scores_of(study, m, "rtn-int4", "verbmem")["per_example"] for m in (*CONSTRAINED, "target", "retrain")]
    theirs = scipy.stats.bootstrap(
        columns,
        statistic,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(5),
    )
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    # The two metrics are resampled apart, so the mean of two equal ones has 1/sqrt(2) of the width of one.
    assert ours["ci"][1] - ours["ci"][0] == pytest.approx(width / 2**0.5, rel=0.1)


def test_answer_of_a_study_where_rounding_undoes_forgetting(audit: dict) -> None:
    answer = audit["answer"]
    assert answer["regime"] == "recovers" and answer["worst"] == "rtn-int4"
    assert answer["text"].startswith("Quantization undoes forgetting") and "bnb-int8 changes little" in answer["text"]
    assert "float32 weights (ga_gdr_fp32)" in answer["contrast"]
    full = find(audit["averages"]["utility_constrained"]["rows"], precision="bf16")["retained"]["same_precision"][
        "value"
    ]
    assert f"keep {full:.0f} %" in answer["text"]


def change(study: dict, tmp_path: Path, know: Any) -> dict[str, Any]:
    models = ("target", "retrain", *CONSTRAINED)
    return collect(**make_study(tmp_path / "other", know, models)["records"])


def test_answers_of_the_other_regimes(study: dict, tmp_path: Path) -> None:
    def holds(model: str, precision: str) -> dict[str, float]:
        return knowledge(model, "bf16")

    def weak_target(model: str, precision: str) -> dict[str, float]:
        return knowledge("retrain" if model == "target" else model, "bf16")

    def not_forgotten(model: str, precision: str) -> dict[str, float]:
        return knowledge("target" if model in CONSTRAINED else model, precision)

    def broken_quantized_target(model: str, precision: str) -> dict[str, float]:
        return knowledge("retrain" if precision != "bf16" else model, "bf16")

    cases = [
        (holds, "holds", "Forgetting holds"),
        (weak_target, "not-memorised", "did not memorise"),
        (not_forgotten, "not-forgotten", "did not forget in the first place"),
        (broken_quantized_target, "inconclusive", "no quantized target still knows"),
    ]
    for index, (know, regime, text) in enumerate(cases):
        answer = change(study, tmp_path / str(index), know)["answer"]
        assert (answer["regime"], text in answer["text"]) == (regime, True), answer
    few = copy.deepcopy(study["records"])
    for record in few["scores"]:
        if record["metric"] in ("verbmem", "knowmem"):
            keep = slice(0, 4)
            record |= {"ids": record["ids"][keep], "per_example": record["per_example"][keep]}
            record["score"] = 100 * float(np.mean(record["per_example"]))
    few["rules"] = RULES | {"negligible": 95.0}
    assert collect(**few)["answer"]["regime"] == "inconclusive"


def test_undefined_is_a_status_and_never_a_number(study: dict, tmp_path: Path) -> None:
    records = study["records"] | {"rules": RULES | {"minimum_gap": 99.0}}
    audit = collect(**records)
    json.dumps(audit, allow_nan=False)
    cell = find(audit["rows"], model="ga", precision="bf16")["retained"]["same_precision"]["mean"]
    assert cell["value"] is None and "below 99" in cell["status"] and "verbmem target - retrain" in cell["status"]
    assert audit["survival_against_recovery"]["status"].startswith("undefined")
    draw_retained(audit, tmp_path / "r.svg")
    draw_survival(audit, tmp_path / "s.svg")
    render(audit, {"retained": tmp_path / "r.svg", "survival": tmp_path / "s.svg"}, [], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).lower().split()
    assert "no point has both numbers" in page and "undefined" in page


def draw(audit: dict, folder: Path) -> dict[str, Path]:
    charts = {"retained": folder / "retained.svg", "survival": folder / "survival.svg"}
    draw_retained(audit, charts["retained"])
    draw_survival(audit, charts["survival"])
    return charts


def battery(model: str, seed: int, precision: str, gen: float, stderr: float, **more: dict) -> dict[str, Any]:
    tasks = {"gen": {"n": 171, "score": gen, "stderr": stderr, "ids": [0]}}
    return {"model": model, "seed": seed, "precision": precision, "tasks": tasks | more}


def test_the_battery_is_in_the_tables_where_it_ran_and_nowhere_else(study: dict, audit: dict, tmp_path: Path) -> None:
    untouched = copy.deepcopy(audit)
    attach(untouched, [])
    assert untouched == audit
    table = copy.deepcopy(audit)
    flu = {"n": 50, "score": 573.3, "stderr": 4.0}
    attach(table, [battery("target", 1, "bf16", 28.7, 3.46, flu=flu), battery("ga_gdr", 1, "rtn-int4", 21.4, 3.14)])
    row = find(table["rows"], model="ga_gdr", precision="rtn-int4")
    assert row["battery"] == {"gen": {"score": 21.4, "stderr": 3.14, "n": 171}, "flu": None}
    assert not any(find(table["rows"], model="ga", precision="bf16")["battery"].values())
    write_csv(table, tmp_path / "audit.csv")
    lines = list(csv.DictReader((tmp_path / "audit.csv").read_text().splitlines()))
    line = find(lines, model="target", precision="bf16")
    assert (line["gen"], line["gen_stderr"], line["gen_n"], line["flu"]) == ("28.7", "3.46", "171", "573.3")
    assert find(lines, model="ga", precision="bf16")["gen"] == ""
    text = tables(table)
    assert "| model | precision | Gen | Flu |" in text and "| ga_gdr | rtn-int4 | 21.4 ± 3.1 (n = 171) | – |" in text
    assert "Utility battery" not in tables(audit)
    render(table, draw(table, tmp_path), [], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<h2>Utility battery</h2>" in page and "<td>28.7 ± 3.5 (n = 171)</td><td>573.3 ± 4.0 (n = 50)</td>" in page
    render(audit, draw(audit, tmp_path), [], tmp_path / "page.html")
    assert "Utility battery" not in (tmp_path / "page.html").read_text()


def test_the_battery_over_seeds(tmp_path: Path) -> None:
    models = ("target", "retrain", *CONSTRAINED)
    table = collect(**make_study(tmp_path, models=models, seeds=(1, 2))["records"])
    both = [battery("target", seed, "bf16", gen, stderr) for seed, gen, stderr in ((1, 20.0, 3.0), (2, 30.0, 4.0))]
    attach(table, [*both, battery("retrain", 1, "bf16", 25.0, 3.0)])
    assert find(table["over_seeds"], model="target", precision="bf16")["battery"]["gen"] == {
        "score": 25.0,
        "stderr": 3.5,
        "n": 171,
    }
    assert find(table["over_seeds"], model="retrain", precision="bf16")["battery"]["gen"] is None
    with pytest.raises(PalimpsestError, match="'gone', 1, 'bf16'.* has a battery record but no scores"):
        attach(table, [battery("gone", 1, "bf16", 1.0, 1.0)])


def test_the_headline_leaves_out_what_has_no_retain_loss_more_precise_weights_or_a_cure() -> None:
    plain = {"forget_loss": "ga", "retain_loss": "gdr", "weights": "bfloat16"}
    methods = {
        "ga": plain | {"retain_loss": None},
        "ga_gdr": plain,
        "ga_gdr_float32": plain | {"weights": "float32"},
        "npo_klr": plain | {"forget_loss": "npo", "retain_loss": "klr"},
        "ga_gdr_lora": plain | {"adapter": {"rank": 8}},
        "ga_gdr_sure": plain | {"saliency": {"granularity": "module", "percentile": 90.0}},
        "ga_gdr_sam": plain | {"sharpness": 0.01},
    }
    assert headline_methods(methods) == ["ga_gdr", "npo_klr"]


def test_rank_correlation_is_scipys(audit: dict) -> None:
    record = audit["survival_against_recovery"]
    assert record["n"] == 7 * 4 and record["status"] == "ok"
    rho, recovery = ([point[key] for point in record["points"]] for key in ("rho", "recovery"))
    assert record["spearman"] == pytest.approx(scipy.stats.spearmanr(rho, recovery).statistic)
    assert record["spearman"] < -0.5


def test_broken_models_are_flagged(audit: dict) -> None:
    assert find(audit["rows"], model="ga", precision="bf16")["broken"]
    assert not find(audit["rows"], model="ga", precision="rtn-int4")["broken"], "rounding repaired it"
    assert not any(row["broken"] for row in audit["rows"] if row["model"] in ("target", "retrain", *CONSTRAINED))


def test_seeds_are_averaged_and_listed(tmp_path: Path) -> None:
    records = make_study(tmp_path, models=("target", "retrain", "ga_gdr"), seeds=(1, 2))["records"] | {
        "constrained": ["ga_gdr"]
    }
    audit = collect(**records)
    assert audit["seeds"] == [1, 2] and len(audit["rows"]) == 3 * 2 * 5
    both = [
        row["retained"]["same_precision"]["mean"]["value"]
        for row in audit["rows"]
        if row["model"] == "ga_gdr" and row["precision"] == "bnb-nf4"
    ]
    over = find(audit["over_seeds"], model="ga_gdr", precision="bnb-nf4")
    assert over["retained"]["same_precision"]["value"] == pytest.approx(np.mean(both))
    cell = find(audit["averages"]["utility_constrained"]["rows"], precision="bnb-nf4")["retained"]["same_precision"]
    assert cell["by_seed"] == {"1": pytest.approx(both[0]), "2": pytest.approx(both[1])}

    write_json(tmp_path / "audit.json", audit)
    for record in records["scores"]:
        folder = tmp_path / "scores/{model}/seed{seed}/{precision}".format(**record)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{record['metric']}.json", record)
    for record in records["weights"]:
        file = tmp_path / "weights/{model}/seed{seed}/{precision}.json".format(**record)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, record)
    found = differences(tmp_path, "rtn-int4")
    apart = find(found, models="ga_gdr", precision="bnb-nf4")
    gains = {
        (row["precision"], row["seed"]): row["recovery"]["value"]
        for row in audit["rows"]
        if row["model"] == "ga_gdr" and row["precision"] != "bf16"
    }
    expected = [gains["bnb-nf4", seed] - gains["rtn-int4", seed] for seed in (1, 2)]
    assert apart["by_seed"] == pytest.approx(expected) and max(expected) < -10
    assert apart["difference"]["value"] == pytest.approx(np.mean(expected))
    low, high = sorted(round(value) for value in expected)
    assert f"[{low} to {high}]" in difference_lines(found, "rtn-int4")


def test_incomplete_and_inconsistent_records_are_named(study: dict) -> None:
    def without(part: str, drop: Any) -> dict[str, Any]:
        return study["records"] | {part: [record for record in study["records"][part] if not drop(record)]}

    def altered(part: str, **fields: Any) -> dict[str, Any]:
        first, *rest = study["records"][part]
        return study["records"] | {part: [first | fields, *rest]}

    first = study["records"]["scores"][0]
    cases = [
        (
            without("scores", lambda r: r["model"] == "ga" and r["metric"] == "utility"),
            "score 'utility' of 'ga', seed 1, bf16",
        ),
        (without("weights", lambda r: r["model"] == "npo"), "update survival of 'npo'"),
        (without("manifests", lambda r: r["kind"] == "retrain"), "one model of kind 'retrain'"),
        (without("manifests", lambda r: r["model"] == "npo"), "no model manifest"),
        (without("scores", lambda r: r["precision"] == "bf16"), "no model was scored at bf16"),
        (study["records"] | {"scores": [*study["records"]["scores"], first]}, "recorded twice"),
        (study["records"] | {"scores": [{k: v for k, v in first.items() if k != "n"}]}, "lacks 'n'"),
        (study["records"] | {"constrained": ["ga_gd"]}, "Did you mean 'ga_gdr'"),
        (study["records"] | {"rules": RULES | {"negligable": 1}}, "Did you mean 'negligible'"),
        (study["records"] | {"rules": {k: v for k, v in RULES.items() if k != "seed"}}, "lacks the rule 'seed'"),
        (altered("scores", score=12.0), "not 100 times the mean"),
        (altered("scores", ids=list(range(1, 25))), "different examples"),
    ]
    for records, message in cases:
        with pytest.raises(PalimpsestError, match=re.escape(message)):
            collect(**records)


def test_csv_has_a_line_per_model_seed_and_precision(audit: dict, tmp_path: Path) -> None:
    write_csv(audit, tmp_path / "audit.csv")
    with open(tmp_path / "audit.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(WEIGHTS) * len(PRECISIONS)
    line = find(lines, model="ga_gdr", precision="bnb-fp4")
    row = find(audit["rows"], model="ga_gdr", precision="bnb-fp4")
    assert float(line["verbmem"]) == row["metrics"]["verbmem"]["score"]
    assert float(line["retained_same_precision_mean"]) == row["retained"]["same_precision"]["mean"]["value"]
    assert find(lines, model="target", precision="bf16")["recovery"] == ""


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


def test_page_is_self_contained_escaped_and_complete(study: dict, audit: dict, tmp_path: Path) -> None:
    page = pages(study, audit, tmp_path).read_text()
    assert "<script" not in page and "&lt;b&gt;" in page and "<b>" not in page
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page), "nothing may be fetched"
    assert not re.findall(r"url\((?!#)", page) and "@import" not in page
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers)) > 20
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(identifiers)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(identifiers)
    for text in (
        audit["answer"]["contrast"].replace(" %", "\u00a0%"),
        "ga_gdr_fp32",
        "8e-06",
        "ab" * 32,
        "Glossary",
        "torch 2.13.0",
    ):
        assert text in page
    assert page.count('class="sample"') == 2


def test_the_page_says_how_much_it_rests_on(study: dict, audit: dict, tmp_path: Path) -> None:
    page = pages(study, audit, tmp_path).read_text()
    assert "24 prompts, 40 questions on the forget set and 40 on the retain set, 1 seed, a model of 22,500,000" in page
    assert "a checkpoint that was not trained here." in page and "of one run (seed 1)" in page
    assert "until it no longer reproduced" not in page and "The mean hides something" not in page
    row = find(audit["rows"], model="npo_gdr", precision="rtn-int4")["retained"][HEADLINE]
    verbmem, knowmem = (f"{row[metric]['value']:.0f}" for metric in ("verbmem", "knowmem"))
    assert f"{row['mean']['value']:.0f}<small>V {verbmem} · K {knowmem}</small></td>" in page
    terms = "target|retrained model|GA|NPO|retain loss|GDR|KLR|perplexity|bootstrap interval|Spearman|RTN|GPTQ"
    for term in terms.split("|"):
        assert f"<dt>{term}" in page, term


def test_the_page_says_what_a_mean_hides_and_how_the_target_ended(study: dict, audit: dict, tmp_path: Path) -> None:
    changed = copy.deepcopy(audit)
    changed["settings"] |= {"models": {"target": "train", "base": "scratch"}, "training": {"stop_at_loss": 0.3}}
    ended = {"steps": 57, "final_loss": 0.2951, "reached_stop_loss": True}
    target = find(changed["models"], model="target")
    target["training"] = [ended]
    cells = find(changed["rows"], model="ga_gdr", precision="bf16")["retained"][HEADLINE]
    cells["verbmem"]["value"], cells["knowmem"]["value"] = 1.4, 99.8
    page = pages(study, changed, tmp_path).read_text()
    assert "ga_gdr keeps 1\u00a0% of VerMem and 100\u00a0% of KnowMem." in page and "a Llama of 22,500,000" in page
    assert "reached stop_at_loss, 0.3 nats per token (57 steps, loss of the last one 0.30 nats per token)." in page
    changed["seeds"], target["training"] = (
        [1, 2],
        [ended | {"reached_stop_loss": False}, ended | {"reached_stop_loss": None}],
    )
    page = pages(study, changed, tmp_path).read_text()
    assert "seed 1, did not reach stop_at_loss" in page and "seed 2, trained for 57 steps" in page
    assert "means over 2 seeds" in page


def test_two_renders_are_byte_identical(study: dict, audit: dict, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        pages(study, audit, folder)
    names = sorted(path.name for path in first.iterdir())
    assert names == ["report.html", "retained.svg", "survival.svg"]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_published_numbers_stand_on_the_page_where_they_are_asked_for(study: dict, audit: dict, tmp_path: Path) -> None:
    plain = pages(study, audit, tmp_path).read_text()
    assert "Beside the published numbers" not in plain
    figures = {name: tmp_path / f"{name}.svg" for name in ("retained", "survival")}
    render(audit, figures, [], tmp_path / "known.html", compare(audit, "muse-news"))
    page = (tmp_path / "known.html").read_text()
    ours = find(audit["over_seeds"], model="target", precision="bf16")["metrics"]["verbmem"]
    beside = f"<td>58.4 / {ours:.1f} / {ours - 58.4:+.1f}</td>".replace("-", "−")
    assert "table 1, NEWS" in page and beside in page
    assert '<td class="left">both</td>' in page and "v1, version 1 of the paper; v3, version 3" in page
    assert "corpus.settings.path: none (paper: muse-bench/MUSE-News)" in page


def test_samples_are_chosen_by_the_target_alone(study: dict) -> None:
    files = {label: study["files"][label, 1, "bf16"]["responses"] for label in ("target", "ga_gdr")}
    samples = select_samples(files, "target", "knowmem_forget", 3)
    perfect = scores_of(study, "target", "bf16", "knowmem")["per_example"]
    assert [sample["id"] for sample in samples] == sorted(range(40), key=lambda i: (-perfect[i], i))[:3]
    with pytest.raises(PalimpsestError, match="Did you mean 'target'"):
        select_samples(files, "targt", "knowmem_forget", 1)


def test_markdown_tables_show_the_numbers_of_the_audit(audit: dict) -> None:
    text = tables(audit)
    row = next(
        row for row in audit["rows"] if row["kind"] == "unlearned" and row["retained"][HEADLINE]["mean"]["value"]
    )
    assert f"{row['retained'][HEADLINE]['mean']['value']:.0f}" in next(
        line for line in text.splitlines() if line.startswith(f"| {row['model']} |")
    )
    for line in text.splitlines():
        assert not line.startswith("|") or line.count("|") in (
            len(audit["precisions"]) + 2,
            len(audit["precisions"]) + 1,
        )


def test_report_imports_no_heavy_library() -> None:
    modules = "palimpsest.report.audit, palimpsest.report.figures, palimpsest.report.html, palimpsest.report.samples"
    code = (
        f"import sys, {modules}; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'snakemake')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
