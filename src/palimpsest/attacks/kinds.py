"""The kinds of attack, and the settings of each. Nothing here imports torch: planning reads it."""

from collections.abc import Mapping
from typing import Any

from palimpsest.errors import PalimpsestError, choose

RELEARN, PRUNE, SAMPLE, PARAPHRASE, PREFIX = "relearn", "prune", "sample", "paraphrase", "prefix"
WEIGHTS, ASKED = (RELEARN, PRUNE), (SAMPLE, PARAPHRASE, PREFIX)
"""Those that change the weights, and those that ask otherwise."""
BEFORE, AFTER = "before", "after"
"""Where an attack on the weights stands: quantization."""
KINDS = {
    RELEARN: ("when", "text", "steps", "learning_rate", "batch_size", "storage"),
    PRUNE: ("when", "share"),
    SAMPLE: ("samples", "temperature", "leaks_at", "seed"),
    PARAPHRASE: ("templates", "file"),
    PREFIX: ("words",),
}
"""By kind, its settings; all must be there."""
STRENGTHS = {RELEARN: "steps", PRUNE: "share", PREFIX: "words"}
"""By kind, the setting that may be a list: an attack for each, NAME_1, NAME_10, ..."""
PLACE = "{question}"


def expanded_attacks(each: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The attacks by name, one for each strength of those that list several: `prune` with share [10.0, 30.0] is
    prune_10 and prune_30. `family` is the name before that. Raises PalimpsestError for two of one name."""
    found: dict[str, dict[str, Any]] = {}
    for name, attack in each.items():
        key = STRENGTHS.get(attack["kind"], "")
        values = attack.get(key)
        made = (
            {f"{name}_{value:g}": {**attack, key: value} for value in values}
            if isinstance(values, list)
            else {name: dict(attack)}
        )
        if clash := sorted(set(made) & set(found)):
            raise PalimpsestError(f"attacks.each.{name} makes an attack {clash[0]}, of which there is one: rename it.")
        found |= {new: {**one, "family": name} for new, one in made.items()}
    return found


def check_attack(name: str, attack: Mapping[str, Any]) -> None:
    """Raise PalimpsestError for an attack whose settings are not those of its kind."""
    kind = attack["kind"]
    wanted = {"kind", *choose(KINDS, kind, f"kind of attack (attacks.each.{name}.kind)")}
    given = set(attack) - {"family"}
    if missing := sorted(wanted - given):
        raise PalimpsestError(f"attacks.each.{name} lacks the key {missing[0]!r}: add it ({kind} has no default).")
    if unknown := sorted(given - wanted):
        raise PalimpsestError(
            f"attacks.each.{name} has the key {unknown[0]!r}, which {kind} does not take: remove it. "
            f"It takes {', '.join(KINDS[kind])}."
        )
    if kind == PARAPHRASE and (attack["templates"] is None) == (attack["file"] is None):
        raise PalimpsestError(
            f"attacks.each.{name}: give templates (texts with {PLACE}) or a file of paraphrased questions, and null "
            "for the other."
        )
    for template in (attack.get("templates") or []) if kind == PARAPHRASE else []:
        if PLACE not in template:
            raise PalimpsestError(f"attacks.each.{name}.templates: {template!r} has no {PLACE} in it: add it.")
