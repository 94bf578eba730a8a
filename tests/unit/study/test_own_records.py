"""What a study on records needs of them, said before anything runs."""

import copy
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from palimpsest.corpus.corpus import Question
from palimpsest.corpus.from_records import load_records
from palimpsest.errors import PalimpsestError
from palimpsest.study.own_records import announce, check_needs
from palimpsest.study.params import check_params, read_params

REPOSITORY = Path(__file__).parents[3]
SCHEMA = REPOSITORY / "workflow/schemas/params.schema.yaml"


@pytest.fixture
def params():
    found = read_params(REPOSITORY / "params.yaml")
    found["corpus"] |= {"source": "records", "settings": {"forget": "f.jsonl"}}
    return found


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "f.jsonl").write_text('{"question": "Who?", "answer": "She."}')
    return load_records(forget=str(tmp_path / "f.jsonl"))


def test_a_study_on_records_fits_the_schema(params):
    check_params(params, SCHEMA, "params.yaml")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: p["corpus"]["settings"].update(forgte="x"), "unknown key 'forgte' in corpus.settings. Did you mean"),
        (lambda p: p["corpus"]["settings"].update(retain_records=0), "corpus.settings.retain_records is 0"),
        (
            lambda p: p["inference"].update(in_context_examples=1),
            "inference.in_context_examples is 1, and records have",
        ),
        (lambda p: p["corpus"].update(subset={}), "records are used as they are: set subset to null"),
    ],
)
def test_settings_of_records_are_checked(params, edit, message):
    edit(params)
    with pytest.raises(PalimpsestError, match=message):
        check_params(params, SCHEMA, "params.yaml")


def test_files_that_are_gone_are_missed_only_before_a_corpus_was_made_of_them(params, tmp_path, caplog):
    params["corpus"]["settings"] = {"forget": str(tmp_path / "gone.jsonl")}
    log = logging.getLogger("plan")
    with pytest.raises(PalimpsestError, match=r"gone.jsonl does not exist"):
        announce(params, log, tmp_path / "manifest.json")
    (tmp_path / "manifest.json").write_text("{}")
    with caplog.at_level(logging.INFO, "plan"):
        announce(params, log, tmp_path / "manifest.json")
    assert "the files are gone" in caplog.text


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({}, "methods.ga_gdr.retain_loss is 'gdr', and corpus.settings has no retain records"),
        ({"methods": {}}, "quantizers.gptq.calibration is retain, and corpus.settings has no retain records"),
        (
            {"methods": {}, "quantizers": {}, "models": {"target": "train", "retrain": "x"}},
            "no forget record has a text",
        ),
    ],
)
def test_what_is_trained_or_calibrated_on_must_be_there(params, corpus, edit, message):
    params = copy.deepcopy(params) | {"models": {"target": "x", "retrain": "x"}} | edit
    params["training"]["questions"] = False
    with pytest.raises(PalimpsestError, match=message):
        check_needs(params, corpus)


@pytest.mark.parametrize(
    ("loss", "without", "missing"),
    [
        ("idk-dpo", "forget", "forget"),
        ("altpo", "forget", "forget"),
        ("altpo", "retain", "retain"),
        ("idk-dpo", "retain", ""),
    ],
)
def test_a_preference_needs_questions_and_not_texts_alone(params, corpus, loss, without, missing):
    params = copy.deepcopy(params) | {"methods": {"mine": {"forget_loss": loss}}, "quantizers": {}}
    asked = [Question("Who?", "Ada")]
    whole = replace(corpus, retain=["a text"], forget=["a text"], forget_qa=asked, retain_qa=asked)
    check_needs(params, whole)
    partly = replace(whole, **{f"{without}_qa": []})
    if missing:
        with pytest.raises(PalimpsestError, match=f"needs questions of the {missing} set .* texts alone"):
            check_needs(params, partly)
    else:
        check_needs(params, partly)
