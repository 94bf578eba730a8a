"""What the documents say in numbers, read from docs/evidence and from the packaged table of measured pairs.

A *pair* is an unlearned model in a format. *Recovered* is the share of what the model had forgotten in bf16 that is
back in the format, in percent: (retained there - retained in bf16) / (100 - retained in bf16), over those of VerMem and
KnowMem that it had forgotten, as `palimpsest.survival.prediction` has it, and so are the outcomes *kept*, *partly* and
*restored*.
"""

import json
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from palimpsest.survival.prediction import (
    classify,
    corpus_of,
    forgotten_and_returned,
    outcome,
    read_table,
    thresholds_without,
)
from palimpsest.tables.seeds import seeds_table
from palimpsest.vocabulary import BFLOAT16, FLOAT32, FORGET_METRICS, FULL, HEADLINE, RETRAIN, TARGET, UNLEARNED

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "docs/evidence"

EIGHT_BITS = {"bnb-int8", "rtn-int8", "w8a8", "fp8", "gguf-q8_0", "torchao-int8"}
SCRATCH, SMOLLM2, PRETRAINED = "from scratch, 13 to 210 M", "SmolLM2, 135 M", "pretrained, 341 M"
BASES = {"scratch": SCRATCH, "smollm2": SMOLLM2, "pretrained": PRETRAINED}
PRETRAINED_STUDIES = ("pretrained", "pretrained-seeds", "pretrained-second-base")
"""Studies of PRETRAINED. The packaged table of pairs has none of them: no threshold was chosen on them."""
SIZES = {SCRATCH: None, SMOLLM2: 134_515_008, PRETRAINED: 341_099_520}
RULES = {"forgotten_below": 50.0, "negligible": 10.0, "minimum_gap": 5.0}
"""`rules` of every study's params.yaml: what counts as forgotten in bf16, percent; what counts as nothing, points; how
far target and retrained model must be apart for a share, points."""


@cache
def scores(study: str) -> pd.DataFrame:
    """The rows of docs/evidence/STUDY.csv: a model, seed and precision each."""
    return pd.read_csv(FOLDER / f"{study}.csv")


def score(study: str, column: str, model: str, precision: str, seed: int | None = None) -> float:
    """One column of a model at a precision, mean over seeds. Raises LookupError where there is no such row."""
    rows = scores(study).query("model == @model and precision == @precision")
    rows = rows if seed is None else rows[rows.seed == seed]
    if rows.empty or rows[column].isna().all():
        raise LookupError(f"docs/evidence/{study}.csv has no {column} of {model} in {precision}")
    return float(rows[column].mean())


def retained(study: str, model: str, precision: str, seed: int | None = None) -> float:
    """Percent of what the equally quantized target knows above the retrained model, mean of VerMem and KnowMem."""
    return score(study, f"retained_{HEADLINE}_mean", model, precision, seed)


def pairs_of(study: str) -> list[dict]:
    """The pairs of docs/evidence/STUDY.csv. The packaged table has each pair once, whatever studies it is part of."""
    rows = {(row["model"], row["seed"], row["precision"]): row for row in scores(study).to_dict("records")}
    found = []
    for (model, seed, precision), row in rows.items():
        if row["kind"] != UNLEARNED or precision == FULL:
            continue
        there, before = (
            {m: None if pd.isna(v := r[f"retained_{HEADLINE}_{m}"]) else v for m in FORGET_METRICS}
            for r in (row, rows[model, seed, FULL])
        )
        if compared := forgotten_and_returned(there, before, RULES["forgotten_below"]):
            lost, after, earlier = compared
            found.append(
                {"study": study, "model": model, "weights": row["weights"]}
                | {"seed": seed, "precision": precision, "rho": row["rho"], "forgotten": lost}
                | {"recovered_share": (after - earlier) / (100 - earlier)}
                | {"outcome": outcome(after, earlier, RULES["negligible"])}
            )
    return found


def missing_rho(study: str) -> int:
    """How many pairs of docs/evidence/STUDY.csv have no rho."""
    return sum(pd.isna(pair["rho"]) for pair in pairs_of(study))


def spread(study: str, column: str, model: str, precision: str) -> str:
    """One column of a model at a precision: the mean over its seeds and, in brackets, the least and the greatest seed
    where they differ once rounded."""
    score(study, column, model, precision)  # there is such a row
    return _spread(scores(study).query("model == @model and precision == @precision")[column])


