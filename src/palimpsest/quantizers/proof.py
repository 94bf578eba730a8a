"""Proof that a folder holds a quantized model: facts for its manifest, from the files alone, without torch."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from palimpsest.errors import PalimpsestError
from palimpsest.quantizers.base import HEADS, QuantizedMatrix, Quantizer, is_named, linear_layers
from palimpsest.tensors import Float32, TensorFiles, open_checkpoint, to_bfloat16

AGAIN = (
    "the backend did not quantize what it was given; run the step again, and report it to the backend if it persists."
)


def prove(quantizer: Quantizer, checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Compare a quantized folder with the checkpoint that it was made from; returns the facts for the manifest.

    bits_per_weight counts codes, scales and zero points; relative_error is ||Q(W) - W|| / ||W|| over all quantized
    matrices, W in bfloat16; codes_sha256 covers codes, scales and zero points in name order; bytes is the whole folder.
    Raises PalimpsestError when nothing was quantized, a linear layer other than the output head was left out, a matrix is
    unchanged, not finite, of another shape, or has more distinct codes than its bits allow.
    """
    digest = hashlib.sha256()
    quantized, codes = [], []
    error = norm = 0.0
    weights = stored_bytes = 0
    with open_checkpoint(checkpoint) as originals, open_checkpoint(folder) as files:
        layers = list(linear_layers(originals))
        for matrix in quantizer.read(folder):
            if matrix.name not in layers:
                raise PalimpsestError(f"{folder} quantizes {matrix.name}, which {checkpoint} does not have: {AGAIN}")
            original = to_bfloat16(originals.load(f"{matrix.name}.weight"))
            codes.append(_check(matrix, original, quantizer.bits, folder))
            error += float(np.square(matrix.dequantized - original).sum(dtype=np.float64))
            norm += float(np.square(original).sum(dtype=np.float64))
            weights += original.size
            stored_bytes += _stored_bytes(files, matrix.name)
            quantized.append(matrix.name)
            _update(digest, matrix)
        skipped = [layer for layer in layers if layer not in quantized]
        forgotten = [layer for layer in skipped if not is_named(layer, HEADS)]
    if not quantized:
        raise PalimpsestError(f"{folder} holds no quantized layer: {AGAIN}")
    if forgotten:
        raise PalimpsestError(f"{folder} leaves out {', '.join(forgotten)}: {AGAIN}")
    return {
        "backend": quantizer.packages[0],
        "backend_version": version(quantizer.packages[0]),
        "bits_per_weight": round(8 * stored_bytes / weights, 4),
        "quantized_layers": len(quantized),
        "skipped_layers": skipped,
        "distinct_codes": {"least": min(codes), "most": max(codes)},
        "codes_sha256": digest.hexdigest(),
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


def _stored_bytes(files: TensorFiles, module: str) -> int:
    """Bytes of every tensor of a module but its bias."""
    names = [name for name in files.names() if name.startswith(f"{module}.") and not name.endswith(".bias")]
    return sum(files.stored(name).nbytes for name in names)


def _update(digest: "hashlib._Hash", matrix: QuantizedMatrix) -> None:
    digest.update(f"{matrix.name} {matrix.codes.shape} {matrix.codes.dtype}".encode())
    for part in (matrix.codes, matrix.scales, matrix.zero_points):
        if part is not None:
            digest.update(np.ascontiguousarray(part).data)
