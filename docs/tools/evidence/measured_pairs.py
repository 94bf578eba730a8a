"""All measured pairs: those of the packaged table, and those of the studies that came after it.

A *pair* is an unlearned model in a format. *Recovered* is the share of what the model had forgotten in bf16 that is
back in the format, in percent: (retained there - retained in bf16) / (100 - retained in bf16), over those of VerMem and
KnowMem that it had forgotten, as `palimpsest.survival.prediction` has it, and so are the outcomes *kept*, *partly* and
*restored*.
"""

from functools import cache

import pandas as pd
import yaml

from evidence import places
from evidence.studies import RULES, scores
from palimpsest.survival.prediction import (
    classify,
    corpus_of,
    forgotten_and_returned,
    outcome,
    read_table,
    thresholds_without,
)
from palimpsest.vocabulary import BFLOAT16, FORGET_METRICS, FULL, HEADLINE, UNLEARNED

EIGHT_BITS = {"bnb-int8", "rtn-int8", "w8a8", "fp8", "gguf-q8_0", "torchao-int8"}
SCRATCH, SMOLLM2, PRETRAINED = "from scratch, 13 to 210 M", "SmolLM2, 135 M", "pretrained, 341 M"
BASES = {"scratch": SCRATCH, "smollm2": SMOLLM2, "pretrained": PRETRAINED}
PRETRAINED_STUDIES = ("pretrained", "pretrained-seeds", "pretrained-second-base")
"""Studies of PRETRAINED. The packaged table of pairs has none of them: no threshold was chosen on them."""
SIZES = {SCRATCH: None, SMOLLM2: 134_515_008, PRETRAINED: 341_099_520}


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


@cache
def pairs() -> pd.DataFrame:
    """All measured pairs. Columns beside the table's: tabled (of the packaged table), base, bits (4 or 8), finer
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


def _broken() -> set[tuple[str, str, int]]:
    """Study, model and seed of those whose Utility in bf16 is below half of the target's."""
    found = set()
    for file in places.FOLDER.glob("*.csv"):
        rows = pd.read_csv(file)
        if {"broken", "kind"} <= set(rows):
            rows = rows[(rows.kind == UNLEARNED) & (rows.precision == FULL) & (rows.broken.astype(str) == "True")]
            found |= {(file.stem, model, seed) for model, seed in zip(rows.model, rows.seed, strict=True)}
    return found


def _corpus(study: str) -> str:
    """The text of a study, as the packaged table names it."""
    params = yaml.safe_load((places.REPOSITORY / "studies" / study / "params.yaml").read_text(encoding="utf-8"))
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
