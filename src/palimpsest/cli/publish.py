"""`palimpsest card` and `palimpsest lm-eval-files`: a study's scores in the forms that other tools read."""

from pathlib import Path
from typing import Annotated

import typer

Results = Annotated[Path, typer.Argument(help="The results folder of a study, or of an audit.")]
Model = Annotated[str, typer.Option(metavar="NAME", help="A model of the study.")]
Precision = Annotated[str, typer.Option(metavar="NAME", help="bf16, or a format of the study.")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="By default the study's first.")]


def card(
    results: Results,
    model: Model,
    precision: Precision,
    base_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of the hub: what the file was made from. By default the study's checkpoint."
        ),
    ] = None,
    seed: Seed = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it there instead of printing it.")] = None,
) -> None:
    """A fragment of a model card for one audited file: what it retains, with metadata that the hub reads.

    \b
    Example: palimpsest card my-audit/results --model unlearned --precision bnb-nf4 --base-model me/unlearned
    """
    from palimpsest.errors import printable
    from palimpsest.tables.card import model_card

    text = model_card(results, model, precision, base_model, seed)
    if out:
        out.write_text(text, encoding="utf-8")
    else:
        print("\n".join(map(printable, text.splitlines())))


def lm_eval_files(
    results: Results,
    model: Model,
    precision: Precision,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Gets a folder for the model, as lm-eval makes it.")],
    seed: Seed = None,
) -> None:
    """Write VerMem, KnowMem and Utility as lm-eval does: results_*.json, and samples_*.jsonl with each response.

    \b
    Example: palimpsest lm-eval-files results --model ga_gdr --precision rtn-int4 --out lm-eval
    """
    from palimpsest.tables.lm_eval_files import write_lm_eval

    print("\n".join(map(str, write_lm_eval(results, model, precision, out, seed))))
