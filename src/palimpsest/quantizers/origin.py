"""Of which checkpoint a quantized file is: its codes beside those that the same format makes of the checkpoint, and of
the target before unlearning, whose quantized file may be passed off as the unlearned model's.

Four things are looked at. Values: of the formats that a checkpoint alone decides, every weight of the file must be what
our own quantizer makes of it; where it makes another of the target, the file says whose it is. Tensors that stay
unquantized (embeddings, norms) are in the file as they were. The error of rounding is as large as the format makes it,
and far larger for another model. And the file's weights hold a share of the update W - W0, 1 but for rounding in the
unlearned model's file and 0 in the target's: the rounding errors of millions of weights cancel in that sum.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypedDict

import numpy as np

from palimpsest.errors import PalimpsestError
from palimpsest.models.layers import Layers, is_buffer, layers_of
from palimpsest.models.quantized import reject_quantized
from palimpsest.models.tensors import DENSE, Float32, TensorFiles, open_checkpoint, to_bfloat16
from palimpsest.quantizers.base import Quantizer
from palimpsest.quantizers.compressed.floats import shared_scale
from palimpsest.quantizers.deployed import Deployed
from palimpsest.quantizers.gguf.backend import GGUF
from palimpsest.quantizers.proof import LAST_PLACE, Kept, Sources

SAME, OTHER_SETTINGS, NOT_PROVEN = "same", "other settings", "not proven"
NOT_OF_IT, OF_TARGET, UNKNOWN = "not of this checkpoint", "the target's", "cannot be told"
VERDICTS = (SAME, OTHER_SETTINGS, NOT_PROVEN, NOT_OF_IT, OF_TARGET, UNKNOWN)

ONE_WAY = ("bnb-int8", "bnb-4bit", "torchao-int8", "torchao-int4", "torchao-intx")
"""Backends with no settings beside those in the file: another value is another checkpoint's."""
SAME_FROM = 0.999
"""The share of values from which on the rest may lie on borders, where processors differ."""
LARGER_ERROR = 2.0
"""By how much calibration or a search may enlarge the error of rounding to nearest, in the weights alone."""
LARGEST_ERROR = {8: 0.1, 4: 0.4}
"""The error relative to the weights where our own is not known: by the bits of a code, 0.8 with fewer."""
FEW, SURE = 20, 0.9
"""Values that must tell checkpoint and target apart, and the share of them on one side, to say whose a file is."""
HELD, LOST = 0.5, 0.25
"""The share of the update from which on a file is the unlearned model's, and up to which it is as good as the
target's."""
UNSURE = 0.1
"""Standard error of that share above which it decides nothing."""


class Values(TypedDict):
    """Of the quantized weights: how many; those that are what our own quantizer makes of the checkpoint, of the target;
    those where these two differ, and on whose side the file is there."""

    weights: int
    of_checkpoint: int
    of_target: int
    decisive: int
    decided_checkpoint: int
    decided_target: int


class Rest(TypedDict):
    """Of the unquantized tensors: how many; those that are the checkpoint's, the target's, those of one alone, and of
    neither; scaled: of these, vectors, which AWQ and its like multiply."""

    tensors: int
    of_checkpoint: int
    of_target: int
    checkpoint_alone: int
    target_alone: int
    neither: int
    scaled: int


_NOTHING = Rest(tensors=0, of_checkpoint=0, of_target=0, checkpoint_alone=0, target_alone=0, neither=0, scaled=0)


class Held(TypedDict):
    """The share of the update that the file holds, and its standard error by the rounding errors."""

    share: float
    error: float


class OriginRecord(TypedDict):
    """What `palimpsest deployed` finds. relative_error: |Q - W| / |W|; own_error: of our own quantizer; None where the
    file's matrices are not read, or ours are not made. values, held: None likewise, and without a target. maybe_erased:
    of the verdict "the target's", whether the file may as well be the checkpoint's, without the update that rounding
    took away."""

    file: str
    checkpoint: str
    target: str | None
    format: str
    verdict: str
    reasons: list[str]
    maybe_erased: bool
    not_proven: str
    matrices: int
    relative_error: float | None
    own_error: float | None
    values: Values | None
    unquantized: Rest
    held: Held | None


