"""The policy: what counts as forgotten, and when a file may ship. YAML, checked against a schema, known by hash."""

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from palimpsest.errors import PalimpsestError
from palimpsest.yaml_files import check_keys_and_numbers, read_yaml

ALL = "all"


@dataclass(frozen=True)
class Policy:
    """The settings of policy.yaml, which explains each.

    metrics: by source (study, openunlearning, lm-eval). forgotten_below: percent of what the target knows above the
    retrained model. margin: points of the same. utility_floor: percent. rise: of a record, 0 to 1. hash: SHA-256 of the
    settings, whatever their order and comments.
    """

    metrics: dict[str, list[str]]
    formats: list[str] | str
    forgotten_below: float
    margin: float
    utility_floor: float
    minimum_records: int
    rise: float
    false_discovery_rate: float
    allowed: int
    confidence: float
    resamples: int
    seed: int
    hash: str

    def wanted(self, source: str) -> list[str]:
        """The metrics that decide for results of a source."""
        if source not in self.metrics:
            raise PalimpsestError(
                f"metrics.{source} is missing in the policy: name the metrics that decide, such as [probability]."
            )
        return self.metrics[source]

    def deployed(self, formats: list[str]) -> list[str]:
        """Of the formats that were measured those that must pass. Raises PalimpsestError where one was not measured."""
        if self.formats == ALL:
            return formats
        for name in self.formats:
            if name not in formats:
                raise PalimpsestError(
                    f"formats in the policy names {name}, which was not measured (measured: {', '.join(formats)}): "
                    "measure it, or take it out of the policy before the run."
                )
        return list(self.formats)


def read_policy(path: Path | None = None) -> Policy:
    """The policy of a file; the one that palimpsest brings, with its comments, where none is given."""
    if path is not None and not path.is_file():
        raise PalimpsestError(f"{path} is no file: give a policy, such as the one that `palimpsest policy` prints.")
    return make_policy(read_yaml(path or default_policy()), str(path or "the policy"))


def default_policy() -> Path:
    """The file that palimpsest brings."""
    return Path(str(files("palimpsest.verdict") / "policy.yaml"))


def make_policy(settings: Any, name: str) -> Policy:
    """Check and take apart; raises PalimpsestError that names the key."""
    import jsonschema

    schema = json.loads((files("palimpsest.verdict") / "policy.schema.json").read_text(encoding="utf-8"))
    try:
        check_keys_and_numbers(settings)
    except PalimpsestError as wrong:
        raise PalimpsestError(f"{name}: {wrong}") from None
    found = sorted(jsonschema.Draft202012Validator(schema).iter_errors(settings), key=lambda error: list(error.path))
    if found:
        where = ".".join(str(part) for part in found[0].path) or "the file"
        raise PalimpsestError(f"{name}: {where}: {found[0].message}.")
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    records = settings["records"]
    return Policy(
        **{key: settings[key] for key in settings if key != "records"},
        minimum_records=records["minimum"],
        rise=records["rise"],
        false_discovery_rate=records["false_discovery_rate"],
        allowed=records["allowed"],
        hash=hashlib.sha256(canonical.encode()).hexdigest(),
    )
