"""Colours and words that figures share, and how a chart is drawn."""

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
from scipy.optimize import isotonic_regression

from palimpsest.vocabulary import BFLOAT16, FLOAT32, STOCHASTIC

THEMES = {"": ("#24292f", "#d0d7de"), "-dark": ("#e6edf3", "#484f58")}
"""Suffix of the file: colours of text and of lines. The ground is transparent."""
OUTCOMES = {"kept": "#2a9d8f", "partly": "#e9a23b", "restored": "#d1495b"}
STORAGES = {BFLOAT16: "#d1495b", STOCHASTIC: "#2a9d8f", FLOAT32: "#4a86e8"}
STORAGE_TITLE = "weights while unlearning"
TOP = alt.Header(labelAngle=0, labelOrient="top", labelAnchor="start")
Figure = tuple[alt.TopLevelMixin, str]


def coloured(column: str, names: dict[str, str], title: str | None) -> alt.Color:
    return alt.Color(column, title=title, scale=alt.Scale(domain=list(names), range=list(names.values())))


def apart(rows: pd.DataFrame, column: str, gap: float) -> pd.DataFrame:
    """The rows with a column `place`: the values, moved as little as `gap` asks for, so that labels do not overlap."""
    rows = rows.sort_values(column).copy()
    steps = gap * np.arange(len(rows))
    rows["place"] = isotonic_regression(rows[column].to_numpy() - steps).x + steps
    return rows


def drawn(chart: alt.TopLevelMixin, theme: str) -> str:
    """The SVG of a chart for light ("") or dark ("-dark") pages."""
    text, line = THEMES[theme]
    words = {"labelColor": text, "titleColor": text, "labelFontSize": 12, "titleFontSize": 12, "labelLimit": 300}
    spec = chart.to_dict() | {
        "background": "transparent",
        "config": {
            "aria": False,
            "view": {"stroke": None},
            "axis": {
                **words,
                "titleFontWeight": "normal",
                "gridColor": line,
                "domainColor": line,
                "tickColor": line,
                "gridOpacity": 0.5,
            },
            "legend": {**words, "orient": "top", "symbolBaseFillColor": text, "symbolBaseStrokeColor": text},
            "header": {**words, "labelFontWeight": "bold"},
            "title": {"color": text, "fontSize": 13},
            "text": {"color": text},
            "font": "sans-serif",
        },
    }
    return vl_convert.vegalite_to_svg(spec)