@dataclass
class _Sums:
    matrices: int = 0
    weights: int = 0
    error: float = 0.0
    norm: float = 0.0
    own: float = 0.0
    update: float = 0.0
    along: float = 0.0
    values: Values | None = None
    misfit: str = ""
    names: set[str] = field(default_factory=set)


def compare_origin(found: Deployed, checkpoint: Path, target: Path | None = None) -> OriginRecord:
    """Raises PalimpsestError for checkpoints that are missing, quantized or of different shapes."""
    for each in (checkpoint, target):
        if each is not None:
            reject_quantized(each)
    with ExitStack() as stack:
        ours = stack.enter_context(_Side.opened(checkpoint, found))
        theirs = stack.enter_context(_Side.opened(target, found)) if target else None
        if theirs and theirs.linear != ours.linear:
            raise PalimpsestError(f"{target} and {checkpoint} have different layers: give the target it was made from.")
        sums = _matrices(found, ours, theirs)
        rest = _NOTHING if sums.misfit else _unquantized(found, ours, theirs, sums.names)
    record = OriginRecord(
        file=str(found.path),
        checkpoint=str(checkpoint),
        target=str(target) if target else None,
        format=found.format,
        verdict=UNKNOWN,
        reasons=[],
        maybe_erased=False,
        not_proven=found.why_not,
        matrices=sums.matrices,
        relative_error=(sums.error / sums.norm) ** 0.5 if sums.norm else None,
        own_error=(sums.own / sums.norm) ** 0.5 if sums.norm and sums.values else None,
        values=sums.values,
        unquantized=Rest(**rest),
        held=_held(sums) if theirs else None,
    )
    record["verdict"] = _say(record, NOT_OF_IT, sums.misfit) if sums.misfit else _decide(record, found)
    return record


@dataclass
class _Side:
    """A checkpoint, and what our own quantizer makes of its matrices, if that can be had."""

    files: TensorFiles
    layers: Layers
    quantizer: Quantizer | None
    made: Iterator[tuple[str, Float32]] | None = None
    largest: dict[str, float] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def opened(cls, checkpoint: Path, found: Deployed) -> Iterator["_Side"]:
        with open_checkpoint(checkpoint) as files, TemporaryDirectory() as scratch:
            side = cls(files, layers_of(files), found.quantizer)
            if side.is_made():
                assert side.quantizer
                side.quantizer.quantize(checkpoint, Path(scratch), [])
                side.made = ((each.name, each.effective) for each in side.quantizer.read(Path(scratch)))
            elif side.quantizer and side.quantizer.needs_largest:
                for module in side.layers.linear:
                    largest, key = float(np.abs(side.matrix(module)).max()), shared_scale(module)
                    side.largest[key] = max(largest, side.largest.get(key, 0.0))
            yield side

    @cached_property
    def sources(self) -> Sources:
        return Sources.of(self.files, self.layers)

    @property
    def linear(self) -> dict[str, tuple[int, ...]]:
        return {module: self.layers.shape(self.files, module) for module in self.layers.linear}

    def is_rounded(self) -> bool:
        """Whether weights alone give the values, one matrix at a time."""
        outer = isinstance(self.quantizer, GGUF) and self.quantizer.outer == "default"
        return self.quantizer is not None and not self.quantizer.why_not_round() and not outer

    def is_made(self) -> bool:
        """Whether the backend must make a file for that, and can: without calibration or a GPU."""
        made = self.quantizer
        return made is not None and not self.is_rounded() and made.calibration_text is None and not made.needs_cuda

    def matrix(self, module: str) -> Float32:
        return to_bfloat16(np.ascontiguousarray(self.layers.load(self.files, module)))

    def own(self, module: str, matrix: Float32) -> Float32 | None:
        if self.made is not None:
            name, values = next(self.made, ("", None))
            return values if name == module else None
        if not self.is_rounded():
            return None
        assert self.quantizer
        return self.quantizer.round(matrix, self.largest.get(shared_scale(module), 0.0)).dequantized


def _matrices(found: Deployed, ours: _Side, theirs: _Side | None) -> _Sums:
    sums = _Sums()
    if found.quantizer is None and not found.is_gguf:
        return sums
    known = {*ours.layers.linear, *ours.layers.heads, *ours.layers.embeddings}
    for name, values in found.matrices():
        shape = ours.layers.shape(ours.files, name) if name in known else None
        if values.shape != shape:
            sums.misfit = f"it holds {name} of {list(values.shape)}, the checkpoint {list(shape) if shape else 'none'}"
            return sums
        if not np.isfinite(values).all():
            sums.misfit = f"its {name} holds weights that are no numbers"
            return sums
        _add(sums, name, values, ours, theirs)
    if missing := set(ours.layers.linear) - sums.names:
        sums.misfit = f"it has no quantized {min(missing)}, which the checkpoint has"
    return sums


