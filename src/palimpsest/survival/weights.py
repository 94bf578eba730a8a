"""The weights of a checkpoint as they are compared: by role, each matrix as [out, in], those of a pair in one type."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from palimpsest.errors import PalimpsestError
from palimpsest.models.families import FAMILIES
from palimpsest.models.layers import family_of, is_buffer, is_named, layers_of
from palimpsest.models.quantized import reject_quantized
from palimpsest.models.tensors import TensorFiles, open_checkpoint
from palimpsest.survival.sources import GGUFFiles, is_gguf

Array = NDArray[Any]
"""Of floats or codes; NumPy's types know no bfloat16."""

KINDS: dict[str, Any] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
"""What weights are stored in, by safetensors' names."""
HALVES: tuple[Any, ...] = (np.float16, ml_dtypes.bfloat16)
LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj")
"""How the matrices of Llama and its like are called: without a config.json other names have no known role."""
OTHER_MODEL = "the unlearned model must be made from this target"


class Weights:
    """The tensors of a checkpoint but its buffers (masks, rotary frequencies), by the names of its files.

    Those of linear layers, which quantizers quantize, are `matrices`; the others are embeddings, heads, norms, biases.
    """

    def __init__(self, files: TensorFiles) -> None:
        """Raises PalimpsestError where the layers of the checkpoint cannot be told by their role."""
        self.folder = files.folder
        self._files = files
        if isinstance(files, GGUFFiles):
            self._layers = files.layers()
        else:
            self._layers = layers_of(files)
            _check_names(files, self._layers.linear)
        self._turned = {f"{module}.weight" for module in self._layers.turned}
        self._stored = {name: name for name in files.names() if not is_buffer(name, files.shape(name))}
        self._linear = {f"{module}.weight" for module in self._layers.linear if self._is_matrix(module)}
        if not self._linear:
            raise PalimpsestError(
                f"{files.folder} holds no weight matrix besides embeddings: is it a checkpoint of a language model?"
            )

    def _is_matrix(self, module: str) -> bool:
        name = f"{module}.weight"
        if name not in self._files or len(self._files.shape(name)) != 2:
            raise PalimpsestError(
                f"{module} in {self.folder} is not the matrix of a linear layer: this architecture cannot be compared."
            )
        return prod(self._files.shape(name)) > 0

    @property
    def matrices(self) -> list[str]:
        """The linear layers in name order, without `.weight`."""
        return [name.removesuffix(".weight") for name in self.names() if self._stored[name] in self._linear]

    def names(self) -> list[str]:
        return sorted(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """[out, in] of a matrix."""
        stored = self._name(name)
        shape = self._files.shape(stored)
        return shape[::-1] if stored in self._turned else shape

    def stored(self, name: str) -> Array:
        """In the type in which it is stored; what GPT-2 stores as [in, out] is turned."""
        stored = self._name(name)
        values: Array = self._files.stored(stored)
        return np.ascontiguousarray(values.T) if stored in self._turned else values

    def load(self, name: str) -> Array:
        """Widened to float32; integers as they are."""
        values = self.stored(name)
        return values if values.dtype.kind in "iub" else values.astype(np.float32)

    def kind(self, name: str) -> Any:
        """The NumPy type in which a weight is stored."""
        return KINDS[self._files.dtype(self._name(name))]

    def follow(self, target: "Weights") -> None:
        """Take the names of `target`, whose unlearned model this is.

        A checkpoint may be saved with the prefix of its model (`transformer.`) or without it, and an output head that
        is the embeddings written out or left out. Raises PalimpsestError for other tensors or shapes.
        """
        missing, surplus = set(target.names()) - set(self.names()), set(self.names()) - set(target.names())
        if prefix := _prefix(missing, surplus):
            self._rename({name: prefix + name for name in surplus if prefix + name in missing})
        elif prefix := _prefix(surplus, missing):
            self._rename({prefix + name: name for name in missing if prefix + name in surplus})
        for weights, other in ((self, target), (target, self)):
            for name in sorted(set(weights.names()) - set(other.names())):
                if not weights._is_tied(name):
                    raise PalimpsestError(
                        f"{target.folder} and {self.folder} hold different tensors (such as {name!r}): {OTHER_MODEL}."
                    )
                del weights._stored[name]
        for name in target.names():
            if target.shape(name) != self.shape(name):
                raise PalimpsestError(
                    f"{name} is {target.shape(name)} in {target.folder} and {self.shape(name)} in {self.folder}: "
                    f"{OTHER_MODEL}."
                )

    def _rename(self, names: dict[str, str]) -> None:
        self._stored |= {new: self._stored.pop(old) for old, new in names.items()}

    def _is_tied(self, name: str) -> bool:
        """Whether a tensor is an output head that repeats the embeddings."""
        if self._stored[name].removesuffix(".weight") not in self._layers.heads:
            return False
        head = self.stored(name)
        embeddings = (self._files.stored(f"{module}.weight") for module in self._layers.embeddings)
        return any(np.array_equal(head, each) for each in embeddings)

    def _name(self, name: str) -> str:
        if name not in self._stored:
            raise PalimpsestError(f"{self.folder} holds no tensor {name!r}: {OTHER_MODEL}.")
        return self._stored[name]


@contextmanager
def open_weights(folder: Path | str) -> Iterator[Weights]:
    """The weights of a checkpoint folder, or of a GGUF file; raises PalimpsestError for one that is quantized already,
    or an adapter."""
    reject_quantized(folder)
    with GGUFFiles(Path(folder)) if is_gguf(folder) else open_checkpoint(folder) as files:
        yield Weights(files)


def shared_kinds(before: Weights, after: Weights, name: str) -> tuple[Any, ...]:
    """The types that both tensors of this name pass through, one after the other; none where they have the same.

    A copy of the target in a coarser type is no update of it. Where one is float16 and the other bfloat16, it is both.
    """
    kinds = {before.kind(name), after.kind(name)}
    if len(kinds) == 1:
        return ()
    return tuple(kind for kind in HALVES if kind in kinds) or (np.float32,)


def through(values: Array, kinds: Iterable[Any]) -> Array:
    """The values rounded to one type after the other; what is too large for float16 becomes its largest number."""
    for kind in kinds:
        if kind is np.float16:
            limit = np.finfo(np.float16).max
            values = np.clip(values.astype(np.float32), -limit, limit)
        values = values.astype(kind)
    return values


def _prefix(longer: set[str], shorter: set[str]) -> str:
    """What most names of `longer` have before one of `shorter`, such as `transformer.`; empty where none has."""
    first = min(longer, default="").split(".")
    prefixes = [f"{'.'.join(first[:end])}." for end in range(1, len(first))]
    counts = {prefix: sum(prefix + name in longer for name in shorter) for prefix in prefixes}
    return max((prefix for prefix in counts if counts[prefix]), key=lambda prefix: counts[prefix], default="")


def _check_names(files: TensorFiles, modules: Sequence[str]) -> None:
    """Raise PalimpsestError where names are taken for those of Llama and its like, and are not."""
    family = family_of(files.folder)
    odd = [module for module in modules if not is_named(module, LLAMA)]
    if odd and family and family.embeddings == FAMILIES["llama"].embeddings and not family.routers:
        where = "its config.json says" if (files.folder / "config.json").exists() else "there is no config.json, and"
        raise PalimpsestError(
            f"{files.folder} holds the matrix {odd[0]}, whose role is unknown: {where} Llama or its like has no such "
            "layer. Copy the config.json of the model there."
        )
