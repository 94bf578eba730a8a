"""`palimpsest verdict` and `palimpsest policy`: whether a file may ship, as an exit code."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palimpsest.errors import PalimpsestError, choose

if TYPE_CHECKING:
    from palimpsest.verdict.policy import Policy
    from palimpsest.verdict.records import FormatVerdict, Measured

HELP = "Exit code: 0 forgets, 2 fails, 3 inconclusive, 4 no verdict; 1 and 64 where the command itself is wrong."


class Source(StrEnum):
    """Whose results are read."""

    study = "study"
    openunlearning = "openunlearning"
    lm_eval = "lm-eval"


class Outcome(SystemExit):
    """The exit code of a verdict, which is no mistake of the command line's."""


def verdict(
    before: Annotated[
        Path,
        typer.Argument(help="The results folder of a study, or another tool's results of the unquantized model."),
    ] = Path("results"),
    after: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]FILE", help="Another tool's results of the model in a format, one for each."),
    ] = None,
    source: Annotated[Source, typer.Option("--from", help="What wrote them.")] = Source.study,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a study: this unlearned model alone, instead of all.")
    ] = None,
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
    """May this file ship? A verdict per format, the records that came back, and a page.

    \b
    Example: palimpsest verdict results --model ga_gdr --out verdict
    Example: palimpsest verdict --from openunlearning NPO.json nf4=NPO-nf4.json --retain RETAIN.json
    """
    from palimpsest.verdict.decide import exit_code

    rules, notes = _policy(policy, before if source is Source.study else None)
    metrics = rules.wanted(source.value)
    if source is Source.study:
        if after or retain or target:
            raise typer.BadParameter(
                "a study has formats, target and retrained model of its own: give its folder alone."
            )
        cases = list(_of_study(before, model, metrics, notes))
    else:
        if not after or model:
            raise typer.BadParameter(
                "give results of the unquantized model, then of each format; --model is for studies."
            )
        cases = [_of_tool(source, (before, retain, target), after, metrics, records_per_subject)]
    verdicts = []
    for case in cases:
        verdicts += _answer(case, rules, subject, out / case.name if out and case.name else out)
    raise Outcome(exit_code(verdicts))


@dataclass(frozen=True)
class Case:
    """A model that is judged: its name where there are several, its measurements, the files that they are from."""

    name: str
    measured: "list[Measured]"
    files: Mapping[str, Path]
    deployed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def _policy(file: Path | None, results: Path | None) -> "tuple[Policy, list[str]]":
    """The policy to judge by, and what a reader must know of it: a study that fixed one is judged by that alone.

    results: of a study.
    """
    from palimpsest.verdict.fixed import RECORD, check_fixed, fixed_policy
    from palimpsest.verdict.policy import read_policy

    if results is None or not (results / RECORD).is_file():
        return read_policy(file), []
    if file is not None:
        check_fixed(file, results / RECORD)
    return fixed_policy(results / RECORD)


def _of_study(results: Path, model: str | None, metrics: Sequence[str], notes: Sequence[str]) -> Iterator[Case]:
    from palimpsest.verdict.study import deployed_files, read_study, unlearned_models

    known = unlearned_models(results)
    if model:
        choose(dict.fromkeys(known), model, "unlearned model")
    for name in [model] if model else known:
        files = {"audit": results / "audit.json"}
        yield Case(name, read_study(results, name, metrics), files, deployed_files(results, name), notes)


def _of_tool(
    source: Source,
    models: tuple[Path, Path | None, Path | None],
    after: Sequence[str],
    metrics: Sequence[str],
    records_per_subject: int | None,
) -> Case:
    """models: files of the unquantized model, the retrained one and the target."""
    from palimpsest.verdict.lm_eval import read_samples
    from palimpsest.verdict.openunlearning import Files, read_results

    before, retain, target = models
    files = Files(before, named_files(after), retain, target)
    read = {Source.openunlearning: read_results, Source.lm_eval: read_samples}[source]
    return Case("", read(files, metrics, records_per_subject), files.named())


def _answer(case: Case, rules: "Policy", subject: str | None, folder: Path | None) -> "list[FormatVerdict]":
    """Print the verdicts on one model and write its files."""
    from palimpsest.verdict.text import about_subject, render
    from palimpsest.verdict.write import judged, write_verdict

    made = judged(case.measured, rules, case.files, case.deployed, case.notes, case.name)
    if case.name:
        print(f"== {case.name} ==")
    notes = [*case.notes, *(note for each in case.measured for note in each.notes)]
    print(render(made.verdicts, made.controls, notes, rules.hash))
    if folder:
        write_verdict(folder, made)
        print(f"The page: {folder / 'verdict.html'}")
    if subject is not None:
        lines = about_subject(made.verdicts, made.measured, subject)
        if not lines:
            raise PalimpsestError(f"no record and no subject is called {subject}: records.csv of --out lists them.")
        print("\n".join(lines) + "\n")
    return list(made.verdicts)


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


