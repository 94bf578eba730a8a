"""The header of a GGUF file, walked within the bounds of the file before any other reader sees it.

The reader of the `gguf` package trusts the counts in a file: a broken one ends in whatever NumPy raises, or in a loop
of 2^60 steps. What passes here it can read. The layout: ggml's docs/gguf.md, versions 2 and 3, little-endian.
"""

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple, NoReturn

from palimpsest.errors import PalimpsestError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by the number of its type."""
INTEGERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 10: "Q", 11: "q"}
"""How `struct` reads a whole number, likewise."""
UINT32, STRING, ARRAY = 4, 8, 9
ALIGNMENT = "general.alignment"
MOST_DIMENSIONS = 4
UNQUANTIZED = ("F32", "F16", "BF16", "F64")


class GGUFTensor(NamedTuple):
    """What the header says of a tensor. kind: its type by ggml's name; shape: the slowest axis first."""

    name: str
    kind: str
    shape: tuple[int, ...]


class GGUFHeader(NamedTuple):
    """The tensors of a GGUF file, and those of its settings that are whole numbers, by their keys."""

    tensors: list[GGUFTensor]
    numbers: dict[str, int]


def read_header(path: Path) -> GGUFHeader:
    """What the header of a GGUF file says; raises PalimpsestError where it is missing or is no whole GGUF file."""
    try:
        with open(path, "rb") as file:
            if not path.stat().st_size:
                return _Walk(path, b"").header()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _Walk(path, content).header()
    except FileNotFoundError:
        raise PalimpsestError(f"{path} does not exist: run the step that writes it, or correct the path.") from None


@dataclass
class _Walk:
    """A place in the file that moves on with each value read."""

    path: Path
    content: "mmap.mmap | bytes"
    place: int = 0

    def header(self) -> GGUFHeader:
        if self._take(4) != MAGIC:
            self._fail("it does not start with GGUF")
        if (version := self._number("I")) not in VERSIONS:
            self._fail(f"its version is {version}, not one of {', '.join(map(str, VERSIONS))}")
        tensors, count = self._number("Q"), self._number("Q")
        numbers = self._fields(count)
        alignment = numbers.get(ALIGNMENT, 32)
        if alignment < 1 or alignment & (alignment - 1):
            self._fail(f"{ALIGNMENT} is no power of two")
        found: list[GGUFTensor] = []
        places: list[tuple[int, int, str]] = []
        for _ in range(tensors):
            tensor, offset, size = self._tensor()
            found.append(tensor)
            places.append((offset, size, tensor.name))
        if len({tensor.name for tensor in found}) < len(found):
            self._fail("it holds two tensors of one name")
        start = -(-self.place // alignment) * alignment
        for offset, size, name in places:
            if offset % alignment or start + offset + size > len(self.content):
                self._fail(f"{name!r} does not lie within it")
        return GGUFHeader(found, numbers)

    def _fields(self, count: int) -> dict[str, int]:
        """Walks over the settings; returns the whole numbers among them."""
        numbers, seen = {}, set()
        for _ in range(count):
            key, kind = self._text(), self._number("I")
            if key in seen or key.startswith("GGUF."):  # names that the reader of the gguf package keeps for itself
                self._fail(f"it holds the key {key!r} twice")
            seen.add(key)
            if kind in INTEGERS:
                numbers[key] = self._number(INTEGERS[kind])
            else:
                self._skip(kind)
            if key == ALIGNMENT and kind != UINT32:
                self._fail(f"{ALIGNMENT} is no 32-bit number")
        return numbers

    def _skip(self, kind: int) -> None:
        """Over a value; what a text holds is looked at, for every reader decodes it."""
        if kind == STRING:
            self._text()
        elif kind == ARRAY:
            inner, count = self._number("I"), self._number("Q")
            if inner in SCALARS:
                self._pass(SCALARS[inner] * count)
            elif inner == STRING:
                for _ in range(count):
                    self._text()
            else:
                self._fail(f"an array has values of the type {inner}")
        elif kind in SCALARS:
            self._pass(SCALARS[kind])
        else:
            self._fail(f"a value has the type {kind}, which GGUF does not have")

    def _tensor(self) -> tuple[GGUFTensor, int, int]:
        """What the header says of a tensor, where it lies behind the header, and how many bytes it has."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name, dimensions = self._text(), self._number("I")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            self._fail(f"{name!r} has {dimensions} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        number, offset = self._number("I"), self._number("Q")
        if number not in set(GGMLQuantizationType):
            self._fail(f"{name!r} has the type {number}, which ggml does not have")
        kind = GGMLQuantizationType(number)
        block, size = GGML_QUANT_SIZES[kind]
        if 0 in shape or shape[0] % block:
            self._fail(f"{name!r} of {kind.name} has rows of {shape[0]} values, which are no whole blocks of {block}")
        return GGUFTensor(name, kind.name, shape[::-1]), offset, prod(shape) // block * size

    def _text(self) -> str:
        raw = self._take(self._number("Q"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self._fail("a text in it is not UTF-8")

    def _number(self, form: str) -> int:
        return int(struct.unpack(f"<{form}", self._take(struct.calcsize(form)))[0])

    def _take(self, size: int) -> bytes:
        start = self._pass(size)
        return bytes(self.content[start : self.place])

    def _pass(self, size: int) -> int:
        """Moves on over `size` bytes; returns where they start."""
        start, self.place = self.place, self.place + size
        if self.place > len(self.content):
            self._fail(f"it ends at byte {len(self.content)}, in the middle of its header")
        return start

    def _fail(self, reason: str) -> NoReturn:
        raise PalimpsestError(
            f"{self.path} is no whole GGUF file ({reason}): copy or download it again, or run the step that writes it."
        )
