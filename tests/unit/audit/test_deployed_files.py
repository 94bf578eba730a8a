"""Files that were quantized elsewhere, in the audit and on its page."""

from copy import deepcopy

import pytest
from made_study import make_study

from palimpsest.audit import deployed
from palimpsest.audit.deployed import about_files, attach_files
from palimpsest.audit.table import collect
from palimpsest.cli.audit import _remedy
from palimpsest.errors import PalimpsestError
from palimpsest.quantizers import origin
from palimpsest.vocabulary import FULL


def manifest(precision: str, verdict: str, reasons: list[str], erased: bool = False) -> dict:
    told = {"path": f"files/{precision}", "format": "rtn, bits 4", "verdict": verdict, "reasons": reasons}
    told["maybe_erased"] = erased
    proof = {"codes_sha256": "ab" * 32}
    return {"model": "ga", "seed": 0, "precision": precision, "deployed": told, "proof": proof, "file": "m.json"}


def test_the_word_for_the_target_is_that_of_who_finds_it():
    assert deployed.OF_TARGET == origin.OF_TARGET


def test_a_target_passed_off_stands_first_and_says_so():
    said = {"regime": "not-memorised", "text": "No answer.", "contrast": "", "caution": "And."}
    audit = {"answer": said, "averages": {}}
    attach_files(audit, [manifest("phone", "same", []), manifest("tablet", origin.OF_TARGET, ["all of it"])])
    assert audit["answer"]["text"] == "No answer." and audit["answer"]["caution"].endswith("from ga. And.")
    assert [file["precision"] for file in audit["deployed"]] == ["phone", "tablet"]
    first, second = about_files(audit)
    assert (
        first.startswith("tablet is files/tablet") and "no file of ga's: the target's" in first and "all of it" in first
    )
    assert second.endswith("held to what its format makes of ga: same.")


def test_a_study_without_files_has_no_word_of_them():
    audit = {}
    attach_files(audit, [])
    assert audit == {} and about_files(audit) == []
    with pytest.raises(PalimpsestError, match=r"manifest of a deployed file m\.json lacks 'deployed'"):
        attach_files(audit, [{"file": "m.json"}])


def test_what_a_passed_off_target_knows_is_not_said_to_have_come_back(tmp_path):
    """The sentence speaks of the other formats, as a study without that one does; the caution begins with the file."""
    records = make_study(tmp_path)["records"]
    before = collect(**records)
    worst = before["answer"]["worst"]
    quantized = [name for name in before["precisions"] if name != FULL]
    audit = deepcopy(before)
    attach_files(audit, [manifest(worst, "same", [])])
    assert audit["answer"] == before["answer"]
    attach_files(audit, [manifest(worst, origin.OF_TARGET, [])])
    said = audit["answer"]
    assert said["caution"].startswith(f"{worst} (files/{worst}) is no file of ga's but the target's. ")
    assert said["caution"].endswith(before["answer"]["caution"]) and said["worst"] in set(quantized) - {worst}
    assert f"as {worst}" in before["answer"]["text"] and worst not in said["text"] and said["worst"] in said["text"]
    assert said["recovery"] == before["answer"]["recovery"]
    attach_files(audit, [manifest(name, origin.OF_TARGET, []) for name in quantized])
    assert audit["answer"]["regime"] == "inconclusive" and audit["answer"]["text"].startswith("No answer: ")
    assert "no file of the unlearned model's" in audit["answer"]["text"]


def test_a_file_whose_update_rounding_took_away_is_what_the_answer_is_about(tmp_path):
    """That the unlearned model's own file is the target's is the failure that an audit looks for."""
    before = collect(**make_study(tmp_path)["records"])
    worst, audit = before["answer"]["worst"], deepcopy(before)
    attach_files(audit, [manifest(worst, origin.OF_TARGET, ["nothing of the update is in it"], erased=True)])
    assert audit["answer"]["text"] == before["answer"]["text"] and audit["answer"]["worst"] == worst
    assert "or rounding took the whole update of ga away" in audit["answer"]["caution"]
    assert "or nothing of the update is in it" in about_files(audit)[0]
    unsaid = manifest(worst, origin.OF_TARGET, [])
    unsaid["deployed"].pop("maybe_erased")  # of an older record
    attach_files(unread := deepcopy(before), [unsaid])
    assert unread["answer"]["text"] == before["answer"]["text"]


def test_the_remedy_for_a_file_that_is_the_targets_is_the_right_file():
    record = {"verdict": "RELAPSES", "worst": {"format": "phone"}}
    audit = {"answer": {"regime": "holds", "text": "", "contrast": "", "caution": ""}, "averages": {}}
    attach_files(audit, [manifest("phone", origin.OF_TARGET, [])])
    assert _remedy(audit, "ga", record) == "Do not ship this file: it is the target's, not ga's."
    assert "unlearn with float32" in _remedy(audit, "npo", record)
    attach_files(audit, [manifest("phone", origin.OF_TARGET, [], erased=True)])
    assert "unlearn with float32" in _remedy(audit, "ga", record) and "unlearn with float32" in _remedy(
        {}, "ga", record
    )
