"""The utility battery: what a model can still do that has nothing to do with the forget set,
measured by lm-eval (docs/how-to/battery.md).

Gen, Tru, Fac and Flu are the columns of table 3 of arXiv 2410.16454,
which took tasks and sizes from RWKU (arXiv 2406.10890).
"""

import importlib.util

from palimpsest.errors import PalimpsestError

TITLES = {"gen": "Gen", "tru": "Tru", "fac": "Fac", "flu": "Flu"}
"""The tasks by their key in params.yaml, in the order of the paper's columns."""

MEASURES = {"gen": ("acc",), "tru": ("mc2", "mc1"), "fac": ("f1", "exact_match"), "flu": ("entropy",)}
"""What each task measures; the first is its score."""


def require_lm_eval() -> None:
    """Raise PalimpsestError where lm-eval, which only the battery needs, is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise PalimpsestError(
            "battery: it is measured by lm-eval, which is not installed: pip install 'palimpsest[battery]' "
            "(in a clone: pip install -c constraints.txt -e '.[battery]'), or delete the block battery."
        )
