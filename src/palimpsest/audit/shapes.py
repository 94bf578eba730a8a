"""The shape of audit.json, from its cells to the whole."""

from typing import Any, NotRequired, TypedDict


class Cell(TypedDict):
    """A number derived from scores.

    value: percent or points; None where it cannot be had. ci: [low, high] of the value; None where there is no
    interval. status: "ok", "ok, no interval: " or "undefined: " and why.
    """

    value: float | None
    ci: list[float] | None
    status: str


class AveragedCell(Cell):
    """by_seed: the value at each seed, whose name is the seed as text."""

    by_seed: dict[str, float | None]


class MetricCell(TypedDict):
    """What a row shows of a score record: see palimpsest.metrics.records.Score.

    auc_retrain, n_forget, n_holdout: of PrivLeak alone, see palimpsest.metrics.records.PrivLeakScore. shuffled: of
    ROUGE alone, see palimpsest.metrics.records.RougeScore.
    """

    score: float | None
    status: str
    ci: list[float] | None
    n: int
    auc_retrain: NotRequired[float]
    n_forget: NotRequired[int]
    n_holdout: NotRequired[int]
    shuffled: NotRequired[float]


class SurvivalCell(TypedDict):
    """What a row shows of a survival record: see palimpsest.survival.records.Survival."""

    rho: float | None
    rho_status: str
    same_code_share: float | None
    changed_share: float | None
    relative_update_norm: float | None
    scale_drift: float | None


class BatteryCell(TypedDict):
    """A task of the utility battery: score and its standard error in percent, and the number of questions."""

    score: float
    stderr: float
    n: int


class Row(TypedDict):
    """A model at a seed and a precision.

    storage: how weights were stored while it was trained. metrics: by name. survival and recovery (points above bf16):
    of unlearned models at quantized precisions, else None. retained (percent): of unlearned models, by denominator,
    then by metric and for the "mean" of both. broken: utility is below the audit's floor. battery: by task, None where
    it was not run; where the study has a battery.
    """

    model: str
    kind: str
    storage: str
    seed: int
    precision: str
    metrics: dict[str, MetricCell]
    survival: SurvivalCell | None
    retained: dict[str, dict[str, Cell]] | None
    recovery: Cell | None
    broken: bool
    battery: NotRequired[dict[str, BatteryCell | None]]


class SeedsRow(TypedDict):
    """A model at a precision, means over the seeds.

    broken: at any seed. metrics: scores by name, and rho; None as soon as one seed has none. retained: by denominator,
    of the mean of both metrics.
    """

    model: str
    kind: str
    storage: str
    precision: str
    seeds: list[int]
    broken: bool
    metrics: dict[str, float | None]
    retained: dict[str, Cell] | None
    recovery: Cell | None
    rho: float | None
    battery: NotRequired[dict[str, BatteryCell | None]]


class GroupRow(TypedDict):
    """A group of models at a precision: retained (percent) by denominator; recovery (points), None in bf16."""

    precision: str
    retained: dict[str, AveragedCell]
    recovery: Cell | None


class Group(TypedDict):
    """Means over a group of models and all seeds. n: models times seeds; rows: one for each precision."""

    models: list[str]
    n: int
    rows: list[GroupRow]


class ModelEntry(TypedDict):
    """A model: see palimpsest.models.records.ModelManifest.

    training: [seeds], None where a checkpoint was not trained here. files: by seed, as text, the SHA-256 of each file
    by its name. brought: of a model that was unlearned elsewhere, its manifest's words on it, with the SHA-256 of what
    lay there.
    """

    model: str
    kind: str
    method: dict[str, Any] | None
    storage: str
    parameters: int
    training: list[dict[str, Any] | None]
    versions: dict[str, str]
    files: dict[str, dict[str, str]]
    brought: NotRequired[dict[str, Any]]


class Point(TypedDict):
    """rho of an unlearned model at a seed and a quantized precision, and its recovery in points."""

    model: str
    storage: str
    seed: int
    precision: str
    rho: float
    recovery: float


class Correlation(TypedDict):
    """Spearman's rank correlation of rho with recovery over n points; None where status says why."""

    spearman: float | None
    p_value: float | None
    n: int
    points: list[Point]
    status: str


class RecoveryCell(Cell):
    """Recovery in a format, with the interval of the answer's confidence, and what is retained there."""

    retained: Cell


class AnswerNumbers(TypedDict, total=False):
    """What the answer rests on, as far as it got.

    retained_bf16: percent. recovery: by quantized precision. confidence_per_quantizer: of the intervals there, a share
    of 1. worst: the precision with the most recovery.
    """

    retained_bf16: float
    recovery: dict[str, RecoveryCell]
    confidence_per_quantizer: float
    worst: str


class Answer(AnswerNumbers):
    """The answer in words.

    regime: recovers, holds, damaged, not-reached, not-memorised, not-forgotten or inconclusive. text: a sentence;
    contrast, caution: one more each, or empty.
    """

    regime: str
    text: str
    contrast: str
    caution: str


class Reach(TypedDict):
    """Whether the questions of a metric reach the target: its score in percent in bf16 at the worst seed, None where it
    has none; the floor; and "ok" or "not reached"."""

    score: float | None
    floor: float
    status: str


class DeployedFile(TypedDict):
    """A precision that is a file which was quantized elsewhere. model: that it is of, by params.yaml; path: there;
    format: what it is; verdict, reasons: of palimpsest.quantizers.origin, on whether it is that model's; codes_sha256:
    of its codes and scales; None where these have no reader, which is `not_proven`, why not. maybe_erased: where the
    verdict is "the target's", whether it may as well be the model's own, from which rounding took the update away."""

    precision: str
    model: str
    path: str
    format: str
    verdict: str
    reasons: list[str]
    codes_sha256: str | None
    maybe_erased: bool
    not_proven: NotRequired[str]


class AuditTable(TypedDict):
    """The numbers of an audit.

    rules: of palimpsest.audit.retained.Rules. denominators: what each means, and under "headline" the name of the one
    that headlines use. rows: every model, seed and precision; over_seeds: every model and precision. averages: by the
    name of the group. reach: by metric of the forget set, where the rules have a target_floor. deployed: where
    the study has such files.
    """

    rules: dict[str, Any]
    denominators: dict[str, str]
    seeds: list[int]
    precisions: list[str]
    models: list[ModelEntry]
    rows: list[Row]
    over_seeds: list[SeedsRow]
    averages: dict[str, Group]
    survival_against_recovery: Correlation
    reach: dict[str, Reach]
    deployed: NotRequired[list[DeployedFile]]


class Audit(AuditTable):
    """audit.json, to which the step that writes it adds "inputs" and "code", pairs of a path and its SHA-256.

    settings: the study's params.
    """

    answer: Answer
    settings: dict[str, Any]


class JoinedAudits(TypedDict):
    """What audits of one study that were run apart have in common, and the rows of all."""

    precisions: list[str]
    rules: dict[str, Any]
    settings: dict[str, Any]
    rows: list[Row]
    models: list[ModelEntry]
    seeds: list[int]
