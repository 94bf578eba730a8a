"""The two charts, as SVG that is byte-identical for the same audit and readable at 700 pixels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from palimpsest.artefacts import atomic_file
from palimpsest.audit.groups import headline_group
from palimpsest.audit.shapes import Audit, Group, GroupRow, SeedsRow
from palimpsest.vocabulary import BFLOAT16, CONSTRAINED, FULL, NOT_STATED, RETRAIN, SHARE_OF_TARGET, TARGET, UNLEARNED

INK, MUTED, GRID = "#1d1d20", "#6c6c72", "#dcdce0"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
PALETTE = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY, MUTED, INK)
"""Okabe and Ito's colours, told apart by colour-blind readers."""

MANY = 8
"""Precisions beyond which colours come from matplotlib's map `turbo`,
names stand upright and the chart grows in width."""

HALF = 0.31
"""Half the width of a mean's bar, in units of the distance between precisions; its label fits into the rest."""

MARKERS = "osD^vPX*<>hp"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "palimpsest",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
NOBODY: Group = {"models": [], "n": 0, "rows": []}


def draw_retained(audit: Audit, path: Path | str) -> None:
    """Retained forget knowledge by precision: a dot a model, a bar for the mean of the models of the headline."""
    rows = [row for row in audit["over_seeds"] if row["kind"] == UNLEARNED]
    averages = headline_group(audit["averages"]) or NOBODY
    precisions, headline = audit["precisions"], audit["denominators"]["headline"]
    above = headline != SHARE_OF_TARGET
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(7.2, 0.62 * len(precisions)), 4.3), layout="constrained")
        axes = figure.add_subplot()
        _reference_lines(axes, ((100, TARGET), (0, RETRAIN)) if above else ((100, f"{TARGET}, {FULL}"),))
        for at, precision in enumerate(precisions):
            here = [
                (row, row["retained"][headline]["value"])
                for row in rows
                if row["precision"] == precision and row["retained"]
            ]
            shown = [(row, value) for row, value in here if value is not None]
            for index, (row, value) in enumerate(shown):
                group = _group(row, averages["models"])
                offset = (index - (len(shown) - 1) / 2) * min(0.09, 2 * HALF / max(1, len(shown)))
                axes.plot(at + offset, value, **group)
            if not shown:
                axes.annotate("undefined", (at, 50), ha="center", va="center", color=MUTED, style="italic")
        _means(axes, averages["rows"], headline)
        rotation = 90 if len(precisions) > MANY else 20 if len(precisions) > 6 else 0
        axes.set_xticks(range(len(precisions)), precisions, rotation=rotation)
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(-0.55, len(precisions) - 0.35)
        axes.set_ylabel("retained forget knowledge (%)" if above else "share of the target's score (%)")
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        said = "with a retain loss, bfloat16 weights" if CONSTRAINED in audit["averages"] else "brought as they are"
        _legend_of_groups(figure, rows, averages["models"], f"{said} (bar: mean)")
        save(figure, path)


def draw_survival(audit: Audit, path: Path | str) -> None:
    """Update survival against measured recovery: a mark per model, seed and quantizer."""
    correlation = audit["survival_against_recovery"]
    points = correlation["points"]
    precisions = [name for name in audit["precisions"] if any(point["precision"] == name for point in points)]
    models = list(dict.fromkeys(point["model"] for point in points))
    colours = dict(zip(precisions, _colours(len(precisions)), strict=True))
    markers = {name: MARKERS[index % len(MARKERS)] for index, name in enumerate(models)}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.3), layout="constrained")
        axes = figure.add_subplot()
        for value in (0, 1):
            axes.axvline(value, color=GRID, linewidth=1)
        axes.axhline(0, color=GRID, linewidth=1)
        for point in points:
            colour, marker = colours[point["precision"]], markers[point["model"]]
            axes.plot(
                point["rho"], point["recovery"], marker, color=colour, markersize=7, alpha=0.85, markeredgewidth=0
            )
        if not points:
            axes.annotate("no point has both numbers", (0.5, 0.5), xycoords="axes fraction", ha="center", color=MUTED)
        axes.set_xlabel("update survival rho (0: erased by rounding, 1: arrives whole)")
        axes.set_ylabel("recovery after quantization (points)")
        title = f"{correlation['n']} points"
        if correlation["spearman"] is not None:
            title = f"Spearman's rank correlation {correlation['spearman']:.2f}, {title}"
        axes.set_title(title, loc="left", fontsize=10, color=MUTED)
        dots = [Line2D([], [], color=colours[name], marker="o", linestyle="", label=name) for name in precisions]
        shapes = [Line2D([], [], color=MUTED, marker=markers[name], linestyle="", label=name) for name in models]
        _legend_right(figure, dots, shapes)
        save(figure, path)


