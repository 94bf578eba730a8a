"""What was proposed as a cure, before and after int4."""

import altair as alt
import pandas as pd

from charts.style import OUTCOMES, Figure, apart, coloured
from evidence import RULES, retained
from palimpsest.vocabulary import FULL

CURES = {
    "ga_gdr": "bfloat16",
    "ga_gdr_float32_moments": "bfloat16, float32 moments",
    "ga_gdr_float32": "float32",
    "ga_gdr_stochastic": "stochastic rounding",
    "ga_gdr_large": "tenfold rate",
    "ga_gdr_sure_module_90": "SURE",
    "ga_gdr_lora_small": "LoRA",
    "ga_gdr_qlora": "QLoRA",
    "uniform_kl_gdr": "KL to uniform",
    "quail_gdr": "QUAIL",
    "rmu": "RMU",
    "simnpo_gdr": "SimNPO",
    "ga_gdr_sharpness": "sharpness",
    "whp": "WHP",
}


def cures() -> Figure:
    """Retained knowledge in bf16 and in int4 for what was proposed as a cure."""
    back, left = "int4 brings it back", "int4 leaves it"
    rows = []
    for model, name in CURES.items():
        ends = {
            label: retained("cures", model, precision) for label, precision in (("bf16", FULL), ("int4", "rtn-int4"))
        }
        group = back if ends["int4"] - ends["bf16"] > RULES["negligible"] else left
        rows += [{"cure": name, "precision": label, "retained": value, "group": group} for label, value in ends.items()]
    data = pd.DataFrame(rows)
    base = alt.Chart(data).encode(
        x=alt.X("precision:N", title=None, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("retained:Q", title="retained of the forgotten text (%)"),
        color=coloured("group:N", {back: OUTCOMES["restored"], left: OUTCOMES["kept"]}, None),
    )
    lines = base.mark_line(point=True, strokeWidth=2).encode(detail="cure:N")
    ends = apart(data[data.precision == "int4"], "retained", 4.5)
    labels = (
        alt.Chart(ends)
        .mark_text(align="left", dx=8)
        .encode(x="precision:N", y="place:Q", text="cure:N", color=base.encoding.color)
    )
    chart = alt.layer(lines, labels).properties(width=260, height=440)
    helped = sorted(set(data[data.group == left].cure))
    return chart, (
        "int4 leaves the forgetting of ways to unlearn that store the weights more finely or take larger steps: "
        f"{', '.join(helped)}. It undoes the other {len(CURES) - len(helped)}, and so a loss alone does not help."
    )
