"""Update survival from two checkpoints alone:
both are rounded to each format's grid here, block by block, and no file is written.

The sums are those of palimpsest.survival.measure, which reads quantized files; the arithmetic is the quantizers'
`round`, which equals what their backends write bit for bit. Blocks of rows fit into the processor's cache and are
spread over threads (NumPy lets go of the interpreter's lock); of each checkpoint one tensor is in memory at a time.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import gcd, prod
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from palimpsest.errors import PalimpsestError, choose
from palimpsest.models.tensors import Float32, to_bfloat16
from palimpsest.quantizers import Quantizer, make_quantizer
from palimpsest.quantizers.compressed.floats import shared_scale
from palimpsest.quantizers.grids.rounding import to_bfloat16_in_place
from palimpsest.survival.measure import (
    add,
    check_weights,
    kept_sum,
    outside_update,
    scale_sums,
    summary,
    update_sums,
)
from palimpsest.survival.records import CheckpointRecord, KindSurvival, Octave, RoundedSurvival, Update
from palimpsest.survival.training_precision import OCTAVES, infer_training_precision, lower_edge, octave_counts, octaves
from palimpsest.survival.weights import Array, Weights, open_weights, shared_kinds, through
from palimpsest.vocabulary import FULL

VALUES_AT_ONCE = 1 << 16
"""Weights in a block: its dozen of scratch arrays stay in a cache of 2 MiB."""
RUN = 64
"""Blocks hold a multiple of this many weights: bitsandbytes' groups run on from row to row."""

_BNB4 = {"backend": "bnb-4bit", "double_quantization": False}
_RTN = {"backend": "rtn", "symmetric": True}
FORMATS: dict[str, dict[str, Any]] = {
    "bnb-int8": {"backend": "bnb-int8", "outlier_threshold": 6.0},
    "bnb-fp4": _BNB4 | {"levels": "fp4"},
    "bnb-nf4": _BNB4 | {"levels": "nf4"},
    "rtn-int4": _RTN | {"bits": 4, "group_size": None},
    "rtn-int4-g128": _RTN | {"bits": 4, "group_size": 128},
    "rtn-int8": _RTN | {"bits": 8, "group_size": None},
    "gguf-q8_0": {"backend": "gguf", "format": "q8_0", "outer": "bfloat16"},
    "gguf-q4_0": {"backend": "gguf", "format": "q4_0", "outer": "bfloat16"},
    "fp8": {"backend": "w8a8", "format": "fp8"},
    "nvfp4": {"backend": "microscale", "format": "nvfp4"},
    "mxfp4": {"backend": "microscale", "format": "mxfp4"},
    "torchao-int8": {"backend": "torchao-int8", "group_size": None},
    "torchao-int4": {"backend": "torchao-int4", "group_size": 128},
}
"""What --quantizer takes; the settings are those of a params block."""
DEFAULT_FORMATS = ("bnb-int8", "bnb-fp4", "bnb-nf4", "rtn-int4", "rtn-int4-g128")
NEED_MORE = {
    **dict.fromkeys(
        ("gptq", "awq", "autoawq", "auto-gptq"), "rounds by what calibration text does to the layers' inputs"
    ),
    **dict.fromkeys(("hqq", "gguf-q4_k_m"), "searches for its scales and zero points"),
}
PIPELINE = "the pipeline measures it: `snakemake --cores all`, then results/survival/MODEL/seed0/NAME.json"


def choose_formats(names: Iterable[str]) -> dict[str, Quantizer]:
    """Quantizers by the names of FORMATS;
    raises PalimpsestError for others, and says who measures those that need more than weights."""
    chosen = {}
    for name in names:
        if name in NEED_MORE:
            raise PalimpsestError(f"{name} {NEED_MORE[name]}, so two checkpoints are not enough; {PIPELINE}.")
        chosen[name] = make_quantizer(choose(FORMATS, name, "quantizer"))
    return chosen


