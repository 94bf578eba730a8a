"""Every command line that a document shows is one that the program takes."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from snakemake.cli import get_argument_parser
from typer.main import get_command

from palimpsest.cli import app
from palimpsest.survival.checkpoints import choose_formats

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
FENCED = re.compile(r"^( *)```\w*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def command_lines() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in FENCED.finditer(page.read_text(encoding="utf-8")):
            for line in block[2].replace("\\\n", " ").splitlines():
                line = line.strip().removeprefix("$ ").removeprefix("- run: ").removeprefix("run: ")
                if line.startswith(("palimpsest ", "snakemake ")):
                    found.append((str(page.relative_to(REPOSITORY)), line))
    return found


LINES = command_lines()


def arguments(line: str) -> list[str]:
    """Without comments, redirections and what comes after a pipe or another command."""
    words = shlex.split(line, comments=True)
    ends = [i for i, word in enumerate(words) if word in {">", "|", "&&", "||", ";", "2>"}]
    return words[1 : min(ends, default=len(words))]


def test_documents_show_command_lines():
    assert len(LINES) > 30
    assert {page for page, _ in LINES} >= {"README.md", "docs/how-to/audit-my-model.md", "docs/start/first-audit.md"}


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_command_line_of_a_document_is_one_of_the_program(page, line):
    words = arguments(line)
    if "--reporter" in words:
        return  # options of a plugin that is not installed here
    if line.startswith("snakemake"):
        get_argument_parser().parse_args(words)  # ends with SystemExit at what it does not know
        return
    command = get_command(app)
    while hasattr(command, "commands"):
        assert words and words[0] in command.commands, f"{page}: no such command: {line}"
        command, words = command.commands[words[0]], words[1:]
    context = typer.Context(command, info_name=command.name)
    command.make_parser(context).parse_args(args=words)  # raises NoSuchOption, BadOptionUsage


def test_an_unknown_option_is_found():
    command = get_command(app).commands["survive"]
    with pytest.raises(Exception, match="--nonsense"):
        command.make_parser(typer.Context(command)).parse_args(args=["A", "B", "--nonsense"])


def test_formats_that_survive_is_asked_for_are_known():
    """On the pages and in its own help."""
    help_ = get_command(app).commands["survive"].help
    shown = [line for _, line in LINES if line.startswith("palimpsest survive")] + help_.splitlines()
    named = [found[1].split(",") for line in shown if (found := re.search(r"--quantizer (\S+)", line))]
    assert len(named) >= 2
    assert [names for names in named if list(choose_formats(names)) != names] == []
