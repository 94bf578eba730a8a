"""Results that others published."""

import altair as alt

from charts.style import TOP, Figure, coloured
from evidence import FORETOLD, public, public_results

RATES = {"1e-05": "#d1495b", "2e-05": "#e9a23b", "5e-05": "#2a9d8f", "0.0001": "#4a86e8", "not stated": "#8b949e"}
EXPECTED = ("restores", "says nothing", "keeps")


def published() -> Figure:
    """Every public result with a target: how much of what was forgotten a format brings back."""
    rows = public_results().dropna(subset="recovered").reset_index(drop=True)
    rows["rate"] = [f"{rate:g}" if rate == rate else "not stated" for rate in rows.rate]
    rows["foretold"] = "the account: " + rows.foretold
    rows["shown"] = rows.recovered.clip(-30, 110)
    order = list(FORETOLD)
    chart = (
        alt.Chart(rows)
        .mark_point(filled=False, size=90, strokeWidth=2, opacity=0.9)
        .encode(
            x=alt.X("shown:Q", title="brought back (% of what was forgotten)", scale=alt.Scale(domain=[-30, 110])),
            y=alt.Y("format:N", title=None, sort=order),
            color=coloured("rate:N", RATES, "learning rate"),
            shape=alt.Shape("benchmark:N", title=None),
        )
        .properties(width=520, height=alt.Step(30))
        .facet(row=alt.Row("foretold:N", title=None, header=TOP, sort=[f"the account: {each}" for each in EXPECTED]))
        .resolve_scale(y="independent")
    )
    back = public("foretold == 'restores' and recovered >= 10")
    kept = public("foretold == 'keeps' and recovered < 10")
    of_back, of_kept = (public(f"foretold == '{word}'") for word in ("restores", "keeps"))
    return chart, (
        f"Public results by format. Where the account says that a format restores, {back} of {of_back} rows bring back "
        f"a tenth or more; where it says that a format keeps, {kept} of {of_kept} bring back less."
    )
