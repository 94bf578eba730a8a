"""Results that others published, and what the account of the dead zone says of their formats."""

from functools import cache

import pandas as pd

from evidence import places

FORETOLD = {
    "FP4": "restores",
    "RTN int4, groups of 128": "restores",
    "AWQ": "says nothing",
    "GPTQ": "says nothing",
    "Q4_0": "keeps",
    "Q4_K_M": "keeps",
    "NF4": "keeps",
    "LLM.int8": "keeps",
}
"""What the account of the dead zone says of a format at the usual learning rates."""
PAPER = "arXiv 2410.16454"


@cache
def public_results() -> pd.DataFrame:
    """docs/evidence/public-results.csv, with `recovered`: (quantized - unlearned) / (target - unlearned) in percent,
    the target being the equally quantized one where it was measured; nothing where no target is given. `foretold` is
    of FORETOLD; `paper`: whether the row is of the paper that this project repeats."""
    rows = pd.read_csv(places.FOLDER / "public-results.csv")
    target = rows.target_quantized.fillna(rows.target)
    rows["recovered"] = 100 * (rows.quantized - rows.unlearned) / (target - rows.unlearned)
    rows["foretold"] = rows.format.map(FORETOLD)
    rows["paper"] = rows.source.str.startswith(PAPER)
    return rows


def public(query: str = "index >= 0") -> int:
    """How many public rows with a recovery a pandas query leaves."""
    return len(public_results().dropna(subset="recovered").query(query))
