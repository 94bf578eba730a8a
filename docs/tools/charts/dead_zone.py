"""The drawing that explains why rounding undoes an update."""

import altair as alt
import numpy as np
import pandas as pd

from charts.style import Figure


def dead_zone() -> Figure:
    """A drawing, not a measurement: which weights an update reaches, and which of them int4 rounds to zero."""
    half, reach, spread = 0.0067, 2**-8, 0.02
    at = np.linspace(-0.05, 0.05, 201)
    height = np.exp(-((at / spread) ** 2) / 2)
    rows = pd.DataFrame({"weight": at, "height": height})
    names = ("bfloat16 weights: small steps move only weights next to zero", "float32 weights: every weight moves")
    charts = []
    for name, moved in zip(names, (np.abs(at) < reach, np.abs(at) < 1), strict=True):
        x = alt.X("weight:Q", title=None, axis=alt.Axis(labels=False, ticks=False, grid=False, domain=True))
        y = alt.Y("height:Q", axis=None, scale=alt.Scale(domain=[0, 1.35]))
        all_weights = alt.Chart(rows).mark_area(color="#8b949e", opacity=0.35).encode(x=x, y=y)
        changed = alt.Chart(rows[moved]).mark_area(color="#4a86e8", opacity=0.85).encode(x=x, y=y)
        zone = (
            alt.Chart(pd.DataFrame({"a": [-half], "b": [half]}))
            .mark_rect(color="#d1495b", opacity=0.25)
            .encode(x="a:Q", x2="b:Q")
        )
        ticks = (
            alt.Chart(pd.DataFrame({"weight": [2 * half * k for k in range(-3, 4)]}))
            .mark_tick(color="#d1495b", thickness=3, size=16)
            .encode(x="weight:Q", y=alt.value(150))
        )
        said = [{"weight": half * 1.1, "height": 1.27, "text": "dead zone: int4 rounds it all to 0"}]
        said.append({"weight": -0.05, "height": 0.2, "text": "levels of int4"})
        said.append(
            {"weight": 0.0225, "height": 0.62, "text": "moved by unlearning"}
            if moved.all()
            else {"weight": 0.0225, "height": 0.62, "text": "not moved"}
        )
        labels = (
            alt.Chart(pd.DataFrame(said))
            .mark_text(align="left", fontSize=12)
            .encode(x="weight:Q", y="height:Q", text="text:N")
        )
        charts.append(
            alt.layer(all_weights, changed, zone, ticks, labels).properties(
                width=520, height=150, title=alt.Title(name, anchor="start")
            )
        )
    return alt.vconcat(*charts), (
        "A drawing of the weights of one layer. With bfloat16 weights unlearning moves only weights next to zero, and "
        "int4 rounds all of them to zero. With float32 weights it moves all weights, most of them outside that zone."
    )
