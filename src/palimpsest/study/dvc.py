"""The lists of params in dvc.yaml, leaf by leaf, from params.yaml. `palimpsest dvc-params`.

DVC reruns a stage when one of the keys in its list changes. A block is listed whole, so that a key which was added to
it, mistyped perhaps, is seen though no list has it; and leaf by leaf, so that DVC names the key which changed. Each
leaf belongs to one stage, but those of the verdict to two; later stages see its effect through the files that they
depend on. A new key beside the blocks is for the stage `check`, which runs after every edit of params.yaml and reads
the whole file: `palimpsest dvc-params --check`. Files and folders of the user's own that params.yaml names (a corpus, a
checkpoint) are written among the dependencies of their stage: DVC sees an edit of them there.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from palimpsest.artefacts import REPOSITORY
from palimpsest.errors import PalimpsestError
from palimpsest.study.params import check_params, leaves, read_params, with_current_names
from palimpsest.study.sources import sources_of
from palimpsest.study.stages import read_stages

SCHEMA = REPOSITORY / "workflow/schemas/params.schema.yaml"

OPTIONAL = {"deployed": "deploy"}
"""Blocks of params.yaml that most studies do without, and the stage that uses each: where a file lacks the block, no
stage lists it."""

ALSO = {"verdict": "page"}
"""A block's second stage, which reads what no file of the first one shows: which models are judged."""

Stages = Mapping[str, Mapping[str, Any]]
"""The stages of a dvc.yaml by name."""


def stage_params(params: Mapping[str, Any], stages: Stages) -> dict[str, list[str]]:
    """The blocks that each stage lists, and their dotted leaf keys.

    Raises PalimpsestError for a block that no stage lists, or several, and for a key that DVC cannot address.
    """
    _reject_dots(params)
    owners = _owners(stages)
    unread = [key for key in params if key not in owners]
    if unread:
        raise PalimpsestError(
            f"no stage of dvc.yaml reads the block {unread[0]!r} of params.yaml: correct its name, or add "
            f"`- {unread[0]}` to the `params:` of the stage that uses it. Known: {', '.join(owners)}."
        )
    lists: dict[str, list[str]] = {stage: [] for stage in dict.fromkeys(owners.values())}
    for key, stage in owners.items():
        if key in params:
            whole = [key] if isinstance(params[key], Mapping) else []
            for each in dict.fromkeys((stage, ALSO.get(key, stage))):
                if each in lists:
                    lists[each] += whole + leaves({key: params[key]})
    return lists


def _owners(stages: Stages) -> dict[str, str]:
    """The stage that lists each block of params.yaml: of a stage's keys those without a dot."""
    owners: dict[str, str] = {}
    for name, stage in stages.items():
        for key in stage.get("params") or []:
            if not isinstance(key, str) or "." in key:
                continue
            if owners.setdefault(key, name) != name and ALSO.get(key) != name:
                raise PalimpsestError(f"dvc.yaml: the stages {owners[key]} and {name} both list {key}: one is enough.")
    for key, name in OPTIONAL.items():
        if name in stages:
            owners.setdefault(key, name)
    return owners


def rewrite(text: str, lists: Mapping[str, Sequence[str]], name: str = "dvc.yaml") -> str:
    """`text` of a dvc.yaml with the `params:` lists replaced and every other line, comments included, as it was."""
    lines: list[str] = []
    stage, listing, written = "", False, []
    for line in text.splitlines():
        if listing and line.startswith("      - "):
            continue
        listing = False
        lines.append(line)
        opening = re.fullmatch(r"(?:  )?(\w[\w-]*):.*", line)
        stage = opening[1] if opening else stage
        if line == "    params:" and stage in lists:
            lines += [f"      - {key}" for key in lists[stage]]
            listing = True
            written.append(stage)
    if sorted(written) != sorted(lists):
        raise PalimpsestError(
            f"{name} must have the stages {', '.join(lists)}, indented by two blanks, each with one line "
            f"`    params:`; found in {', '.join(written) or 'none'}."
        )
    return "\n".join(lines) + "\n"


