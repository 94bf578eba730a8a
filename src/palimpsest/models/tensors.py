"""Tensors of a checkpoint one at a time, as NumPy arrays: no model is built and torch is not imported."""

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import ml_dtypes  # registers bfloat16 with NumPy, which safetensors then reads
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from palimpsest.artefacts import read_json
from palimpsest.errors import PalimpsestError

Float32 = NDArray[np.float32]
FLOAT8 = {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}


class TensorFiles:
    """The safetensors of a folder, single-file or sharded, as one mapping from name to lazily read tensor."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._stack = ExitStack()
        self._files = {}
        self._paths: dict[str, Path] = {}
        for path in _weight_files(self.folder):
            file = self._stack.enter_context(_opened(path))
            self._files.update(dict.fromkeys(file.keys(), file))
            self._paths.update(dict.fromkeys(file.keys(), path))

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
        """The tensor in its storage type (bfloat16 and float8 as those of ml_dtypes)."""
        if self.dtype(name) in FLOAT8:
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


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "np")
    except SafetensorError as error:
        raise PalimpsestError(
            f"{path} is no whole safetensors file ({error}): copy or download it again, or run the step that writes it."
        ) from None
    except FileNotFoundError:
        raise PalimpsestError(f"{path} is missing: the index of the checkpoint names it. Copy it too.") from None


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    raise PalimpsestError(f"{folder} holds no model.safetensors: give a checkpoint folder saved in safetensors format.")
