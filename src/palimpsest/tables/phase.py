"""The phase diagram, learning rate x format for each weight storage, and rho against recovery over several studies.

`palimpsest tables phase-diagram FIGURE.svg RESULTS...` draws one study's cells and prints them as a table;
`palimpsest tables methods RESULTS...` prints a study's methods, with the steps that each took and the forgetting it
reached (both average over seeds, also where these were run apart and lie in several results folders);
`palimpsest tables metrics RESULTS` prints VerMem, KnowMem, PrivLeak and Utility of its models at every precision;
`palimpsest tables calibration FIGURE.svg RESULTS...` draws every measured pair of the studies and prints Spearman's
correlation with an interval over targets (the pairs of one target are not independent) and what rho foretells wrongly.
In place of a results folder it takes a table of palimpsest.survival.prediction.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from palimpsest.audit.records import read_audits
from palimpsest.errors import PalimpsestError
from palimpsest.models.layers import layers_of
from palimpsest.models.tensors import open_checkpoint, to_bfloat16
from palimpsest.quantizers import make_quantizer
from palimpsest.report.figures import GRID, INK, MUTED, PALETTE, STYLE, save
from palimpsest.survival.prediction import (
    OUTCOMES,
    Pair,
    by_size,
    choose_thresholds,
    count_errors,
    count_outcomes,
    foretell,
    gather,
    score,
    thresholds_without,
)
from palimpsest.tables.by_model import (
    BROKEN,
    MARKS,
    METHOD,
    NATS,
    RATE,
    STEPS,
    WEIGHTS,
    Outcome,
    average,
    outcomes,
    outcomes_table,
)
from palimpsest.tables.markdown import number, table
from palimpsest.vocabulary import BFLOAT16, NOT_STATED, STORAGES, TARGET

HALF_ULPS = 256
"""In bfloat16 an AdamW step of eta moves weights below about 256 eta (docs/explanation/theory.md, statement 3)."""

RESAMPLES, CONFIDENCE = 2000, 0.95


def borders(audit: Mapping[str, Any], target: Path) -> dict[str, float | None]:
    """By precision, the learning rate below which bfloat16 updates stay within the dead zone:
    2^floor(log2 of its half-width) / 256.

    A power of two, because there bfloat16's spacing doubles, and with it what a step must exceed. The half-width, in
    units of the weights, is the |w| at which half of the target's weights are rounded to zero; a format whose
    arithmetic needs data has none (None).
    """
    found: dict[str, float | None] = {}
    for name, settings in audit["settings"]["quantizers"].items():
        quantizer = make_quantizer(settings)
        if quantizer.why_not_round() or not quantizer.zero_on_grid or quantizer.needs_largest:
            found[name] = None
            continue
        magnitudes, zero = [], []
        with open_checkpoint(target) as files:
            layers = layers_of(files)
            for module in layers.linear:
                weights = np.ascontiguousarray(to_bfloat16(layers.load(files, module)))
                magnitudes.append(np.abs(weights).ravel())
                zero.append(quantizer.is_zero(quantizer.round(weights)).ravel())
        half = _half_point(np.concatenate(magnitudes), np.concatenate(zero))
        found[name] = float(2 ** np.floor(np.log2(half))) / HALF_ULPS
    return found


def _half_point(magnitudes: np.ndarray, zero: np.ndarray) -> float:
    """The |w| at which the share of weights rounded to zero falls through one half,
    in steps of a hundredth of the largest."""
    edges = np.geomspace(magnitudes.max() / 1e4, magnitudes.max(), 400)
    place = np.digitize(magnitudes, edges)
    count = np.bincount(place, minlength=len(edges) + 1)
    share = np.bincount(place, weights=zero, minlength=len(edges) + 1) / np.maximum(count, 1)
    return float(edges[max(np.flatnonzero((share >= 0.5) & (count > 0)).max(initial=0) - 1, 0)])


def draw_diagram(records: Sequence[Outcome], limits: Mapping[str, float | None], path: Path | str) -> None:
    """A panel for each storage: learning rate x format,
    coloured by the measured share that came back, with rho in the cell.

    A hatched cell had not forgotten in bf16. A mark after rho: see by_model.MARKS and BROKEN. The two strokes in the
    bfloat16 panel are the predicted border of the format; none where it lies outside the panel's rates.
    """
    known = [(record, record.learning_rate) for record in records if record.learning_rate is not None]
    if not known:
        raise PalimpsestError(
            "there is no learning rate to draw by: every method was unlearned elsewhere. `palimpsest tables methods` "
            "lists them."
        )
    storages = [name for name in STORAGES if any(record.storage == name for record, _ in known)]
    rates = {name: sorted({rate for record, rate in known if record.storage == name}) for name in storages}
    precisions = list(dict.fromkeys(record.precision for record in records))
    columns = [len(each) for each in rates.values()]
    colours = matplotlib.colormaps["YlOrRd"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(0.62 * sum(columns) + 1.2, 0.55 * len(precisions) + 1.6), layout="constrained")
        panels = figure.subplots(1, len(storages), squeeze=False, sharey=True, width_ratios=columns)[0]
        for axes, storage in zip(panels, storages, strict=True):
            for record, rate in known:
                if record.storage == storage:
                    place = rates[storage].index(rate), precisions.index(record.precision)
                    _draw_cell(axes, *place, record, colours)
            if storage == BFLOAT16:
                for y, precision in enumerate(precisions):
                    at = place_of(limits.get(precision), rates[storage])
                    if at is not None:
                        for end in (y - 0.46, y + 0.46):
                            axes.plot([at, at], [end, y + 0.5 * (end - y)], color=INK, linewidth=2.5)
            axes.set_title(storage, fontsize=10)
            axes.set_xticks(range(len(rates[storage])), [f"{rate:g}" for rate in rates[storage]], rotation=45)
            axes.set_xlim(-0.6, len(rates[storage]) - 0.4)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
        panels[0].set_yticks(range(len(precisions)), precisions)
        panels[0].set_ylim(len(precisions) - 0.4, -0.6)
        figure.supxlabel("learning rate", fontsize=10)
        bar = figure.colorbar(ScalarMappable(Normalize(0, 1), colours), ax=list(panels), aspect=12, shrink=0.9)
        bar.set_label("share that came back")
        bar.outline.set_visible(False)  # type: ignore[operator]
        save(figure, path)


def _draw_cell(axes: Axes, x: int, y: int, record: Outcome, colours: Colormap) -> None:
    share, rho = record.recovered, average(record.rho)
    face = "white" if share is None else colours(min(max(share, 0.0), 1.0))
    hatch = "////" if share is None else None
    axes.fill_between(
        [x - 0.48, x + 0.48], y - 0.46, y + 0.46, facecolor=face, edgecolor=GRID, linewidth=0.8, hatch=hatch
    )
    text = number(rho, 2) + MARKS[record.basis] + (BROKEN if record.broken else "")
    colour = MUTED if share is None else "white" if share > 0.6 else INK
    axes.annotate(text, (x, y), ha="center", va="center", fontsize=9, color=colour)


def place_of(limit: float | None, rates: Sequence[float]) -> float | None:
    """Where a learning rate lies between the columns, by its logarithm;
    None outside them, where nothing was measured."""
    if not limit or not rates[0] <= limit <= rates[-1]:
        return None
    return float(np.interp(np.log(limit), np.log(rates), range(len(rates))))


def draw_calibration(pairs: Sequence[Mapping[str, Any]], path: Path | str) -> None:
    """rho against the share of what was forgotten that came back: a mark per model, seed and format.

    Coloured by how the weights were stored while unlearning, shaped by study.
    """
    studies = list(dict.fromkeys(pair["study"] for pair in pairs))
    markers = dict(zip(studies, "osD^vPX*<>hp", strict=False))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes = figure.add_subplot()
        for value in (0, 1):
            axes.axvline(value, color=GRID, linewidth=1)
            axes.axhline(value, color=GRID, linewidth=1)
        for storage, colour in zip(STORAGES, PALETTE, strict=False):
            for study in studies:
                part = [pair for pair in pairs if (pair["weights"], pair["study"]) == (storage, study)]
                axes.plot(
                    [pair["rho"] for pair in part],
                    [pair["recovered_share"] for pair in part],
                    markers.get(study, "o"),
                    color=colour,
                    alpha=0.6,
                    markeredgewidth=0,
                )
        storages = [
            Line2D([], [], marker="s", linestyle="", color=colour, label=storage)
            for storage, colour in zip(STORAGES, PALETTE, strict=False)
        ]
        shapes = [
            Line2D([], [], marker=markers.get(study, "o"), linestyle="", color=MUTED, label=study) for study in studies
        ]
        figure.legend(handles=storages + shapes, fontsize=9, loc="outside right upper")
        axes.set_xlabel("update survival rho, from the weights alone")
        axes.set_ylabel("share of the forgotten that came back")
        save(figure, path)


def rank_correlation(pairs: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, Any]:
    """Spearman's correlation of rho with the recovered share, with a bootstrap interval over targets.

    All that was unlearned from a target shares its weights and its text, so that models are no independent draws.
    {"spearman", "ci", "pairs", "targets"}; raises PalimpsestError when there are fewer than three targets.
    """
    import scipy.stats

    groups: dict[str, list[tuple[float, float]]] = {}
    for pair in pairs:
        groups.setdefault(pair["target"], []).append((pair["rho"], pair["recovered_share"]))
    if len(groups) < 3:
        raise PalimpsestError(f"{len(groups)} targets with rho and recovery: three are needed for an interval.")
    members = [np.array(group) for group in groups.values()]

    def spearman(chosen: np.ndarray) -> float:
        points = np.concatenate([members[index] for index in chosen.astype(int)])
        return float(scipy.stats.spearmanr(points[:, 0], points[:, 1]).statistic)

    places = np.arange(len(members))
    drawn = scipy.stats.bootstrap(
        (places,),
        spearman,
        vectorized=False,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=seed,
    )
    interval = drawn.confidence_interval
    return {
        "spearman": spearman(places),
        "ci": (float(interval.low), float(interval.high)),
        "pairs": len(pairs),
        "targets": len(members),
    }


def diagram(figure: Path, results: Sequence[Path]) -> str:
    audit = read_audits(results)
    target = next(model["model"] for model in audit["models"] if model["kind"] == TARGET)
    records = outcomes(audit)
    limits = borders(audit, results[0] / f"models/{target}/seed{audit['seeds'][0]}")
    draw_diagram(records, limits, figure)
    known = ", ".join(f"{name} {limit:.1e}" for name, limit in limits.items() if limit)
    drawn = outcomes_table(records, [WEIGHTS, RATE, STEPS, NATS], audit["rules"])
    return f"{drawn}\n\nPredicted borders for bfloat16 weights (learning rate): {known}"


def methods(results: Sequence[Path]) -> str:
    audit = read_audits(results)
    return outcomes_table(outcomes(audit), [METHOD, WEIGHTS, RATE, STEPS, NATS], audit["rules"])


def calibration(figure: Path, results: Sequence[Path]) -> str:
    pairs = gather(results)
    group = foretell(pairs)
    draw_calibration(pairs, figure)
    found = rank_correlation(pairs)
    low, high = found["ci"]
    return (
        f"Spearman {found['spearman']:.2f} ({low:.2f} to {high:.2f}, bootstrap over {found['targets']} targets), "
        f"{found['pairs']} pairs of model "
        f"and format\n\n{_outcomes(pairs)}\n\n{_errors(pairs, group)}\n\n{_thresholds(pairs, group)}\n\n"
        f"{_by_format(pairs)}"
    )


def _thresholds(pairs: Sequence[Pair], group: str) -> str:
    """The thresholds of all pairs, and those by which each group's pairs are judged: chosen without them."""
    without = thresholds_without(pairs, group)
    chosen = {"all": choose_thresholds(pairs)} | {f"all but {group} {name}": without[name] for name in without}
    lines = [[name, *(number(limit, 2) for limit in limits)] for name, limits in chosen.items()]
    return table(["pairs of", "rho below which restored is said", "rho from which kept is"], lines)