def _spread(values: pd.Series) -> str:
    mean, least, most = (whole(value) for value in (values.mean(), values.min(), values.max()))
    return mean if least == most else f"{mean} ({least} to {most})"


def target_keeps(study: str, metric: str, precision: str) -> str:
    """Of a score of the target in bf16: what it has at a precision, percent, in the seed that keeps least."""
    known = scores(study).query("kind == @TARGET").set_index(["precision", "seed"])[metric]
    return whole(100 * (known[precision] / known[FULL]).min())


@cache
def _shares(study: str) -> pd.DataFrame:
    """docs/evidence/STUDY-shares.csv, which `python docs/tools/shares.py` prints."""
    return pd.read_csv(FOLDER / f"{study}-shares.csv")


def kept_share(study: str, models: str, denominator: str, precision: str) -> str:
    """What some models, joined by ", ", keep of the forget knowledge by a denominator: mean over them and their seeds,
    percent, with the interval over prompts and questions in brackets. Raises LookupError where there is no such row."""
    rows = _shares(study).query("models == @models and denominator == @denominator and precision == @precision")
    if len(rows) != 1:
        raise LookupError(f"docs/evidence/{study}-shares.csv has no {denominator} of {models} in {precision}")
    row = rows.iloc[0]
    return f"{whole(row.share)} ({whole(row.low)} to {whole(row.high)})"


CALLED_MODELS = {
    TARGET: "target",
    RETRAIN: "retrained",
    "npo_gdr": "NPO_GDR, bfloat16",
    "npo_gdr_stochastic": "NPO_GDR, stochastic rounding",
    "npo_gdr_float32": "NPO_GDR, float32",
    "npo_klr": "NPO_KLR, bfloat16",
    "ga_gdr": "GA_GDR, bfloat16",
    "ga_klr": "GA_KLR, bfloat16",
}
CALLED_FORMATS = {
    FULL: FULL,
    "bnb-fp4": "FP4",
    "bnb-nf4": "NF4",
    "rtn-int4": "int4",
    "rtn-int4-g128": "int4, groups of 128",
    "gptq": "GPTQ",
}
DENOMINATORS = {
    "ratio_bf16": "score / target in bf16, as the paper prints it",
    "ratio_same_precision": "score / target in the same format",
    "bf16": "above the retrained model, target in bf16",
    "same_precision": "above the retrained model, target in the same format",
}
"""Models, formats and `denominator` of STUDY-shares.csv, as the pages of PRETRAINED_STUDIES call them."""


def _by_format(study: str, head: str, rows: dict[str, Callable[[str], str]]) -> str:
    """A row for each name, of what its function says of a format, in the formats of a study, as Markdown."""
    known = set(scores(study).precision)
    formats = [name for name in CALLED_FORMATS if name in known]
    lines = [f"| {head} | {' | '.join(CALLED_FORMATS[name] for name in formats)} |", "|---|" + "---:|" * len(formats)]
    lines += [f"| {name} | {' | '.join(said(at) for at in formats)} |" for name, said in rows.items()]
    return "\n".join(lines)


def _models(study: str) -> list[str]:
    known = set(scores(study).model)
    return [model for model in CALLED_MODELS if model in known]


def scores_by_format(study: str, column: str, *left_out: str) -> str:
    """`spread` of a study's models by format, as Markdown, but for some models; what is retained has none of the target
    and the retrained model, which define it."""
    defining = {TARGET, RETRAIN} if column.startswith("retained_") else set()
    models = [model for model in _models(study) if model not in {*defining, *left_out}]
    return _by_format(study, "", {CALLED_MODELS[model]: partial(spread, study, column, model) for model in models})


def shares_by_format(study: str, means: dict[str, str] | None = None) -> str:
    """`kept_share` of a study's unlearned models, and of the means that are given (by what they are called), above the
    retrained model and against the target in the same format, as Markdown."""
    rows = {CALLED_MODELS[model]: model for model in _models(study) if model not in (TARGET, RETRAIN)} | (means or {})
    return _by_format(
        study, "", {name: partial(kept_share, study, models, "same_precision") for name, models in rows.items()}
    )


def shares_by_denominator(study: str, models: str) -> str:
    """`kept_share` of some models by each denominator and format, as Markdown."""
    rows = {said: partial(kept_share, study, models, name) for name, said in DENOMINATORS.items()}
    return _by_format(study, "share that is kept, percent", rows)


