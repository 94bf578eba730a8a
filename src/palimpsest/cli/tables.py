"""`palimpsest tables`: what the documents print, as Markdown on standard output."""

from pathlib import Path
from typing import Annotated

import typer

tables = typer.Typer(
    help="Tables of a study's results, as Markdown; what docs/ prints.", no_args_is_help=True, rich_markup_mode=None
)
Results = Annotated[Path, typer.Argument(help="The results folder of a study.")]
Several = Annotated[
    list[Path], typer.Argument(help="Results folders: of a study, or of seeds or methods that were run apart.")
]
Figure = Annotated[Path, typer.Argument(help="The SVG file to draw.")]


@tables.command()
def audit(file: Annotated[Path, typer.Argument(help="An audit.json.")] = Path("results/audit.json")) -> None:
    """Retained knowledge, every metric, perplexity and rho by model and precision.

    \b
    Example: palimpsest tables audit results/audit.json
    """
    from palimpsest.audit.records import read_audit
    from palimpsest.tables.markdown import tables as in_markdown

    print(in_markdown(read_audit(file)))


@tables.command()
def formats(
    results: Results,
    against: Annotated[
        str | None, typer.Option(metavar="QUANTIZER", help="Print the differences from this quantizer instead.")
    ] = None,
) -> None:
    """One line a quantizer: what the format is, what it does to forgetting and what it costs.

    \b
    Example: palimpsest tables formats studies/all-quantizers/results --against rtn-int4-g128
    """
    from palimpsest.tables import formats as of

    if against:
        print(of.difference_lines(of.differences(results, against), against))
    else:
        print(of.lines(of.formats(results)))


@tables.command()
def phase_diagram(figure: Figure, results: Several) -> None:
    """Learning rate by format for each weight storage: draws it, and prints it as a table.

    \b
    Example: palimpsest tables phase-diagram phase.svg studies/phase-diagram/results
    """
    from palimpsest.tables.phase import diagram

    print(diagram(figure, results))


@tables.command()
def methods(results: Several) -> None:
    """A study's methods, with the steps that each took and the forgetting it reached.

    \b
    Example: palimpsest tables methods studies/cures/results
    """
    from palimpsest.tables import phase

    print(phase.methods(results))


@tables.command()
def metrics(results: Results) -> None:
    """VerMem, KnowMem, PrivLeak and Utility of every model at every precision.

    \b
    Example: palimpsest tables metrics results
    """
    from palimpsest.audit.cautions import privleak_cautions
    from palimpsest.audit.records import read_audit
    from palimpsest.tables.markdown import metrics_table

    record = read_audit(results / "audit.json")
    print("\n\n".join([metrics_table(record), *privleak_cautions(record)]))


@tables.command()
def calibration(
    figure: Figure,
    results: Annotated[list[Path], typer.Argument(help="Results folders, or tables that `tables prediction` printed.")],
) -> None:
    """Rho against recovery over several studies: draws every pair, and prints what rho foretells wrongly.

    \b
    Example: palimpsest tables calibration calibration.svg src/palimpsest/survival/prediction.json
    """
    from palimpsest.tables import phase

    print(phase.calibration(figure, results))


@tables.command()
def prediction(
    results: Annotated[list[Path], typer.Argument(help="Results folders, or tables that this command printed.")],
) -> None:
    """The measured pairs of rho and recovery, as JSON: what `palimpsest survive` predicts from.

    \b
    Example: palimpsest tables prediction results studies/*/results > prediction.json
    """
    from palimpsest.survival.prediction import in_lines, make_table

    print(in_lines(make_table(results)))


@tables.command()
def moved_weights(
    results: Results, seed: Annotated[int, typer.Option(help="Of the models that are looked at.")] = 0
) -> None:
    """Which weights each method moved, read off the checkpoints, and what they tell of the storage while training.

    \b
    Example: palimpsest tables moved-weights results
    """
    from palimpsest.tables.moved_weights import moved, text

    print(text(moved(results, seed)))


@tables.command()
def recovery(
    audits: Annotated[list[Path], typer.Argument(help="audit.csv files, such as those in docs/evidence.")],
    models: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="These unlearned models alone; several: repeat it, or use commas."),
    ] = None,
    forgotten_below: Annotated[float, typer.Option(help="Percent, as in the studies' audit rules.")] = 50.0,
    negligible: Annotated[float, typer.Option(help="Points, as in the studies' audit rules.")] = 10.0,
    between_seeds: Annotated[
        bool, typer.Option("--between-seeds", help="Print how far the seeds lie apart instead.")
    ] = False,
) -> None:
    """What came back, by weight storage and format.

    \b
    Example: palimpsest tables recovery docs/evidence/default.csv
    """
    from palimpsest.tables.recovery import recovery_table
    from palimpsest.tables.seeds import seeds_table

    if between_seeds:
        print(seeds_table(audits))
        return
    print(
        recovery_table(audits, [name for each in models or [] for name in each.split(",")], forgotten_below, negligible)
    )


@tables.command()
def known_answers(
    results: Results,
    pack: Annotated[
        str | None, typer.Argument(help="A pack of published numbers; by default the one that params.yaml names.")
    ] = None,
) -> None:
    """Published numbers beside a study's, and how the protocols differ.

    \b
    Example: palimpsest tables known-answers studies/paper-news/results
    """
    from palimpsest.report.known_answers import comparison

    print(comparison(results, pack))


@tables.command()
def attacks(results: Several) -> None:
    """What each attack brings back, by model, precision and metric, as CSV.

    \b
    Example: palimpsest tables attacks studies/tofu-cpu/results
    """
    from palimpsest.tables.attacks import lines

    print(lines(results))


@tables.command()
def metric_quality(results: Several) -> None:
    """Whether each metric tells targets from retrained models, and stays in every format and under relearning.

    \b
    Example: palimpsest tables metric-quality studies/tofu-cpu/results
    """
    from palimpsest.tables.metric_quality import quality_table

    print(quality_table(results))
