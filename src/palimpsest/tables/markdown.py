"""The audit as Markdown tables, for documents: `palimpsest tables audit results/audit.json`."""

from collections.abc import Iterable, Sequence

from palimpsest.audit.battery import texts
from palimpsest.audit.cautions import cautions, meaning_of_a_minus, privleak_cautions
from palimpsest.audit.groups import headline_group
from palimpsest.audit.shapes import Audit, SeedsRow
from palimpsest.vocabulary import FULL, HEADLINE, PERPLEXITY, UNLEARNED

MISSING = "–"


def tables(audit: Audit) -> str:
    """Retained forget knowledge, the metrics and rho of every model at every precision, means over the seeds."""
    precisions = audit["precisions"]
    cells = {(row["model"], row["precision"]): row for row in audit["over_seeds"]}
    models = [row["model"] for row in audit["over_seeds"] if row["precision"] == FULL]
    unlearned = [model for model in models if cells[model, FULL]["kind"] == UNLEARNED]
    headline = audit["denominators"]["headline"]
    kept = [[model, *(number(_kept(cells[model, p], headline)) for p in precisions)] for model in unlearned]
    kept += _means(audit)
    perplexity = [[model, *(number(cells[model, p]["metrics"][PERPLEXITY], 2) for p in precisions)] for model in models]
    rho = [[model, *(number(cells[model, p]["rho"], 2) for p in precisions if p != FULL)] for model in unlearned]
    quantized = [precision for precision in precisions if precision != FULL]
    return "\n\n".join(
        [
            f"Retained forget knowledge, percent{'' if headline == HEADLINE else ' of the target in bf16'}:",
            table(["", *precisions], kept),
            *_meaning(audit, unlearned),
            metrics_table(audit),
            *privleak_cautions(audit),
            "Perplexity:",
            table(["", *precisions], perplexity),
            "rho:",
            table(["", *quantized], rho),
            *_battery(audit),
        ]
    )


def _means(audit: Audit) -> list[list[str]]:
    """A line for each denominator; none where the study has no methods to average."""
    group = headline_group(audit["averages"])
    if group is None:
        return []
    title = f"**mean of {', '.join(group['models'])}**"
    return [
        [f"{title}: {label}", *(number(row["retained"][name]["value"]) for row in group["rows"])]
        for name, label in audit["denominators"].items()
        if name != "headline"
    ]


def _kept(row: SeedsRow, denominator: str = HEADLINE) -> float | None:
    return row["retained"][denominator]["value"] if row["retained"] else None


def _meaning(audit: Audit, unlearned: Sequence[str]) -> list[str]:
    """What to know before reading a number of the table as forgetting."""
    rows = [_kept(row) for row in audit["over_seeds"]]
    groups = audit["averages"].values()
    means = [row["retained"][HEADLINE]["value"] for group in groups for row in group["rows"]]
    minus = meaning_of_a_minus([*rows, *means], audit["rules"]["negligible"])
    return [*([minus] if minus else []), *cautions(audit, unlearned)]


def metrics_table(audit: Audit) -> str:
    """All metrics but perplexity of every model at every precision, means over the seeds, in one cell each."""
    precisions = audit["precisions"]
    cells = {(row["model"], row["precision"]): row for row in audit["over_seeds"]}
    models = list(dict.fromkeys(model for model, _ in cells))
    names = [name for name in cells[models[0], FULL]["metrics"] if name != PERPLEXITY]
    lines = [
        [model, *(" / ".join(number(cells[model, p]["metrics"][name]) for name in names) for p in precisions)]
        for model in models
    ]
    return "\n\n".join([f"{' / '.join(names)}, percent:", table(["", *precisions], lines)])


def _battery(audit: Audit) -> list[str]:
    head, lines = texts(audit)
    return ["Utility battery, percent (Flu: 100 times bits), standard errors:", table(head, lines)] if lines else []


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table; all columns but the first are numbers, set right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, digits: int = 0) -> str:
    """Rounded to `digits`; a dash where there is no number."""
    return MISSING if value is None else f"{value:z.{digits}f}"