def _broken() -> set[tuple[str, str, int]]:
    """Study, model and seed of those whose Utility in bf16 is below half of the target's."""
    found = set()
    for file in FOLDER.glob("*.csv"):
        rows = pd.read_csv(file)
        if {"broken", "kind"} <= set(rows):
            rows = rows[(rows.kind == UNLEARNED) & (rows.precision == FULL) & (rows.broken.astype(str) == "True")]
            found |= {(file.stem, model, seed) for model, seed in zip(rows.model, rows.seed, strict=True)}
    return found


@cache
def pairs() -> pd.DataFrame:
    """All measured pairs that have a rho: that of a run that was stopped is missing for some, and these are counted
    nowhere. Columns beside the table's: tabled (of the packaged table), base, bits (4 or 8), finer
    (weights stored more finely than bfloat16), broken, recovered (percent)."""
    table = read_table()
    assert table is not None, "the package ships its table"
    thresholds = thresholds_without(table["measured"], "corpus")
    rows = pd.DataFrame(
        [pair | {"tabled": True} for pair in table["measured"]]
        + [
            pair | {"tabled": False, "foretold": classify(pair["rho"], thresholds[_corpus(study)])}
            for study in PRETRAINED_STUDIES
            for pair in pairs_of(study)
            if not pd.isna(pair["rho"])
        ]
    )
    broken = _broken()
    rows["base"] = [
        SMOLLM2 if size == SIZES[SMOLLM2] else PRETRAINED if study in PRETRAINED_STUDIES else SCRATCH
        for size, study in zip(rows.parameters, rows.study, strict=True)
    ]
    rows["bits"] = rows.precision.isin(EIGHT_BITS).map({True: 8, False: 4})
    rows["finer"] = rows.weights != BFLOAT16
    rows["broken"] = [key in broken for key in zip(rows.study, rows.model, rows.seed, strict=True)]
    rows["recovered"] = 100 * rows.recovered_share
    return rows


def _corpus(study: str) -> str:
    """The text of a study, as the packaged table names it."""
    params = yaml.safe_load((REPOSITORY / "studies" / study / "params.yaml").read_text(encoding="utf-8"))
    return corpus_of(params["corpus"])


def count(query: str = "index >= 0", **equal: object) -> int:
    """How many pairs a pandas query (see `share`) and equal columns leave."""
    rows = pairs().query(query, local_dict=BASES)
    for name, value in equal.items():
        rows = rows[rows[name] == value]
    return len(rows)


def share(outcome_: str, query: str) -> str:
    """How many percent of the pairs that a pandas query leaves came out so; @scratch, @smollm2 and @pretrained are the
    bases in it."""
    rows = pairs().query(query, local_dict=BASES)
    return f"{100 * (rows.outcome == outcome_).mean():.0f} %"


@cache
def format_costs() -> pd.DataFrame:
    """The table of a 1 B model in quantizers-cost.txt: seconds of two cores, MiB on disk, bits a weight, by format."""
    text = (FOLDER / "quantizers-cost.txt").read_text(encoding="utf-8").split("\n\n")[0]
    found = re.findall(r"^([a-z]\S+)((?: +[\d.]+){8})$", text, re.MULTILINE)
    rows = [(name, *map(float, numbers.split())) for name, numbers in found]
    columns = ["precision", "seconds", "quantize", "prove", "peak", "above", "mapped", "disk", "bits"]
    return pd.DataFrame(rows, columns=columns)


def prediction(name: str) -> float:
    """A number of the packaged table: "restored_below", "kept_from", "pairs", "errors", "auc_returned" and others."""
    table = read_table()
    assert table is not None
    return table[name]


def pairs_wrong(query: str = "tabled", **equal: object) -> str:
    """What the thresholds, chosen without the same corpus, get wrong: in percent of the pairs that a pandas query (see
    `share`) and equal columns leave."""
    rows = pairs().query(query, local_dict=BASES)
    for name, value in equal.items():
        rows = rows[rows[name] == value]
    return f"{100 * (rows.foretold != rows.outcome).mean():.0f} %"


def moved(precision: str, finer: bool) -> str:
    """Of the weights that unlearning moved in the default study, the least share (percent) in a format's dead zone,
    over the models with finer weights or the others."""
    rows = pd.read_csv(FOLDER / "moved-weights.csv")
    return f"{rows[(rows.weights != BFLOAT16) == finer][f'in the dead zone of {precision} (%)'].min():.0f}"


