"""Groups of unlearned models that an audit averages, and the one that its answer speaks of."""

from collections.abc import Mapping, Sequence

from palimpsest.audit.records import Study
from palimpsest.audit.shapes import Group
from palimpsest.vocabulary import BFLOAT16, BROUGHT, CONSTRAINED, CONTRAST, NOT_STATED

TITLES = {
    CONSTRAINED: "With a retain loss, bfloat16 weights",
    BROUGHT: "Brought as they are",
    CONTRAST: "More precise weights while unlearning",
}
"""Of the groups, in the order of tables."""


def groups_of(study: Study, constrained: Sequence[str]) -> dict[str, list[str]]:
    """The models of each group.

    constrained: see palimpsest.audit.table.headline_methods. What was unlearned elsewhere is a group of its own; where
    it is said that its weights were more precise, it is in the contrast, if there is anything to be contrasted with.
    """
    storage = {model: study.manifests[model, study.seeds[0]]["storage"] for model in study.unlearned}
    brought = [model for model in study.unlearned if "brought" in study.manifests[model, study.seeds[0]]]
    plain = [model for model in brought if storage[model] in (BFLOAT16, NOT_STATED)]
    if not plain and not constrained:
        plain = brought
    contrast = [model for model in study.unlearned if storage[model] != BFLOAT16 and model not in plain]
    return {CONSTRAINED: list(constrained), BROUGHT: plain, CONTRAST: contrast}


def headline_group(averages: Mapping[str, Group]) -> Group | None:
    """The group whose mean is the headline; None where the study has nothing to average."""
    return averages.get(CONSTRAINED) or averages.get(BROUGHT)