def _add(sums: _Sums, name: str, values: Float32, ours: _Side, theirs: _Side | None) -> None:
    matrix = ours.matrix(name)
    sums.matrices += 1
    sums.names.add(name)
    sums.weights += matrix.size
    sums.error += _square(values - matrix)
    sums.norm += _square(matrix)
    own = ours.own(name, matrix)
    other = before = None
    if theirs:
        before = theirs.matrix(name)
        other = theirs.own(name, before)
        update = matrix - before
        sums.update += _square(update)
        sums.along += float(np.multiply(values - before, update, dtype=np.float64).sum())
    if own is None:
        return
    sums.own += _square(own - matrix)
    counts = sums.values or Values(
        weights=0, of_checkpoint=0, of_target=0, decisive=0, decided_checkpoint=0, decided_target=0
    )
    same = values == own
    counts["weights"] += matrix.size
    counts["of_checkpoint"] += int(same.sum())
    if other is not None:
        apart, like = own != other, values == other
        counts["of_target"] += int(like.sum())
        counts["decisive"] += int(apart.sum())
        counts["decided_checkpoint"] += int((apart & same).sum())
        counts["decided_target"] += int((apart & like).sum())
    sums.values = counts


def _square(values: Float32) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def _held(sums: _Sums) -> Held | None:
    if not sums.update:
        return None
    noise = (sums.error / sums.weights) ** 0.5 / sums.update**0.5
    return Held(share=sums.along / sums.update, error=noise)


def _unquantized(found: Deployed, ours: _Side, theirs: _Side | None, quantized: set[str]) -> Rest:
    rest = Rest(**_NOTHING)
    factors = found.quantizer.factors(found.path) if found.quantizer else {}
    kept = [Kept(kind, factors, ours.sources.offset_norms) for kind in LAST_PLACE]
    for name, values in _plain(found, quantized):
        same = _is(name, values, ours.sources, kept)
        like = theirs is not None and _is(name, values, theirs.sources, kept)
        rest["tensors"] += 1
        rest["of_checkpoint"] += same
        rest["of_target"] += like
        rest["checkpoint_alone"] += same and theirs is not None and not like
        rest["target_alone"] += like and not same
        rest["neither"] += not same and not like
        rest["scaled"] += not same and not like and values.ndim == 1
    return rest


def _plain(found: Deployed, quantized: set[str]) -> Iterator[tuple[str, Any]]:
    if found.quantizer or found.is_gguf:
        yield from found.unquantized(quantized)
        return
    with open_checkpoint(found.path) as files:
        for name in files.names():
            if files.dtype(name) in DENSE and name.rpartition(".")[2] in ("weight", "bias"):
                yield name, files.load(name)


def _is(name: str, values: Any, sources: Sources, kept: list[Kept]) -> bool:
    """Whether a tensor is the checkpoint's, in one of the 16-bit types, or as it is."""
    for each in sources.named(name):
        stored = sources.files.stored(each)
        if values.shape == stored.shape and np.array_equal(values, stored.astype(np.float32)):
            return True
        if any(one(name, values, stored) for one in kept):
            return True
    return is_buffer(name, values.shape)


def _say(record: OriginRecord, verdict: str, *reasons: str) -> str:
    record["reasons"] += reasons
    return verdict


def _decide(record: OriginRecord, found: Deployed) -> str:
    scaled = 0 < record["unquantized"]["neither"] == record["unquantized"]["scaled"] and _may_be_scaled(found)
    for step in (_by_rest,) if scaled else (_by_error, _by_rest, _by_values, _by_update):
        if verdict := step(record, found):
            return verdict
    if scaled:
        record["not_proven"] = record["not_proven"] or "its norms are scaled, and the factors are not in the folder"
    if record["target"] is None:
        record["reasons"].append("without --target nobody can tell it from the file of a model as near as that one")
    if record["not_proven"]:
        return _say(record, NOT_PROVEN, f"its codes were not compared: {record['not_proven']}")
    return _say(record, OTHER_SETTINGS, _how_alike(record))