FORETOLD = {
    "FP4": "restores",
    "RTN int4, groups of 128": "restores",
    "AWQ": "says nothing",
    "GPTQ": "says nothing",
    "Q4_0": "keeps",
    "Q4_K_M": "keeps",
    "NF4": "keeps",
    "LLM.int8": "keeps",
}
"""What the account of the dead zone says of a format at the usual learning rates."""
PAPER = "arXiv 2410.16454"


@cache
def public_results() -> pd.DataFrame:
    """docs/evidence/public-results.csv, with `recovered`: (quantized - unlearned) / (target - unlearned) in percent,
    the target being the equally quantized one where it was measured; nothing where no target is given. `foretold` is
    of FORETOLD; `paper`: whether the row is of the paper that this project repeats."""
    rows = pd.read_csv(FOLDER / "public-results.csv")
    target = rows.target_quantized.fillna(rows.target)
    rows["recovered"] = 100 * (rows.quantized - rows.unlearned) / (target - rows.unlearned)
    rows["foretold"] = rows.format.map(FORETOLD)
    rows["paper"] = rows.source.str.startswith(PAPER)
    return rows


def public(query: str = "index >= 0") -> int:
    """How many public rows with a recovery a pandas query leaves."""
    return len(public_results().dropna(subset="recovered").query(query))


