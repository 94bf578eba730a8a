"""Which weights a study's methods moved, and whether their storage while training shows in them:
`palimpsest tables moved-weights RESULTS`.

For each unlearned model of RESULTS (its checkpoints must still be there) a line: the |w| from which weights in bfloat16
cannot move at the method's learning rate, 2^ceil(log2(256 eta)) (docs/explanation/theory.md, statement 3), the same as
read off the checkpoints, the shares of the weights below and above the first that changed, and what
palimpsest.survival.training_precision infers, against what the params say. The shares, and the part of the changed
weights in each format's dead zone, need no knowledge of the method.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, log2
from pathlib import Path
from typing import Any

from palimpsest.audit.records import read_audit
from palimpsest.errors import PalimpsestError
from palimpsest.survival.checkpoints import formats_of, survive
from palimpsest.survival.training_precision import FINER, IN_PLACE
from palimpsest.tables.markdown import MISSING, number, table
from palimpsest.tables.phase import HALF_ULPS
from palimpsest.vocabulary import BFLOAT16, TARGET, UNLEARNED

TRUTH = {BFLOAT16: IN_PLACE}
"""What the inference should say of a storage; of all others that it is finer."""


@dataclass(frozen=True)
class Moved:
    """An unlearned model: shares of the weights below and above `movable_below` that changed;
    moved_below: as the checkpoints tell it, None where they do not."""

    model: str
    storage: str
    learning_rate: float
    adapter: bool
    movable_below: float
    moved_below: float | None
    below: float
    above: float
    dead: Mapping[str, float | None]
    verdict: str

    @property
    def truth(self) -> str:
        return FINER if self.adapter else TRUTH.get(self.storage, FINER)


def movable_below(learning_rate: float) -> float:
    """The lower edge of the first octave of |w| in which a step of `learning_rate` is under half an ulp of bfloat16."""
    return 2.0 ** ceil(log2(HALF_ULPS * learning_rate))


def moved(results: Path, seed: int) -> list[Moved]:
    """All models of a study's seed that were unlearned in it. Raises PalimpsestError where there is none, and where a
    checkpoint is missing."""
    audit = read_audit(results / "audit.json")
    formats, _ = formats_of(audit["settings"]["quantizers"])
    target = results / "models" / TARGET / f"seed{seed}"
    found = []
    for model in audit["models"]:
        if model["kind"] == UNLEARNED and "brought" not in model:
            record = survive(target, target.parents[1] / model["model"] / target.name, formats)
            found.append(_moved(model, record))
    if not found:
        raise PalimpsestError(
            f"{results} has no model that was unlearned in the study: `palimpsest survive` reads others."
        )
    return found


def _moved(model: Mapping[str, Any], record: Mapping[str, Any]) -> Moved:
    method = model["method"]
    border = movable_below(method["learning_rate"])
    parts = [[octave for octave in record["profile"] if (octave["to"] <= border) == below] for below in (True, False)]
    below, above = (_share(part) for part in parts)
    dead = {name: figures["dead_zone_share"] for name, figures in record["formats"].items()}
    training = record["training"]
    return Moved(
        model["model"],
        method["storage"],
        method["learning_rate"],
        bool(method.get("adapter")),
        border,
        training["moved_below"],
        below,
        above,
        dead,
        training["verdict"],
    )


def _share(octaves: Iterable[Mapping[str, Any]]) -> float:
    """Of the weights in some octaves those that changed."""
    octaves = list(octaves)
    weights = sum(octave["weights"] for octave in octaves)
    return sum(octave["changed"] for octave in octaves) / weights if weights else 0.0


def text(models: list[Moved]) -> str:
    """The table, and how often the inference was right."""
    formats = [name for name, share in models[0].dead.items() if share is not None]
    head = [
        "method",
        "weights",
        "learning rate",
        "moves below, predicted",
        "moves below, measured",
        "changed below (%)",
        "changed above (%)",
    ]
    head += [f"in the dead zone of {name} (%)" for name in formats] + ["inferred storage"]
    lines = [
        [
            each.model,
            each.storage + (", adapter" if each.adapter else ""),
            f"{each.learning_rate:.1e}",
            f"{each.movable_below:.4f}" if each.truth == IN_PLACE else MISSING,
            MISSING if each.moved_below is None else f"{each.moved_below:.4f}",
            number(100 * each.below, 1),
            number(100 * each.above, 2),
            *(number(None if (share := each.dead[name]) is None else 100 * share) for name in formats),
            each.verdict,
        ]
        for each in models
    ]
    right = sum(each.verdict == each.truth for each in models)
    wrong = sum(each.verdict in (IN_PLACE, FINER) and each.verdict != each.truth for each in models)
    stored = [each for each in models if each.truth == IN_PLACE and each.moved_below is not None]
    equal = sum(each.moved_below == each.movable_below for each in stored)
    return (
        f"{table(head, lines)}\n\nStorage inferred: right for {right} of {len(models)} models, wrong for {wrong}, "
        f"undecided for {len(models) - right - wrong}. As predicted for {equal} of the {len(stored)} "
        "bfloat16 models that show one."
    )
