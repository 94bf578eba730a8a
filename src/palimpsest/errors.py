"""The one error that users see, and lookups that explain themselves."""

import difflib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar
from unicodedata import category

Entry = TypeVar("Entry")
UNFINISHED = (":", ",", ";", " of", " or", " and", " to", " for")
DIRECTIONS = "\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that break a line or turn what follows around."""


class PalimpsestError(Exception):
    """A bad input or a broken promise: the message names the key or file, what is wrong and what to do."""


def choose(registry: Mapping[str, Entry], name: str, what: str) -> Entry:
    """The entry called `name`; raises PalimpsestError with the nearest name and the whole list when there is none."""
    if name in registry:
        return registry[name]
    near = difflib.get_close_matches(name, registry, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise PalimpsestError(f"unknown {what} {name!r}.{hint} Known: {', '.join(sorted(registry))}.")


@contextmanager
def one_line(start: str = "Error") -> Iterator[None]:
    """Within it a mistake of the user's ends the program: one line on stderr and exit code 1 instead of a traceback."""
    try:
        yield
    except (PalimpsestError, OSError) as error:
        print(f"{start}: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(1)


def printable(text: str) -> str:
    """The text with control characters, lone surrogates and changes of direction as escapes: names out of a file are
    shown, and never reach a terminal as commands."""
    return "".join(_escaped(char) if category(char) in ("Cc", "Cs") or char in DIRECTIONS else char for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def first_line(error: BaseException) -> str:
    """What an error says, without the rest of its story: its first line, and those that finish its sentence."""
    said = ""
    for line in str(error).splitlines():
        said = f"{said} {line.strip()}".strip()
        if said and not said.endswith(UNFINISHED):
            break
    return (said or type(error).__name__).rstrip(".")
