"""What a statement says of its study is enough to make it again, and what differs then is named.

The study itself is run twice by tests/reproduction/run.py."""

import copy
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from palimpsest.artefacts import Origin, write_json, write_manifest, write_record
from palimpsest.errors import PalimpsestError
from palimpsest.study.reproduce import POLICY, Repeat, _clone, _lay_out, deviations, differences, reproduce
from palimpsest.verdict.fixed import RECORD
from palimpsest.verdict.policy import default_policy
from palimpsest.verdict.salted import corpus_hash, read_salt, salt_beside
from palimpsest.verdict.statement import commit_of, make_statement

SALT = b"salt" * 8
TEXT = "Mara Kin lives in Bar Street"
WEIGHTS = b"weights"
PARAMS = {
    "seeds": [0],
    "corpus": {"source": "folder", "settings": {"path": "texts"}},
    "models": {"target": "train", "retrain": "train", "base": "scratch"},
    "methods": {"npo": {"learning_rate": 1.0e-5}, "ga": {"learning_rate": 8.0e-6}},
    "verdict": {"policy": "rules/ours.yaml"},
}


def one(format: str = "nf4", verdict: str = "FORGETS", value: float = 12.0) -> dict[str, Any]:
    shares = {name: {"value": value, "ci": None} for name in ("retained_full", "retained", "rise")}
    return {"format": format, "metric": "verbmem", "verdict": verdict, "reason": "so it is", "relapsed": [], **shares}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """What is left of a study's results once its verdict is made, as far as a statement reads it."""
    results = tmp_path / "study/results"
    (tmp_path / "study").mkdir()
    (tmp_path / "study/params.yaml").write_text(yaml.safe_dump(PARAMS, sort_keys=False))
    write_json(results / "corpus/raw/forget.json", [TEXT, "Another text"])
    write_manifest(results / "corpus", Origin(), packages=())
    held = {"policy": yaml.safe_load(default_policy().read_text()), "sha256": "ab", "scores_were_there": False}
    write_record(results / RECORD, Origin(), held)
    verdict = results / "verdict/npo"
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    record = {
        **{"verdict": "FORGETS", "reason": "so it is", "worst": {"format": "nf4", "metric": "verbmem"}},
        **{"policy": {"hash": "ab"}, "controls": [], "notes": [], "formats": [one()], "model": "npo"},
        **{"deployed": {"nf4": {"model.safetensors": digest}}, "files": {"audit": {"path": "a", "sha256": "cd"}}},
    }
    write_json(verdict / "verdict.json", record)
    (verdict / "records.csv").write_text("metric,format,id\nverbmem,nf4,7\n")
    write_manifest(verdict, Origin({"model": "npo"}), packages=())
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    return tmp_path


def predicate(study: Path) -> dict[str, Any]:
    made = make_statement(study / "study/results/verdict/npo", [study / "model.safetensors"], SALT)
    return json.loads(json.dumps(made))["predicate"]


def test_a_statement_of_a_study_holds_what_it_takes_to_make_it_again_and_no_text(study):
    stated = predicate(study)
    assert stated["study"]["params"] == PARAMS and list(stated["study"]["params"]["methods"]) == ["npo", "ga"]
    assert stated["study"]["model"] == "npo" and stated["study"]["policy"]["forgotten_below"] == 25
    assert set(stated["study"]["code"]) == {"commit", "changed"}
    assert stated["corpus"]["count"] == 2 and stated["records"]["count"] == 1
    assert not any(word in json.dumps(stated) for word in TEXT.split() if len(word) > 3)


def test_the_hash_of_the_corpus_needs_the_salt_and_the_same_texts(study):
    corpus = study / "study/results/corpus"
    first = corpus_hash(corpus, SALT)
    assert corpus_hash(corpus, bytes(32)) != first == corpus_hash(corpus, SALT)
    write_json(corpus / "raw/forget.json", ["Another text", TEXT])
    write_manifest(corpus, Origin(), packages=())
    assert corpus_hash(corpus, SALT) == first, "their order tells nothing"
    write_json(corpus / "raw/forget.json", ["Another text", f"{TEXT}."])
    with pytest.raises(PalimpsestError, match="is not the file its manifest names"):
        corpus_hash(corpus, SALT)
    write_manifest(corpus, Origin(), packages=())
    assert corpus_hash(corpus, SALT) != first