def differences(text: str, lists: Mapping[str, Sequence[str]], name: str = "dvc.yaml") -> list[str]:
    """One line for each key that a stage of dvc.yaml lacks or lists too much."""
    stages = yaml.safe_load(text)["stages"]
    found = []
    for stage, wanted in lists.items():
        listed = stages.get(stage, {}).get("params") or []
        found += [f"{name}: stage {stage} lacks {key}." for key in wanted if key not in listed]
        found += [f"{name}: stage {stage} lists {key}, which params.yaml lacks." for key in listed if key not in wanted]
    return found


def stage_sources(params: Mapping[str, Any], stages: Stages, folder: Path) -> dict[str, list[str]]:
    """The user's own files and folders that each stage is made from, where they lie here. folder: of the study."""
    owners = _owners(stages)
    found: dict[str, list[str]] = {}
    for block, names in sources_of(params).items():
        here = [name for name in names if block in owners and (folder / name).exists()]
        if here:
            listed = found.setdefault(owners[block], [])
            listed += [name for name in dict.fromkeys(here) if name not in listed]
    return found


def rewrite_sources(text: str, sources: Mapping[str, Sequence[str]]) -> str:
    """`text` of a dvc.yaml in which the `deps:` of each stage end in its sources, and no other stands."""
    lines: list[str] = []
    stage, listing = "", False
    for line in [*text.splitlines(), ""]:
        inside = listing and line.startswith("      - ")
        if inside and not _is_source(yaml.safe_load(line)[0]):
            lines.append(line)
        if inside:
            continue
        if listing:
            lines += [f"      - {yaml.safe_dump(name).splitlines()[0]}" for name in sources.get(stage, [])]
        lines.append(line)
        opening = re.fullmatch(r"(?:  )?(\w[\w-]*):.*", line)
        stage = opening[1] if opening else stage
        listing = line == "    deps:"
    return "\n".join(lines[:-1]) + "\n"


def source_differences(stages: Stages, sources: Mapping[str, Sequence[str]], name: str) -> list[str]:
    """One line for each source of a stage that its `deps` lack, or have and should not."""
    found = []
    for stage, settings in stages.items():
        listed, wanted = [dep for dep in settings.get("deps") or [] if _is_source(dep)], sources.get(stage, [])
        found += [
            f"{name}: stage {stage} does not depend on {each}, which it reads." for each in wanted if each not in listed
        ]
        found += [
            f"{name}: stage {stage} depends on {each}, which it does not read." for each in listed if each not in wanted
        ]
    return found


def _is_source(dependency: Any) -> bool:
    """Whether a dependency is neither the project's nor a result."""
    return Path(str(dependency)).parts[0] not in ("src", "workflow", "results")


def _reject_dots(params: Any, where: str = "") -> None:
    if not isinstance(params, Mapping):
        return
    for key, value in params.items():
        if "." in str(key):
            raise PalimpsestError(
                f"the key {key!r} in {where or 'params.yaml'} has a dot, which DVC reads as a level: rename it."
            )
        _reject_dots(value, f"{where}.{key}" if where else str(key))


def check_lists(params: Path, dvc: Path) -> list[str]:
    """What is wrong with the lists of params in `dvc`, and with the sources among its dependencies, a line each;
    raises PalimpsestError for params that do not fit the schema."""
    check_params(with_current_names(read_params(params))[0], SCHEMA, str(params))
    lists, sources = _lists(params, dvc)
    return [
        *differences(dvc.read_text(encoding="utf-8"), lists, str(dvc)),
        *source_differences(read_stages(dvc), sources, str(dvc)),
    ]


def write_lists(params: Path, dvc: Path) -> None:
    """Write the lists of params in `dvc` anew, and the user's own files among the dependencies."""
    lists, sources = _lists(params, dvc)
    text = rewrite(dvc.read_text(encoding="utf-8"), lists, str(dvc))
    dvc.write_text(rewrite_sources(text, sources), encoding="utf-8")


def _lists(params: Path, dvc: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    if not dvc.exists():
        raise PalimpsestError(f"{dvc} does not exist: run this where it is, or name it (PARAMS DVC).")
    read, stages = read_params(params), read_stages(dvc)
    return stage_params(read, stages), stage_sources(read, stages, params.parent)
