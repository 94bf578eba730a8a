"""Valid small files of every kind that is read here, ways to break them, and what must come of it.

A reader given other bytes may read (data has no checksum of its own; manifests have) or raise PalimpsestError. Any
other exception, a hang and a large allocation are findings.
"""

import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # fuzz.py and guided.py are run by themselves

from packed_folders import as_awq, as_gptq

from palimpsest.errors import PalimpsestError
from palimpsest.models.gguf import read_header
from palimpsest.models.quantized import quantization_of
from palimpsest.models.tensors import open_checkpoint
from palimpsest.quantizers import make_quantizer
from palimpsest.quantizers.deployed import UNKNOWN, recognise
from palimpsest.survival.checkpoints import FORMATS as SURVIVE_FORMATS
from palimpsest.survival.checkpoints import survive

RTN = {"backend": "rtn", "group_size": 32}
BNB4 = {"backend": "bnb-4bit", "levels": "nf4"}
GPTQ = {"symmetric": False, "damping": 0.01} | UNKNOWN
FORMATS: dict[str, dict[str, Any]] = {
    "rtn-int4": RTN | {"bits": 4, "symmetric": True},
    "rtn-int4-zero-points": RTN | {"bits": 4, "symmetric": False},
    "rtn-int8": RTN | {"bits": 8, "symmetric": True},
    "w8a8-int8": {"backend": "w8a8", "format": "int8"},
    "w8a8-fp8": {"backend": "w8a8", "format": "fp8"},
    "nvfp4": {"backend": "microscale", "format": "nvfp4"},
    "mxfp4": {"backend": "microscale", "format": "mxfp4"},
    "bnb-int8": {"backend": "bnb-int8", "outlier_threshold": 6.0},
    "bnb-nf4": BNB4 | {"double_quantization": False},
    "bnb-nf4-double": BNB4 | {"double_quantization": True},
    "torchao-int8": {"backend": "torchao-int8", "group_size": 32},
    "torchao-intx": {"backend": "torchao-intx", "bits": 4, "group_size": 32, "symmetric": False},
    "hqq": {"backend": "hqq", "bits": 4, "group_size": 32, "device": "cpu"},
    "auto-gptq": {"backend": "auto-gptq", "bits": 4, "group_size": 32, "desc_act": False} | GPTQ,
    "auto-gptq-3-bits": {"backend": "auto-gptq", "bits": 3, "group_size": 64, "desc_act": True} | GPTQ,
    "autoawq": {"backend": "autoawq", "bits": 4, "group_size": 32, "zero_point": True} | UNKNOWN,
    "gguf-q8_0": {"backend": "gguf", "format": "q8_0", "outer": "bfloat16"},
    "gguf-q4_0": {"backend": "gguf", "format": "q4_0", "outer": "bfloat16"},
}
LAID_OUT: dict[str, Callable[[Path, Path], None]] = {
    "auto-gptq": partial(as_gptq, group=32),
    "auto-gptq-3-bits": partial(as_gptq, group=64, bits=3, desc_act=True),
    "autoawq": as_awq,
}
"""Their packages run in an environment of their own: a folder as they lay it out does for a reader."""
TARGET = "target"
CHECKPOINTS = ("checkpoint", "shards")
ROUNDED = {name: make_quantizer(SURVIVE_FORMATS[name]) for name in ("rtn-int4", "bnb-nf4", "nvfp4", "gguf-q8_0")}
KINDS = (*CHECKPOINTS, *FORMATS)
EDGES = (0, 1, 2, 3, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32)
EDGES += (2**53, 2**60, 2**63 - 1, 2**63, 2**64 - 1)
JUNK: tuple[Any, ...] = (None, True, -1, 0, 1, 2**31, 2**64, 10**400, 1.5, 1e400, "", "x", "\ud800", "\x1b[2J", [], {})
JUNK += ([[]], [-1, -1], [0], [2**40, 2**40], {"a": {}}, "F32", "I8", "U8", "BF16", "F8_E8M0", "F4", "BOOL")


def build(folder: Path, model: Any, tokenizer: Any) -> None:
    """A folder of each kind below `folder`; the checkpoints are an update of TARGET."""
    model.save_pretrained(folder / TARGET)
    tokenizer.save_pretrained(folder / TARGET)
    for name, settings in FORMATS.items():
        if name in LAID_OUT:
            LAID_OUT[name](folder / TARGET, folder / name)
        else:
            make_quantizer(settings).quantize(folder / TARGET, folder / name, [])
    for weight in model.parameters():
        weight.data *= 1.01
    for name, size in zip(CHECKPOINTS, ("5GB", "100KB"), strict=True):
        model.save_pretrained(folder / name, max_shard_size=size)


