"""The phase diagram: what came back by learning rate, format and storage."""

import altair as alt
import pandas as pd

from charts.style import STORAGES, Figure
from evidence import pairs_of
from palimpsest.vocabulary import BFLOAT16


def learning_rates() -> Figure:
    """What came back by learning rate, format and storage, mean of three seeds."""
    rows = pd.DataFrame(pairs_of("phase-diagram"))
    rows["recovered"] = 100 * rows.recovered_share
    rows["rate"] = rows.model.str.split("-", n=1).str[1]
    rates = sorted(rows.rate.unique(), key=float)
    cells = rows.groupby(["weights", "rate", "precision"]).agg(recovered=("recovered", "mean"), rho=("rho", "mean"))
    cells = cells.reset_index()
    cells["shown"] = cells.recovered.clip(0, 100)
    shade = alt.Scale(domain=[0, 100], range=["#f2f0e6", "#e9a23b", "#a01830"])
    parts = []
    for storage in STORAGES:
        part = cells[cells.weights == storage]
        base = alt.Chart(part).encode(
            x=alt.X("rate:N", title="learning rate", sort=rates, axis=alt.Axis(labelAngle=-60)),
            y=alt.Y("precision:N", title=None, sort=["bnb-int8", "bnb-nf4", "bnb-fp4", "rtn-int4"]),
        )
        boxes = base.mark_rect().encode(color=alt.Color("shown:Q", title="share that is back (%)", scale=shade))
        words = base.mark_text(fontSize=10).encode(
            text=alt.Text("rho:Q", format=".2f"),
            color=alt.condition("datum.shown > 65", alt.value("white"), alt.value("#24292f")),
        )
        width = 32 * part.rate.nunique()
        parts.append(alt.layer(boxes, words).properties(width=width, height=120, title=storage))
    chart = alt.hconcat(*parts)
    slow = cells[(cells.weights == BFLOAT16) & (cells.rate == "4.0e-6")].set_index("precision").recovered
    finer = cells[cells.weights != BFLOAT16].recovered.max()
    return chart, (
        f"At 4e-6 with bfloat16 weights int4 brings back {slow['rtn-int4']:.0f} % of what was forgotten, "
        f"and nothing at large rates. With finer weights no format brings back more than {finer:.0f} % (mean of seeds)."
    )
