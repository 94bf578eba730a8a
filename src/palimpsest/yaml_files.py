"""YAML that people write, read so that nothing in it is lost or guessed, and what no value of theirs may be.

PyYAML, and Snakemake with it, takes the last of two equal keys, builds a mapping that contains itself, and unfolds ten
lines of anchors into more values than memory holds. Here each is one line with the key and its place in the file.
"""

import math
import re
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from palimpsest.errors import PalimpsestError

MOST_BYTES = 1_000_000
MOST_VALUES = 20_000
"""In a file with its aliases written out. The largest studies have a few thousand."""
DEEPEST = 50
"""Levels of a file. Those of params.yaml are five."""
LARGEST, SMALLEST = 1e30, 1e-37
"""Sizes of a number that float32, in which models compute, can still square root, average and add."""
LONGEST_KEY = 200
MOST_ENTRIES = 1000
"""Of a list or a block: comparing all with all, as a schema does, takes minutes for a few times as many."""
WHOLE = 2**63
"""Whole numbers below it fit what PyTorch and NumPy count with; the schema has a bound for each key."""
OTHER_BASE = re.compile(r"[-+]?(0[0-7_]*[0-7]$|[0-9][0-9_]*:)")
"""Numbers that YAML 1.1 takes for octal ones (010) or for hours and minutes (1:30), and no person means so."""
MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: Path | str) -> Any:
    """The value of a YAML file; raises PalimpsestError with the line of what is wrong, and OSError."""
    size = Path(path).stat().st_size
    if size > MOST_BYTES:
        raise PalimpsestError(
            f"{path} has {size} bytes, more than the {MOST_BYTES} of any study: is it the right file?"
        )
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = Path(path).read_bytes()[: error.start].count(b"\n") + 1
        raise PalimpsestError(f"{path}, line {line} is not UTF-8 text: save the file as UTF-8.") from None
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        raise PalimpsestError(f"{path}{_place(error)} is not valid YAML: {_reason(error)}.") from None
    except PalimpsestError as wrong:
        raise PalimpsestError(f"{path}: {wrong}") from None


