"""All measured pairs: how many kept their forgetting, on SmolLM2 by format, and by rho."""

import altair as alt
import pandas as pd

from charts.style import OUTCOMES, STORAGE_TITLE, STORAGES, TOP, Figure, apart, coloured
from evidence import PRETRAINED, SCRATCH, SMOLLM2, count, pairs, prediction


def outcomes() -> Figure:
    """Of the pairs at 4 bits: how many kept their forgetting, by model and by storage."""
    rows = pairs().query("bits == 4 and not broken")
    counted = rows.groupby(["base", "weights", "outcome"]).size().rename("pairs").reset_index()
    counted["order"] = counted.outcome.map({name: i for i, name in enumerate(OUTCOMES)})
    bars = (
        alt.Chart(counted)
        .mark_bar()
        .encode(
            x=alt.X("pairs:Q", stack="normalize", axis=alt.Axis(format="%"), title="models x 4-bit formats"),
            y=alt.Y("weights:N", title=None, sort=list(STORAGES)),
            color=coloured("outcome:N", OUTCOMES, "the forgetting is"),
            order="order:Q",
        )
    )
    labels = bars.mark_text(color="white", fontWeight="bold").encode(
        x=alt.X("pairs:Q", stack="normalize", bandPosition=0.5), text="pairs:Q", color=alt.value("white")
    )
    chart = (
        alt.layer(bars, labels)
        .properties(width=480, height=78)
        .facet(row=alt.Row("base:N", title=None, sort=[SCRATCH, SMOLLM2, PRETRAINED], header=TOP))
    )
    share = {
        finer: 100
        * count("bits == 4 and not broken and outcome == 'kept'", finer=finer)
        / count("bits == 4 and not broken", finer=finer)
        for finer in (False, True)
    }
    return chart, (
        f"With weights stored more finely than bfloat16 while unlearning, {share[True]:.0f} % of the models keep their "
        f"forgetting in a 4-bit format; with bfloat16 weights {share[False]:.0f} % do. SmolLM2 is the exception."
    )


def smollm2() -> Figure:
    """Recovered by format and storage on SmolLM2, a dot for each model and seed."""
    rows = pairs().query("base == @SMOLLM2 and bits == 4 and not broken").copy()
    rows["seed"] = rows.seed.astype(str)
    chart = (
        alt.Chart(rows)
        .mark_circle(size=55, opacity=0.75)
        .encode(
            x=alt.X("recovered:Q", title="share of what had been forgotten that is back (%)"),
            y=alt.Y("weights:N", title=None, sort=list(STORAGES), axis=alt.Axis(labels=False, ticks=False)),
            yOffset="seed:N",
            color=coloured("weights:N", STORAGES, STORAGE_TITLE),
            row=alt.Row("precision:N", title=None, header=alt.Header(labelAngle=0, labelAlign="left")),
        )
        .properties(width=420, height=48)
    )
    fine, coarse = (rows[rows.finer == finer].recovered.median() for finer in (True, False))
    broad = rows[rows.finer & rows.precision.isin(["hqq-int4", "bnb-fp4"])].recovered.median()
    return chart, (
        f"On SmolLM2 a 4-bit format brings back {coarse:.0f} % of what was forgotten with bfloat16 weights (median), "
        f"and {fine:.0f} % with finer weights. HQQ and FP4 bring back {broad:.0f} % even with finer weights."
    )


def rho() -> Figure:
    """rho against what was recovered, 4 bits."""
    rows = pairs().query("bits == 4 and not broken").copy()
    rows["recovered"] = rows.recovered.clip(-40, 130)
    rows = rows[rows.rho.between(-0.05, 1.35)]
    kept_from = prediction("kept_from")
    points = (
        alt.Chart(rows)
        .mark_circle(size=34, opacity=0.55)
        .encode(
            x=alt.X("rho:Q", title="rho: the part of the update that the format keeps"),
            y=alt.Y("recovered:Q", title="share of what had been forgotten that is back (%)"),
            color=coloured("weights:N", STORAGES, STORAGE_TITLE),
        )
    )
    border = (
        alt.Chart(pd.DataFrame({"rho": [kept_from]}))
        .mark_rule(strokeDash=[5, 4], color="#8b949e", size=2)
        .encode(x="rho:Q")
    )
    odd = rows.query("rho > @kept_from and recovered > 45").sort_values("recovered", ascending=False).head(9).copy()
    odd["label"] = (
        odd.precision + ", " + odd.base.map({SCRATCH: "13 to 210 M", SMOLLM2: "SmolLM2", PRETRAINED: "341 M"})
    )
    odd = pd.concat([apart(near, "recovered", 6) for _, near in odd.groupby(odd.rho > 0.8)])
    labels = alt.Chart(odd).mark_text(align="left", dx=7, fontSize=10).encode(x="rho:Q", y="place:Q", text="label:N")
    low, high = (rows[rows.rho < kept_from], rows[rows.rho >= kept_from])
    wrong = high[high.outcome != "kept"]
    chart = alt.layer(points, border, labels).properties(width=520, height=340)
    returned = [100 * (side.outcome != "kept").mean() for side in (low, high)]
    there = 100 * (wrong.base == SMOLLM2).mean()
    return chart, (
        f"Where rho is below {kept_from:.2f}, {returned[0]:.0f} % of the models get something back. Above it "
        f"{returned[1]:.0f} % do, {there:.0f} % of those on SmolLM2."
    )
