"""The records of update survival: of one quantized file, in results/survival, and of `palimpsest survive`."""

from typing import Any, NotRequired, TypedDict


class Survival(TypedDict):
    """What arrives of an update in a format, over some matrices; shares of 1.

    rho: 1 where the whole update arrives, 0 where it is rounded away; None where no weight changed, or the codes of a
    file from elsewhere have no reader, and rho_status says so (else "ok"). changed_share: of the weights that differ
    from the target's; same_code_share: of the codes that equal those of the quantized target; both None without a
    reader. relative_update_norm: |W - W0| / |W0|, None where W0 is zero. scale_drift: mean
    |s / s0 - 1|, None where no scale is above zero. weights, codes, scales: their numbers.
    """

    rho: float | None
    rho_status: str
    changed_share: float | None
    same_code_share: float | None
    relative_update_norm: float | None
    scale_drift: float | None
    weights: int
    codes: int
    scales: int


class MatrixSurvival(Survival):
    """Survival in one matrix. name: of its layer, without `.weight`."""

    name: str


class Outside(TypedDict):
    """The update of the tensors that stay unquantized.

    weights: their number. share_of_squared_update: of |W - W0|^2 over all tensors, None where nothing changed.
    """

    weights: int
    share_of_squared_update: float | None


class ModelSurvival(TypedDict):
    """Survival of one unlearned model under one quantizer. all: over every quantized matrix."""

    all: Survival
    matrices: list[MatrixSurvival]
    outside: Outside


class SurvivalRecord(ModelSurvival):
    """A file of results/survival: what was measured. file: its path, added where it is read."""

    model: str
    seed: int
    precision: str
    file: NotRequired[str]


class ErrorCounts(TypedDict):
    """Pairs of rho and recovery.

    pairs: how many; errors: those that were foretold wrongly; always_kept_errors: had "kept" been said of all.
    """

    pairs: int
    errors: int
    always_kept_errors: int


class Prediction(ErrorCounts):
    """What was measured where rho was alike.

    outcome: restored, partly or kept. of_models: parameters of the largest model of the size class that speaks, None
    where all do. alike, near: its pairs by outcome, those between the same thresholds and those with nearly the same
    rho.
    """

    outcome: str
    of_models: int | None
    alike: dict[str, int]
    near: dict[str, int]


class RoundedSurvival(Survival):
    """Survival in a format that `palimpsest survive` itself rounds to.

    dead_zone: [below, above] zero, what is rounded to zero, in units of the block's largest |w|. dead_zone_share: of
    the changed weights, those in the dead zone of their own block in the target; None where zero lies between levels,
    or nothing changed.
    """

    dead_zone: list[float]
    dead_zone_share: float | None


class FormatSurvival(RoundedSurvival):
    """The same over all matrices. prediction: None until `add_predictions`, and where nothing can be foretold."""

    prediction: Prediction | None


class Update(TypedDict):
    """The update of some matrices.

    weights: their number; changed_share: of 1; relative_update_norm: |W - W0| / |W0|, None where W0 is zero. matrices,
    changed_matrices: all, and those in which a weight changed.
    """

    weights: int
    changed_share: float
    relative_update_norm: float | None
    matrices: int
    changed_matrices: int


class KindSurvival(TypedDict):
    """The same of the matrices of one kind, such as q_proj; formats by name."""

    update: Update
    formats: dict[str, RoundedSurvival]


Octave = TypedDict(
    "Octave", {"from": float, "to": float, "weights": int, "changed": int, "rounded_to_zero": dict[str, int]}
)
"""The target's weights with from <= |w| < to: their number, how many changed, how many each format rounds to zero."""


class TrainingPrecision(TypedDict):
    """How the weights were stored while the update was trained, in palimpsest.survival.training_precision's words.

    moved_below: the |w| from which weights did not move, None but for bfloat16 in place; learning_rate: [low, high] of
    its largest steps.
    """

    verdict: str
    reason: str
    moved_below: float | None
    learning_rate: list[float] | None


class CheckpointRecord(TypedDict):
    """What `palimpsest survive` makes of two checkpoints, and writes with --json.

    target, unlearned: their folders, or what the command was given; folders: then theirs, which of a model of the hub
    is named after its revision. parameters: of the target. update: of the quantized matrices; outside: of the
    other tensors. formats: by name; kinds: by the last part of the layers' names. profile: by octave of |w|, the
    smallest first. skipped: by format, why it was not rounded to; prediction_basis: the table of
    palimpsest.survival.prediction without its pairs; both added by the command.
    """

    target: str
    unlearned: str
    parameters: int
    update: Update
    outside: Outside
    formats: dict[str, FormatSurvival]
    kinds: dict[str, KindSurvival]
    profile: list[Octave]
    training: TrainingPrecision
    folders: NotRequired[dict[str, str]]
    skipped: NotRequired[dict[str, str]]
    prediction_basis: NotRequired[dict[str, Any] | None]