def parse_yaml(text: str) -> Any:
    """The value of YAML text.

    Raises yaml.YAMLError for text that is no YAML, and PalimpsestError for a key that stands twice in a mapping, an
    alias to what it stands in, aliases that unfold to too many values, and nesting beyond any need.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, _sizes(node, "", set(), {}))
        _check_keys(node, "", set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def check_keys_and_numbers(value: Any, where: str = "") -> None:
    """Raise PalimpsestError for what no key takes, whatever it is, and a schema would stumble over or let pass.

    Keys that YAML does not read as text (`no`, 8), numbers that are not finite or that float32 or 64 bits cannot hold,
    text with control characters, dates and so on.
    """
    _check_entries(value, where or "the file")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_key(key, where or "the file")
            check_keys_and_numbers(inner, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            check_keys_and_numbers(inner, f"{where}.{place}")
    elif isinstance(value, str):
        _check_text(value, where)
    elif isinstance(value, float):
        _check_float(value, where)
    elif isinstance(value, int):
        if not -WHOLE < value < WHOLE:
            raise PalimpsestError(f"{where} is a whole number of {value.bit_length()} bits: give one below 2^63.")
    elif value is not None:
        raise PalimpsestError(
            f"{where} is {str(value)[:100]}, which YAML reads as {type(value).__name__}: put text in quotes."
        )


class _Loader(yaml.SafeLoader):
    """PyYAML's, but for scalars that it takes for a number or a date and then stumbles over and for numbers of base 8
    and 60, which end in a YAMLError, and for nesting, which its scanner takes minutes over: that ends in a
    PalimpsestError."""

    depth = 0
    count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        self.count += 1
        if self.depth > DEEPEST or self.count > MOST_VALUES:
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            if self.depth > DEEPEST:
                raise PalimpsestError(f"line {line} is nested deeper than any setting is: write it anew.")
            raise PalimpsestError(f"line {line} is beyond the {MOST_VALUES} values of any study: is it the right file?")
        node = super().compose_node(parent, index)  # type: ignore[no-untyped-call]
        self.depth -= 1
        return node  # type: ignore[no-any-return]

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            read = super().construct_object(node, deep)  # type: ignore[no-untyped-call]
        except (ValueError, LookupError, AttributeError, OverflowError, TypeError) as error:
            if not isinstance(node, yaml.ScalarNode):
                raise
            shown = node.value if len(node.value) <= 40 else f"{node.value[:40]}... ({len(node.value)} characters)"
            kind = node.tag.rpartition(":")[2]
            problem = f"{shown!r} is no {kind} that can be read; put text in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error
        if isinstance(node, yaml.ScalarNode) and isinstance(read, int | float) and OTHER_BASE.match(node.value):
            problem = f"YAML reads {node.value[:40]} as {read}, by base 8 or 60; write {read}, or put text in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return read


def _children(node: yaml.Node, where: str) -> Iterator[tuple[str, yaml.Node]]:
    """The nodes inside one, each with its dotted key."""
    if isinstance(node, yaml.SequenceNode):
        yield from ((_below(where, str(place)), child) for place, child in enumerate(node.value))
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            yield _below(where, "its key"), key
            yield _below(where, str(key.value) if isinstance(key, yaml.ScalarNode) else "?"), child


def _below(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _sizes(node: yaml.Node, where: str, above: set[int], sizes: dict[int, int]) -> dict[int, int]:
    """How many values each node has with its aliases written out, by its id; a node is counted once."""
    if id(node) in above:
        raise PalimpsestError(
            f"{where} is an alias of what it stands in (line {_line(node)}), so it never ends: write the value instead."
        )
    if id(node) not in sizes:
        above.add(id(node))
        size = 1
        for key, child in _children(node, where):
            _sizes(child, key, above, sizes)
            size += sizes[id(child)]
        above.remove(id(node))
        sizes[id(node)] = size
    return sizes


def _check_size(node: yaml.Node, sizes: dict[int, int]) -> None:
    if sizes[id(node)] <= MOST_VALUES:
        return
    where = ""
    while large := [(key, child) for key, child in _children(node, where) if sizes[id(child)] > MOST_VALUES]:
        where, node = large[0]
    raise PalimpsestError(
        f"{where or 'the file'} (line {_line(node)}) has more than {MOST_VALUES} values with its aliases written out, "
        "more than any study: write the settings that are meant."
    )


def _check_keys(node: yaml.Node, where: str, seen: set[int]) -> None:
    """Raise PalimpsestError for a key that a mapping has twice: by itself, or from two mappings that it merges."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[Hashable, int] = {}
        for key, value in node.value:
            _add(lines, key, where)
            if key.tag == MERGE and isinstance(value, yaml.SequenceNode):
                merged: dict[Hashable, int] = {}
                for each in value.value:
                    for inner, _ in each.value if isinstance(each, yaml.MappingNode) else ():
                        _add(merged, inner, _below(where, "<<"))
    for name, child in _children(node, where):
        _check_keys(child, name, seen)


def _add(lines: dict[Hashable, int], key: yaml.Node, where: str) -> None:
    if not isinstance(key, yaml.ScalarNode):
        return
    name = key.tag, key.value
    if name in lines:
        raise PalimpsestError(
            f"the key {_below(where, key.value)} stands twice, in lines {lines[name]} and {_line(key)}: "
            "rename or delete one of them."
        )
    lines[name] = _line(key)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def _reason(error: yaml.YAMLError) -> str:
    return getattr(error, "problem", None) or " ".join(str(error).split())


def _check_entries(value: Any, where: str) -> None:
    if isinstance(value, Mapping | list) and len(value) > MOST_ENTRIES:
        raise PalimpsestError(f"{where} has {len(value)} entries, more than {MOST_ENTRIES}: give fewer.")


def _check_key(key: Any, where: str) -> None:
    if not isinstance(key, str):
        raise PalimpsestError(
            f"{where} has the key {key!r}, which YAML reads as {type(key).__name__}, not as text: rename it, or put it "
            "in quotes."
        )
    if not key.isprintable() or len(key) > LONGEST_KEY:
        raise PalimpsestError(
            f"{where} has the key {key[:LONGEST_KEY]!r}: give it at most {LONGEST_KEY} letters, none of which is a "
            "control character."
        )


def _check_float(value: float, where: str) -> None:
    if not math.isfinite(value):
        raise PalimpsestError(f"{where} is {value}: give a finite number.")
    if abs(value) > LARGEST or 0 < abs(value) < SMALLEST:
        raise PalimpsestError(
            f"{where} is {value:g}: give a number between {SMALLEST:g} and {LARGEST:g}, which float32 computes with."
        )


def _check_text(text: str, where: str) -> None:
    """Of what paths, records and pages can hold."""
    for letter in text:
        if not (letter.isprintable() or letter in "\n\t" or ord(letter) >= 160) or "\ud800" <= letter <= "\udfff":
            raise PalimpsestError(f"{where} has the character U+{ord(letter):04X}, which is no text: delete it.")
