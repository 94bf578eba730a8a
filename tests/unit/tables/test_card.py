"""A model card's fragment and lm-eval's files, read by huggingface_hub and lm-eval themselves."""

import hashlib
import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from made_study import METRICS, make_study

from palimpsest.artefacts import Origin, write_json, write_manifest
from palimpsest.audit.records import read_audit
from palimpsest.audit.table import collect
from palimpsest.cli import main
from palimpsest.tables.card import model_card

lm_eval_utils = pytest.importorskip(
    "lm_eval.utils", reason="lm-eval is not installed: pip install -c constraints.txt -e '.[battery]'"
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a made-up study, scored by the real metrics."""
    folder = tmp_path_factory.mktemp("results")
    study = make_study(tmp_path_factory.mktemp("study"), models=("target", "retrain", "ga_gdr"))
    for record in study["records"]["scores"]:
        place = f"scores/{record['model']}/seed{record['seed']}/{record['precision']}/{record['metric']}.json"
        write_json(folder / place, record)
    for (model, seed, precision), files in study["files"].items():
        place = folder / f"infer/{model}/seed{seed}/{precision}"
        place.mkdir(parents=True)
        for file in files.values():
            (place / file.name).write_bytes(file.read_bytes())
        write_manifest(place, Origin(), packages=())
    study["records"]["constrained"] = ["ga_gdr"]
    study["records"]["settings"]["metrics"] = METRICS
    audit = collect(**study["records"])
    write_json(folder / "audit.json", audit)
    return folder


def row_of(results: Path, model: str, precision: str) -> dict:
    rows = read_audit(results / "audit.json")["rows"]
    return next(row for row in rows if row["model"] == model and row["precision"] == precision)


def test_the_hub_reads_the_card(results, tmp_path):
    file = tmp_path / "README.md"
    words = ["card", str(results), "--model", "ga_gdr", "--precision", "rtn-int4", "--base-model", "me/unlearned"]
    assert main([*words, "--out", str(file)]) == 0
    card = ModelCard.load(file)
    assert card.data.base_model == "me/unlearned" and card.data.base_model_relation == "quantized"
    assert card.data.model_name == "ga_gdr, rtn-int4"
    row = row_of(results, "ga_gdr", "rtn-int4")
    read = {each.metric_name: each.metric_value for each in card.data.eval_results}
    assert read == {
        name: pytest.approx(row["metrics"][metric]["score"])
        for name, metric in {
            "VerMem": "verbmem",
            "KnowMem": "knowmem",
            "PrivLeak": "privleak",
            "Utility": "utility",
            "Perplexity": "perplexity",
        }.items()
    }
    assert {each.dataset_split for each in card.data.eval_results} == {"forget", "retain"}


def test_the_card_says_what_came_back(results):
    text = model_card(results, "ga_gdr", "rtn-int4", "me/unlearned")
    here, before = (
        row_of(results, "ga_gdr", at)["retained"]["same_precision"]["mean"]["value"] for at in ("rtn-int4", "bf16")
    )
    assert here - before > 30
    assert f"In rtn-int4 it retains {here:.0f} %" in text and f"and {before:.0f} % (" in text
    assert hashlib.sha256((results / "audit.json").read_bytes()).hexdigest() in text
    full = ModelCard(model_card(results, "ga_gdr", "bf16", "me/unlearned"))
    assert full.data.base_model_relation == "finetune"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "ga_gd", "--precision", "bf16"], "unknown unlearned model 'ga_gd'. Did you mean 'ga_gdr'?"),
        (["--model", "target", "--precision", "bf16"], "unknown unlearned model 'target'"),
        (["--model", "ga_gdr", "--precision", "int4"], "unknown precision 'int4'"),
        (["--model", "ga_gdr", "--precision", "bf16", "--seed", "7"], "unknown seed '7'"),
        (["--model", "ga_gdr", "--precision", "bf16"], "say with --base-model what the file was made of"),
    ],
)
def test_what_the_study_does_not_have_is_one_line(results, capsys, words, message):
    with pytest.raises(SystemExit):
        main(["card", str(results), *words])
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_lm_eval_reads_its_files(results, tmp_path):
    assert (
        main(["lm-eval-files", str(results), "--model", "ga_gdr", "--precision", "bnb-fp4", "--out", str(tmp_path)])
        == 0
    )
    names = [str(path) for path in tmp_path.rglob("*.json*")]
    (found,) = lm_eval_utils.get_results_filenames(names)
    samples = lm_eval_utils.get_sample_results_filenames(names)
    content = json.loads(Path(found).read_text(encoding="utf-8"))
    table = lm_eval_utils.make_table(content)
    row = row_of(results, "ga_gdr", "bnb-fp4")
    for metric in ("verbmem", "knowmem", "utility"):
        score = row["metrics"][metric]["score"] / 100
        assert content["results"][f"palimpsest_{metric}"]["rougeL_f1,none"] == pytest.approx(score)
        assert f"{score:.4f}" in table
    assert len(samples) == 3
    rows = [json.loads(line) for line in Path(samples[0]).read_text(encoding="utf-8").splitlines()]
    assert {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "doc_hash"} <= set(rows[0])


def test_a_verdict_reads_the_samples(results, tmp_path, capsys):
    """`palimpsest verdict --from lm-eval` takes them as lm-eval's own."""
    samples = {}
    for precision in ("bf16", "rtn-int4"):
        words = ["lm-eval-files", str(results), "--model", "ga_gdr", "--precision", precision, "--out"]
        assert main([*words, str(tmp_path / precision)]) == 0
        (samples[precision],) = (tmp_path / precision).rglob("samples_palimpsest_knowmem_*.jsonl")
    capsys.readouterr()
    main(["policy"])
    policy = tmp_path / "policy.yaml"
    text = capsys.readouterr().out.replace("minimum: 20", "minimum: 8").replace("[acc]", "[rougeL_f1]")
    policy.write_text(text, encoding="utf-8")
    assert "rougeL_f1" in text
    words = ["verdict", "--from", "lm-eval", str(samples["bf16"]), f"int4={samples['rtn-int4']}"]
    assert main([*words, "--policy", str(policy)]) in (0, 2, 3, 4)
    assert "int4" in capsys.readouterr().out


def test_an_edited_response_is_refused(results, tmp_path, capsys):
    file = results / "infer/ga_gdr/seed1/bnb-nf4/responses.jsonl"
    kept = file.read_bytes()
    file.write_bytes(kept.replace(b"verbmem", b"verbmen", 1))
    words = ["lm-eval-files", str(results), "--model", "ga_gdr", "--precision", "bnb-nf4", "--out", str(tmp_path)]
    try:
        with pytest.raises(SystemExit):
            main(words)
    finally:
        file.write_bytes(kept)
    assert "responses.jsonl" in capsys.readouterr().err and not list(tmp_path.iterdir())
