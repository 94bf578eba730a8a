"""What no value of params.yaml may be, whatever its key: told before the schema, which would stumble over some."""

import math
from collections.abc import Mapping
from typing import Any

from palimpsest.errors import PalimpsestError

LARGEST, SMALLEST = 1e30, 1e-37
"""Sizes of a number that float32, in which models compute, can still square root, average and add."""
LONGEST_KEY = 200
WHOLE = 2**63
"""Whole numbers below it fit what PyTorch and NumPy count with; the schema has a bound for each key."""


def check_keys_and_numbers(value: Any, where: str = "") -> None:
    """Raise PalimpsestError for what no key of params.yaml takes: keys that YAML does not read as text (`no`, 8),
    numbers that are not finite or that float32 or 64 bits cannot hold, text with control characters, dates and so on.
    """
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
