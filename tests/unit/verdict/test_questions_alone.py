"""A study on records without texts: what is not asked has a status, the rest is audited, and ids reach the verdict."""

import json
from pathlib import Path

import pytest
from made_study import find, make_study, pages

from palimpsest.artefacts import Origin, write_json
from palimpsest.audit.table import collect
from palimpsest.cli import main
from palimpsest.corpus.from_records import load_records
from palimpsest.corpus.layout import write_corpus
from palimpsest.errors import PalimpsestError
from palimpsest.metrics import score
from palimpsest.verdict.study import read_study

MODELS = ("target", "retrain", "ga_gdr")
ABSENT = ["verbmem", "retain_qa", "privleak_forget", "privleak_retain", "privleak_holdout"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Nothing but questions on the forget set: no text, no retain set."""
    made = make_study(tmp_path_factory.mktemp("study"), models=MODELS)
    records = made["records"]
    records["constrained"] = ["ga_gdr"]
    records["scores"] = [
        {key: old[key] for key in ("model", "seed", "precision")}
        | score(
            old["metric"],
            old["settings"],
            **made["files"][old["model"], old["seed"], old["precision"]],
            retrain_logprobs=Path(),
            absent=ABSENT,
        )
        for old in records["scores"]
    ]
    return made


@pytest.fixture(scope="module")
def audit(study):
    return collect(**study["records"])


def test_what_is_not_asked_has_no_number_and_says_why(audit):
    for row in audit["rows"]:
        assert {name for name, cell in row["metrics"].items() if cell["score"] is None} == {
            "verbmem",
            "privleak",
            "utility",
            "perplexity",
        }
        assert row["metrics"]["verbmem"]["status"] == "undefined: no forget record has a text to be continued"
        assert row["broken"] is False


def test_what_is_retained_is_that_of_the_metric_that_was_asked(audit):
    row = find(audit["rows"], model="ga_gdr", precision="bnb-nf4")
    cells = row["retained"]["same_precision"]
    assert cells["mean"] == cells["knowmem"] and cells["knowmem"]["value"] is not None
    assert cells["verbmem"]["value"] is None
    assert cells["verbmem"]["status"] == "undefined: no forget record has a text to be continued"
    assert row["recovery"]["value"] > 10 and audit["answer"]["regime"] == "recovers"


def test_the_page_says_what_was_not_measured(study, audit, tmp_path):
    files = {key: {**paths} for key, paths in study["files"].items()}
    page = pages({"files": files}, audit, tmp_path).read_text()
    assert "<strong>Not measured.</strong> VerMem: no forget record has a text to be continued." in page
    assert "Utility: no retain record has a question." in page
    assert "A damaged model cannot be told from one that forgets: give a retain set." in page
    assert "PrivLeak has no number" not in page


def test_ids_and_subjects_of_the_records_reach_the_verdict(study, audit, tmp_path, capsys):
    results = tmp_path / "results"
    for record in study["records"]["scores"]:
        place = f"scores/{record['model']}/seed{record['seed']}/{record['precision']}/{record['metric']}.json"
        write_json(results / place, record)
    write_json(results / "audit.json", audit)
    rows = [
        {"question": f"Who is {i}?", "answer": f"It is {i}.", "id": f"r{i}", "subject": f"s{i // 2}"} for i in range(40)
    ]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_corpus(load_records(forget=str(tmp_path / "f.jsonl")), results / "corpus", Origin())
    measured = read_study(results, "ga_gdr", ["verbmem", "knowmem"])
    assert [each.metric for each in measured] == ["knowmem"]
    assert measured[0].ids[:3] == ["r0", "r1", "r2"] and measured[0].subjects[:3] == ["s0", "s0", "s1"]
    assert main(["verdict", str(results), "--model", "ga_gdr", "--subject", "s3"]) == 2
    said = capsys.readouterr().out
    assert "By subject: s" in said and "record r6:" in said and "record r7:" in said
    with pytest.raises(SystemExit):
        main(["verdict", str(results), "--model", "ga_gdr", "--subject", "s20", "--out", str(tmp_path / "out")])
    assert "no record and no subject is called s20" in capsys.readouterr().err
    assert (tmp_path / "out" / "ga_gdr" / "records.csv").exists(), "where the message points"
    with pytest.raises(PalimpsestError, match="the study asks nothing for verbmem"):
        read_study(results, "ga_gdr", ["verbmem"])
