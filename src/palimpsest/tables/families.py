"""Which families of models which quantizer backend takes: what the library declares, as a table."""

from collections.abc import Collection, Mapping

from palimpsest.models.families import FAMILIES
from palimpsest.quantizers import QUANTIZERS, Quantizer
from palimpsest.vocabulary import UNQUANTIZED

TAKEN, REFUSED = "yes", "–"


def lines(quantizers: Mapping[str, type[Quantizer]] = QUANTIZERS, kinds: Collection[str] = tuple(FAMILIES)) -> str:
    """In Markdown: a row for the families of `kinds` that the same backends take, a column for each group of backends
    that take the same ones, and below it why a backend refuses what it refuses."""
    groups: dict[frozenset[str], list[str]] = {}
    for name, quantizer in quantizers.items():
        if name != UNQUANTIZED:
            groups.setdefault(frozenset(quantizer.refuses), []).append(name)
    ordered = sorted(groups, key=lambda refused: (len(refused), groups[refused]))
    rows = [
        f"| family | model type | {' | '.join(', '.join(groups[refused]) for refused in ordered)} |",
        f"| --- | --- |{' :---: |' * len(ordered)}",
    ]
    alike: dict[tuple[str, ...], list[str]] = {}
    for kind in kinds:
        alike.setdefault(tuple(REFUSED if kind in refused else TAKEN for refused in ordered), []).append(kind)
    for cells, same in alike.items():
        titles = ", ".join(FAMILIES[kind].title for kind in same)
        rows.append(f"| {titles} | {', '.join(same)} | {' | '.join(cells)} |")
    return "\n".join([*rows, "", *_reasons(quantizers, kinds)])


def _reasons(quantizers: Mapping[str, type[Quantizer]], kinds: Collection[str]) -> list[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, quantizer in quantizers.items():
        for kind in kinds:
            if kind in quantizer.refuses:
                reasons.setdefault((quantizer.refuses[kind], name), []).append(FAMILIES[kind].title)
    merged: dict[tuple[str, str], list[str]] = {}
    for (reason, name), titles in reasons.items():
        merged.setdefault((", ".join(titles), reason), []).append(name)
    return [f"- {titles} in {', '.join(names)}: {reason}." for (titles, reason), names in merged.items()]
