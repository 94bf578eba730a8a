"""Which files decide the result of a script of the workflow:
itself and what it imports of the library, read from the text alone."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

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
    while waiting:
        file = waiting.pop()
        if file not in found | exempt:
            found.add(file)
            waiting += _used(repository, file)
    return sorted(str(file.relative_to(repository)) for file in found)


@cache
def _used(repository: Path, file: Path) -> tuple[Path, ...]:
    """The library files that the text of `file` imports, anywhere in it, or names by a string."""
    if file.suffix != ".py":
        return ()
    used: set[Path] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            used.update(*(_files(repository, alias.name) for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            used.update(*(_files(repository, node.module or "", alias.name) for alias in node.names))
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\w+\.[\w.]+", node.value)
        ):
            named = file.with_name(node.value)
            if repository / LIBRARY in file.parents and named.is_file():
                used.add(named)
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
        for node in ast.parse((place / "__init__.py").read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
                yield from _files(repository, node.module or "", name)
    else:
        yield place.with_suffix(".py")
