"""Update survival: how much of the unlearning update W - W0 is left after quantization, from the weights alone.

    rho = <Q(W) - Q(W0), W - W0> / <W - W0, W - W0>

rho = 1: the update arrives in the quantized file; rho = 0: it is rounded away. No data, no forward pass, no
GPU; one matrix is in memory at a time. At 4 bits the share of equal codes does not tell the two cases apart:
it is above 0.9 in both.
"""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from palimpsest.errors import PalimpsestError
from palimpsest.survival.records import MatrixSurvival, ModelSurvival, Outside, Survival
from palimpsest.survival.weights import Array, Weights, open_weights, shared_kinds, through
from palimpsest.vocabulary import OK, undefined

VALUES_AT_ONCE = 1 << 18
"""Weights widened to float64 at a time: sums stay exact to about 1e-12 and the block stays in cache."""


class QuantizedMatrixLike(Protocol):
    """What survival needs of a quantized matrix;
    `effective` is [out, in] float32, in the coordinates of the checkpoint."""

    name: str
    codes: Array
    scales: Array
    group_index: Array | None

    @property
    def effective(self) -> NDArray[np.float32]: ...


class QuantizerLike(Protocol):
    """Anything that reads back the file it wrote."""

    def read(self, folder: Path) -> Iterator[QuantizedMatrixLike]: ...


def measure_survival(
    target: Path | str,
    unlearned: Path | str,
    quantized_target: Path | str,
    quantized_unlearned: Path | str,
    quantizer: QuantizerLike,
) -> ModelSurvival:
    """Update survival of one unlearned model under one quantizer:
    over all matrices that it changes, in each, and outside them.

    W and W0 are compared as they are stored. Raises PalimpsestError when the files do not belong together.
    """
    with open_weights(target) as before, open_weights(unlearned) as after:
        after.follow(before)
        pairs = zip_longest(quantizer.read(Path(quantized_target)), quantizer.read(Path(quantized_unlearned)))
        matrices: list[MatrixSurvival] = []
        sums: list[dict[str, float]] = []
        for old, new in pairs:
            if old is None or new is None:
                raise PalimpsestError(
                    f"{quantized_target} and {quantized_unlearned} hold different numbers of matrices: "
                    "quantize both again."
                )
            sums.append(_matrix_sums(before, after, old, new))
            matrices.append({"name": old.name, **summary(sums[-1])})
        if not matrices:
            raise PalimpsestError(f"{quantized_unlearned} holds no quantized matrix: the quantizer changed nothing.")
        everything = {key: sum(part[key] for part in sums) for key in sums[0]}
        outside = outside_update(
            before, after, {f"{matrix['name']}.weight" for matrix in matrices}, everything["update"]
        )
    return {"all": summary(everything), "matrices": matrices, "outside": outside}


def without_reader(why: str) -> ModelSurvival:
    """The record of a file from elsewhere whose codes cannot be read."""
    nothing: Survival = {
        "rho": None,
        "rho_status": undefined(f"the file's codes have no reader here ({why})"),
        "changed_share": None,
        "same_code_share": None,
        "relative_update_norm": None,
        "scale_drift": None,
        "weights": 0,
        "codes": 0,
        "scales": 0,
    }
    return {"all": nothing, "matrices": [], "outside": {"weights": 0, "share_of_squared_update": None}}


def _matrix_sums(
    before: Weights, after: Weights, old: QuantizedMatrixLike, new: QuantizedMatrixLike
) -> dict[str, float]:
    """The sums over one matrix of which every number in the record is a ratio."""
    if old.name != new.name:
        raise PalimpsestError(
            f"the quantized files list {old.name!r} and {new.name!r} at the same place: quantize both again."
        )
    name = f"{old.name}.weight"
    weights = [before.load(name), after.load(name), old.effective, new.effective]
    if len({array.shape for array in weights}) != 1 or old.codes.shape != new.codes.shape:
        shapes = ", ".join(str(array.shape) for array in weights)
        raise PalimpsestError(f"{name} has different shapes in the four files ({shapes}): quantize both models again.")
    sums = dict.fromkeys(("kept", "update", "norm", "changed", "weights"), 0.0)
    for w0, w, q0, q in _blocks(*weights):
        update, part = update_sums(w0, w)
        add(sums, part | {"kept": kept_sum(update, q0, q)})
    check_finite(name, sums)
    sums |= {"codes": float(old.codes.size), "same_codes": float(np.count_nonzero(old.codes == new.codes))}
    scales0, scales = _scales(old), _scales(new)
    if scales0.size != scales.size:
        raise PalimpsestError(f"{old.name} has different numbers of scales in the two files: quantize both again.")
    return sums | scale_sums(scales0, scales)


