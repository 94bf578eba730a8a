"""The command line: `palimpsest COMMAND ...`. A mistake of the user's is one line on stderr and exit code 1."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from palimpsest.cli import audit, deployed, publish, verdict
from palimpsest.cli.tables import tables
from palimpsest.errors import PalimpsestError, one_line, printable

HELP = """Does a language model that was made to forget still forget after it is quantized?

A study is run by `snakemake --cores all` (or `make audit`), an audit of your own model by `palimpsest audit`; the other
commands look at checkpoints and at results.
"""
app = typer.Typer(
    name="palimpsest", help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)
app.add_typer(tables, name="tables")
app.command(epilog=verdict.HELP)(audit.audit)
app.command()(audit.new)
app.command(epilog=verdict.HELP)(verdict.verdict)
app.command()(verdict.policy)
app.command()(verdict.sign)
app.command()(verdict.check)
app.command()(verdict.reproduce)
app.command(epilog=deployed.HELP)(deployed.engine)
app.command(epilog=deployed.ORIGIN_HELP)(deployed.deployed)
app.command()(publish.card)
app.command()(publish.lm_eval_files)

WRONG_USE = 64
"""The exit code of a command line that is no command (EX_USAGE): 2 says that a model failed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    with one_line("palimpsest"):
        try:
            app(args=arguments, prog_name="palimpsest")
        except verdict.Outcome as end:
            return int(str(end.code))
        except SystemExit as end:
            return WRONG_USE if end.code == 2 else int(end.code or 0)
    return 0


def fail(problems: Sequence[str]) -> None:
    """Say what is wrong, a line each, and end with exit code 1; does nothing where nothing is."""
    if problems:
        print("\n".join(map(printable, problems)), file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def survive(
    target: Annotated[str, typer.Argument(help="Before unlearning: a folder (safetensors), GGUF file or hub model.")],
    unlearned: Annotated[str, typer.Argument(help="After unlearning, likewise; OWNER/NAME@REVISION on the hub.")],
    quantizer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A format, by name; several: repeat it, or use commas. An unknown name prints the list.",
        ),
    ] = None,
    params: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The formats of a study's params.yaml that weights alone decide."),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Print a table by kind of layer, too.")] = False,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the whole record to this file.")] = None,
) -> None:
    """What of an unlearning update is left in each format, from two checkpoints: no data, no GPU, no forward pass.

    \b
    Example: palimpsest survive TARGET UNLEARNED --quantizer bnb-nf4,rtn-int4
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: the cores are taken by blocks of rows
    from tqdm import tqdm

    from palimpsest.artefacts import write_json
    from palimpsest.study.params import read_params
    from palimpsest.survival.checkpoints import DEFAULT_FORMATS, choose_formats, count_weights, formats_of
    from palimpsest.survival.checkpoints import survive as measure
    from palimpsest.survival.prediction import read_table
    from palimpsest.survival.sources import located
    from palimpsest.survival.text import add_predictions, render

    if quantizer and params:
        raise typer.BadParameter("--quantizer and --params exclude each other: give one.")
    before, after = located(target), located(unlearned)
    if before.samefile(after):
        raise PalimpsestError(f"{target} is both target and unlearned model: give two checkpoints.")
    named = [name for each in quantizer or [] for name in each.split(",")]
    quantizers, skipped = (
        formats_of(read_params(params)["quantizers"]) if params else (choose_formats(named or DEFAULT_FORMATS), {})
    )
    with tqdm(total=count_weights(before), unit=" weights", unit_scale=True, leave=False, disable=None) as bar:
        record = measure(before, after, quantizers, bar.update, may_skip=not named)
    record["skipped"] = skipped | record["skipped"]
    record["target"], record["unlearned"] = target, unlearned  # as they are called: a model of the hub lies in a cache
    record["folders"] = {"target": str(before), "unlearned": str(after)}
    table = read_table()
    add_predictions(record, table)
    if json:
        write_json(json, record)
    print(render(record, table, layers), end="")


@app.command()
def verify(
    results: Annotated[Path, typer.Argument(help="The results folder of a study.")] = Path("results"),
    params: Annotated[Path, typer.Argument(help="The study's params.yaml.")] = Path("params.yaml"),
    parts: Annotated[
        list[str] | None, typer.Argument(help="Folders of the results, such as models; all without them.")
    ] = None,
) -> None:
    """Hold every artefact to its hashes, its inputs, params.yaml and the code.

    \b
    Example: palimpsest verify studies/muse-news/results studies/muse-news/params.yaml
    """
    from palimpsest.errors import choose
    from palimpsest.study.params import read_params
    from palimpsest.study.verify import parts_of, problems

    known = parts_of(results)
    for part in parts or []:
        choose(dict.fromkeys(known), part, f"part of {results}")
    fail(problems(results, read_params(params), parts or known))
    print(f"{', '.join(parts or known)}: every artefact matches its hashes, inputs, settings and code.")


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="A stage of dvc.yaml.")],
    target: Annotated[
        str | None, typer.Argument(help="The rule that asks for all that the stage makes; by default of the same name.")
    ] = None,
    again: Annotated[list[str] | None, typer.Option(metavar="RULE", help="Run this rule in any case.")] = None,
) -> None:
    """Run one stage of dvc.yaml: Snakemake with the stage's own rules, then verify. `dvc repro` calls it.

    \b
    Example: palimpsest stage models
    """
    from palimpsest.study.stages import run_stage

    fail(run_stage(name, target or name, again or []))


@app.command()
def dvc_params(
    params: Annotated[Path, typer.Argument(help="A study's params.yaml.")] = Path("params.yaml"),
    dvc: Annotated[Path, typer.Argument(help="The dvc.yaml to write or check.")] = Path("dvc.yaml"),
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail when params.yaml or a list is wrong.")
    ] = False,
) -> None:
    """Write the lists of params in dvc.yaml anew, after keys of params.yaml were added or removed.

    DVC then names the key that changed.

    \b
    Example: palimpsest dvc-params --check
    """
    from palimpsest.study.dvc import check_lists, write_lists

    if not check:
        write_lists(params, dvc)
    elif found := check_lists(params, dvc):
        fail([*found, "Run `make dvc-params`, so that DVC watches the keys of params.yaml."])


@app.command()
def families(
    model: Annotated[
        str | None, typer.Argument(help="A model type or the folder of a checkpoint, to see that family alone.")
    ] = None,
) -> None:
    """Which families of models which quantizer backend takes, as Markdown, and why it does not take the others.

    \b
    Example: palimpsest families gpt2
    """
    from palimpsest.models.families import FAMILIES, model_type
    from palimpsest.tables.families import lines

    kind = (model_type(Path(model)) if model and Path(model).is_dir() else None) or model
    if kind is not None and kind not in FAMILIES:
        raise PalimpsestError(f"{model} is of none of the families {', '.join(FAMILIES)}: no quantizer here takes it.")
    print(lines(kinds=FAMILIES if kind is None else [kind]))


@app.command()
def build_environment(
    requirements: Annotated[Path, typer.Argument(help="Such as workflow/envs/archived.txt.")],
    folder: Annotated[Path, typer.Argument(help="Where it is built, such as .environments/archived.")],
) -> None:
    """Build an isolated environment for archived quantizers. Snakemake does so by itself where a study needs one.

    \b
    Example: palimpsest build-environment workflow/envs/archived.txt .environments/archived
    """
    from palimpsest.quantizers.environments import build

    build(requirements, folder)