def formats_of(blocks: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Quantizer], dict[str, str]]:
    """The quantizers of a study's params that weights alone decide, and why the others are skipped, both by name.
    The unquantized models are none of them."""
    quantizers = {name: make_quantizer(settings) for name, settings in blocks.items() if name != FULL}
    skipped = {name: quantizer.why_not_round() for name, quantizer in quantizers.items()}
    chosen = {name: quantizer for name, quantizer in quantizers.items() if not skipped[name]}
    if not chosen:
        raise PalimpsestError(f"weights alone decide none of the quantizers {', '.join(quantizers)}: {PIPELINE}.")
    return chosen, {name: reason for name, reason in skipped.items() if reason}


def survive(
    target: Path | str,
    unlearned: Path | str,
    quantizers: Mapping[str, Quantizer],
    advance: Callable[[int], object] = lambda weights: None,
    threads: int | None = None,
    may_skip: bool = False,
) -> CheckpointRecord:
    """What of the update W - W0 is left in each format.

    advance: called with the number of weights of each matrix that is done.
    may_skip: whether a format that does not fit the checkpoints is left out, with the reason in "skipped".

    Where the two are stored in different types, both pass through the same rounding. The profile leaves out the formats
    that have no level at zero. Raises PalimpsestError when the checkpoints do not belong together, are equal, quantized
    or not finite, or do not fit a format.
    """
    with (
        open_weights(target) as before,
        open_weights(unlearned) as after,
        ThreadPoolExecutor(threads or usable_cores()) as pool,
    ):
        after.follow(before)
        parameters = sum(prod(before.shape(name)) for name in before.names())
        fit = _Fit(dict(quantizers), may_skip)
        _check_widths(before, fit)
        largest = [_largest(weights, before, after) for weights in (before, after) if _need_largest(fit.quantizers)]
        matrices = {}
        for module in before.matrices:
            matrices[module] = _matrix(_Pair(before, after, module), fit.quantizers, largest, pool)
            _check_numbers(matrices[module], module, fit)
            advance(int(matrices[module].update["weights"]))
        update = _total(matrix.update for matrix in matrices.values())
        outside = outside_update(before, after, {f"{module}.weight" for module in before.matrices}, update["update"])
        if outside["share_of_squared_update"] is None:
            raise PalimpsestError(_no_update(before, after))
    changed = [matrix for matrix in matrices.values() if matrix.changed]
    beyond = any(matrix.update["beyond_bfloat16"] for matrix in changed)
    return {
        "target": str(target),
        "unlearned": str(unlearned),
        "parameters": parameters,
        "update": _update_record(matrices.values()),
        "outside": outside,
        "formats": {
            name: {**_format_record(matrices.values(), name, quantizer), "prediction": None}
            for name, quantizer in fit.quantizers.items()
        },
        "kinds": _by_kind(matrices, fit.quantizers),
        "profile": _profile(changed, fit.quantizers),
        "training": infer_training_precision([matrix.octaves for matrix in changed], beyond),
        "skipped": fit.skipped,
    }


@dataclass
class _Fit:
    """The formats that fit the checkpoints so far, and why the others do not."""

    quantizers: dict[str, Quantizer]
    may_skip: bool
    skipped: dict[str, str] = field(default_factory=dict)

    def leave_out(self, name: str, reason: str) -> None:
        """Raises PalimpsestError with the reason where the format may not be skipped, or none is left."""
        if not self.may_skip:
            raise PalimpsestError(f"{name} {reason}: leave this format out.")
        self.skipped[name] = f"it {reason}"
        del self.quantizers[name]
        if not self.quantizers:
            raise PalimpsestError(f"no format fits the checkpoints: {name} {reason}.")


class _Pair(NamedTuple):
    """A matrix before and after unlearning."""

    before: Weights
    after: Weights
    module: str

    @property
    def name(self) -> str:
        return f"{self.module}.weight"

    @property
    def kinds(self) -> tuple[Any, ...]:
        return shared_kinds(self.before, self.after, self.name)