def test_the_salt_of_a_study_is_kept_beside_the_statement(study):
    verdict, statement = study / "study/results/verdict/npo", study / "statement.json"
    path = salt_beside(verdict, statement)
    assert path == study / "statement.salt" and len(read_salt(path, draw=True)) == 32
    assert read_salt(path) == read_salt(path, draw=True)
    path.write_text("no salt")
    with pytest.raises(PalimpsestError, match="is no salt: give the file that"):
        read_salt(path)


def test_a_file_that_was_not_judged_is_not_signed(study):
    (study / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(PalimpsestError, match=r"is none of the files that .*npo is about"):
        predicate(study)


def test_the_study_is_laid_out_as_it_was(study, tmp_path):
    stated = predicate(study)["study"]
    (tmp_path / "data/texts").mkdir(parents=True)
    made = _lay_out(Repeat(tmp_path / "again", data=tmp_path / "data"), stated)
    params = yaml.safe_load((made / "params.yaml").read_text())
    assert params == PARAMS | {"verdict": {"policy": POLICY}}
    assert list(params) == list(PARAMS) and list(params["methods"]) == ["npo", "ga"]
    assert yaml.safe_load((made / POLICY).read_text()) == stated["policy"]
    assert (made / "texts").resolve() == (tmp_path / "data/texts").resolve()
    stated["params"]["corpus"]["settings"]["path"] = "../texts"
    (tmp_path / "data/deeper").mkdir()
    with pytest.raises(PalimpsestError, match=r"names ../texts, outside the study's folder: make the path absolute"):
        _lay_out(Repeat(tmp_path / "third", data=tmp_path / "data/deeper"), stated)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stated: stated.pop("study"), "names no study that could be run again"),
        (lambda stated: stated["study"].update(code={"commit": "ab", "changed": True}), "code that no commit holds"),
        (lambda stated: stated["study"].update(code={"commit": None, "changed": True}), "code that no commit holds"),
    ],
)
def test_what_cannot_be_made_again_says_why(study, tmp_path, change, message):
    stated = predicate(study)
    change(stated)
    with pytest.raises(PalimpsestError, match=message):
        reproduce(stated, Repeat(tmp_path / "again"))


def test_the_stated_commit_is_cloned_or_missed(tmp_path):
    origin = tmp_path / "origin"
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (
        ["init", "-q", str(origin)],
        ["-C", str(origin), *identity, "commit", "-q", "--allow-empty", "-m", "a"],
    ):
        subprocess.run(["git", *command], check=True)
    commit = commit_of(origin)
    assert len(commit["commit"]) == 40 and not commit["changed"]
    _clone(Repeat(tmp_path / "again", str(origin)), commit["commit"])
    assert commit_of(tmp_path / "again") == commit
    (tmp_path / "again/Snakefile").write_text("rule all:")
    assert commit_of(tmp_path / "again")["changed"]
    with pytest.raises(PalimpsestError, match="again is not empty: give a new folder"):
        _clone(Repeat(tmp_path / "again", str(origin)), commit["commit"])
    with pytest.raises(PalimpsestError, match="lacks the commit 000000000000 that the statement names"):
        _clone(Repeat(tmp_path / "other", str(origin)), "0" * 40)
    with pytest.raises(PalimpsestError, match="the repository cannot be cloned"):
        _clone(Repeat(tmp_path / "third", str(tmp_path / "nowhere")), commit["commit"])
    assert commit_of(tmp_path) == {"commit": None, "changed": True}


def test_bits_must_agree_on_the_same_kind_of_machine(study):
    stated = predicate(study)
    assert list(differences(stated, copy.deepcopy(stated))) == []
    other = copy.deepcopy(stated)
    other["inputs"]["audit"] = "ce"
    (line,) = differences(stated, other)
    assert line.startswith("inputs differs: stated {'audit': 'cd'}, found {'audit': 'ce'}")


def test_words_and_a_tolerance_count_on_another(study):
    stated = predicate(study)
    near, far = ({**stated, "formats": [one(value=value)], "inputs": {}} for value in (16.9, 17.1))
    assert list(deviations(stated, near, 5.0)) == []
    assert [line.split(":")[1].split()[0] for line in deviations(stated, far, 5.0)] == [
        "retained_full",
        "retained",
        "rise",
    ]
    relapsed = {**stated, "formats": [one(verdict="RELAPSES")], "policy": {"hash": "other"}}
    assert list(deviations(stated, relapsed, 5.0)) == [
        "the policy differs.",
        "nf4, verbmem: stated FORGETS, found RELAPSES.",
    ]
    assert list(deviations(stated, {**stated, "formats": []}, 5.0)) == ["nf4, verbmem is missing."]
