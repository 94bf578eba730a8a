"""What docs/evidence says of models that other tools made.

foreign-checkpoints.csv is of `benchmarks/foreign_checkpoints.py`, foreign-seeds.csv of `benchmarks/foreign_seeds.py`,
smollm2-gguf.csv and smollm2-engine.csv of `benchmarks/smollm2_gguf.py`, and audit-time.csv of
`benchmarks/audit_time.py`.
"""

from functools import cache

import pandas as pd

from evidence import FOLDER
from palimpsest.survival.prediction import KEPT, classify, read_table
from palimpsest.vocabulary import BFLOAT16, FLOAT32, FULL, TARGET, UNLEARNED

FAMILIES = {"llama": "Llama", "qwen2": "Qwen2", "gemma3_text": "Gemma 3", "gpt_neox": "GPT-NeoX"}
STORAGES = (BFLOAT16, FLOAT32)


@cache
def rows() -> pd.DataFrame:
    """A model of a family at a precision each; `storage` says which of the two unlearned models stands beside it."""
    return pd.read_csv(FOLDER / "foreign-checkpoints.csv", keep_default_na=False)


def families() -> dict[str, str]:
    """Those that were audited: what config.json calls them, and what we do."""
    there = set(rows().family)
    return {family: name for family, name in FAMILIES.items() if family in there}


def score(family: str, storage: str, precision: str, column: str = "knowmem", model: str = UNLEARNED) -> float:
    """Raises LookupError where there is no such row."""
    found = rows().query("family == @family and storage == @storage and precision == @precision and model == @model")
    if len(found) != 1:
        raise LookupError(f"docs/evidence/foreign-checkpoints.csv has no {model} of {family}, {storage}, {precision}")
    return float(found[column].iloc[0])


def table() -> str:
    """KnowMem of each family, as Markdown: the target, and the unlearned models at every precision."""
    precisions = list(dict.fromkeys(rows().precision))
    lines = [f"| model | target, {FULL} | {' | '.join(precisions)} |", "|---|---:|" + "---:|" * len(precisions)]
    for family, name in families().items():
        for storage in STORAGES:
            cells = [f"{score(family, storage, FULL, model=TARGET):.0f}"]
            cells += [f"{score(family, storage, each):.0f}" for each in precisions]
            lines.append(f"| {name}, {storage} | {' | '.join(cells)} |")
    return "\n".join(lines)