def _no_update(before: Weights, after: Weights) -> str:
    kinds = [kind for name in before.names() for kind in shared_kinds(before, after, name)]
    same = f"but for the rounding to {np.dtype(kinds[-1]).name}" if kinds else "tensor for tensor"
    return f"{after.folder} equals {before.folder}, {same}: there is no update that could survive."


def count_weights(checkpoint: Path | str) -> int:
    """Those of the matrices that `survive` goes through, from the headers of the files."""
    with open_weights(checkpoint) as weights:
        return sum(prod(weights.shape(f"{module}.weight")) for module in weights.matrices)


def usable_cores() -> int:
    """Those that this process may run on, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Matrix(NamedTuple):
    """The sums of a matrix: of its update, in each format, and by octave;
    zeros: what each format rounds to zero, by octave."""

    update: dict[str, float]
    formats: dict[str, dict[str, float]]
    octaves: NDArray[np.int64]
    zeros: dict[str, NDArray[np.int64]]

    @property
    def changed(self) -> bool:
        return self.update["changed"] > 0


def _check_widths(weights: Weights, fit: _Fit) -> None:
    for module in weights.matrices:
        width = weights.shape(f"{module}.weight")[1]
        for name, quantizer in list(fit.quantizers.items()):
            if width % quantizer.width_divisor:
                fit.leave_out(
                    name,
                    f"shares scales between {quantizer.width_divisor} inputs, which does not divide the {width} "
                    f"inputs of {module}",
                )


def _check_numbers(matrix: Matrix, module: str, fit: _Fit) -> None:
    """Scales may overflow where weights are finite: float16 ends at 65504."""
    for name in list(fit.quantizers):
        if not all(np.isfinite(value) for value in matrix.formats[name].values()):
            fit.leave_out(name, f"has no number for weights as large as those of {module}")


def _need_largest(quantizers: Mapping[str, Quantizer]) -> bool:
    return any(quantizer.needs_largest for quantizer in quantizers.values())


def _largest(weights: Weights, before: Weights, after: Weights) -> dict[str, float]:
    """The largest |w|, in bfloat16, of the matrices that share a scale, by `shared_scale`."""
    largest: dict[str, float] = {}
    for module in weights.matrices:
        stored, key = weights.stored(f"{module}.weight"), shared_scale(module)
        extremes = np.array([stored.max(), stored.min()])
        with np.errstate(all="ignore"):
            rounded = to_bfloat16(through(extremes, _Pair(before, after, module).kinds).astype(np.float32))
        largest[key] = max(float(np.abs(rounded).max()), largest.get(key, 0.0))
    return largest


def _matrix(
    pair: _Pair, quantizers: Mapping[str, Quantizer], largest: list[dict[str, float]], pool: ThreadPoolExecutor
) -> Matrix:
    old, new = (weights.stored(pair.name) for weights in (pair.before, pair.after))
    kinds, scale = pair.kinds, tuple(part[shared_scale(pair.module)] for part in largest) or (0.0, 0.0)
    rows, columns = old.shape
    step = RUN // gcd(RUN, columns)
    size = max(step, VALUES_AT_ONCE // columns // step * step)

    def block(start: int) -> Matrix:
        return _block(old[start : start + size], new[start : start + size], kinds, quantizers, scale)

    zeros = {name: np.zeros(OCTAVES, np.int64) for name, quantizer in quantizers.items() if quantizer.zero_on_grid}
    total = Matrix({}, {name: {} for name in quantizers}, np.zeros((OCTAVES, OCTAVES), np.int64), zeros)
    for part in pool.map(block, range(0, rows, size)):  # in order, so that sums do not depend on the threads
        add(total.update, part.update)
        for name, sums in part.formats.items():
            add(total.formats[name], sums)
        total.octaves[:] += part.octaves
        for name, counts in part.zeros.items():
            zeros[name] += counts
    if not np.isfinite(list(total.update.values())).all():
        check_weights(pair.name, pair.before, old)
        check_weights(pair.name, pair.after, new)
    return total


def _block(
    stored0: Array, stored: Array, kinds: Sequence[Any], quantizers: Mapping[str, Quantizer], largest: tuple[float, ...]
) -> Matrix:
    with np.errstate(all="ignore"):  # what is not finite shows in the sums
        exact = stored.dtype == ml_dtypes.bfloat16
        beyond = 0 if exact else np.count_nonzero(to_bfloat16(stored.astype(np.float32)) != stored)
        stored0, stored = through(stored0, kinds), through(stored, kinds)
        w0, w = stored0.astype(np.float32), stored.astype(np.float32)
        update, sums = update_sums(w0, w)
        changed = (update != 0).reshape(w.shape)
        b0, b = _in_bfloat16(w0, stored0), _in_bfloat16(w, stored)
        sums["beyond_bfloat16"] = float(beyond)
        formats, zeros, sizes = {}, {}, octaves(b0)
        for name, quantizer in quantizers.items():
            old, new = quantizer.round(b0, largest[0]), quantizer.round(b, largest[1])
            part = {
                "kept": kept_sum(update, old.dequantized, new.dequantized),
                "codes": float(old.codes.size),
                "same_codes": float(np.count_nonzero(old.codes == new.codes)),
            }
            if quantizer.zero_on_grid:
                zero = quantizer.is_zero(old)
                part["dead"] = float(np.count_nonzero(zero & changed))
                zeros[name] = np.bincount(sizes[zero], minlength=OCTAVES)
            formats[name] = part | scale_sums(old.scales, new.scales)
        return Matrix(sums, formats, octave_counts(b0.reshape(-1), update.astype(np.float32)), zeros)


def _in_bfloat16(weights: Float32, stored: Array) -> Float32:
    """Every quantizer starts from the checkpoint in bfloat16."""
    return weights if stored.dtype == ml_dtypes.bfloat16 else to_bfloat16_in_place(weights.copy())


def _total(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        add(total, dict(part))
    return total


def _format_record(matrices: Iterable[Matrix], name: str, quantizer: Quantizer) -> RoundedSurvival:
    sums = _total(matrix.update | matrix.formats[name] for matrix in matrices)
    dead = sums["dead"] / sums["changed"] if "dead" in sums and sums["changed"] else None
    return {**summary(sums), "dead_zone": list(quantizer.dead_zone()), "dead_zone_share": dead}


def _update_record(matrices: Iterable[Matrix]) -> Update:
    matrices = list(matrices)
    sums = _total(matrix.update for matrix in matrices)
    return {
        "weights": int(sums["weights"]),
        "changed_share": sums["changed"] / sums["weights"],
        "relative_update_norm": (sums["update"] / sums["norm"]) ** 0.5 if sums["norm"] else None,
        "matrices": len(matrices),
        "changed_matrices": sum(matrix.changed for matrix in matrices),
    }


def _by_kind(matrices: Mapping[str, Matrix], quantizers: Mapping[str, Quantizer]) -> dict[str, KindSurvival]:
    """By the last part of the names (q_proj, down_proj, ...), in order of first occurrence."""
    kinds: dict[str, list[Matrix]] = {}
    for module, matrix in matrices.items():
        kinds.setdefault(module.rpartition(".")[2], []).append(matrix)
    return {
        kind: {
            "update": _update_record(members),
            "formats": {name: _format_record(members, name, quantizers[name]) for name in quantizers},
        }
        for kind, members in kinds.items()
    }


def _profile(changed: Sequence[Matrix], quantizers: Iterable[str]) -> list[Octave]:
    counts = sum((matrix.octaves for matrix in changed), np.zeros((OCTAVES, OCTAVES), np.int64))
    formats = [name for name in quantizers if changed and name in changed[0].zeros]
    zeros = {name: np.sum([matrix.zeros[name] for matrix in changed], axis=0) for name in formats}
    return [
        {
            "from": lower_edge(octave),
            "to": lower_edge(octave + 1),
            "weights": int(counts[octave].sum()),
            "changed": int(counts[octave, 1:].sum()),
            "rounded_to_zero": {name: int(of_format[octave]) for name, of_format in zeros.items()},
        }
        for octave in np.flatnonzero(counts.any(1)).tolist()
    ]
