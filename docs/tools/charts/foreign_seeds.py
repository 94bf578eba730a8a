"""Checkpoints that other tools made: what int4 takes back, by learning rate and family."""

import altair as alt

import foreign
from charts.style import STORAGE_TITLE, STORAGES, TOP, Figure, coloured
from palimpsest.vocabulary import BFLOAT16, FLOAT32


def foreign_seeds() -> Figure:
    """What int4 takes back by learning rate in the families of checkpoints from other tools, a dot for each seed."""
    rows = foreign.seeds().copy()
    rows["family"] = rows.family.map(foreign.FAMILIES)
    rows["learning rate"] = [f"{rate:.0e}".replace("e-0", "e-") for rate in rows.rate]
    rates = [f"{rate:.0e}".replace("e-0", "e-") for rate in sorted(rows.rate.unique())]
    shown = {name: STORAGES[name] for name in (BFLOAT16, FLOAT32)}
    base = alt.Chart(rows).encode(
        x=alt.X("learning rate:N", sort=rates, axis=alt.Axis(labelAngle=0)),
        color=coloured("storage:N", shown, STORAGE_TITLE),
    )
    dots = base.mark_circle(size=45, opacity=0.7).encode(
        y=alt.Y("back:Q", title="share of the forgetting, in nats, that int4 takes back (%)")
    )
    means = base.mark_line(strokeWidth=1.5, opacity=0.7).encode(y="mean(back):Q")
    chart = (
        alt.layer(means, dots)
        .properties(width=125, height=230)
        .facet(column=alt.Column("family:N", title=None, sort=list(foreign.FAMILIES.values()), header=TOP), spacing=14)
    )
    coarse = rows[rows.storage == BFLOAT16]
    small, large = (coarse[side].back for side in (coarse.rate < 1e-5, coarse.rate >= 1e-5))
    above = "nothing" if large.max() < 1 else f"{large.max():.0f} % at most"
    return chart, (
        f"With bfloat16 weights int4 takes back {small.min():.0f} to {small.max():.0f} % of the forgetting at the two "
        f"smaller learning rates, and {above} at the larger ones. With float32 weights it takes back "
        f"{rows[rows.storage == FLOAT32].back.max():.0f} % at most."
    )