def judged_table(precision: str) -> str:
    """What a verdict goes by, as Markdown: probability of the true answers, and Utility; of the unlearned models in
    bf16 and at a precision, and of the target."""
    heads = [f"{column}, {which}" for column in ("probability", "Utility") for which in ("target", FULL, precision)]
    lines = [f"| model | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for family, name in families().items():
        for storage in STORAGES:
            cells = []
            for column, digits in (("probability", 1), ("utility", 0)):
                found = [score(family, storage, FULL, column, TARGET)]
                found += [score(family, storage, each, column) for each in (FULL, precision)]
                cells += [f"{each:.{digits}f}" for each in found]
            lines.append(f"| {name}, {storage} | {' | '.join(cells)} |")
    return "\n".join(lines)


def likelier(storage: str, precision: str, end: str) -> str:
    """How many times as likely the true answers are at a precision as in bf16: of the families the least or most."""
    times = [
        score(family, storage, precision, "probability") / score(family, storage, FULL, "probability")
        for family in families()
    ]
    return f"{(min if end == 'least' else max)(times):.1f}"


def verdicts() -> str:
    """What the verdict says of each unlearned model in each format, as Markdown."""
    formats = [each for each in dict.fromkeys(rows().precision) if each != FULL]
    said = rows().query("model == @UNLEARNED").set_index(["family", "storage", "precision"]).verdict
    lines = [f"| model | {' | '.join(formats)} |", "|---|" + "---|" * len(formats)]
    for family, name in families().items():
        for storage in STORAGES:
            cells = [said[family, storage, each].lower() for each in formats]
            lines.append(f"| {name}, {storage} | {' | '.join(cells)} |")
    return "\n".join(lines)


def is_returned(family: str, storage: str, precision: str) -> bool:
    """Whether a format brings back at least half of the answers that the model had forgotten: half of the way from its
    KnowMem in bf16 to that of the equally quantized target."""
    before, after = (score(family, storage, each) for each in (FULL, precision))
    return after - before >= (score(family, storage, precision, model=TARGET) - before) / 2


def returned(storage: str, precision: str) -> str:
    """In how many of the families a format does so."""
    found = sum(is_returned(family, storage, precision) for family in families())
    return f"{found} of {len(families())}"


def foretold_kept(storage: str, precision: str) -> str:
    """Of the families in which it does so, in how many `palimpsest survive` foretells that the forgetting is kept."""
    table = read_table()
    thresholds = table["restored_below"], table["kept_from"]
    back = [family for family in families() if is_returned(family, storage, precision)]
    said = [classify(score(family, storage, precision, "rho"), thresholds) for family in back]
    return f"{said.count(KEPT)} of {len(back)}"


def seconds(most: bool) -> str:
    """Of the processor, for an audit: the most, or the least."""
    found = rows().processor_seconds.astype(float)
    return f"{found.max() if most else found.min():.0f}"


@cache
def seeds() -> pd.DataFrame:
    """Unlearned models of width 256 over seeds and learning rates. `back`: what rounding to int4 takes back of the
    forgetting, (unlearned - rounded) / (unlearned - rounded target) in nats of the forget answers, percent."""
    key = ["family", "seed", "storage", "rate"]
    found = pd.read_csv(FOLDER / "foreign-seeds.csv").query("width == 256")
    target = found.query("model == @TARGET and format == 'int4'").set_index(["family", "seed"]).forget_nats
    nats = found.query("model == @UNLEARNED").pivot(index=key, columns="format", values="forget_nats").reset_index()
    there = target.loc[list(zip(nats.family, nats.seed, strict=True))].to_numpy()
    return nats.assign(back=100 * (nats["none"] - nats["int4"]) / (nats["none"] - there))


def back(end: str, query: str) -> str:
    """The least, mean or most that int4 takes back over the models that a pandas query leaves, percent."""
    found = seeds().query(query).back
    return f"{getattr(found, end)():.0f}"


@cache
def smollm2() -> pd.DataFrame:
    """The audit of SmolLM2 and its files."""
    return pd.read_csv(FOLDER / "smollm2-gguf.csv", keep_default_na=False)


def smollm2_score(precision: str, column: str, model: str = UNLEARNED) -> float:
    found = smollm2().query("precision == @precision and model == @model")
    if len(found) != 1:
        raise LookupError(f"docs/evidence/smollm2-gguf.csv has no {model} in {precision}")
    return float(found[column].iloc[0])


def smollm2_table() -> str:
    """KnowMem and Utility of both models, by precision, as Markdown."""
    heads = ["target, KnowMem", "unlearned, KnowMem", "target, Utility", "unlearned, Utility"]
    lines = [f"| precision | {' | '.join(heads)} |", "|---|---:|---:|---:|---:|"]
    for precision in dict.fromkeys(smollm2().precision):
        cells = [
            f"{smollm2_score(precision, column, model):.0f}"
            for column in ("knowmem", "utility")
            for model in (TARGET, UNLEARNED)
        ]
        lines.append(f"| {precision} | {' | '.join(cells)} |")
    return "\n".join(lines)


@cache
def engine() -> pd.DataFrame:
    """What llama.cpp computes of each of SmolLM2's files, beside its weights in transformers."""
    return pd.read_csv(FOLDER / "smollm2-engine.csv", keep_default_na=False)


def engine_table() -> str:
    """A line for each file, as Markdown."""
    heads = ["verdict", "greedy tokens", "the same", "largest gap", "ROUGE-L, llama.cpp", "ROUGE-L, transformers"]
    lines = [f"| file | {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 1)]
    for row in engine().itertuples():
        cells = [row.verdict, row.tokens, row.same_tokens, f"{row.gaps_largest:.2f} of {row.allowed_largest:.2f} nats"]
        cells += [f"{row.rouge_engine:.1f}", f"{row.rouge_transformers:.1f}"]
        lines.append(f"| {row.file} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def engine_ties() -> str:
    """Of the greedy tokens that are others in transformers, those that are no near ties, over all files."""
    return str(int((engine().tokens - engine().same_tokens - engine().near_ties).sum()))


def audit_time() -> str:
    """What an audit of a foreign checkpoint takes on this machine, as Markdown; without the file of
    `benchmarks/audit_time.py`, that nobody has measured it."""
    path = FOLDER / "audit-time.csv"
    if not path.exists():
        return "Nobody has measured this on an idle machine yet: the command is in the note below."
    row = pd.read_csv(path).iloc[0]
    formats = row.formats.split()
    cells = [f"{row.weights_millions:.0f} million", ", ".join(formats), f"{row.forget_records} + {row.retain_records}"]
    cells += [f"{row.minutes:.1f}", f"{row.processor_minutes:.1f}", f"{row.largest_process_gib:.1f} GiB"]
    heads = ["weights", "formats", "records", "minutes", "of the processor", "largest process"]
    machine = f"A cold run on {row.cores} cores of an {row.processor}, with nothing else beside."
    head = f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}"
    return f"{head}\n| {' | '.join(cells)} |\n\n{machine}"