def retained_table(study: str, *columns: str) -> str:
    """Retained knowledge of every unlearned model of a study, mean over its seeds, at some precisions, as Markdown."""
    rows = scores(study)
    rows = rows[rows.kind == UNLEARNED]
    means = rows.groupby(["model", "precision"], sort=False)[f"retained_{HEADLINE}_mean"].mean()
    storage = rows.groupby("model").weights.first()
    lines = [f"| method | weights | {' | '.join(columns)} |", "|---|---|" + "---:|" * len(columns)]
    for model in dict.fromkeys(rows.model):
        cells = [whole(means[model, name]) for name in columns]
        lines.append(f"| {model} | {storage[model]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def metric_table(study: str, column: str, *precisions: str, digits: int = 1) -> str:
    """A column of every model of a study, mean over its seeds, at some precisions, as Markdown."""
    rows = scores(study)
    lines = [f"| model | weights | {' | '.join(precisions)} |", "|---|---|" + "---:|" * len(precisions)]
    for model, weights in dict(zip(rows.model, rows.weights, strict=True)).items():
        cells = [f"{score(study, column, model, precision):.{digits}f}" for precision in precisions]
        lines.append(f"| {model} | {weights} | {' | '.join(cells)} |")
    return "\n".join(lines)


FINER = "_float32"
"""How the twin of a method is named whose weights were stored in float32 while it unlearned."""
CALLED = {"verbmem": "VerMem", "knowmem": "KnowMem"}


@cache
def twins(study: str, precision: str = "rtn-int4") -> pd.DataFrame:
    """The methods of a study that have a twin with float32 weights: the percent that a format brings back of what each
    had forgotten (`pairs_of`, mean over seeds), with bfloat16 weights (`coarse`) and with float32 ones (`fine`), none
    where it had forgotten nothing; and by what measures it had forgotten (`coarse_by`, `fine_by`)."""
    known = list(dict.fromkeys(scores(study).query("kind == @UNLEARNED").model))
    columns = ["model", "precision", "recovered_share", "forgotten"]
    found = pd.DataFrame(pairs_of(study), columns=columns).query("precision == @precision")
    rows = []
    for model in known:
        if model + FINER not in known:
            continue
        row: dict[str, Any] = {"method": model}
        for name, suffix in (("coarse", ""), ("fine", FINER)):
            mine = found[found.model == model + suffix]
            row[name] = 100 * mine.recovered_share.mean()
            measures = {measure for each in mine.forgotten for measure in each}
            row[f"{name}_by"] = ", ".join(said for measure, said in CALLED.items() if measure in measures)
        rows.append(row)
    return pd.DataFrame(rows)


def twins_table(study: str, precision: str = "rtn-int4") -> str:
    """`twins` as Markdown."""
    heads = ["method"]
    for storage in (BFLOAT16, FLOAT32):
        heads += [f"{storage}: forgotten by", "brought back, %"]
    lines = [f"| {' | '.join(heads)} |", "|---|---|---:|---|---:|"]
    for row in twins(study, precision).to_dict("records"):
        cells = []
        for name in ("coarse", "fine"):
            cells += [row[f"{name}_by"] or "neither", "–" if pd.isna(row[name]) else whole(row[name])]
        lines.append(f"| {row['method']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def whole(value: float) -> str:
    """Rounded, and never "-0"."""
    return f"{value:.0f}".replace("-0", "0") if round(value) == 0 else f"{value:.0f}"


def twins_count(study: str, query: str = "index >= 0", precision: str = "rtn-int4") -> int:
    """How many methods of `twins` a pandas query leaves."""
    return len(twins(study, precision).query(query))


def twins_value(study: str, method: str, column: str, precision: str = "rtn-int4") -> str:
    """A number of `twins`. Raises LookupError where there is none."""
    rows = twins(study, precision).query("method == @method")
    if rows[column].isna().all():
        raise LookupError(f"docs/evidence/{study}.csv has no {column} of {method} in {precision}")
    return whole(rows[column].iloc[0])


@cache
def attacks(study: str) -> pd.DataFrame:
    """The rows of docs/evidence/STUDY-attacks.csv, which `palimpsest tables attacks` prints, and for each model and
    precision one of the attack "none": what the models show without one. Its interval is not computed."""
    rows = pd.read_csv(FOLDER / f"{study}-attacks.csv")
    plain = rows.dropna(subset="plain").drop_duplicates(["model", "precision", "metric"]).copy()
    known = plain.set_index(["model", "precision", "metric"]).plain
    plain["attack"] = plain["kind"] = NO_ATTACK
    plain["strength"] = plain["low"] = plain["high"] = float("nan")
    plain["attacked"] = plain.plain
    for column, model in (("floor", RETRAIN), ("ceiling", TARGET)):
        plain[column] = [known[model, row.precision, row.metric] for row in plain.itertuples()]
    plain["excess"] = plain.attacked - plain.floor
    gap = plain.ceiling - plain.floor
    plain["share"] = (100 * plain.excess / gap).where(gap >= RULES["minimum_gap"])
    return pd.concat([plain, rows], ignore_index=True)


NO_ATTACK = "none"


def attack(study: str, column: str, name: str, model: str, precision: str) -> float:
    """A column of an attack on a model at a precision, by KnowMem. Raises LookupError where it has no value."""
    rows = attacks(study).query(
        "attack == @name and model == @model and precision == @precision and metric == 'knowmem'"
    )
    if len(rows) != 1 or rows[column].isna().all():
        raise LookupError(f"docs/evidence/{study}-attacks.csv has no {column} of {name} on {model} in {precision}")
    return float(rows[column].iloc[0])


def attack_table(study: str, column: str, models: list[str], precisions: list[str], digits: int = 0) -> str:
    """A column of every attack on some models at some precisions, by KnowMem, as Markdown; `excess` with its interval,
    and "–" where there is no value, as for a share where target and retrained model are alike."""
    rows = attacks(study).query("metric == 'knowmem'")
    cells = {(row.attack, row.model, row.precision): row for row in rows.itertuples()}
    heads = [f"{model}, {precision}" for model in models for precision in precisions]
    lines = [f"| attack | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for row in rows.drop_duplicates("attack").itertuples():
        said = [
            _attack_cell(cells.get((row.attack, model, precision)), column, digits)
            for model in models
            for precision in precisions
        ]
        lines.append(f"| {_attack_name(row)} | {' | '.join(said)} |")
    return "\n".join(lines)


def _attack_cell(row: Any, column: str, digits: int) -> str:
    value = float("nan") if row is None else getattr(row, column)
    if pd.isna(value):
        return "–"
    text = f"{value:.{digits}f}"
    ends = "" if column != "excess" or pd.isna(row.low) else f" ({row.low:.{digits}f} to {row.high:.{digits}f})"
    return text.replace("-0", "0", 1) + ends if float(text) == 0 else text + ends


def _attack_name(row: Any) -> str:
    said = {
        "relearn": f"relearning, {row.strength:g} steps",
        "prune": f"pruning, {row.strength:g} %",
        "prefix": f"the first {row.strength:g} words of the answer",
        "sample": "the best of several samples",
        "paraphrase": "the question in other words",
    }
    return said.get(row.kind, row.attack)


def most_of_attacks(study: str, column: str, model: str, precision: str, kinds: list[str] | None = None) -> float:
    """The largest value of a column over the attacks, or those of some kinds, on a model at a precision."""
    rows = attacks(study).query(
        "attack != @NO_ATTACK and model == @model and precision == @precision and metric == 'knowmem'"
    )
    rows = rows if kinds is None else rows[rows.kind.isin(kinds)]
    if rows[column].isna().all():
        raise LookupError(f"docs/evidence/{study}-attacks.csv has no {column} of {model} in {precision}")
    return float(rows[column].max())


def default_seeds() -> pd.DataFrame:
    """The rows of the default study and of its further seeds, a model, seed and precision each."""
    return pd.concat([scores("default"), scores("default-seeds")])


def default_seeds_table() -> str:
    """What models of the default study retain of text and of answers, bf16 and int4, percent, as Markdown: the mean
    over seeds with the least and the greatest of them."""
    rows, heads = default_seeds(), {"verbmem": "text", "knowmem": "answers"}
    columns = [(metric, at) for metric in heads for at in (FULL, "rtn-int4")]
    lines = [f"| | {' | '.join(f'{heads[metric]}, {at}' for metric, at in columns)} |"]
    lines.append("|---|" + "---:|" * len(columns))
    for model in ("ga_gdr", "ga_klr", "npo_gdr", "npo_klr", "npo_gdr_float32"):
        cells = []
        for metric, at in columns:
            cells.append(_spread(rows[(rows.model == model) & (rows.precision == at)][f"retained_{HEADLINE}_{metric}"]))
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def kernels_table() -> str:
    """What `benchmarks/kernels.py` printed on each processor, as Markdown."""
    rows = pd.read_csv(FOLDER / "kernels.csv", dtype=str)
    head = "| processor | torch | kernels | weights | seconds a step | hash of the weights |"
    return "\n".join(
        [head, "|---|---|---|---|---:|---|", *(f"| {' | '.join(row)} |" for row in rows.itertuples(index=False))]
    )


def pretrained_base(study: str) -> dict[str, Any]:
    """What docs/evidence/pretrained-base.json has of the base of docs/evidence/STUDY.csv."""
    bases = json.loads((FOLDER / "pretrained-base.json").read_text(encoding="utf-8"))["bases"]
    return next(base for base in bases if base["study"] == study)


def between_seeds_table() -> str:
    """How far the seeds of studies/all-quantizers-gpu lie apart, as `palimpsest tables recovery --between-seeds` has
    it."""
    return seeds_table([FOLDER / "all-quantizers-gpu.csv"])


def fuzzed(column: str) -> str:
    """Of docs/evidence/fuzz.csv: how many kinds of files, or the sum of a column over them. Raises ValueError where a
    kind has a finding, for the page says that there is none."""
    rows = pd.read_csv(FOLDER / "fuzz.csv")
    if rows.findings.any():
        raise ValueError("docs/evidence/fuzz.csv has findings: the page that says otherwise is to be written anew")
    return f"{len(rows) if column == 'kind' else rows[column].sum():,.0f}"


def survive_costs_table() -> str:
    """What `benchmarks/survive.py --csv` wrote of time and memory, as Markdown."""
    heads = ["command", "weights, M", "seconds of the processor", "memory of its own, MiB", "machine"]
    lines = [f"| {' | '.join(heads)} |", "|---|---:|---:|---:|---|"]
    for row in pd.read_csv(FOLDER / "survive-cost.csv", dtype=str).itertuples():
        measured = f"{row.weights_millions} | {row.processor_seconds} | {row.anonymous_mib}"
        lines.append(f"| `{row.command}` | {measured} | {row.cores} cores, {row.processor} |")
    return "\n".join(lines)


def printed(name: str, *left_out: str) -> str:
    """A table of docs/evidence, as the command of `palimpsest tables` printed it, but for some columns."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    heads = [cell.strip() for cell in lines[0].split("|")]
    if missing := set(left_out).difference(heads):
        raise LookupError(f"docs/evidence/{name} has no column {missing.pop()}")
    dropped = {heads.index(head) for head in left_out}
    return "\n".join(
        "|".join(cell for place, cell in enumerate(line.split("|")) if place not in dropped or line[:1] != "|")
        for line in lines
    )


def mean_retained(study: str, models: list[str], precision: str) -> str:
    """Retained knowledge of some models of a study at a precision, mean over models and seeds, percent."""
    return f"{sum(retained(study, model, precision) for model in models) / len(models):.0f}"
