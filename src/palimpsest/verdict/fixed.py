"""The policy of a study, fixed in its first step: later steps read the record of it, and the file may not change.

A policy that is chosen after the scores are known says nothing. The record notes whether there were any.
"""

from collections.abc import Container
from pathlib import Path
from typing import Any

from palimpsest.artefacts import read_record
from palimpsest.errors import PalimpsestError, choose
from palimpsest.verdict.policy import ALL, Policy, make_policy, read_policy
from palimpsest.vocabulary import ANSWER_METRICS, FORGET_METRICS, FULL
from palimpsest.yaml_files import read_yaml

RECORD = "policy/policy.json"
"""Below the results of a study."""
SOURCE = "study"
SINGLE_RECORDS = (*FORGET_METRICS, *ANSWER_METRICS)
"""Metrics of a study that give each record a number."""
LATE = "The policy was fixed when scores of this study were there already, so it may have been chosen by them."


def fix(policy: Path, record: Path) -> dict[str, Any]:
    """What the record of the first step holds: the policy, its hash, and whether scores were there when it was fixed.

    record: that of an earlier run, if there is one: what it says of the scores stays true.
    """
    found, scores = read_policy(policy), record.parents[1] / "scores"
    late = any(scores.rglob("*.json"))
    if record.is_file() and (before := read_record(record))["sha256"] == found.hash:
        late = before["scores_were_there"]
    return {"policy": read_yaml(policy), "sha256": found.hash, "scores_were_there": late}


def fixed_policy(record: Path) -> tuple[Policy, list[str]]:
    """The policy that a study began with, and what a reader must know of it."""
    held = read_record(record)
    return make_policy(held["policy"], str(record)), [LATE] if held["scores_were_there"] else []


def check_fixed(policy: Path, record: Path) -> Policy:
    """The policy in a file; raises PalimpsestError where the study began with another."""
    found = read_policy(policy)
    if record.is_file() and (held := read_record(record)["sha256"]) != found.hash:
        raise PalimpsestError(
            f"{policy} is not the policy that this run began with (sha256 {found.hash[:12]}, {record} has "
            f"{held[:12]}): take the old one back, or judge by the new one in a new folder of results."
        )
    return found


def check_policy(key: str, policy: Path, formats: list[str], metrics: Container[str], record: Path) -> None:
    """Raise PalimpsestError for a policy that cannot judge a study, before anything runs. key: of params.yaml, which
    names the file; formats, metrics: the study's; record: where the policy is fixed, if the run has begun."""
    if not policy.is_file():
        raise PalimpsestError(
            f"{key}: {policy} does not exist: `palimpsest policy > {policy}` writes one with its comments."
        )
    found = check_fixed(policy, record)
    for metric in found.wanted(SOURCE):
        choose(dict.fromkeys(SINGLE_RECORDS), metric, f"metric of a study in {policy} (metrics.{SOURCE})")
        if metric not in metrics:
            raise PalimpsestError(
                f"{key}: {policy} judges by {metric}, which params.yaml does not measure: add metrics.{metric} there, "
                f"or take it from the policy's metrics.{SOURCE}."
            )
    known = [name for name in formats if name != FULL]
    unknown = [] if found.formats == ALL else [name for name in found.formats if name not in known]
    if unknown or not known:
        listed = ", ".join(known) or "none"
        raise PalimpsestError(
            f"{key}: {policy} wants the format {unknown[0] if unknown else ALL}, and params.yaml has {listed}: add it "
            "to quantizers, or correct `formats`."
        )
