"""What the documents say in numbers, read from docs/evidence and from the packaged table of measured pairs.

A module for each kind of evidence; `evidence.NAME` is whatever pages, figures and tests ask of them.
"""

from evidence.attack_rows import attack, attack_table, attacks, most_of_attacks
from evidence.default_study import default_seeds, default_seeds_table, moved
from evidence.literature import FORETOLD, public, public_results
from evidence.measured_pairs import (
    EIGHT_BITS,
    PRETRAINED,
    SCRATCH,
    SIZES,
    SMOLLM2,
    count,
    pairs,
    pairs_of,
    pairs_wrong,
    prediction,
    share,
)
from evidence.method_twins import twins, twins_count, twins_table, twins_value
from evidence.places import FOLDER, REPOSITORY
from evidence.pretrained import (
    kept_share,
    pretrained_base,
    scores_by_format,
    shares_by_denominator,
    shares_by_format,
)
from evidence.printouts import (
    between_seeds_table,
    format_costs,
    fuzzed,
    kernels_table,
    printed,
    survive_costs_table,
)
from evidence.studies import (
    RULES,
    mean_retained,
    metric_table,
    retained,
    retained_table,
    score,
    scores,
    spread,
    target_keeps,
)
from evidence.words import whole

__all__ = [
    "EIGHT_BITS",
    "FOLDER",
    "FORETOLD",
    "PRETRAINED",
    "REPOSITORY",
    "RULES",
    "SCRATCH",
    "SIZES",
    "SMOLLM2",
    "attack",
    "attack_table",
    "attacks",
    "between_seeds_table",
    "count",
    "default_seeds",
    "default_seeds_table",
    "format_costs",
    "fuzzed",
    "kept_share",
    "kernels_table",
    "mean_retained",
    "metric_table",
    "most_of_attacks",
    "moved",
    "pairs",
    "pairs_of",
    "pairs_wrong",
    "prediction",
    "pretrained_base",
    "printed",
    "public",
    "public_results",
    "retained",
    "retained_table",
    "score",
    "scores",
    "scores_by_format",
    "share",
    "shares_by_denominator",
    "shares_by_format",
    "spread",
    "survive_costs_table",
    "target_keeps",
    "twins",
    "twins_count",
    "twins_table",
    "twins_value",
    "whole",
]
