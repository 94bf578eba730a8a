"""A study without a retrained model: what can be said is said, and what cannot has a status that says why."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from made_study import CONSTRAINED, METRICS, PRECISIONS, find, knowledge, make_study, pages, scores_of

from palimpsest.artefacts import write_json
from palimpsest.audit.table import collect, write_csv
from palimpsest.cli import main
from palimpsest.errors import PalimpsestError
from palimpsest.metrics import score
from palimpsest.tables.by_model import outcomes
from palimpsest.tables.markdown import tables

WHY = "undefined: the study has no retrained model (models.retrain is null)"
MODELS = ("target", "retrain", *CONSTRAINED)


def bare(study: dict[str, Any]) -> dict[str, Any]:
    """The study as it is without its retrained model."""
    records = deepcopy(study["records"])
    for part in ("scores", "survival", "manifests"):
        records[part] = [record for record in records[part] if record["model"] != "retrain"]
    for record in records["scores"]:
        if record["metric"] == "privleak":
            files = study["files"][record["model"], record["seed"], record["precision"]]
            record |= score("privleak", METRICS["privleak"], **files, retrain_logprobs=None)
    records["settings"] |= {"models": {"target": "a", "retrain": None}}
    return {"records": records, "files": study["files"]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_study(tmp_path_factory.mktemp("whole"), models=MODELS)


@pytest.fixture(scope="module")
def study(whole: dict[str, Any]) -> dict[str, Any]:
    return bare(whole)


@pytest.fixture(scope="module")
def audit(study: dict[str, Any]) -> dict[str, Any]:
    return collect(**study["records"])


def test_privleak_has_no_number_but_what_it_is_made_of(study: dict[str, Any], whole: dict[str, Any]) -> None:
    found, before = (scores_of(each, "ga_gdr", "rtn-int4", "privleak") for each in (study, whole))
    assert (found["score"], found["ci"], found["status"], found["auc_retrain"]) == (None, None, WHY, None)
    assert (found["auc"], found["per_example"], found["n"]) == (before["auc"], before["per_example"], before["n"])
    files = study["files"]["ga_gdr", 1, "bf16"]
    published = score("privleak", METRICS["privleak"] | {"reference": "news"}, **files, retrain_logprobs=None)
    assert published["status"] == "ok" and published["auc_retrain"] == 0.4772


def test_shares_of_the_target_stand_and_those_above_the_retrained_model_say_why_not(
    audit: dict[str, Any], whole: dict[str, Any]
) -> None:
    there = collect(**whole["records"])
    for row in audit["rows"]:
        if row["model"] == "target":
            continue
        key = {name: row[name] for name in ("model", "seed", "precision")}
        before = find(there["rows"], **key)
        for name in ("ratio_bf16", "ratio_same_precision"):
            assert row["retained"][name] == before["retained"][name]
        for name in ("same_precision", "bf16"):
            assert {cell["status"] for cell in row["retained"][name].values()} == {WHY}
            assert {cell["value"] for cell in row["retained"][name].values()} == {None}
        assert row["survival"] == before["survival"] and row["broken"] == before["broken"]
    assert audit["denominators"]["headline"] == "ratio_bf16"


def test_recovery_is_against_the_unquantized_file_in_shares_of_the_target(audit: dict[str, Any]) -> None:
    for precision in PRECISIONS[1:]:
        row, full = (find(audit["rows"], model="npo_klr", precision=each) for each in (precision, "bf16"))
        shares = [each["retained"]["ratio_bf16"]["mean"]["value"] for each in (row, full)]
        assert row["recovery"]["value"] == pytest.approx(shares[0] - shares[1])
    assert audit["survival_against_recovery"]["n"] == len(CONSTRAINED) * (len(PRECISIONS) - 1)


def test_the_answer_speaks_of_shares_and_says_what_is_not_known(audit: dict[str, Any]) -> None:
    answer = audit["answer"]
    assert answer["regime"] == "recovers" and answer["worst"] == "rtn-int4"
    assert answer["text"].startswith("Quantization brings back what was gone: unlearned models keep ")
    assert "% of the target's score on the forget set in bf16, but " in answer["text"]
    assert answer["caution"].startswith("There is no retrained model: shares count from a score of 0")


def regime(tmp_path: Path, know: Any) -> dict[str, Any]:
    return collect(**bare(make_study(tmp_path / "other", know, MODELS))["records"])["answer"]


def test_answers_of_the_other_regimes(tmp_path: Path) -> None:
    def holds(model: str, precision: str) -> dict[str, float]:
        return knowledge(model, "bf16")

    def much(model: str, precision: str) -> dict[str, float]:
        return knowledge("target" if model in CONSTRAINED else model, precision)

    def lost_in_formats(model: str, precision: str) -> dict[str, float]:
        return dict.fromkeys(knowledge(model, "bf16"), 0.0) if precision != "bf16" else knowledge(model, "bf16")

    answer = regime(tmp_path / "a", holds)
    assert answer["regime"] == "holds" and answer["text"].startswith("Nothing comes back: ")
    answer = regime(tmp_path / "b", much)
    assert answer["regime"] == "inconclusive" and "it is not known how much of that a model shows" in answer["text"]
    answer = regime(tmp_path / "c", lost_in_formats)
    assert answer["regime"] == "inconclusive" and "no quantized target still knows the forget set" in answer["text"]
    cells = answer["recovery"].values()
    assert all("the target itself shows" in cell["status"] and cell["value"] is None for cell in cells)


def test_a_retrained_model_that_is_to_be_there_is_missed(study: dict[str, Any]) -> None:
    for settings in ({}, {"models": {"retrain": "train"}}):
        with pytest.raises(PalimpsestError, match="the audit needs one model of kind 'retrain', found 0"):
            collect(**study["records"] | {"settings": settings})


def test_the_page_and_the_tables(audit: dict[str, Any], whole: dict[str, Any], tmp_path: Path) -> None:
    page = pages(whole, audit, tmp_path).read_text()
    assert "<strong>No retrained model.</strong>" in page and "set models.retrain to train or to a checkpoint" in page
    assert "0 is the retrained model" not in page and "share of the target&#x27;s score" in page.replace("'", "&#x27;")
    assert "headline of this page is score / target, target in bf16" in page
    assert "PrivLeak has no number in bf16, bnb-int8" in page and "exchangeable with the forget set;" not in page
    shown = find(audit["rows"], model="ga_gdr", precision="rtn-int4")["retained"]["ratio_bf16"]["mean"]["value"]
    assert f">{shown:.0f}<small>V " in page
    assert "percent of the target in bf16:" in tables(audit)
    assert "No retrained model" not in pages(whole, collect(**whole["records"]), tmp_path).read_text()
    for entry in audit["models"]:
        entry |= {"method": {"learning_rate": 1e-5}, "training": [{"steps": 1, "forget_nats": 1.0}]}
    assert {(each.recovered, *each.retained) for each in outcomes(audit)} == {(None, None)}
    write_csv(audit, tmp_path / "audit.csv")
    assert "retrain," not in (tmp_path / "audit.csv").read_text()


def test_the_verdict_says_what_it_can(study: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    audit = collect(**study["records"])
    for record in study["records"]["scores"]:
        place = f"scores/{record['model']}/seed1/{record['precision']}/{record['metric']}.json"
        write_json(tmp_path / place, record)
    for model in audit["models"]:
        model["method"] = {"storage": "bfloat16"} if model["kind"] == "unlearned" else None
    write_json(tmp_path / "audit.json", audit)
    code = main(["verdict", str(tmp_path), "--model", "ga_gdr"])
    said = capsys.readouterr().out
    assert code in (2, 3) and "came back" in said
    assert "There is no retrained model: knowledge is counted from a score of 0" in said
    assert "the retrained model in the unlearned model's place: not run: the retrained model was not asked" in said