def sign(
    verdict: Annotated[Path, typer.Argument(help="The --out folder of `palimpsest verdict`.")],
    deployed: Annotated[list[Path], typer.Argument(help="The files or folders that are deployed.")],
    key: Annotated[Path, typer.Option(metavar="FILE", help="A private key in PEM, without a passphrase.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the signed statement goes.")] = Path(
        "statement.json"
    ),
) -> None:
    """Bind a verdict to the deployed files: an in-toto Statement in a DSSE envelope, signed with a local key.

    \b
    Example: palimpsest sign verdict model-nf4.gguf --key key.pem --out statement.json
    """
    from palimpsest.verdict.salted import read_salt, salt_beside
    from palimpsest.verdict.statement import make_statement
    from palimpsest.verdict.statement import sign as write_signed

    salt = salt_beside(verdict, out)
    statement = make_statement(verdict, deployed, read_salt(salt, draw=True))
    write_signed(statement, key, out)
    if statement["predicate"].get("study", {}).get("code", {}).get("changed"):
        print("The code here is in no commit, so `palimpsest reproduce` will refuse the statement.", file=sys.stderr)
    print(f"Signed: {out}\nKeep {salt}: with it the records' hash can be checked, without it nobody can guess them.")


def check(
    statement: Annotated[Path, typer.Argument(help="The signed statement.")],
    deployed: Annotated[list[Path], typer.Argument(help="The files or folders that it must be about.")],
    key: Annotated[Path, typer.Option(metavar="FILE", help="The signer's public key in PEM.")],
    salt: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `palimpsest sign` kept: compares records and corpus, too.")
    ] = None,
    verdict: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="With --salt: the verdict, whose records must be the stated.")
    ] = None,
) -> None:
    """Is the deployed file the one that a signed verdict is about? Works offline; exit code 1 where anything differs.

    \b
    Example: palimpsest check statement.json model-nf4.gguf --key key.pub
    """
    from palimpsest.verdict.salted import read_salt
    from palimpsest.verdict.statement import check as compare
    from palimpsest.verdict.statement import other_records, stated

    if (salt is None) != (verdict is None):
        raise typer.BadParameter("--salt and --verdict go together: the salt, and the folder whose records it hashed.")
    problems = compare(statement, deployed, key)
    if problems:
        raise PalimpsestError(" ".join(problems))
    predicate = stated(statement)["predicate"]
    if salt and verdict and (problems := other_records(predicate, verdict, read_salt(salt))):
        raise PalimpsestError(" ".join(problems))
    print(f"{predicate['verdict']}: {predicate['reason']}.")
    print(f"Signed for these files; policy sha256 {predicate['policy']['hash']}.")


def reproduce(
    statement: Annotated[Path, typer.Argument(help="The signed statement of a study's verdict.")],
    key: Annotated[Path, typer.Option(metavar="FILE", help="The signer's public key in PEM.")],
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="A new one, in which it is made again.")] = Path(
        "reproduced"
    ),
    repository: Annotated[
        str | None, typer.Option(metavar="URL", help="What is cloned; by default the clone that runs this.")
    ] = None,
    data: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Of the study: where paths in its params.yaml begin.")
    ] = Path(),
    salt: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `palimpsest sign` kept: compares the corpus, too.")
    ] = None,
    cores: Annotated[int, typer.Option(min=1, help="Of the run.")] = 1,
    tolerance: Annotated[
        float, typer.Option(min=0, max=100, help="Points, where another kind of machine rounds otherwise.")
    ] = 5.0,
) -> None:
    """Run the study of a signed verdict again, from a clean clone of its code; exit code 1 where anything differs.

    \b
    Example: palimpsest reproduce statement.json --key key.pub --folder again
    """
    from palimpsest.study.reproduce import Repeat
    from palimpsest.study.reproduce import reproduce as repeat
    from palimpsest.verdict.statement import verified

    how = Repeat(folder, data=data, cores=cores, tolerance=tolerance)
    how = how if repository is None else replace(how, repository=repository)
    differing, compared = repeat(verified(statement, key)["predicate"], how, salt)
    if differing:
        raise PalimpsestError(f"not reproduced ({compared}): {' '.join(differing)}")
    print(f"Reproduced {compared}. The study: {folder / 'studies/reproduced'}")


def named_files(given: Sequence[str]) -> dict[str, Path]:
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
