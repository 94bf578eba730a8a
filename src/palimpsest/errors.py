"""The one error that users see, and lookups that explain themselves."""

import difflib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

Entry = TypeVar("Entry")


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
        print(f"{start}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


def first_line(error: BaseException) -> str:
    """What an error says, without the rest of its story."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
