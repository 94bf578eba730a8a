"""Tensors of a checkpoint one at a time, as NumPy arrays: no model is built and torch is not imported."""

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import ml_dtypes  # registers bfloat16 with NumPy, which safetensors then reads
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from palimpsest.errors import PalimpsestError, first_line

Float32 = NDArray[np.float32]
FLOAT8 = {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "F8_E8M0": ml_dtypes.float8_e8m0fnu}
DENSE = ("F64", "F32", "F16", "BF16")
"""What weights that nobody quantized are stored in."""
READABLE = (*DENSE, *FLOAT8, "BOOL", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


class TensorFiles:
    """The safetensors of a folder, single-file or sharded, as one mapping from name to lazily read tensor."""

    def __init__(self, folder: Path | str, paths: Iterable[Path] | None = None) -> None:
        """paths: the files; by default those that `weight_files` finds."""
        self.folder = Path(folder)
        self._stack = ExitStack()
        self._files: dict[str, Any] = {}
        self._paths: dict[str, Path] = {}
        try:
            for path in weight_files(self.folder) if paths is None else paths:
                self._add(path, self._stack.enter_context(_opened(path)))
        except BaseException:
            self._stack.close()
            raise

    def _add(self, path: Path, file: Any) -> None:
        names = file.keys()
        if twice := sorted(self._files.keys() & names):
            raise PalimpsestError(
                f"{twice[0]} is in both {self._paths[twice[0]]} and {path}: move away the file that is not meant."
            )
        self._files.update(dict.fromkeys(names, file))
        self._paths.update(dict.fromkeys(names, path))

    def __enter__(self) -> "TensorFiles":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def names(self) -> list[str]:
        return sorted(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """The safetensors name of the storage type, such as BF16, F32, U8."""
        return self._slice(name).get_dtype()

    def metadata(self, name: str) -> dict[str, str]:
        """The free-text metadata of the file that holds the tensor."""
        self._slice(name)
        return self._files[name].metadata() or {}

    def stored(self, name: str) -> NDArray:
        """The tensor in its storage type (bfloat16 and float8 as those of ml_dtypes).

        Raises PalimpsestError for a type that NumPy has no numbers of, such as F4.
        """
        kind = self.dtype(name)
        if kind not in READABLE:
            raise PalimpsestError(
                f"{name} in {self._paths[name]} is stored as {kind}, which cannot be read here: give a checkpoint with "
                f"weights in {', '.join(DENSE)}."
            )
        if kind in FLOAT8:
            return _read_float8(self._paths[name], name)
        return self._files[name].get_tensor(name)

    def load(self, name: str) -> NDArray:
        """The tensor with floating-point storage widened to float32; integers as they are."""
        stored = self.stored(name)
        return stored if stored.dtype.kind in "iub" else stored.astype(np.float32)

    def _slice(self, name: str):  # type: ignore[no-untyped-def]
        if name not in self._files:
            raise PalimpsestError(
                f"{self.folder} holds no tensor {name!r}: is it a checkpoint of another architecture?"
            )
        return self._files[name].get_slice(name)


def open_checkpoint(folder: Path | str) -> TensorFiles:
    """Open the weights of a checkpoint folder; raises PalimpsestError when there are none in safetensors format."""
    return TensorFiles(folder)


def to_bfloat16(values: Float32) -> Float32:
    """Round to the nearest bfloat16 (ties to even), kept in float32."""
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


def _read_float8(path: Path, name: str) -> NDArray:
    """Straight from the file, whose header gives the place of every tensor:
    safetensors looks for float8 in NumPy itself."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name]
        start, end = entry["data_offsets"]
        file.seek(8 + length + start)
        return np.frombuffer(file.read(end - start), FLOAT8[entry["dtype"]]).reshape(entry["shape"])


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON file of a checkpoint that somebody else wrote, such as config.json; raises PalimpsestError that names it.

    Whatever its bytes are: not UTF-8, nested without end, numbers of 10,000 digits (ValueError all but the second).
    """
    again = "copy or download the checkpoint again"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PalimpsestError(f"{path} is missing: {again}.") from None
    except (ValueError, RecursionError) as error:
        raise PalimpsestError(f"{path} is not valid JSON ({first_line(error)}): {again}.") from None
    if not isinstance(settings, dict):
        raise PalimpsestError(f"{path} holds no JSON object: {again}.")
    return settings


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that are the checkpoint, in name order.

    Raises PalimpsestError where there are none, where the index makes no sense, and where a single file lies beside
    shards: transformers would load that one, other programs the shards.
    """
    single, index = folder / WEIGHTS, folder / INDEX
    if not index.exists():
        if single.exists():
            return [single]
        raise PalimpsestError(
            f"{folder} holds no model.safetensors: give a checkpoint folder saved in safetensors format."
        )
    shards = _shards(index)
    if single.exists() and WEIGHTS not in shards:
        raise PalimpsestError(
            f"{folder} holds two models: {WEIGHTS}, and {', '.join(shards[:2])}{', ...' if len(shards) > 2 else ''} of "
            f"{INDEX}. Move away the one that is not meant."
        )
    return [folder / name for name in shards]


def _shards(index: Path) -> list[str]:
    places = read_settings(index).get("weight_map")
    names = set(places.values()) if isinstance(places, dict) and _hashable(places.values()) else set()
    odd = [name for name in names if not isinstance(name, str) or not _is_file_name(name)]
    if not names or odd:
        what = f"names {odd[0]!r}, which is no file of the folder" if odd else "has no weight_map from tensors to files"
        raise PalimpsestError(f"{index} {what}: copy or download the checkpoint again.")
    return sorted(names)


def _hashable(values: Iterable[Any]) -> bool:
    return not any(isinstance(value, list | dict) for value in values)


def _is_file_name(name: str) -> bool:
    return name.isprintable() and Path(name).name == name != ""  # a lone surrogate is not printable


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "np")
    except SafetensorError as error:
        raise PalimpsestError(
            f"{path} is no whole safetensors file ({error}): copy or download it again, or run the step that writes it."
        ) from None
    except FileNotFoundError:
        raise PalimpsestError(f"{path} is missing: the index of the checkpoint names it. Copy it too.") from None
    except OSError as error:  # a folder, or a file that may not be read
        raise PalimpsestError(f"{path} cannot be read ({first_line(error)}): copy or download it again.") from None