@dataclass
class Case:
    """A folder that is broken and mended again and again.

    built: the folder with all valid ones; originals: the files that readers look at.
    """

    kind: str
    built: Path
    folder: Path
    originals: dict[str, bytes]

    @classmethod
    def of(cls, kind: str, built: Path, scratch: Path) -> "Case":
        folder, valid = scratch / kind, built / kind
        shutil.copytree(valid, folder, dirs_exist_ok=True)
        looked_at = ("config.json", "model.safetensors.index.json")
        files = [
            path for path in valid.rglob("*") if path.suffix in (".safetensors", ".gguf") or path.name in looked_at
        ]
        return cls(kind, built, folder, {str(path.relative_to(valid)): path.read_bytes() for path in sorted(files)})

    def read(self) -> str:
        """`read` or `refused`; what is no PalimpsestError goes on."""
        try:
            self._read()
        except PalimpsestError as error:
            if isinstance(error.__cause__, MemoryError):
                raise MemoryError(str(error)) from error
            assert "\n" not in str(error).strip()
            str(error).encode("utf-8", "backslashreplace")
            return "refused"
        return "read"

    def _read(self) -> None:
        if self.kind in CHECKPOINTS:
            quantization_of(self.folder)
            with open_checkpoint(self.folder) as files:
                for name in files.names():
                    files.load(name), files.metadata(name), files.shape(name)
            json.dumps(survive(self.built / TARGET, self.folder, ROUNDED, threads=1, may_skip=True), allow_nan=False)
            return
        quantizer = make_quantizer(FORMATS[self.kind])
        modules = {matrix.name for matrix in quantizer.read(self.folder) if matrix.effective is not None}
        for _ in quantizer.unquantized(self.folder, modules):
            pass
        recognise(self.folder)
        if (self.folder / "model.gguf").exists():
            read_header(self.folder / "model.gguf")

    def write(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

    def mend(self) -> None:
        for name, content in self.originals.items():
            (self.folder / name).write_bytes(content)


def mutated(content: bytes, name: str, choice: random.Random) -> bytes:
    """One of the mutations that fit the file."""
    ways: list[Callable[[bytes, random.Random], bytes]] = [_bytes, _cut, _numbers, _doubled, _bytes_of_head]
    if name.endswith(".json"):
        ways += 4 * [_json]
    if name.endswith(".safetensors"):
        ways += 6 * [_header]
    if name.endswith(".gguf"):
        ways += 6 * [_numbers_of_head]
    return choice.choice(ways)(content, choice)


def _bytes(content: bytes, choice: random.Random) -> bytes:
    return _flipped(content, choice, len(content))


def _bytes_of_head(content: bytes, choice: random.Random) -> bytes:
    return _flipped(content, choice, min(len(content), 4096))


def _flipped(content: bytes, choice: random.Random, end: int) -> bytes:
    changed = bytearray(content)
    for _ in range(choice.choice((1, 1, 2, 8)) if end else 0):
        changed[choice.randrange(end)] = choice.randrange(256)
    return bytes(changed)


def _cut(content: bytes, choice: random.Random) -> bytes:
    start, size = choice.randrange(len(content) + 1), choice.choice((1, 4, 8, 100, len(content)))
    return content[:start] + content[start + size :] if choice.random() < 0.7 else content[:start]


def _doubled(content: bytes, choice: random.Random) -> bytes:
    start = choice.randrange(len(content) + 1)
    part = content[start : start + choice.choice((1, 8, 64, 1024))]
    return content[:start] + part + content[start:]


def _numbers(content: bytes, choice: random.Random) -> bytes:
    return _with_number(content, choice, len(content))


def _numbers_of_head(content: bytes, choice: random.Random) -> bytes:
    return _with_number(content, choice, min(len(content), 8192))


def _with_number(content: bytes, choice: random.Random, end: int) -> bytes:
    size, place = choice.choice((1, 2, 4, 8)), choice.randrange(max(end, 1))
    number = (choice.choice(EDGES) % (1 << 8 * size)).to_bytes(size, "little")
    return content[:place] + number + content[place + size :]


def _json(content: bytes, choice: random.Random) -> bytes:
    try:
        return _dump(_edited(json.loads(content), choice))
    except (ValueError, RecursionError):
        return _bytes(content, choice)


def _header(content: bytes, choice: random.Random) -> bytes:
    """The header of a safetensors file edited and its length set right: what its own reader may let pass."""
    length = int.from_bytes(content[:8], "little")
    try:
        text = _dump(_edited(json.loads(content[8 : 8 + length]), choice))
    except (ValueError, RecursionError):
        return _bytes(content, choice)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _edited(value: Any, choice: random.Random) -> Any:
    """A JSON value with one place changed: taken away, exchanged with another, renamed, or set to junk."""
    places = [place for place in _places(value) if place]
    if not places:
        return choice.choice(JUNK)
    place, other = choice.choice(places), choice.choice(places)
    holder, key = _at(value, place[:-1]), place[-1]
    match choice.randrange(6):
        case 0:
            del holder[key]
        case 1:
            second = _at(value, other[:-1])
            holder[key], second[other[-1]] = second[other[-1]], holder[key]
        case 2 if isinstance(key, str):
            holder[choice.choice((key[:-1], key + "x", other[-1], key.upper(), ""))] = holder.pop(key)
        case 3 if isinstance(holder[key], list):
            holder[key] = choice.choice((holder[key][::-1], holder[key] * 2, [1, *holder[key]], holder[key][1:]))
        case 4 if isinstance(holder[key], int):
            holder[key] = choice.choice((*EDGES, holder[key] - 1, holder[key] + 1, -holder[key], holder[key] * 2))
        case _:
            holder[key] = choice.choice(JUNK)
    return value


def _places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield here
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _places(value[key], (*here, key))


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value
