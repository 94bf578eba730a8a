"""The reference pages, as Markdown, out of the schema, params.yaml, the registries and the command line themselves."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import typer
import yaml
from typer.cli import get_docs_for_click
from typer.main import get_command

from evidence import REPOSITORY
from palimpsest.cli import app
from palimpsest.metrics import METRICS
from palimpsest.quantizers import QUANTIZERS
from palimpsest.tables import families
from palimpsest.unlearning.losses import FORGET_LOSSES, RETAIN_LOSSES

SCHEMA = REPOSITORY / "workflow/schemas/params.schema.yaml"
PARAMS = REPOSITORY / "params.yaml"


def command_line() -> str:
    """Every command with its arguments and options, as typer documents itself."""
    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="palimpsest")
    text = re.sub(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+", "", text).replace("\b", "")  # cut short; the page lists them
    text = re.sub(r"^(#+) ", r"#\1 ", text, flags=re.MULTILINE)
    inside_code_and_out = re.split(r"(`[^`\n]+`)", text.split("\n", 1)[1])
    return "".join(
        part if part.startswith("`") else re.sub(r"<([^>\n]+)>", r"&lt;\1&gt;", part) for part in inside_code_and_out
    )


def _comments() -> dict[str, str]:
    """The comment at the end of each key's line in params.yaml, by the key's path."""
    lines = PARAMS.read_text(encoding="utf-8").splitlines()
    found: dict[str, str] = {}

    def walk(node: yaml.Node, path: tuple[str, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                where = (*path, key.value)
                last = value.end_mark if isinstance(value, yaml.ScalarNode) else key.end_mark
                if remark := re.search(r"\s#\s*(.+)$", lines[last.line][last.column :]):
                    found[".".join(where)] = remark[1]
                walk(value, where)

    root = yaml.compose(PARAMS.read_text(encoding="utf-8"))
    assert root is not None
    walk(root, ())
    return found


def _leaves(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every key of the schema: the path, and what the schema says of it. NAME stands for a name of the user's."""
    for part in (schema, *schema.get("oneOf", ()), *schema.get("anyOf", ())):
        for name, below in part.get("properties", {}).items():
            here = f"{path}.{name}" if path else name
            yield here, below
            yield from _leaves(below, here)
        if isinstance(below := part.get("additionalProperties"), Mapping):
            yield f"{path}.NAME", below
            yield from _leaves(below, f"{path}.NAME")


def _allowed(key: Mapping[str, Any]) -> str:
    """What the schema allows, in words."""
    if "const" in key:
        return f"`{key['const']}`"
    if "enum" in key:
        return " or ".join(f"`{value}`" for value in key["enum"])
    for several in ("oneOf", "anyOf"):
        if several in key:
            return " or ".join(dict.fromkeys(filter(None, map(_allowed, key[several]))))
    kind = key.get("type", "")
    kind = " or ".join(kind) if isinstance(kind, list) else kind
    limits = [f"{word} {key[name]}" for name, word in LIMITS.items() if name in key]
    return " ".join(filter(None, [kind, *limits]))


LIMITS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}


def params() -> str:
    """A section for each block of params.yaml, an entry for each key: what it is, and what it may be."""
    schema, comments = yaml.safe_load(SCHEMA.read_text(encoding="utf-8")), _comments()
    sections: dict[str, dict[str, list[str]]] = {}
    for path, key in _leaves(schema):
        said = key.get("description") or comments.get(path) or ""
        parts = sections.setdefault(path.split(".")[0], {}).setdefault(path, [])
        parts += [part for part in (said, _allowed(key)) if part and part not in parts]
    lines: list[str] = []
    for block, keys in sections.items():
        lines += [f"## `{block}`", ""]
        for path, parts in keys.items():
            if parts == ["object"]:
                continue
            lines.append(f"- `{path}`" + (f": {'; '.join(map(_escape, parts))}" if parts else ""))
        lines.append("")
    return "\n".join(lines)


def _escape(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "\\|").rstrip(".")


def _first_sentence(thing: object) -> str:
    while isinstance(thing, partial):
        thing = thing.func
    text = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return _escape(text)


def losses() -> str:
    """The forget and retain losses, with the settings that each takes."""
    lines = []
    for title, table in (("Forget losses", FORGET_LOSSES), ("Retain losses", RETAIN_LOSSES)):
        lines += [f"## {title}", ""]
        for name, loss in table.items():
            keys = f" Its keys: {', '.join(f'`{key}`' for key in loss.keys)}." if loss.keys else ""
            lines.append(f"- `{name}`: {_first_sentence(loss.function)}.{keys}")
        lines.append("")
    return "\n".join(lines)


def metrics() -> str:
    return "\n".join(f"- `{name}`: {_first_sentence(function)}." for name, function in METRICS.items())


def backends() -> str:
    """Every backend with its keys in params.yaml and the packages that make its file."""
    lines = []
    for name, kind in QUANTIZERS.items():
        keys = [f"`{field.metadata.get('key', field.name)}`" for field in fields(kind)]  # type: ignore[arg-type]
        said = f" Its keys: {', '.join(keys)}." if keys else ""
        lines.append(f"- `{name}`: {_first_sentence(kind)}.{said} By {_and(kind.packages)}.")
    return "\n".join(lines)


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def formats_by_families() -> str:
    return families.lines()
