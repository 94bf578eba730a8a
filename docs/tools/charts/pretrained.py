"""The pretrained model: questions on the forgotten text that it answers."""

import altair as alt
import pandas as pd

from charts.style import Figure
from evidence import scores
from palimpsest.vocabulary import FULL


def answers() -> Figure:
    """The share of questions on the forgotten text that are answered, before and after rounding to int4: the mean over
    seeds as a bar, and a dot for each seed."""
    stages = (
        ("before unlearning", "target", FULL),
        ("unlearned", None, FULL),
        ("unlearned, in 4 bits", None, "rtn-int4"),
    )
    models = {"unlearned in bfloat16 weights": "npo_gdr", "unlearned in float32 weights": "npo_gdr_float32"}
    known = scores("pretrained-seeds").set_index(["model", "precision"]).knowmem
    data = pd.DataFrame(
        {"stage": stage, "storage": storage, "percent": percent}
        for storage, of in models.items()
        for stage, model, precision in stages
        for percent in known[model or of, precision]
    )
    data["most"] = data.groupby(["storage", "stage"]).percent.transform("max")
    axis = alt.Scale(domain=[0, 110])
    base = alt.Chart(data).encode(y=alt.Y("stage:N", title=None, sort=[stage for stage, *_ in stages]))
    fill = alt.Color(
        "stage:N",
        legend=None,
        scale=alt.Scale(domain=[stage for stage, *_ in stages], range=["#8b949e", "#4a86e8", "#d1495b"]),
    )
    bars = base.mark_bar(height=22).encode(
        x=alt.X("mean(percent):Q", title="questions on the forgotten text that it answers (%)", scale=axis), color=fill
    )
    dots = base.mark_circle(size=30, opacity=1, color="white", stroke="#57606a", strokeWidth=1).encode(x="percent:Q")
    labels = base.mark_text(align="left", dx=8, fontSize=14, fontWeight="bold").encode(
        x="max(most):Q", text=alt.Text("mean(percent):Q", format=".0f")
    )
    chart = (
        alt.layer(bars, dots, labels)
        .properties(width=300, height=105)
        .facet(column=alt.Column("storage:N", title=None, sort=list(models)))
    )
    means = data.groupby(["storage", "stage"]).percent.mean()
    (before, after), (before_finer, after_finer) = (
        [means[storage, stage] for stage, model, _ in stages if model is None] for storage in models
    )
    return chart, (
        f"A model that had forgotten a text answers {before:.0f} % of the questions on it, and {after:.0f} % after "
        f"rounding to 4 bits. Unlearned with float32 weights, it answers {before_finer:.0f} % and {after_finer:.0f} %. "
        "A bar is the mean of the seeds, a dot is a seed."
    )
