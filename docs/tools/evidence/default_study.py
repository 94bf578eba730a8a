"""The default study: its further seeds, and where the weights lie that its unlearning moved."""

import pandas as pd

from evidence import places
from evidence.studies import scores
from evidence.words import mean_and_range
from palimpsest.vocabulary import BFLOAT16, FULL, HEADLINE


def default_seeds() -> pd.DataFrame:
    """The rows of the default study and of its further seeds, a model, seed and precision each."""
    return pd.concat([scores("default"), scores("default-seeds")])


def default_seeds_table() -> str:
    """What models of the default study retain of text and of answers, bf16 and int4, percent, as Markdown: the mean
    over seeds with the least and the greatest of them."""
    rows, heads = default_seeds(), {"verbmem": "text", "knowmem": "answers"}
    columns = [(metric, at) for metric in heads for at in (FULL, "rtn-int4")]
    lines = [f"| | {' | '.join(f'{heads[metric]}, {at}' for metric, at in columns)} |"]
    lines.append("|---|" + "---:|" * len(columns))
    for model in ("ga_gdr", "ga_klr", "npo_gdr", "npo_klr", "npo_gdr_float32"):
        cells = []
        for metric, at in columns:
            of = rows[(rows.model == model) & (rows.precision == at)]
            cells.append(mean_and_range(of[f"retained_{HEADLINE}_{metric}"]))
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def moved(precision: str, finer: bool) -> str:
    """Of the weights that unlearning moved in the default study, the least share (percent) in a format's dead zone,
    over the models with finer weights or the others."""
    rows = pd.read_csv(places.FOLDER / "moved-weights.csv")
    return f"{rows[(rows.weights != BFLOAT16) == finer][f'in the dead zone of {precision} (%)'].min():.0f}"
