"""`palimpsest audit` and `palimpsest new`: checkpoints that exist, in one command."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palimpsest.cli.verdict import Outcome, named_files
from palimpsest.errors import PalimpsestError
from palimpsest.study.formats import DEFAULTS

if TYPE_CHECKING:
    from palimpsest.study.new_study import Wanted

FORMATS = ",".join(row[0] for row in DEFAULTS)
"""What a new study has where they fit the target."""

Target = Annotated[
    str | None, typer.Option(metavar="MODEL", help="Before unlearning: a folder, a hub name or a GGUF file.")
]
Unlearned = Annotated[str | None, typer.Option(metavar="MODEL", help="After unlearning, made by whatever tool.")]
Retrain = Annotated[
    str | None, typer.Option(metavar="MODEL", help="Trained without the forget set: the control, where there is one.")
]
Forget = Annotated[
    str | None, typer.Option(metavar="FILE", help="Records that were to be forgotten: JSON lines (data/README.md).")
]
Retain = Annotated[str | None, typer.Option(metavar="FILE", help="Records that were to be kept.")]
Holdout = Annotated[
    str | None, typer.Option(metavar="FILE", help="Records with texts that no model saw, for PrivLeak.")
]
Formats = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help=f"With commas; {FORMATS} in a new study, where they fit. An unknown name prints the list.",
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        metavar="TEMPLATE",
        help="plain, tofu, chat, or a text with {question} and {answer}. By default chat where the target's tokenizer "
        "has a chat template, else tofu.",
    ),
]
System = Annotated[str | None, typer.Option(metavar="TEXT", help="Of chat: the message before the question.")]
Date = Annotated[str | None, typer.Option(metavar="DAY", help="Of chat: the date that its template may print.")]
Deployed = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]FILE",
        help="A file of the unlearned model that was quantized elsewhere, as it will ship; one for each.",
    ),
]
Note = Annotated[str | None, typer.Option(metavar="TEXT", help="What the report says of where the model comes from.")]


def _cores(said: str) -> str:
    if said != "all" and (not said.isdecimal() or int(said) < 1):
        raise typer.BadParameter(f"{said} is no number of cores: give one from 1 on, or all.")
    return said


def audit(
    target: Target = None,
    unlearned: Unlearned = None,
    forget: Forget = None,
    retrain: Retrain = None,
    retain: Retain = None,
    holdout: Holdout = None,
    formats: Formats = None,
    deployed: Deployed = None,
    prompt: Prompt = None,
    system: System = None,
    date: Date = None,
    note: Note = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The study: settings, cache and report.")] = Path("audit"),
    cores: Annotated[str, typer.Option(metavar="N", help="Of the machine, or all.", callback=_cores)] = "all",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the study, and say what the run will take.")
    ] = False,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- OPTIONS]", help="Of Snakemake, such as --profile FOLDER.")
    ] = None,
) -> None:
    """Does this unlearned model still forget in the formats it may ship in? Runs the study, prints answer and report.

    What is there already in FOLDER is not computed again: one more format costs that format alone.

    \b
    Example: palimpsest audit --target T --unlearned U --forget forget.jsonl --retain retain.jsonl --out my-audit
    """
    from palimpsest.study.new_study import PARAMS, Wanted, add_formats, differences, write_study

    file = out / PARAMS
    files = {name: str(path) for name, path in named_files(deployed or []).items()}
    named = _names(formats, target, not file.exists() and not files)
    models = str(target or ""), str(unlearned or ""), str(forget or "")
    wanted = Wanted(*models, named, retrain, retain, holdout, prompt, system, date, note, files)
    if not file.exists():
        write_study(out, _complete(wanted), "audit")
        print(f"The study: {file}")
    else:
        if found := differences(file, wanted):
            raise PalimpsestError(
                f"{found[0]}: give another --out, or edit the file and say `palimpsest audit --out {out}`."
            )
        added = add_formats(file, wanted)
        print(f"The study: {file}" + (f", with {', '.join(added)} added" if added else ""))
    if dry_run:
        _plan(out)
    else:
        _run(out, cores, arguments or [])


def new(
    study: Annotated[Path, typer.Argument(help="The folder to make.")],
    target: Target = None,
    unlearned: Unlearned = None,
    forget: Forget = None,
    retrain: Retrain = None,
    retain: Retain = None,
    holdout: Holdout = None,
    formats: Formats = None,
    deployed: Deployed = None,
    prompt: Prompt = None,
    system: System = None,
    date: Date = None,
    note: Note = None,
) -> None:
    """Write a study folder alone, to edit: of an audit, or, without models, a copy of the default study.

    \b
    Example: palimpsest new my-study
    Example: palimpsest new my-audit --target T --unlearned U --forget forget.jsonl
    """
    from palimpsest.study.new_study import SNAKEFILE, Wanted, write_default, write_study

    models = str(target or ""), str(unlearned or ""), str(forget or "")
    if any(models):
        files = {name: str(path) for name, path in named_files(deployed or []).items()}
        named = _names(formats, target, not files)
        wanted = Wanted(*models, named, retrain, retain, holdout, prompt, system, date, note, files)
        file = write_study(study, _complete(wanted), "new")
        print(f"The study: {file}\nRun it: palimpsest audit --out {study}")
    else:
        file = write_default(study)
        print(f"The study: {file}\nRun it: snakemake --snakefile {SNAKEFILE} --directory {study} --cores all")


def _names(formats: str | None, target: str | None, choose: bool) -> list[str]:
    """Those that are said. choose: whether a study gets some where none is; what is not the usual is printed."""
    from palimpsest.study.new_study import default_formats

    if formats is None:
        found = default_formats(target or "") if choose else []
        if other := [name for name in found if name not in FORMATS.split(",")]:
            usual = FORMATS.replace(",", ", ")
            print(f"The formats: {', '.join(found)}. Not all of {usual} fit {target}, so it has {', '.join(other)}.")
        return found
    return list(dict.fromkeys(filter(None, (name.strip() for name in formats.split(",")))))


def _complete(wanted: "Wanted") -> "Wanted":
    for name in ("target", "unlearned", "forget"):
        if not getattr(wanted, name):
            raise typer.BadParameter(f"--{name} is missing: an audit needs --target, --unlearned and --forget.")
    return wanted


def _snakemake(folder: Path, *options: str) -> list[str]:
    from palimpsest.study.new_study import repository

    snakefile = repository() / "Snakefile"
    return [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--directory", str(folder), *options]


def _plan(folder: Path) -> None:
    """Print what is to be done, and what it takes."""
    from palimpsest.study.new_study import PARAMS
    from palimpsest.study.params import expanded, read_params
    from palimpsest.study.price import lines, planned_corpus, planned_steps, price

    command = _snakemake(folder, "--cores", "1", "--dry-run", "--quiet", "rules", "reason", "host")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr.strip() or done.stdout.strip(), file=sys.stderr)
        raise typer.Exit(1)
    steps = planned_steps(done.stdout + done.stderr)
    print("\n".join(line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Records")))
    with chdir(folder):  # to which the paths in params.yaml are relative
        params = expanded(read_params(PARAMS))
        print("\n".join(lines(price(params, planned_corpus(params["corpus"]), steps))))


def _gpus(options: Sequence[str]) -> list[str]:
    """What lets as many steps use GPUs at a time as there are, unless the options say how many."""
    from palimpsest.runtime.devices import visible_gpus

    said = any(option.split("=")[0] in ("--profile", "--resources", "--res") for option in options)
    count = 0 if said else len(visible_gpus())
    return ["--resources", f"gpu={count}"] if count else []


def _run(folder: Path, cores: str, options: Sequence[str]) -> None:
    """Run the study, then print its answer, the verdicts and where the report is; ends with the worst verdict's exit
    code."""
    from palimpsest.audit.records import read_audit
    from palimpsest.verdict.gate import read_verdicts, worst_model
    from palimpsest.verdict.records import EXIT_CODES

    if subprocess.run(_snakemake(folder, "--cores", cores, "--quiet", "reason", *_gpus(options), *options)).returncode:
        raise PalimpsestError("the run failed, see above; what is done is kept: mend it, and say the same again.")
    audit = read_audit(folder / "results/audit.json")
    said = audit["answer"]
    print()
    print("\n".join(said[part] for part in ("text", "contrast", "caution") if said[part]))  # type: ignore[literal-required]
    judged = read_verdicts(path.parent for path in sorted((folder / "results/verdict").glob("*/manifest.json")))
    for name, record in judged.items():
        print(
            *(f"{name} in {one['format']}, {one['metric']}: {one['verdict']}." for one in record["formats"]), sep="\n"
        )
    if judged:
        model, worst = worst_model(judged)
        remedy = _remedy(audit, model, worst)
        print(f"{worst['verdict']}: {worst['reason']}. {remedy}")
    print(f"The report: {folder / 'results/report.html'}")
    if judged:
        raise Outcome(EXIT_CODES[worst["verdict"]])


def _remedy(audit: Mapping[str, Any], model: str, record: Mapping[str, Any]) -> str:
    """What to do about a model's verdict, of which `record` is verdict.json. A file that is the target's needs no other
    unlearning."""
    from palimpsest.audit.deployed import is_another_models
    from palimpsest.verdict.text import NEXT

    for file in audit.get("deployed", []):
        judged = (file["model"], file["precision"]) == (model, record["worst"]["format"])
        if judged and is_another_models(file):
            return f"Do not ship this file: it is the target's, not {model}'s."
    return NEXT[record["verdict"]]
