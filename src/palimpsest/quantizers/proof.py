"""Proof that a folder holds a quantized model: facts for its manifest, from the files alone, without torch."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palimpsest.errors import PalimpsestError
from palimpsest.models.layers import Layers, family_of, is_buffer, layers_of
from palimpsest.models.tensors import Float32, TensorFiles, open_checkpoint, to_bfloat16
from palimpsest.quantizers.base import QuantizedMatrix, Quantizer, fingerprint

ROWS_AT_ONCE = 4096
"""Groups counted at a time."""

LAST_PLACE = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
"""A unit in the last place, relative to the number, at most."""

AGAIN = (
    "the backend did not quantize what it was given; run the step again, and report it to the backend if it persists."
)


def prove(quantizer: Quantizer, checkpoint: Path, folder: Path, held: Mapping[str, str]) -> dict[str, Any]:
    """Compare a quantized folder with the checkpoint that it was made from; returns the facts for the manifest.

    held: what `quantize` returned, the fingerprints of the matrices before they were saved.

    bits_per_weight counts codes, scales and zero points; layers_by_bits says how many layers have codes of how many
    bits; relative_error is ||Q(W) - W|| / ||W|| over all quantized matrices, W in bfloat16; distinct_codes are those of
    a matrix, codes_per_group those of weights that share a scale; codes_sha256 covers codes, scales, zero points,
    minimums and group indices in name order; unquantized the other tensors, their number and the SHA-256 of their names
    and values in float32; bytes is the whole folder.
    Raises PalimpsestError when nothing was quantized, a linear layer other than the output head was left out, a
    matrix is unchanged, not finite, of another shape, has more distinct codes than its bits allow, or reads back
    from the file as another matrix than the backend held in memory, and when a tensor that was not to be quantized
    is not the checkpoint's.
    """
    digest = hashlib.sha256()
    quantized, codes, groups = [], [], CodeCounts(0, 0, 256)
    widths: Counter[str] = Counter()
    error = norm = 0.0
    weights = stored_bytes = 0
    with open_checkpoint(checkpoint) as originals:
        layers = layers_of(originals)
        matrices = {*layers.linear, *layers.heads, *layers.embeddings}
        for matrix in quantizer.read(folder):
            if matrix.name not in matrices:
                raise PalimpsestError(f"{folder} quantizes {matrix.name}, which {checkpoint} does not have: {AGAIN}")
            original = to_bfloat16(layers.load(originals, matrix.name))
            bits = matrix.bits or quantizer.bits
            widths[str(bits)] += 1
            codes.append(_check(matrix, original, bits, folder))
            _check_reload(matrix, held, folder)
            groups += codes_per_group(matrix)
            error += float(np.square(matrix.effective - original).sum(dtype=np.float64))
            norm += float(np.square(original).sum(dtype=np.float64))
            weights += original.size
            stored_bytes += matrix.stored_bytes
            quantized.append(matrix.name)
            _update(digest, matrix)
        forgotten = [layer for layer in layers.linear if layer not in quantized]
        skipped = [head for head in layers.heads if head not in quantized]
        if not quantized:
            raise PalimpsestError(f"{folder} holds no quantized layer: {AGAIN}")
        if forgotten:
            raise PalimpsestError(f"{folder} leaves out {', '.join(forgotten)}: {AGAIN}")
        rest = _check_rest(quantizer, originals, layers, folder, set(quantized))
    return {
        "backend": quantizer.packages[0],
        "backend_version": quantizer.versions()[quantizer.packages[0]],
        "bits_per_weight": round(8 * stored_bytes / weights, 4),
        "quantized_layers": len(quantized),
        "skipped_layers": skipped,
        "layers_by_bits": dict(sorted(widths.items())),
        "distinct_codes": {"least": min(codes), "most": max(codes)},
        "codes_per_group": {"least": groups.least, "mean": round(groups.codes / groups.groups, 2)},
        "codes_sha256": digest.hexdigest(),
        "unquantized": rest,
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "relative_error": float(np.sqrt(error / norm)),
    }


def _check(matrix: QuantizedMatrix, original: Float32, bits: int, folder: Path) -> int:
    """The number of distinct codes; raises PalimpsestError when the matrix is not a quantization of `original`."""
    if matrix.dequantized.shape != original.shape:
        raise PalimpsestError(
            f"{matrix.name} in {folder} is {matrix.dequantized.shape}, in the checkpoint {original.shape}: {AGAIN}"
        )
    if not np.isfinite(matrix.dequantized).all():
        raise PalimpsestError(f"{matrix.name} in {folder} has weights that are not finite: {AGAIN}")
    if np.array_equal(matrix.dequantized, original) and original.any():
        raise PalimpsestError(f"{matrix.name} in {folder} equals the unquantized matrix: {AGAIN}")
    distinct = int(np.count_nonzero(np.bincount((matrix.codes.astype(np.int16) + 128).ravel())))
    if distinct > 2**bits:
        raise PalimpsestError(f"{matrix.name} in {folder} has {distinct} codes, {bits} bits allow {2**bits}: {AGAIN}")
    return distinct


def _check_reload(matrix: QuantizedMatrix, held: Mapping[str, str], folder: Path) -> None:
    if matrix.name not in held:
        raise PalimpsestError(f"{matrix.name} is in {folder}, but the backend did not hold it in memory: {AGAIN}")
    if fingerprint(matrix.dequantized) != held[matrix.name]:
        raise PalimpsestError(f"{matrix.name} read back from {folder} is not what the backend held in memory: {AGAIN}")


def _check_rest(
    quantizer: Quantizer, originals: TensorFiles, layers: Layers, folder: Path, quantized: set[str]
) -> dict[str, Any]:
    """{"tensors", "sha256"} of what was not quantized;
    raises PalimpsestError for a tensor that is not the checkpoint's.

    The checkpoint's is meant in the 16 bits of the backend, times the factors that it moved there out of
    quantized matrices: that product is rounded, so a unit in the last place is allowed. A tied head may be
    written out, or left out.
    """
    sources = Sources.of(originals, layers)
    kept = Kept(quantizer.sixteen_bits, quantizer.factors(folder), sources.offset_norms)
    digest, seen = hashlib.sha256(), set()
    for name, values in quantizer.unquantized(folder, quantized):
        same = sources.named(name)
        if not same:
            raise PalimpsestError(f"{folder} holds {name}, which {originals.folder} does not have: {AGAIN}")
        if not any(kept(name, values, originals.stored(each)) for each in same):
            raise PalimpsestError(f"{name} in {folder} was not to be quantized, but is not the checkpoint's: {AGAIN}")
        digest.update(f"{name} {values.shape} ".encode())
        digest.update(np.ascontiguousarray(values).data)
        seen.add(name)
    for name in originals.names():
        module = name.removesuffix(".weight")
        if name in seen or module in quantized or is_buffer(name, originals.shape(name)):
            continue
        tied = name in sources.heads and any(
            np.array_equal(originals.stored(each), originals.stored(name)) for each in sources.embeddings
        )
        if not tied:
            raise PalimpsestError(f"{folder} does not hold the checkpoint's {name}: {AGAIN}")
    return {"tensors": len(seen), "sha256": digest.hexdigest()}


@dataclass(frozen=True)
class Sources:
    """A checkpoint's tensors, as what a quantized file holds beside its matrices must be one of.

    heads: tensors that may be tied to one of embeddings, and so be written out or left out; offset_norms: see `Kept`.
    """

    files: TensorFiles
    heads: frozenset[str]
    embeddings: Sequence[str]
    offset_norms: bool

    @classmethod
    def of(cls, files: TensorFiles, layers: Layers) -> "Sources":
        family = family_of(files.folder)
        heads = frozenset(f"{head}.weight" for head in (*layers.heads, *(family.heads if family else ())))
        embeddings = [f"{module}.weight" for module in layers.embeddings]
        return cls(files, heads, embeddings, bool(family and family.offset_norms))

    def named(self, name: str) -> Sequence[str]:
        """Those that a tensor of this name may be: itself, or what a tied head is tied to."""
        if name in self.files:
            return [name]
        return self.embeddings if name in self.heads else []


class Kept(NamedTuple):
    """Tells whether a tensor is the checkpoint's; see `_check_rest`.

    offset_norms: whether norms multiply by 1 + their weight, so that a factor applies to that.
    """

    sixteen_bits: str
    factors: Mapping[str, Float32]
    offset_norms: bool

    def __call__(self, name: str, values: NDArray, original: NDArray) -> bool:
        """A few rows at a time, so that a large embedding is not copied as a whole."""
        if values.shape != original.shape:
            return False
        if original.dtype.kind in "iub":
            return np.array_equal(values, original)
        factors = self.factors.get(name)
        for start in range(0, len(values), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            expected = to_bfloat16(original[rows].astype(np.float32))
            if self.sixteen_bits == "float16":
                expected = expected.astype(np.float16).astype(np.float32)
            if factors is None and not self._is_same(values[rows], expected):
                return False
            if factors is not None and not self._is_multiple(values[rows], expected, factors[rows]):
                return False
        return True

    def _is_same(self, found: NDArray, original: Float32) -> bool:
        if np.array_equal(found, original):
            return True
        one = np.float32(1)  # GGUF stores 1 + w in float32, which has no room for the last bits of w below 2^-16
        return self.offset_norms and original.ndim == 1 and np.array_equal(found, original + one - one)

    def _is_multiple(self, found: NDArray, original: Float32, factors: Float32) -> bool:
        unit = LAST_PLACE[self.sixteen_bits]
        if self.offset_norms and original.ndim == 1:  # 1 + w is rounded, multiplied and rounded
            expected = (1 + original) * factors
            return np.allclose(1 + found, expected, rtol=2 * unit, atol=0)
        return np.allclose(found, (original.T * factors).T, rtol=unit, atol=0)


class CodeCounts(NamedTuple):
    """Over groups of weights that share a scale:
    how many groups, their distinct codes in all, and the fewest in one."""

    groups: int
    codes: int
    least: int

    def __add__(self, other: "CodeCounts") -> "CodeCounts":  # type: ignore[override]
        return CodeCounts(self.groups + other.groups, self.codes + other.codes, min(self.least, other.least))


def codes_per_group(matrix: QuantizedMatrix) -> CodeCounts:
    """Distinct codes in each group of a matrix; a short last block of a flat grid is left out."""
    count = CodeCounts(0, 0, 256)
    size = -(-matrix.codes.size // matrix.scales.size)
    codes = (
        matrix.codes if matrix.group_index is None else matrix.codes[:, np.argsort(matrix.group_index, kind="stable")]
    )
    flat = codes.reshape(-1)[: matrix.codes.size // size * size].reshape(-1, size)
    for start in range(0, len(flat), ROWS_AT_ONCE):
        part = flat[start : start + ROWS_AT_ONCE].astype(np.int16) + 128
        seen = np.zeros((len(part), 384), bool)
        seen[np.arange(len(part))[:, None], part] = True
        distinct = seen.sum(1)
        count += CodeCounts(len(part), int(distinct.sum()), int(distinct.min()))
    return count


def _update(digest: "hashlib._Hash", matrix: QuantizedMatrix) -> None:
    digest.update(f"{matrix.name} {matrix.codes.shape} {matrix.codes.dtype}".encode())
    for part in (matrix.codes, matrix.scales, matrix.zero_points, matrix.minimums, matrix.group_index):
        if part is not None:
            digest.update(np.ascontiguousarray(part).data)
