"""Which files decide the result of a script of the workflow:
itself and what it imports of the library, read from the text alone."""

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypedDict

from palimpsest.files import atomic_file

SCRIPTS, LIBRARY = "workflow/scripts", "src/palimpsest"

HERE = Path(__file__).parents[1]
EXEMPT = (
    "artefacts.py",
    "errors.py",
    "files.py",
    "machine.py",
    "records.py",
    *sorted(str(file.relative_to(HERE)) for file in (HERE / "runtime").glob("*.py")),
    "quantizers/__init__.py",
    "quantizers/registry.py",
)
"""Modules that decide no number: how files are written, where messages go, which GPU is taken, what an import costs.

The registry of quantizers imports every backend. A rule depends on the one that it uses, which `code_of` is told;
otherwise a line added to the registry would ask for every quantization anew.
"""

RECORD = Path(__file__).with_name("__pycache__") / "step_code.json"
"""What texts mention, kept beside the bytecode, and as Python keeps that: parsing them is a fifth of what a run takes
to begin."""


def code_of(repository: Path, script: str, *modules: str) -> list[str]:
    """The script, such as `infer.py`, and the library files it uses, also through others,
    as sorted paths below `repository`.

    modules: names of further modules that settings choose, such as `palimpsest.quantizers.gguf.backend`. A file that a
    module names, such as its template, counts as one that it imports.
    """
    exempt = {repository / LIBRARY / name for name in EXEMPT}
    waiting = [repository / SCRIPTS / script]
    waiting += [file for module in modules for file in _files(repository, module)]
    found: set[Path] = set()
    before = len(_remembered())
    while waiting:
        file = waiting.pop()
        if file not in found | exempt:
            found.add(file)
            waiting += _used(repository, file)
    if len(_remembered()) > before and not sys.dont_write_bytecode:
        _remember()
    return sorted(str(file.relative_to(repository)) for file in found)


@cache
def _used(repository: Path, file: Path) -> tuple[Path, ...]:
    """The library files that the text of `file` imports, anywhere in it, or names by a string."""
    if file.suffix != ".py":
        return ()
    mentioned = _mentions(file)
    used = {each for module, name in mentioned["imports"] for each in _files(repository, module, name)}
    if repository / LIBRARY in file.parents:
        used |= {named for string in mentioned["strings"] if (named := file.with_name(string)).is_file()}
    return tuple(sorted(used))


def _files(repository: Path, module: str, name: str = "") -> Iterator[Path]:
    """The files behind `import module`, or behind `from module import name`;
    none for modules that are not the library's."""
    if module.partition(".")[0] != "palimpsest":
        return
    place = repository / "src" / Path(*module.split("."))
    if name and (place / f"{name}.py").is_file():
        yield place / f"{name}.py"
    elif name and (place / name).is_dir():
        yield place / name / "__init__.py"
    elif place.is_dir():
        yield place / "__init__.py"
        for source, exported in _mentions(place / "__init__.py")["exports"]:
            if exported == name:
                yield from _files(repository, source, name)
    else:
        yield place.with_suffix(".py")


class Mentions(TypedDict):
    """What the text of a file mentions: (module, name) of its imports, without a name for `import module`; of those,
    `from module import name` outside functions and classes; strings that may be names of files."""

    imports: list[tuple[str, str]]
    exports: list[tuple[str, str]]
    strings: list[str]


def _mentions(file: Path) -> Mentions:
    text = file.read_text(encoding="utf-8")
    key, known = hashlib.sha256(text.encode()).hexdigest(), _remembered()
    if key not in known:
        known[key] = _parse(text)
    return known[key]


def _parse(text: str) -> Mentions:
    def names(nodes: Iterable[ast.AST]) -> list[tuple[str, str]]:
        return [
            (node.module or "", alias.name)
            for node in nodes
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        ]

    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    whole = [(alias.name, "") for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    constants = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    strings = sorted(value for value in constants if re.fullmatch(r"\w+\.[\w.]+", value))
    return {"imports": whole + names(nodes), "exports": names(tree.body), "strings": strings}


@cache
def _remembered() -> dict[str, Mentions]:
    """By the SHA-256 of a text, what earlier processes found; nothing where their record is of another version of this
    file, or none."""
    with suppress(OSError, ValueError):
        record = json.loads(RECORD.read_text(encoding="utf-8"))
        if record["by"] == _this_version():
            return dict(record["found"])
    return {}


@cache
def _this_version() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _remember() -> None:
    """For later processes, where this one may write."""
    with suppress(OSError), atomic_file(RECORD) as draft:
        draft.write_text(json.dumps({"by": _this_version(), "found": _remembered()}), encoding="utf-8")