def _size(members: Sequence[Pair]) -> str:
    """What a size class is called: its largest models."""
    return f"{max(pair['parameters'] for pair in members) / 1e6:.0f} M"


def _outcomes(pairs: Sequence[Pair]) -> str:
    """How many pairs of each size class and weight storage came out how,
    on either side of the threshold below which text returns."""
    limit = choose_thresholds(pairs)[1]
    lines = []
    for _, members in sorted(by_size(pairs).items()):
        for storage in STORAGES:
            stored = [pair for pair in members if pair["weights"] == storage]
            sides = ([pair for pair in stored if (pair["rho"] < limit) == below] for below in (True, False))
            counts = [str(count) for side in sides for count in count_outcomes(side).values()]
            lines.append([f"{_size(members)}, {storage}", *counts])
    head = [f"rho {side} {limit:.2f}: {outcome}" for side in ("below", "from") for outcome in OUTCOMES]
    return table(["models", *head], lines)


def _by_format(pairs: Sequence[Pair]) -> str:
    """By size class and format: what the thresholds get wrong,
    and how the pairs of finer weights than bfloat16 came out."""
    lines = []
    for _, members in sorted(by_size(pairs).items()):
        for name in sorted({pair["precision"] for pair in members}):
            part = [pair for pair in members if pair["precision"] == name]
            finer = count_outcomes(pair for pair in part if pair["weights"] not in (BFLOAT16, NOT_STATED))
            numbers = [len(part), count_errors(part)["errors"], *finer.values()]
            lines.append([_size(members), name, *map(str, numbers)])
    return table(["models", "format", "pairs", "wrong", *(f"finer weights: {outcome}" for outcome in OUTCOMES)], lines)


def _errors(pairs: Sequence[Pair], group: str) -> str:
    """What the thresholds get wrong, beside what saying `kept` of all would, by size class and for bfloat16 weights."""
    parts = {"all": pairs, "bfloat16 weights": [pair for pair in pairs if pair["weights"] == BFLOAT16]}
    for _, members in sorted(by_size(pairs).items()):
        parts[f"{_size(members)} parameters"] = members
    lines = []
    for name, part in parts.items():
        found = score(part)
        lines.append([name, *(str(found[key]) for key in ("pairs", "errors", "always_kept_errors"))])
        lines[-1] += [number(found[key], 2) for key in ("auc_returned", "auc_restored")]
    head = ["pairs of", "pairs", f"wrong, without the pair's {group}", "wrong, `kept` of all"]
    return table([*head, "AUC: something came back", "AUC: restored"], lines)
