"""Text as a user's files hold it: UTF-8, or one line that says where it is not."""

import json
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from palimpsest.errors import PalimpsestError

log = logging.getLogger(__name__)

BOM = "\ufeff"
"""The byte order mark that some editors put before a text."""

WIDE = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x00\x00\xfe\xff": "UTF-32"}
"""How files in other encodings begin."""

HALF_PAIR = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
"""Of a surrogate pair, as JSON writes one. A doubled backslash before it is no escape: see `_half_pair_line`."""

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
TEXT_SUFFIXES = (*JSON_SUFFIXES, ".csv", ".tsv", ".txt")
"""Of what `datasets` reads as text."""


def read_text(path: Path) -> str:
    """A text file in UTF-8, without a byte order mark at its start; raises PalimpsestError that names the line where it
    is not UTF-8."""
    content = path.read_bytes()
    wrong = not_utf8(path, content)
    if wrong:
        raise PalimpsestError(wrong)
    text = content.decode("utf-8")
    if text.startswith(BOM):
        log.info("%s begins with a byte order mark, which is left out", path)
    return text.lstrip(BOM)


def not_utf8(path: Path, content: bytes) -> str:
    """What is wrong with the encoding of a file, and where; empty where nothing is."""
    for start, name in WIDE.items():
        if content.startswith(start):
            return f"{path} is {name}: save it as UTF-8."
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return (
            f"{path}, line {line}: Invalid UTF8 (byte 0x{content[error.start]:02x}). Save the file as UTF-8 (it may be "
            "Latin-1 or Windows-1252), or correct that line."
        )
    if b"\x00" in content:
        line = content.count(b"\n", 0, content.index(b"\x00")) + 1
        return f"{path}, line {line} holds a zero byte: save the file as UTF-8 (it may be UTF-16), or remove that byte."
    return ""


def json_lines(path: Path, remedy: str, text: str | None = None) -> Iterator[tuple[str, Any]]:
    """Place ("FILE, line N", from 1) and value of each line that is not blank; raises PalimpsestError that names the
    line that is not JSON.

    Lines end with \\n alone: JSON may have other line separators of Unicode in its strings. remedy: what the message
    asks for. text: of the file, where it was read already.
    """
    for number, line in enumerate((read_text(path) if text is None else text).split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            try:
                yield place, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise PalimpsestError(f"{place} is not JSON ({reason_of(error)}): {remedy}.") from None


def reason_of(error: Exception) -> str:
    """Why json refuses a text."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, line {error.lineno}, column {error.colno}"
    return " ".join(str(error).split())[:200]


def read_list(path: Path) -> list[Any]:
    """The rows of a JSON list; raises PalimpsestError that says what the file holds instead, and where."""
    text = read_text(path)
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise PalimpsestError(_no_json(path, text, error)) from None
    except (RecursionError, ValueError) as error:  # nested without end, a number of thousands of digits
        raise PalimpsestError(f"{path} cannot be read as JSON ({error}): it must be a list of texts or rows.") from None
    if not isinstance(rows, list):
        raise PalimpsestError(f"{path} holds a {type(rows).__name__}: it must be a list.")
    return rows


def _no_json(path: Path, text: str, error: json.JSONDecodeError) -> str:
    if not text.strip():
        return f"{path} is empty: it must be a JSON list."
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > 1 and all(map(_is_json, lines[:2])):
        return f"{path} holds JSON lines: it must be one JSON list (brackets around it, a comma after each row)."
    return f"{path} is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg}): correct it there."


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), (dict, list, str))
    except ValueError:
        return False


def wrong_in(files: Iterable[str]) -> str:
    """What is wrong with the first of a dataset's local text files that is not UTF-8, or has half a surrogate pair as
    JSON, for which `datasets` gives an empty text without a word; empty where nothing is."""
    for path in map(Path, files):
        if path.suffix in TEXT_SUFFIXES and path.is_file():
            content = path.read_bytes()
            wrong = not_utf8(path, content) or (_half_pair_line(path, content) if path.suffix in JSON_SUFFIXES else "")
            if wrong:
                return wrong
    return ""


def _half_pair_line(path: Path, content: bytes) -> str:
    for number, line in enumerate(content.decode("utf-8").split("\n"), start=1):
        if HALF_PAIR.search(line.replace("\\\\", "")):
            return f"{path}, line {number} has half a surrogate pair, which is no character: correct or remove it."
    return ""


def cleaned(text: str, where: str) -> str:
    """The text with line ends as \\n and without byte order marks at its start; raises PalimpsestError that names
    `where` for half a surrogate pair, which no file can hold and no tokenizer reads."""
    half = re.search("[\ud800-\udfff]", text)
    if half:
        raise PalimpsestError(
            f"{where} has half a surrogate pair (U+{ord(half.group()):04X}) as its character {half.start()}, "
            "which is none: correct or remove it."
        )
    return text.lstrip(BOM).replace("\r\n", "\n").replace("\r", "\n")
