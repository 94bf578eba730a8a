"""Where the two checkpoints of `palimpsest survive` are: folders, unquantized GGUF files, models of the hub."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from palimpsest.errors import PalimpsestError, first_line
from palimpsest.models.layers import Layers, layers_of
from palimpsest.models.tensors import TensorFiles
from palimpsest.quantizers.gguf.model import GGUFTensors

HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")
"""A model of the hub, with a revision or without: owner/name@revision."""
PATTERNS = ("config.json", "model*.safetensors", "model.safetensors.index.json")
"""What is fetched of it."""


def located(source: str) -> Path:
    """The folder or GGUF file that is given, or the folder in the cache with the files of a model of the hub, which are
    fetched where they are not there. Raises PalimpsestError where there is none."""
    path = Path(source)
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path
    if path.exists():
        raise PalimpsestError(f"{source} is a file: give a folder with safetensors, or an unquantized GGUF file.")
    if not HUB.fullmatch(source):
        raise PalimpsestError(
            f"{source} is no folder: give the folder of a checkpoint saved in safetensors format, a GGUF file, or a "
            "model of the hub as OWNER/NAME."
        )
    return _fetched(source)


def _fetched(source: str) -> Path:
    from huggingface_hub import constants, snapshot_download

    name, _, revision = source.partition("@")
    try:
        folder = snapshot_download(
            name,
            revision=revision or None,
            allow_patterns=list(PATTERNS),
            cache_dir=constants.HF_HUB_CACHE,
            local_files_only=constants.HF_HUB_OFFLINE,
        )
    except (OSError, ValueError) as error:
        raise PalimpsestError(
            f"{source} is no folder here, and cannot be fetched from the hub ({first_line(error)}): correct the name, "
            "log in with `hf auth login` if it is gated, or give a local folder."
        ) from error
    return Path(folder)


def is_gguf(path: Path | str) -> bool:
    return Path(path).suffix == ".gguf" and Path(path).is_file()


class GGUFFiles(TensorFiles):
    """An unquantized GGUF file as the tensors of the checkpoint that it is: its names and order of rows, matrices as
    [out, in] in every family."""

    KINDS = ("F32", "F16", "BF16")

    def __init__(self, path: Path) -> None:
        """Raises PalimpsestError for a file of an architecture that is not known, or with numbers of another kind."""
        super().__init__(path, ())
        self._tensors = GGUFTensors(path)
        for name in self._tensors.names():
            if self._tensors.kind(name) not in self.KINDS:
                raise PalimpsestError(
                    f"{name} in {path} is {self._tensors.kind(name)}, and only {', '.join(self.KINDS)} are compared: "
                    "give an unquantized file, or the checkpoint it was made from."
                )

    @property
    def kind(self) -> str:
        """The model type, as config.json calls it."""
        return self._tensors.model_type

    def layers(self) -> Layers:
        return replace(layers_of(self, self.kind), turned=frozenset())

    def __contains__(self, name: str) -> bool:
        return name in self._tensors.names()

    def names(self) -> list[str]:
        return self._tensors.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors.shape(name)

    def dtype(self, name: str) -> str:
        return self._tensors.kind(name)

    def stored(self, name: str) -> NDArray[Any]:
        rows = self._tensors.rows(name)
        if rows.ndim == 1 or self._tensors.kind(name) == "F32":  # norms, of which a family may store 1 + their weight
            return np.asarray(self._tensors.load(name))
        return rows.view(ml_dtypes.bfloat16) if self._tensors.kind(name) == "BF16" else np.asarray(rows)
