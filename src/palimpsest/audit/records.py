"""The records that the audit is made of: read, checked and indexed by (model, seed, precision)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from palimpsest.artefacts import read_record
from palimpsest.audit.shapes import Audit, JoinedAudits, ModelEntry, Row
from palimpsest.errors import PalimpsestError
from palimpsest.metrics.records import ScoreRecord
from palimpsest.models.records import ModelManifest, refuse_other_versions
from palimpsest.survival.records import SurvivalRecord
from palimpsest.vocabulary import FULL, REQUIRED_METRICS, RETRAIN, TARGET, UNLEARNED

Record = Mapping[str, Any]
"""As it was read: `index_study` checks that it holds what its type promises."""
Key = tuple[str, int, str]
"""model, seed, precision"""
Name = TypeVar("Name")
Entry = TypeVar("Entry", bound=Mapping[str, object])


@dataclass(frozen=True)
class Study:
    """Every record of a study, complete: each model and seed has every required metric at every precision. Only
    survival may have gaps, where `index_study` was told so."""

    manifests: dict[tuple[str, int], ModelManifest]
    scores: dict[Key, dict[str, ScoreRecord]]
    survival: dict[Key, SurvivalRecord]
    models: list[str]
    seeds: list[int]
    precisions: list[str]

    def kind(self, model: str) -> str:
        return self.manifests[model, self.seeds[0]]["kind"]

    def one(self, kind: str) -> str:
        """The name of the only model of a kind."""
        return next(model for model in self.models if self.kind(model) == kind)

    @property
    def retrain(self) -> str | None:
        """The name of the retrained model; None where the study has none."""
        return next((model for model in self.models if self.kind(model) == RETRAIN), None)

    @property
    def unlearned(self) -> list[str]:
        return [model for model in self.models if self.kind(model) == UNLEARNED]

    @property
    def quantized(self) -> list[str]:
        return [precision for precision in self.precisions if precision != FULL]


def has_retrain(settings: Mapping[str, Any]) -> bool:
    """Whether a study of these params has a retrained model."""
    return settings.get("models", {}).get(RETRAIN, "") is not None


KINDS = ("scores", "survival", "models", "battery", "deployed")
"""Of the records that an audit is made of, as the inputs of its rule name them."""


def read_records(paths: Iterable[Path | str]) -> list[dict[str, Any]]:
    """Parsed JSON objects, each with its path under "file" for error messages; raises PalimpsestError for one that was
    edited after its step wrote it."""
    return [read_record(path) | {"file": str(path)} for path in paths]


def read_audit(path: Path | str) -> Audit:
    """An audit.json; raises PalimpsestError when it is missing or is something else."""
    audit = read_record(path)
    for key in ("models", "settings"):
        if key not in audit:
            raise PalimpsestError(f"{path} is no audit (it lacks {key!r}): give the audit.json of a study's results.")
    refuse_other_versions(audit["models"], path)
    return cast(Audit, audit)


def read_audits(folders: Sequence[Path | str]) -> JoinedAudits:
    """The audits of some results folders of one study, which were run apart for their seeds or methods, as one.

    A model's "training" is listed as its seeds come in "rows". A model that some folders lack has fewer seeds; one
    whose seed is the same in two, as their target may be, counts once. Raises PalimpsestError when that seed has other
    scores in one of them, or when folders differ in what must be equal for a mean over them: the formats, the audit's
    rules, a model's method.
    """
    audits = [read_audit(Path(folder) / "audit.json") for folder in folders]
    first = audits[0]
    models: dict[str, ModelEntry] = {}
    rows: dict[tuple[str, int], list[Row]] = {}
    for folder, audit in zip(folders, audits, strict=True):
        same: dict[str, tuple[object, object]] = {
            "precisions": (audit["precisions"], first["precisions"]),
            "rules": (audit["rules"], first["rules"]),
            "settings.quantizers": (audit["settings"]["quantizers"], first["settings"]["quantizers"]),
        }
        runs: dict[tuple[str, int], list[Row]] = {}
        for row in audit["rows"]:
            runs.setdefault((row["model"], row["seed"]), []).append(row)
        for model in audit["models"]:
            known = models.setdefault(model["model"], {**model, "training": []})
            same[f"the method of {model['model']}"] = model["method"], known["method"]
            for seed, training in zip(audit["seeds"], model["training"], strict=True):
                run = model["model"], seed
                if run not in rows:
                    rows[run] = runs[run]
                    known["training"].append(training)
                elif rows[run] != runs[run]:
                    raise PalimpsestError(
                        f"{folder} and a folder before it have other scores of {run[0]}, seed {seed}: give one."
                    )
        for key, (here, there) in same.items():
            if here != there:
                raise PalimpsestError(f"{folder} and {folders[0]} differ in {key}: give results of one study.")
    return {
        "precisions": first["precisions"],
        "rules": first["rules"],
        "settings": first["settings"],
        "rows": [row for run in rows.values() for row in run],
        "models": list(models.values()),
        "seeds": list(dict.fromkeys(seed for audit in audits for seed in audit["seeds"])),
    }


def index_study(
    scores: Iterable[Record],
    survival: Iterable[Record],
    manifests: Iterable[Record],
    retrained: bool = True,
    survival_gaps: bool = False,
) -> Study:
    """Check and index; the order of models and precisions is that of the manifests and the scores, bf16 first.

    retrained: whether there must be a retrained model; otherwise there may be none.
    survival_gaps: whether survival records may be missing, as of a run that was stopped; scores never may.

    Raises PalimpsestError for a record without a required key, one that occurs twice, and a gap in the study.
    """
    by_model: dict[tuple[str, int], ModelManifest] = {}
    for record in manifests:
        require(record, "model", "seed", "kind", "method", "storage", "parameters", what="model manifest")
        _add(by_model, (record["model"], record["seed"]), cast(ModelManifest, record))
    by_score: dict[Key, dict[str, ScoreRecord]] = {}
    for record in scores:
        require(
            record,
            "model",
            "seed",
            "precision",
            "metric",
            "n",
            "score",
            "status",
            "ci",
            "per_example",
            what="score record",
        )
        _add(by_score.setdefault(_key(record), {}), record["metric"], cast(ScoreRecord, record))
    by_survival: dict[Key, SurvivalRecord] = {}
    for record in survival:
        require(record, "model", "seed", "precision", "all", what="weights record")
        require(record["all"], "rho", "rho_status", "same_code_share", what=f"weights record {_key(record)}, 'all',")
        _add(by_survival, _key(record), cast(SurvivalRecord, record))
    precisions = list(dict.fromkeys(precision for _, _, precision in by_score))
    study = Study(
        by_model,
        by_score,
        by_survival,
        list(dict.fromkeys(model for model, _ in by_model)),
        sorted({seed for _, seed in by_model}),
        sorted(precisions, key=lambda precision: precision != FULL),
    )
    _check_complete(study, (TARGET, RETRAIN) if retrained else (TARGET,), survival_gaps)
    return study


def require(record: Record, *keys: str, what: str) -> None:
    """Raise PalimpsestError that names the first missing key and the file."""
    for key in keys:
        if key not in record:
            raise PalimpsestError(f"{what} {record.get('file', '')} lacks {key!r}: run the step that writes it again.")


def _key(record: Record) -> Key:
    return record["model"], record["seed"], record["precision"]


def _add(index: dict[Name, Entry], key: Name, record: Entry) -> None:
    if key in index:
        raise PalimpsestError(f"{key} is recorded twice ({index[key].get('file', '')}, {record.get('file', '')}).")
    index[key] = record


def _check_complete(study: Study, kinds: Sequence[str], survival_gaps: bool) -> None:
    for kind in kinds:
        found = [model for model in study.models if study.kind(model) == kind] if study.seeds else []
        if len(found) != 1:
            raise PalimpsestError(f"the audit needs one model of kind {kind!r}, found {len(found)}: pass its manifest.")
    if FULL not in study.precisions:
        raise PalimpsestError(f"no model was scored at {FULL}: recovery is measured against full precision.")
    for model in study.models:
        for seed in study.seeds:
            if (model, seed) not in study.manifests:
                raise PalimpsestError(
                    f"model {model!r} has no manifest for seed {seed}: run every model at every seed."
                )
            for precision in study.precisions:
                _check_scored(study, (model, seed, precision))
                if not survival_gaps:
                    _check_survival(study, (model, seed, precision))
    strangers = [key for key in (*study.scores, *study.survival) if key[:2] not in study.manifests]
    if strangers:
        raise PalimpsestError(f"{strangers[0]} has a record but no model manifest: pass the manifest of every model.")


def _check_scored(study: Study, key: Key) -> None:
    model, seed, precision = key
    present = study.scores.get(key, {})
    for metric in REQUIRED_METRICS:
        if metric not in present:
            raise PalimpsestError(
                f"score {metric!r} of {model!r}, seed {seed}, {precision} is missing: run its scoring step."
            )


def _check_survival(study: Study, key: Key) -> None:
    model, seed, precision = key
    if study.kind(model) == UNLEARNED and precision != FULL and key not in study.survival:
        raise PalimpsestError(f"update survival of {model!r}, seed {seed}, {precision} is missing.")
