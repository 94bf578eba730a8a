"""Files that were quantized elsewhere, in the audit and on its page."""

import pytest

from palimpsest.audit import deployed
from palimpsest.audit.deployed import about_files, attach_files
from palimpsest.errors import PalimpsestError
from palimpsest.quantizers import origin


def manifest(precision: str, verdict: str, reasons: list[str]) -> dict:
    told = {"path": f"files/{precision}", "format": "rtn, bits 4", "verdict": verdict, "reasons": reasons}
    proof = {"codes_sha256": "ab" * 32}
    return {"model": "ga", "seed": 0, "precision": precision, "deployed": told, "proof": proof, "file": "m.json"}


def test_the_word_for_the_target_is_that_of_who_finds_it():
    assert deployed.OF_TARGET == origin.OF_TARGET


def test_a_target_passed_off_stands_first_and_says_so():
    audit = {}
    attach_files(audit, [manifest("phone", "same", []), manifest("tablet", origin.OF_TARGET, ["all of it"])])
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