def _by_error(record: OriginRecord, found: Deployed) -> str:
    """Another model altogether."""
    error, own = record["relative_error"], record["own_error"]
    if error is None:
        return ""
    bits = found.quantizer.bits if found.quantizer else 4
    bound = LARGER_ERROR * own if own else next((LARGEST_ERROR[b] for b in (8, 4) if bits >= b), 0.8)
    if error <= bound:
        return ""
    return _say(
        record,
        NOT_OF_IT,
        f"its weights are {error:.3g} off the checkpoint's (of |W|), where this format allows {bound:.3g}",
    )


def _by_rest(record: OriginRecord, found: Deployed) -> str:
    """By the tensors that nobody rounded."""
    rest = record["unquantized"]
    if rest["neither"] and not (rest["neither"] == rest["scaled"] and _may_be_scaled(found)):
        return _say(
            record,
            NOT_OF_IT,
            f"{rest['neither']} of its {rest['tensors']} unquantized tensors are not the checkpoint's",
        )
    if rest["target_alone"] and rest["checkpoint_alone"]:
        return _say(
            record, UNKNOWN, "some of its unquantized tensors are the checkpoint's alone, others the target's alone"
        )
    if rest["target_alone"]:
        named = "the target's" if record["target"] else "not the checkpoint's"
        return _say(record, OF_TARGET, f"{rest['target_alone']} of its unquantized tensors are {named} alone")
    return ""


def _may_be_scaled(found: Deployed) -> bool:
    """AWQ and SmoothQuant move factors into norms; their folders are compressed-tensors or AWQ's."""
    return not found.is_gguf and (found.quantizer is None or found.settings.get("backend") in ("rtn", "w8a8"))


def _by_values(record: OriginRecord, found: Deployed) -> str:
    values = record["values"]
    if values is None or record["unquantized"]["neither"]:
        return ""
    whole, ours, theirs = values["weights"], values["of_checkpoint"], values["of_target"]
    decisive, sure = values["decisive"], SURE * values["decisive"]
    alone = record["unquantized"]["checkpoint_alone"]
    if decisive >= FEW and values["decided_target"] >= sure and not alone:
        told = f"{values['decided_target']:,} of the {decisive:,} weights in which the two differ are the target's"
        held = record["held"]
        if held and held["error"] <= UNSURE and held["share"] >= HELD and theirs < SAME_FROM * whole:
            of_another = f"but not all, and it holds {held['share']:.0%} of the update: another model of that target's"
            return _say(record, NOT_OF_IT, told, of_another)
        return _say(record, OF_TARGET, told)
    if ours < SAME_FROM * whole:
        one_way = found.settings["backend"] in ONE_WAY or found.settings.get("format") == "q8_0"
        return _say(record, NOT_OF_IT, _how_alike(record), "its format has no other settings") if one_way else ""
    if ours < whole:
        record["reasons"].append(f"{whole - ours:,} of {whole:,} weights differ, as on borders where processors differ")
    if record["target"] and theirs == whole and not alone:
        record["maybe_erased"] = True
        return _say(
            record,
            OF_TARGET,
            "the checkpoint's and the target's quantized files are the same: nothing of the update is in it",
        )
    if record["target"] and not decisive:
        record["reasons"].append(
            "in the quantized matrices it is the target's file, too: rounding took the whole update away"
        )
    return SAME


def _by_update(record: OriginRecord, found: Deployed) -> str:
    """By the share of the update, where values decide nothing."""
    held = record["held"]
    if held is None or held["error"] > UNSURE or record["unquantized"]["checkpoint_alone"]:
        return ""
    share = f"it holds {held['share']:.0%} of the update (standard error {held['error']:.1%})"
    if held["share"] < LOST:
        record["maybe_erased"] = True
        return _say(record, OF_TARGET, f"{share}: it is the target's, or rounding took the update away")
    record["reasons"].append(share)
    return "" if held["share"] >= HELD else _say(record, UNKNOWN)


def _how_alike(record: OriginRecord) -> str:
    if values := record["values"]:
        share = values["of_checkpoint"] / values["weights"]
        return f"{share:.1%} of its weights are what our quantizer makes of the checkpoint"
    return f"its weights are {record['relative_error']:.3g} off the checkpoint's (of |W|), as rounding leaves them"
