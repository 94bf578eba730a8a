"""Formats side by side: what they cost, and what they bring back."""

import altair as alt

from charts.style import Figure, coloured
from evidence import EIGHT_BITS, format_costs, pairs, scores
from palimpsest.vocabulary import FULL


def formats() -> Figure:
    """Seconds to quantize a 1 B model against what the format costs in perplexity."""
    costs = format_costs()
    target = scores("all-quantizers").query("model == 'target'").set_index("precision").perplexity
    costs = costs[costs.precision.isin(target.index)].copy()
    costs["perplexity"] = [100 * (target[name] / target[FULL] - 1) for name in costs.precision]
    costs["width"] = costs.precision.isin(EIGHT_BITS).map({True: "8 bits", False: "4 bits"})
    base = alt.Chart(costs).encode(
        x=alt.X(
            "seconds:Q",
            title="seconds to quantize and prove 1.1 B parameters, two cores",
            scale=alt.Scale(type="log", domain=[14, 260]),
        ),
        y=alt.Y("perplexity:Q", title="perplexity above bf16 (%)"),
    )
    dots = base.mark_circle(size=90).encode(color=coloured("width:N", {"4 bits": "#d1495b", "8 bits": "#4a86e8"}, None))
    apart = costs[costs.width == "4 bits"]
    labels = (
        alt.Chart(apart)
        .mark_text(align="left", dx=8, dy=-6)
        .encode(x="seconds:Q", y="perplexity:Q", text="precision:N")
    )
    best = apart.sort_values("perplexity").iloc[0]
    worst = apart.sort_values("perplexity").iloc[-1]
    slowest = costs.sort_values("seconds").iloc[-1]
    return alt.layer(dots, labels).properties(width=480, height=300), (
        f"Formats of 8 bits cost next to nothing. Of 4 bits {worst.precision} raises the perplexity by "
        f"{worst.perplexity:.0f} %, {best.precision} by {best.perplexity:.0f} %. The slowest, {slowest.precision}, "
        f"takes {slowest.seconds:.0f} seconds. Half of all take less than {costs.seconds.median():.0f}."
    )


SLOW = {"ga_gdr_slow": "#d1495b", "npo_gdr_slow": "#e9a23b"}
"""Models of studies/all-quantizers-gpu at the smaller rate."""


def formats_recovered() -> Figure:
    """What 4-bit formats bring back at a small learning rate, a dot for each model and seed."""
    rows = pairs().query("study == 'all-quantizers-gpu' and model in @SLOW").copy()
    order = list(rows.groupby("precision").recovered.mean().sort_values(ascending=False).index)
    base = alt.Chart(rows).encode(
        x=alt.X("recovered:Q", title="share of what had been forgotten that is back (%)"),
        y=alt.Y("precision:N", title=None, sort=order),
    )
    dots = base.mark_circle(size=60, opacity=0.8).encode(color=coloured("model:N", SLOW, None))
    means = base.mark_tick(thickness=3, size=14, color="#8b949e").encode(x="mean(recovered):Q")
    mean = rows.groupby("precision").recovered.mean()
    return alt.layer(means, dots).properties(width=440, height=340), (
        f"At a learning rate of 4e-6 rounding in groups of 128 brings back {mean['rtn-int4-g128']:.0f} % of what was "
        f"forgotten, AWQ {mean['awq']:.0f} %, GPTQ {mean['gptq-retain']:.0f} %. Grey: the mean."
    )