def _colours(count: int) -> Sequence[Any]:
    """As many colours as there are precisions, none twice."""
    if count <= MANY:
        return PALETTE[:count]
    return [to_hex(each) for each in matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, count))]


def _group(row: SeedsRow, constrained: list[str]) -> dict[str, Any]:
    """How a model's dot looks: averaged in the headline, contrast (other weight storage), or neither."""
    look: dict[str, Any] = {"linestyle": "", "markersize": 6, "markeredgewidth": 1.2, "alpha": 0.8, "zorder": 3}
    if row["model"] in constrained:
        return look | {"marker": "o", "color": BLUE, "markerfacecolor": BLUE, "markeredgewidth": 0}
    if row["storage"] not in (BFLOAT16, NOT_STATED):
        return look | {"marker": "D", "color": VERMILION, "markerfacecolor": VERMILION, "markeredgewidth": 0}
    return look | {"marker": "o", "color": MUTED, "markerfacecolor": "none"}


def _means(axes: Axes, rows: Sequence[GroupRow], headline: str) -> None:
    for at, row in enumerate(rows):
        cell = row["retained"][headline]
        if cell["value"] is None:
            continue
        axes.plot(
            [at - HALF, at + HALF], [cell["value"]] * 2, color=BLUE, linewidth=3.5, solid_capstyle="butt", zorder=2
        )
        if cell["ci"]:
            low, high = cell["ci"]
            axes.fill_between([at - HALF, at + HALF], low, high, color=BLUE, alpha=0.15, linewidth=0, zorder=1)
        label = f"{cell['value']:z.0f} %"
        axes.annotate(
            label,
            (at + HALF, cell["value"]),
            xytext=(2, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=BLUE,
            weight="bold",
        )


def _reference_lines(axes: Axes, lines: Sequence[tuple[float, str]]) -> None:
    for value, label in lines:
        axes.axhline(value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(label, (1.01, value), xycoords=axes.get_yaxis_transform(), va="center", color=MUTED, fontsize=9)


def _legend_of_groups(figure: Figure, rows: Sequence[SeedsRow], constrained: list[str], said: str) -> None:
    names = {row["model"]: row for row in rows}
    handles = []
    plain = (BFLOAT16, NOT_STATED)
    contrast = [name for name in names if name not in constrained and names[name]["storage"] not in plain]
    other = [name for name in names if name not in constrained and name not in contrast]
    for members, text in (
        (constrained, said),
        (contrast, "more precise weights while unlearning"),
        (other, "not averaged"),
    ):
        if members:
            handles.append(Line2D([], [], label=text, **_group(names[members[0]], constrained)))
    figure.legend(handles=handles, loc="outside upper left", ncols=2, fontsize=9, handletextpad=0.2, columnspacing=1)


def _legend_right(figure: Figure, dots: list[Line2D], shapes: list[Line2D]) -> None:
    if not dots:
        return
    heading = {text: Line2D([], [], linestyle="", label=text) for text in ("precision", "model")}
    handles = [heading["precision"], *dots, heading["model"], *shapes]
    figure.set_figheight(max(figure.get_figheight(), 0.4 + 0.19 * len(handles)))
    legend = figure.legend(handles=handles, loc="outside right upper", fontsize=9, handletextpad=0.2)
    for text in legend.get_texts():
        if text.get_text() in heading:
            text.set_color(MUTED)


def save(figure: Figure, path: Path | str) -> None:
    """Write an SVG without dates, so that the same data give the same bytes."""
    with atomic_file(path) as draft:
        figure.savefig(draft, format="svg", metadata={"Date": None, "Creator": None})
