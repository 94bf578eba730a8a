"""The metrics against independent numbers: a published run's rows, pairwise counting and scipy."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.stats
import yaml

from palimpsest.errors import PalimpsestError
from palimpsest.metrics import METRICS, score
from palimpsest.metrics.membership import ATTACKS
from palimpsest.metrics.privleak import membership_auc, min_k, relative_leak
from palimpsest.metrics.rouge import VARIANTS, rouge_1, rouge_l
from palimpsest.metrics.statistics import mean_interval, percentile_interval, resample_counts
from palimpsest.study.params import check_params, read_params

REPOSITORY = Path(__file__).parents[3]
DATA = REPOSITORY / "tests/data"
BOOTSTRAP = {"resamples": 500, "confidence": 0.95, "seed": 3}
ROUGE = {"rouge": "rougeL_f1", **BOOTSTRAP}
LEAK = {"min_k_ratio": 0.4, "reference": "retrain", **BOOTSTRAP}
RUNS = ("books-ga_klr", "books-target", "news-target")


def write_responses(path: Path, pairs: list[tuple[str, str]], task: str = "verbmem") -> Path:
    rows = [
        {"task": task, "id": index, "prompt": "?", "answer": answer, "response": response}
        for index, (answer, response) in enumerate(pairs)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_logprobs(
    path: Path, forget: list[list[float]], holdout: list[list[float]], **more: list[list[float]]
) -> Path:
    splits = {"forget": forget, "holdout": holdout} | more
    table = {
        "split": [split for split, texts in splits.items() for _ in texts],
        "id": [i for texts in splits.values() for i in range(len(texts))],
        "log_probs": pyarrow.array([v for texts in splits.values() for v in texts], pyarrow.list_(pyarrow.float32())),
    }
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    draw = lambda mean: [(-rng.gamma(2, mean, size=rng.integers(5, 40))).tolist() for _ in range(12)]  # noqa: E731
    pairs = [("the cat sat", "the cat sat"), ("a dog", "no"), ("one two three four", "one three")]
    return {
        "responses": write_responses(tmp_path / "responses.jsonl", pairs),
        "logprobs": write_logprobs(tmp_path / "model.parquet", draw(0.7), draw(1.0)),
        "retrain_logprobs": write_logprobs(tmp_path / "retrain.parquet", draw(1.0), draw(1.0)),
    }


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return json.loads((DATA / "published_runs.json").read_text())


def check_rouge_rows(known: dict[str, Any], pairs: list[tuple[str, str]], metric: str, task: str, folder: Path) -> None:
    responses = write_responses(folder / f"{task}.jsonl", pairs, task)
    for variant, rows, mean in (
        ("rougeL_f1", "per_example_rougeL", "mean_rougeL"),
        ("rougeL_recall", "per_example_rougeL_recall", "mean_rougeL_recall"),
        ("rouge1_f1", None, "mean_rouge1"),
        ("rouge1_recall", None, "mean_rouge1_recall"),
    ):
        record = score(metric, ROUGE | {"rouge": variant}, responses, folder, folder)
        assert record["n"] == known["n"]
        assert record["score"] / 100 == pytest.approx(known["expected"][mean], abs=1e-12)
        if rows:
            assert np.round(record["per_example"], 12) == pytest.approx(known[rows], abs=1e-12)


TASKS = (("knowmem_f", "knowmem", "knowmem_forget"), ("knowmem_r", "utility", "knowmem_retain"))


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("part", "metric", "task"), TASKS)
def test_published_rouge_rows(
    published: dict[str, Any], tmp_path: Path, run: str, part: str, metric: str, task: str
) -> None:
    """On numbered words: of a pair, ROUGE sees no more than which words are the same."""
    known = published[run][part]
    pairs = [tuple(" ".join(f"w{word}" for word in text) for text in pair) for pair in known["pairs"]]
    check_rouge_rows(known, pairs, metric, task, tmp_path)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("part", "metric", "task"), TASKS)
def test_published_rouge_rows_of_the_texts(
    shared: Path, tmp_path: Path, run: str, part: str, metric: str, task: str
) -> None:
    """The same on the texts themselves, whose words are ours to find; they are not part of the project."""
    known = json.loads((shared / "oracle" / f"{run}.json").read_text())[part]
    pairs = [(pair["gt"], pair["response"]) for pair in known["pairs"]]
    check_rouge_rows(known, pairs, metric, task, tmp_path)


@pytest.mark.parametrize("run", RUNS)
def test_published_auc_and_privleak(published: dict[str, Any], run: str) -> None:
    known = published[run]["privleak"]
    checked = 0
    for name, expected in known["expected_auc"].items():
        first, second, statistic = name.split("_", 2)
        values = known["per_example"]
        auc = membership_auc(values[first][statistic], values[second][statistic])
        assert auc == pytest.approx(expected, abs=1e-12), name
        checked += 1
    assert checked == 30
    auc = known["expected_auc"]["forget_holdout_Min-40%"]
    for corpus, expected in known["expected_privleak"].items():
        assert relative_leak(auc, known["auc_retrain"][corpus]["Min-40%"]) == pytest.approx(expected, abs=1e-12)


def test_rouge_by_hand() -> None:
    assert rouge_l("one two three four", "Three, one") == (1 / 2, 1 / 4, pytest.approx(1 / 3))
    assert rouge_1("one two three four", "Three, one") == (1.0, 1 / 2, pytest.approx(2 / 3))
    assert rouge_1("run run run", "run running") == (1 / 2, 1 / 3, pytest.approx(2 / 5)), (
        "no stemmer; a word counts once"
    )
    assert rouge_l("...", "one") == rouge_l("one", "") == rouge_1("", "one") == (0.0, 0.0, 0.0)
    shares = {name: variant("one two three four", "three one") for name, variant in VARIANTS.items()}
    known = {"rougeL_f1": 1 / 3, "rougeL_recall": 1 / 4, "rouge1_f1": 2 / 3, "rouge1_recall": 1 / 2}
    assert shares == pytest.approx(known)


def counted_auc(forget: list[float], holdout: list[float]) -> float:
    """The share of pairs in which the holdout text is likelier, ties half."""
    likelier = sum((mine > other) + (mine == other) / 2 for mine in forget for other in holdout)
    return likelier / (len(forget) * len(holdout))


def test_auc_equals_counting_pairs_with_ties() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        forget, holdout = (rng.integers(0, 6, rng.integers(1, 20)).tolist() for _ in range(2))
        assert membership_auc(forget, holdout) == pytest.approx(counted_auc(forget, holdout), abs=1e-14)


def test_intervals_equal_scipy() -> None:
    values = np.random.default_rng(5).beta(0.5, 0.5, 37)
    ours = mean_interval(values, resamples=700, confidence=0.9, seed=11)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=700, confidence_level=0.9, method="percentile", rng=np.random.default_rng(11)
    )
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=1e-14)
    assert ours.note == ""
    counts = resample_counts(37, 700, 11)
    assert counts @ values / 37 == pytest.approx(theirs.bootstrap_distribution, abs=1e-14)


def test_equal_values_give_that_value_twice_and_say_so(tmp_path: Path) -> None:
    responses = write_responses(tmp_path / "r.jsonl", [("a b", "a b")] * 4)
    record = score("verbmem", ROUGE, responses, tmp_path, tmp_path)
    assert record["score"] == 100.0 and record["ci"] == [100.0, 100.0]
    assert "same value" in record["ci_note"]


def test_min_k_keeps_at_least_one_token() -> None:
    assert min_k([-1.0, -5.0], 0.4) == 5.0
    assert min_k([-1.0, -5.0, -3.0, -2.0, -4.0], 0.4) == 4.5
    assert min_k([-1.0, -3.0], 1.0) == 2.0
    with pytest.raises(PalimpsestError, match="NaN"):
        min_k([-1.0, float("nan")], 0.4)


def test_privleak_relative_to_the_retrained_model(files: dict[str, Path]) -> None:
    record = score("privleak", LEAK, **files)
    assert record["score"] == pytest.approx((record["auc"] - record["auc_retrain"]) / record["auc_retrain"] * 100)
    assert (record["n"], record["n_forget"], record["n_holdout"]) == (24, 12, 12)
    assert record["auc"] < record["auc_retrain"], "forget texts were drawn likelier than holdout texts"
    assert record["ci"][0] < record["score"] < record["ci"][1]
    itself = score("privleak", LEAK, files["responses"], files["retrain_logprobs"], files["retrain_logprobs"])
    assert itself["score"] == 0.0 and itself["ci"] == [0.0, 0.0]
    published = score("privleak", LEAK | {"reference": "books"}, **files)
    assert published["auc_retrain"] == 0.5393 and "published" in published["auc_retrain_source"]


def test_privleak_interval_resamples_the_same_texts_for_both_models(files: dict[str, Path]) -> None:
    record = score("privleak", LEAK, **files)
    retrained = score("privleak", LEAK, files["responses"], files["retrain_logprobs"], files["retrain_logprobs"])
    models = [each["per_example"] for each in (record, retrained)]
    rng = np.random.default_rng(9)
    leaks = []
    for _ in range(2000):
        rows, columns = rng.integers(0, 12, (2, 12))
        auc, reference = (
            counted_auc([model["forget"][i] for i in rows], [model["holdout"][i] for i in columns]) for model in models
        )
        leaks.append(relative_leak(auc, reference))
    width = record["ci"][1] - record["ci"][0]
    many = score("privleak", LEAK | {"resamples": 2000}, **files)
    assert many["ci"] == pytest.approx(percentile_interval(np.array(leaks), 0.95), abs=0.1 * width)
    assert many == score("privleak", LEAK | {"resamples": 2000}, **files), "the seed decides"
    assert many["ci"] != score("privleak", LEAK | {"resamples": 2000, "seed": 4}, **files)["ci"]


def test_privleak_without_an_interval_says_why(tmp_path: Path) -> None:
    single = write_logprobs(tmp_path / "single.parquet", [[-1.0]], [[-0.5], [-2.0]])
    record = score("privleak", LEAK, tmp_path, single, single)
    assert record["score"] == 0.0 and record["ci"] is None and "at least two" in record["ci_note"]
    close = write_logprobs(tmp_path / "close.parquet", [[-1.0], [-2.0]], [[-1.5], [-2.5]])
    record = score("privleak", LEAK, tmp_path, close, close)
    assert record["score"] == 0.0 and record["ci"] is None and "is 0 in" in record["ci_note"]


def test_privleak_of_a_zero_reference_is_a_status_not_a_number(tmp_path: Path) -> None:
    model = write_logprobs(tmp_path / "m.parquet", [[-1.0], [-3.0]], [[-2.0], [-2.5]])
    retrain = write_logprobs(tmp_path / "r.parquet", [[-1.0], [-1.0]], [[-2.0], [-2.5]])
    record = score("privleak", LEAK, tmp_path, model, retrain)
    assert record["score"] is None and record["ci"] is None
    assert "undefined" in record["status"] and record["auc_retrain"] == 0
    json.dumps(record, allow_nan=False)
    with pytest.raises(PalimpsestError, match="undefined"):
        relative_leak(0.5, 0.0)


def test_every_bad_input_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    broken = write_logprobs(tmp_path / "nan.parquet", [[-1.0, float("nan")]], [[-2.0]])
    other = write_logprobs(tmp_path / "other.parquet", [[-1.0]], [[-2.0]])
    empty = write_logprobs(tmp_path / "empty.parquet", [[]], [[-2.0]])
    (tmp_path / "half.jsonl").write_text('{"task": "verbmem", "id": 0, "prompt": "?", "answer": "a"}\n')
    (tmp_path / "cut.jsonl").write_text('{"task": "verb')
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    cases = [
        ("verbmen", ROUGE, {}, "Did you mean 'verbmem'"),
        ("verbmem", ROUGE | {"rogue": 1}, {}, "Did you mean 'rouge'"),
        ("verbmem", BOOTSTRAP, {}, "lacks the setting 'rouge'"),
        ("verbmem", ROUGE | {"rouge": "rougeL"}, {}, "Did you mean 'rougeL_"),
        ("verbmem", ROUGE | {"resamples": 0}, {}, "resamples is 0"),
        ("verbmem", ROUGE | {"confidence": 95}, {}, "confidence is 95"),
        ("knowmem", ROUGE, {}, "no responses for task 'knowmem_forget'"),
        ("verbmem", ROUGE, {"responses": tmp_path / "none.jsonl"}, "does not exist"),
        ("verbmem", ROUGE, {"responses": tmp_path / "half.jsonl"}, "lacks 'response'"),
        ("verbmem", ROUGE, {"responses": tmp_path / "cut.jsonl"}, "line 1 is not JSON"),
        ("privleak", LEAK, {"logprobs": broken}, "NaN or infinite"),
        ("privleak", LEAK, {"logprobs": empty}, "no log-probabilities"),
        ("privleak", LEAK, {"logprobs": tmp_path / "cut.parquet"}, "not a readable parquet"),
        ("privleak", LEAK, {"retrain_logprobs": other}, "different forget texts"),
        ("privleak", LEAK | {"min_k_ratio": 40}, {}, "min_k_ratio is 40"),
        ("privleak", LEAK | {"reference": "book"}, {}, "Did you mean 'books'"),
    ]
    for metric, settings, changed, message in cases:
        with pytest.raises(PalimpsestError, match=message):
            score(metric, settings, **(files | changed))


def test_records_do_not_depend_on_the_order_of_rows(files: dict[str, Path], tmp_path: Path) -> None:
    lines = files["responses"].read_text().splitlines(keepends=True)
    (tmp_path / "turned.jsonl").write_text("".join(reversed(lines)))
    turned = files | {"responses": tmp_path / "turned.jsonl"}
    assert score("verbmem", ROUGE, **turned) == score("verbmem", ROUGE, **files)


def test_perplexity_weighs_tokens_not_texts(tmp_path: Path) -> None:
    path = write_logprobs(tmp_path / "p.parquet", [[-1.0]], [[-2.0] * 4], retain=[[-0.5] * 3, [-2.5]])
    record = score("perplexity", {"split": "retain", **BOOTSTRAP}, tmp_path, path, tmp_path)
    assert record["score"] == pytest.approx(math.exp((3 * 0.5 + 2.5) / 4))
    assert record["per_example"] == [0.5, 2.5] and record["n"] == 2
    assert record["nats_per_token"] == {"forget": 1.0, "retain": 1.0, "holdout": 2.0}
    assert record["ci"] == pytest.approx([math.exp(0.5), math.exp(2.5)])


def test_perplexity_beyond_float_range_is_undefined(tmp_path: Path) -> None:
    path = write_logprobs(tmp_path / "p.parquet", [[-1.0]], [[-2.0]], retain=[[-800.0], [-900.0]])
    record = score("perplexity", {"split": "retain", **BOOTSTRAP}, tmp_path, path, tmp_path)
    assert record["score"] is None and "850 nats per token" in record["status"]


def test_scoring_imports_no_heavy_library() -> None:
    heavy = "{'torch', 'transformers', 'nltk', 'scipy', 'matplotlib', 'snakemake'}"
    code = (
        "import sys, palimpsest.metrics; "
        f"sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_metric_of_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (REPOSITORY / "docs/how-to/adding-a-metric.md").read_text()
    namespace: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], namespace)
    monkeypatch.setitem(METRICS, "exact_match", namespace["exact_match"])
    params = read_params(REPOSITORY / "params.yaml")
    params["metrics"] |= yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    check_params(params, REPOSITORY / "workflow/schemas/params.schema.yaml", "params.yaml")
    assert "make dvc-params" in page
    pairs = [("a cat", "a cat "), ("a dog", "no dog"), ("x", "y"), ("z", "z")]
    responses = write_responses(tmp_path / "r.jsonl", pairs, "knowmem_forget")
    assert score("exact_match", BOOTSTRAP, responses, tmp_path, tmp_path)["score"] == 50.0
    with pytest.raises(PalimpsestError, match="lacks the setting 'confidence'"):
        score("exact_match", {"resamples": 5}, responses, tmp_path, tmp_path)


def test_registry_names_the_metrics() -> None:
    answers = {"probability", "extraction_strength", "exact_memorization"}
    tofu = {"truth_ratio", "forget_quality", "model_utility"}
    attacks = {f"mia_{name}" for name in ATTACKS}
    assert set(METRICS) == {"verbmem", "knowmem", "utility", "privleak", "perplexity"} | answers | tofu | attacks
    assert all(variant("same words", "same words") == 1.0 for variant in VARIANTS.values())
