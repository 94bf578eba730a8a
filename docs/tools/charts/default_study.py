"""The default study: what its methods retain by format, and what came back by rho."""

import altair as alt
import pandas as pd
import yaml

from charts.style import STORAGE_TITLE, STORAGES, Figure, coloured
from evidence import REPOSITORY, pairs_of, scores
from palimpsest.vocabulary import BFLOAT16, FLOAT32, FULL


def default_study() -> Figure:
    """Retained knowledge of every method of the default study, by format."""
    rows = scores("default").query("kind == 'unlearned'").copy()
    rows["retained"] = rows.retained_same_precision_mean
    order = ["bf16", "bnb-int8", "gptq", "bnb-nf4", "bnb-fp4", "rtn-int4"]
    base = alt.Chart(rows).encode(
        x=alt.X("retained:Q", title="of the forgotten text it retains (%)", scale=alt.Scale(domain=[-6, 106])),
        y=alt.Y("precision:N", title=None, sort=order),
        color=coloured("weights:N", {name: STORAGES[name] for name in (BFLOAT16, FLOAT32)}, STORAGE_TITLE),
    )
    chart = base.mark_circle(size=70, opacity=0.8).properties(width=480, height=190)
    methods = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))["methods"]
    retaining = [name for name, method in methods.items() if method["retain_loss"]]
    constrained = rows[(rows.weights == BFLOAT16) & rows.model.isin(retaining)]
    low, high = (constrained[constrained.precision == at].retained.mean() for at in (FULL, "rtn-int4"))
    finer = rows[(rows.precision == "rtn-int4") & (rows.weights == FLOAT32)].retained.mean()
    return chart, (
        f"In the default study methods with a retain loss and bfloat16 weights retain {low:.0f} % of the text in bf16, "
        f"and {high:z.0f} % in int4. The one with float32 weights retains {finer:z.0f} % in int4. A dot is a method."
    )


def default_rho() -> Figure:
    """rho against what came back, in the default study."""
    rows = pd.DataFrame(pairs_of("default"))
    rows["recovered"] = 100 * rows.recovered_share
    chart = (
        alt.Chart(rows)
        .mark_point(filled=True, size=70, opacity=0.85)
        .encode(
            x=alt.X("rho:Q", title="rho: the part of the update that the format keeps"),
            y=alt.Y("recovered:Q", title="share of what had been forgotten that is back (%)"),
            color=alt.Color("precision:N", title="format"),
            shape=alt.Shape("weights:N", title=STORAGE_TITLE),
        )
        .properties(width=440, height=280)
    )
    low, high = (rows[side].recovered.mean() for side in (rows.rho < 0.5, rows.rho >= 0.5))
    return chart, (
        f"In the default study formats that keep less than half of the update bring back {low:.0f} % of what had been "
        f"forgotten on average, the others {high:z.0f} %."
    )