def update_sums(w0: Array, w: Array) -> tuple[NDArray[np.float64], dict[str, float]]:
    """The update W - W0 of some weights, flat, and its sums;
    arrays of equal shape, small enough to stay in the cache."""
    before = w0.reshape(-1).astype(np.float64)
    update = w.reshape(-1).astype(np.float64)
    update -= before
    sums = {
        "update": inner(update, update),
        "norm": inner(before, before),
        "changed": float(np.count_nonzero(update)),
        "weights": float(update.size),
    }
    return update, sums


def kept_sum(update: NDArray[np.float64], q0: Array, q: Array) -> float:
    """<Q(W) - Q(W0), W - W0> over the weights of `update`."""
    change = q.reshape(-1).astype(np.float64)
    change -= q0.reshape(-1)
    return inner(change, update)


def inner(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """<a, b>, added up pairwise by NumPy. np.dot leaves the order to BLAS, which has one for each kind of processor
    and number of threads: the last digits of a record would be those of a machine."""
    with np.errstate(invalid="ignore"):  # what is not finite shows in the sum
        return float(np.multiply(a, b).sum())


def scale_sums(scales0: Array, scales: Array) -> dict[str, float]:
    """The number of scales and the sum of |s / s0 - 1| over the nonzero ones."""
    scales0, scales = (np.asarray(part, dtype=np.float64).ravel() for part in (scales0, scales))
    used = scales0 != 0
    drift = np.abs(scales[used] / scales0[used] - 1).sum()
    return {"scales": float(scales.size), "drift": float(drift), "drift_n": float(np.count_nonzero(used))}


def add(sums: dict[str, float], part: dict[str, float]) -> None:
    """Add `part` to `sums`, key by key."""
    for key, value in part.items():
        sums[key] = sums.get(key, 0.0) + value


def check_finite(name: str, sums: dict[str, float]) -> None:
    if not all(np.isfinite(value) for value in sums.values()):
        raise PalimpsestError(f"{name} holds NaN or infinite weights before or after quantization.")


def _scales(part: QuantizedMatrixLike) -> NDArray[np.float64]:
    """One per group; one per weight where groups are scattered, since a group's columns are others after unlearning."""
    scales = np.asarray(part.scales, dtype=np.float64)
    return scales if part.group_index is None else scales[:, part.group_index]


def _blocks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    flat = [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, VALUES_AT_ONCE):
        yield tuple(array[start : start + VALUES_AT_ONCE] for array in flat)


def summary(sums: dict[str, float]) -> Survival:
    """The numbers of the record, from sums over any set of matrices."""
    moved = sums["update"] > 0
    return {
        "rho": sums["kept"] / sums["update"] if moved else None,
        "rho_status": OK if moved else undefined("no weight changed, the unlearned model equals the target"),
        "changed_share": sums["changed"] / sums["weights"],
        "same_code_share": sums["same_codes"] / sums["codes"],
        "relative_update_norm": (sums["update"] / sums["norm"]) ** 0.5 if sums["norm"] else None,
        "scale_drift": sums["drift"] / sums["drift_n"] if sums["drift_n"] else None,
        "weights": int(sums["weights"]),
        "codes": int(sums["codes"]),
        "scales": int(sums["scales"]),
    }


def outside_update(before: Weights, after: Weights, quantized: set[str], quantized_update: float) -> Outside:
    """The update of the tensors that stay unquantized (embeddings, norms): it survives whatever the format."""
    sums = {"update": 0.0, "weights": 0.0}
    for name in before.names():
        if name not in quantized:
            add(sums, _tensor_sums(before, after, name))
    update, weights = sums["update"], int(sums["weights"])
    total = update + quantized_update
    return {"weights": weights, "share_of_squared_update": update / total if total else None}


def _tensor_sums(before: Weights, after: Weights, name: str) -> dict[str, float]:
    """Of an unquantized tensor; its two arrays are gone when the next ones are read."""
    sums = {"update": 0.0, "weights": 0.0}
    kinds = shared_kinds(before, after, name)
    for w0, w in _blocks(before.stored(name), after.stored(name)):
        check_weights(name, before, w0)
        check_weights(name, after, w)
        add(sums, update_sums(through(w0, kinds), through(w, kinds))[1])
    return sums


def check_weights(name: str, weights: Weights, values: Array) -> None:
    """Raise PalimpsestError for NaN and infinity in (a part of) a checkpoint's tensor."""
    if not np.isfinite(values).all():
        raise PalimpsestError(
            f"{name} holds NaN or infinite weights in {weights.folder}, which is not finite: fetch or train it again."
        )
