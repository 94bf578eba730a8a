"""The figures of the documents, each in two files for light and dark pages: `make figures`.

A figure is a function that gives a chart and its message. The message stands as alt text wherever the figure does, so
its numbers, too, come from docs/evidence.
"""

from collections.abc import Callable

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
import yaml
from scipy.optimize import isotonic_regression

import evidence
import foreign
from evidence import PRETRAINED, SCRATCH, SMOLLM2, count, pairs, retained, scores
from palimpsest.vocabulary import BFLOAT16, FLOAT32, FULL, STOCHASTIC

FOLDER = evidence.REPOSITORY / "docs/figures"
THEMES = {"": ("#24292f", "#d0d7de"), "-dark": ("#e6edf3", "#484f58")}
"""Suffix of the file: colours of text and of lines. The ground is transparent."""
OUTCOMES = {"kept": "#2a9d8f", "partly": "#e9a23b", "restored": "#d1495b"}
STORAGES = {BFLOAT16: "#d1495b", STOCHASTIC: "#2a9d8f", FLOAT32: "#4a86e8"}
STORAGE_TITLE = "weights while unlearning"

REPORT = "The first screen of the default study's report: its answer in a sentence, and the verdict on each file."
"""What the picture of report.html shows."""

TOP = alt.Header(labelAngle=0, labelOrient="top", labelAnchor="start")

Figure = tuple[alt.TopLevelMixin, str]


def coloured(column: str, names: dict[str, str], title: str | None) -> alt.Color:
    return alt.Color(column, title=title, scale=alt.Scale(domain=list(names), range=list(names.values())))


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
        group = back if ends["int4"] - ends["bf16"] > evidence.RULES["negligible"] else left
        rows += [{"cure": name, "precision": label, "retained": value, "group": group} for label, value in ends.items()]
    data = pd.DataFrame(rows)
    base = alt.Chart(data).encode(
        x=alt.X("precision:N", title=None, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("retained:Q", title="retained of the forgotten text (%)"),
        color=coloured("group:N", {back: OUTCOMES["restored"], left: OUTCOMES["kept"]}, None),
    )
    lines = base.mark_line(point=True, strokeWidth=2).encode(detail="cure:N")
    ends = _apart(data[data.precision == "int4"], "retained", 4.5)
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


def _apart(rows: pd.DataFrame, column: str, gap: float) -> pd.DataFrame:
    """The rows with a column `place`: the values, moved as little as `gap` asks for, so that labels do not overlap."""
    rows = rows.sort_values(column).copy()
    steps = gap * np.arange(len(rows))
    rows["place"] = isotonic_regression(rows[column].to_numpy() - steps).x + steps
    return rows


def rho() -> Figure:
    """rho against what was recovered, 4 bits."""
    rows = pairs().query("bits == 4 and not broken").copy()
    rows["recovered"] = rows.recovered.clip(-40, 130)
    rows = rows[rows.rho.between(-0.05, 1.35)]
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
        alt.Chart(pd.DataFrame({"rho": [_border()]}))
        .mark_rule(strokeDash=[5, 4], color="#8b949e", size=2)
        .encode(x="rho:Q")
    )
    odd = rows.query("rho > @_border() and recovered > 45").sort_values("recovered", ascending=False).head(9).copy()
    odd["label"] = (
        odd.precision + ", " + odd.base.map({SCRATCH: "13 to 210 M", SMOLLM2: "SmolLM2", PRETRAINED: "341 M"})
    )
    odd = pd.concat([_apart(near, "recovered", 6) for _, near in odd.groupby(odd.rho > 0.8)])
    labels = alt.Chart(odd).mark_text(align="left", dx=7, fontSize=10).encode(x="rho:Q", y="place:Q", text="label:N")
    low, high = (rows[rows.rho < _border()], rows[rows.rho >= _border()])
    wrong = high[high.outcome != "kept"]
    chart = alt.layer(points, border, labels).properties(width=520, height=340)
    returned = [100 * (side.outcome != "kept").mean() for side in (low, high)]
    there = 100 * (wrong.base == SMOLLM2).mean()
    return chart, (
        f"Where rho is below {_border():.2f}, {returned[0]:.0f} % of the models get something back. Above it "
        f"{returned[1]:.0f} % do, {there:.0f} % of those on SmolLM2."
    )


def _border() -> float:
    table = evidence.read_table()
    assert table is not None
    return float(table["kept_from"])


def formats() -> Figure:
    """Seconds to quantize a 1 B model against what the format costs in perplexity."""
    costs = evidence.format_costs()
    target = scores("all-quantizers").query("model == 'target'").set_index("precision").perplexity
    costs = costs[costs.precision.isin(target.index)].copy()
    costs["perplexity"] = [100 * (target[name] / target[FULL] - 1) for name in costs.precision]
    costs["width"] = costs.precision.isin(evidence.EIGHT_BITS).map({True: "8 bits", False: "4 bits"})
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
    methods = yaml.safe_load((evidence.REPOSITORY / "params.yaml").read_text(encoding="utf-8"))["methods"]
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
    rows = pd.DataFrame(evidence.pairs_of("default"))
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


