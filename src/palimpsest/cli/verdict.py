"""`palimpsest verdict` and `palimpsest policy`: whether a file may ship, as an exit code."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from palimpsest.errors import PalimpsestError

HELP = "Exit code: 0 forgets, 2 fails, 3 inconclusive, 4 no verdict; 1 and 64 where the command itself is wrong."


class Source(StrEnum):
    """Whose results are read."""

    openunlearning = "openunlearning"
    lm_eval = "lm-eval"


class Outcome(SystemExit):
    """The exit code of a verdict, which is no mistake of the command line's."""


def verdict(
    before: Annotated[Path, typer.Argument(help="Results of the unlearned model at full precision.")],
    after: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]FILE", help="Results of the same model in a format; one for each format."),
    ],
    source: Annotated[Source, typer.Option("--from", help="The tool that wrote the files.")],
    retain: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of a model that never saw the forget set: the floor.")
    ] = None,
    target: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of the model before unlearning: the ceiling.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What counts as forgotten; see `palimpsest policy`.")
    ] = None,
    records_per_subject: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Records of a subject stand together, N each (TOFU: 20).")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(metavar="ID", help="Print what is known of one subject, or one record, as well.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write verdict.json, records.csv and verdict.html there.")
    ] = None,
) -> None:
    """May this file ship? Verdict, records that came back and page, from results that other tools wrote.

    \b
    Example: palimpsest verdict --from openunlearning NPO/TOFU_EVAL.json nf4=NPO-4bit/TOFU_EVAL.json --retain RETAIN/TOFU_EVAL.json
    """  # noqa: E501 - typer shows the example as it is
    from palimpsest.verdict.decide import decide, exit_code
    from palimpsest.verdict.lm_eval import read_samples
    from palimpsest.verdict.openunlearning import Files, read_results
    from palimpsest.verdict.policy import read_policy
    from palimpsest.verdict.text import about_subject, render
    from palimpsest.verdict.write import write_verdict

    rules = read_policy(policy)
    files = Files(before, _named(after), retain, target)
    read = {Source.openunlearning: read_results, Source.lm_eval: read_samples}[source]
    measured = {each.metric: each for each in read(files, rules.wanted(source.value), records_per_subject)}
    verdicts = [one for each in measured.values() for one in decide(each, rules)]
    notes = [note for each in measured.values() for note in each.notes]
    print(render(verdicts, notes, rules.hash), end="")
    if subject is not None:
        lines = about_subject(verdicts, measured, subject)
        if not lines:
            raise PalimpsestError(f"no record and no subject is called {subject}: see the ids in {before}.")
        print("\n" + "\n".join(lines))
    if out:
        write_verdict(out, verdicts, measured, rules, files)
        print(f"The page: {out / 'verdict.html'}")
    raise Outcome(exit_code(verdicts))


def policy(
    file: Annotated[Path | None, typer.Argument(help="Check this one and print its hash instead.")] = None,
) -> None:
    """Print the policy that palimpsest brings, with its comments: the start of your own.

    \b
    Example: palimpsest policy > policy.yaml
    """
    from palimpsest.verdict.policy import default_policy, read_policy

    if file:
        print(f"{file}: sha256 {read_policy(file).hash}")
    else:
        print(default_policy().read_text(encoding="utf-8"), end="")


def _named(given: Sequence[str]) -> dict[str, Path]:
    """By format: NAME=FILE; without a name the file's own, or its folder's where a tool calls every file alike."""
    pairs: list[tuple[str, Path]] = []
    for each in given:
        pairs.append(_split(each))
    named: dict[str, Path] = {}
    for given_name, file in pairs:
        chosen = given_name or (file.parent.name if file.stem.endswith("_EVAL") else "") or file.stem
        if chosen in named:
            raise PalimpsestError(f"two files are called {chosen}: name them, NAME={file}.")
        named[chosen] = file
    return named


def _split(given: str) -> tuple[str, Path]:
    """NAME=FILE at the "=" whose rest is a file, for names and files may have one too."""
    if Path(given).exists():
        return "", Path(given)
    parts = given.split("=")
    splits = [("=".join(parts[:place]), Path("=".join(parts[place:]))) for place in range(1, len(parts))]
    return next((split for split in splits if split[1].exists()), splits[0] if splits else ("", Path(given)))