def learning_rates() -> Figure:
    """What came back by learning rate, format and storage, mean of three seeds."""
    rows = pd.DataFrame(evidence.pairs_of("phase-diagram"))
    rows["recovered"] = 100 * rows.recovered_share
    rows["rate"] = rows.model.str.split("-", n=1).str[1]
    rates = sorted(rows.rate.unique(), key=float)
    cells = rows.groupby(["weights", "rate", "precision"]).agg(recovered=("recovered", "mean"), rho=("rho", "mean"))
    cells = cells.reset_index()
    cells["shown"] = cells.recovered.clip(0, 100)
    shade = alt.Scale(domain=[0, 100], range=["#f2f0e6", "#e9a23b", "#a01830"])
    parts = []
    for storage in STORAGES:
        part = cells[cells.weights == storage]
        base = alt.Chart(part).encode(
            x=alt.X("rate:N", title="learning rate", sort=rates, axis=alt.Axis(labelAngle=-60)),
            y=alt.Y("precision:N", title=None, sort=["bnb-int8", "bnb-nf4", "bnb-fp4", "rtn-int4"]),
        )
        boxes = base.mark_rect().encode(color=alt.Color("shown:Q", title="share that is back (%)", scale=shade))
        words = base.mark_text(fontSize=10).encode(
            text=alt.Text("rho:Q", format=".2f"),
            color=alt.condition("datum.shown > 65", alt.value("white"), alt.value("#24292f")),
        )
        width = 32 * part.rate.nunique()
        parts.append(alt.layer(boxes, words).properties(width=width, height=120, title=storage))
    chart = alt.hconcat(*parts)
    slow = cells[(cells.weights == BFLOAT16) & (cells.rate == "4.0e-6")].set_index("precision").recovered
    finer = cells[cells.weights != BFLOAT16].recovered.max()
    return chart, (
        f"At 4e-6 with bfloat16 weights int4 brings back {slow['rtn-int4']:.0f} % of what was forgotten, "
        f"and nothing at large rates. With finer weights no format brings back more than {finer:.0f} % (mean of seeds)."
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


def foreign_seeds() -> Figure:
    """What int4 takes back by learning rate in the families of checkpoints from other tools, a dot for each seed."""
    rows = foreign.seeds().copy()
    rows["family"] = rows.family.map(foreign.FAMILIES)
    rows["learning rate"] = [f"{rate:.0e}".replace("e-0", "e-") for rate in rows.rate]
    rates = [f"{rate:.0e}".replace("e-0", "e-") for rate in sorted(rows.rate.unique())]
    shown = {name: STORAGES[name] for name in (BFLOAT16, FLOAT32)}
    base = alt.Chart(rows).encode(
        x=alt.X("learning rate:N", sort=rates, axis=alt.Axis(labelAngle=0)),
        color=coloured("storage:N", shown, STORAGE_TITLE),
    )
    dots = base.mark_circle(size=45, opacity=0.7).encode(
        y=alt.Y("back:Q", title="share of the forgetting, in nats, that int4 takes back (%)")
    )
    means = base.mark_line(strokeWidth=1.5, opacity=0.7).encode(y="mean(back):Q")
    chart = (
        alt.layer(means, dots)
        .properties(width=125, height=230)
        .facet(column=alt.Column("family:N", title=None, sort=list(foreign.FAMILIES.values()), header=TOP), spacing=14)
    )
    coarse = rows[rows.storage == BFLOAT16]
    small, large = (coarse[side].back for side in (coarse.rate < 1e-5, coarse.rate >= 1e-5))
    above = "nothing" if large.max() < 1 else f"{large.max():.0f} % at most"
    return chart, (
        f"With bfloat16 weights int4 takes back {small.min():.0f} to {small.max():.0f} % of the forgetting at the two "
        f"smaller learning rates, and {above} at the larger ones. With float32 weights it takes back "
        f"{rows[rows.storage == FLOAT32].back.max():.0f} % at most."
    )


RATES = {"1e-05": "#d1495b", "2e-05": "#e9a23b", "5e-05": "#2a9d8f", "0.0001": "#4a86e8", "not stated": "#8b949e"}


def public() -> Figure:
    """Every public result with a target: how much of what was forgotten a format brings back."""
    rows = evidence.public_results().dropna(subset="recovered").reset_index(drop=True)
    rows["rate"] = [f"{rate:g}" if rate == rate else "not stated" for rate in rows.rate]
    rows["foretold"] = "the account: " + rows.foretold
    rows["shown"] = rows.recovered.clip(-30, 110)
    order = list(evidence.FORETOLD)
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
    back = evidence.public("foretold == 'restores' and recovered >= 10")
    kept = evidence.public("foretold == 'keeps' and recovered < 10")
    of_back, of_kept = (evidence.public(f"foretold == '{word}'") for word in ("restores", "keeps"))
    return chart, (
        f"Public results by format. Where the account says that a format restores, {back} of {of_back} rows bring back "
        f"a tenth or more; where it says that a format keeps, {kept} of {of_kept} bring back less."
    )


EXPECTED = ("restores", "says nothing", "keeps")

FIGURES: dict[str, Callable[[], Figure]] = {
    "answers": answers,
    "outcomes": outcomes,
    "smollm2-formats": smollm2,
    "cures": cures,
    "rho": rho,
    "format-costs": formats,
    "default-study": default_study,
    "default-rho": default_rho,
    "learning-rates": learning_rates,
    "formats-recovered": formats_recovered,
    "dead-zone": dead_zone,
    "public-results": public,
    "foreign-seeds": foreign_seeds,
}


def message(name: str) -> str:
    return FIGURES[name]()[1]


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


def main() -> None:
    for name, figure in FIGURES.items():
        chart, said = figure()
        print(f"{name}: {said}")
        for theme in THEMES:
            (FOLDER / f"{name}{theme}.svg").write_text(drawn(chart, theme) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
