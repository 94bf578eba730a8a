"""Rounding weights onto a format's grid in NumPy, bit for bit as the backend does on a CPU:
no data, no backend, no torch.

A quantizer's `round` takes a block of rows at a time, small enough to stay in the processor's cache. Its scratch
arrays are written in place wherever that saves a pass over memory. tests/golden/test_rounding.py holds every format
against what its backend wrote.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palimpsest.models.tensors import Float32

BFLOAT16_EPSILON = np.float32(2.0**-7)
"""torch.finfo(torch.bfloat16).eps: what compressed-tensors takes for a scale of zero."""


class Rounded(NamedTuple):
    """Rows of a matrix on a format's grid, as QuantizedMatrix has them.

    codes, dequantized: [rows, in]; scales: [rows, groups], or [blocks] where blocks run through the matrix row by row;
    zero_points: [rows, groups] or None.
    """

    codes: NDArray[np.integer]
    scales: Float32
    dequantized: Float32
    zero_points: NDArray[np.integer] | Float32 | None = None


def to_bfloat16_in_place(values: Float32) -> Float32:
    """Round finite, contiguous values to the nearest bfloat16 (ties to even),
    several times faster than a cast there and back."""
    bits = values.view(np.uint32)
    carry = bits >> np.uint32(16)
    carry &= np.uint32(1)
    carry += np.uint32(0x7FFF)
    bits += carry
    bits &= np.uint32(0xFFFF0000)
    return values


def to_float16(weights: Float32) -> Float32:
    """The nearest float16, kept in float32, of numbers that bfloat16 holds; the sign of a zero may be lost.

    float16 has more significant bits, so only numbers below its normal range change, where its step is 2^-24. That is
    the step of float32 next to 3/4: adding and subtracting it rounds as the cast does, ten times faster.
    """
    if np.abs(weights).max(initial=0) < 0.25:
        halves = weights + np.float32(0.75)
        halves -= np.float32(0.75)
        return halves
    return weights.astype(np.float16).astype(np.float32)


def round_half_away_in_place(values: Float32) -> Float32:
    """C's roundf: to the nearest whole number, halves away from zero (NumPy's rint takes them to the even one)."""
    whole = np.trunc(values)
    values -= whole  # exact
    whole += values >= np.float32(0.5)
    whole -= values <= np.float32(-0.5)
    return whole


def in_groups(weights: Float32, group_size: int | None) -> Float32:
    """[rows, in] to a view [rows, groups, size]; None: one group a row."""
    rows, columns = weights.shape
    return weights.reshape(rows, -1, group_size or columns)


def largest_magnitude(groups: Float32) -> Float32:
    """[..., size] to [...]: the largest |w| of each group."""
    return np.abs(groups).max(-1)


def round_symmetric(weights: Float32, bits: int, group_size: int | None) -> Rounded:
    """compressed-tensors' symmetric integers: scale and quotient in bfloat16, halves to even."""
    groups = in_groups(weights, group_size)
    scales = _bfloat16_scales(largest_magnitude(groups) / np.float32((2**bits - 1) / 2))
    return _round_integers(groups, scales, None, bits, weights.shape)


def round_with_zero_points(weights: Float32, bits: int, group_size: int | None) -> Rounded:
    """compressed-tensors' integers with a zero point for each group; all arithmetic in bfloat16."""
    groups, lowest = in_groups(weights, group_size), np.float32(-(2 ** (bits - 1)))
    low, high = np.minimum(groups.min(-1), 0), np.maximum(groups.max(-1), 0)
    scales = to_bfloat16_in_place(to_bfloat16_in_place(high - low) / np.float32(2**bits - 1))
    with np.errstate(invalid="ignore"):  # 0 / 0 in a group of zeros
        zero_points = lowest - to_bfloat16_in_place(low / scales)
    zero_points = np.clip(to_bfloat16_in_place(zero_points), lowest, -lowest - 1)
    zero_points = np.rint(np.where(scales == 0, np.float32(0), zero_points))
    return _round_integers(groups, _bfloat16_scales(scales), zero_points, bits, weights.shape)


def _bfloat16_scales(scales: Float32) -> Float32:
    scales = to_bfloat16_in_place(scales)
    scales[scales == 0] = BFLOAT16_EPSILON
    return scales


def _round_integers(
    groups: Float32, scales: Float32, zero_points: Float32 | None, bits: int, shape: tuple[int, ...]
) -> Rounded:
    highest = 2 ** (bits - 1) - 1
    values = to_bfloat16_in_place(groups / scales[:, :, None])
    if zero_points is not None:
        values += zero_points[:, :, None]
        to_bfloat16_in_place(values)
    np.clip(values, -highest - 1, highest, out=values)
    np.rint(values, out=values)
    codes = values.astype(np.int8)
    if zero_points is not None:
        values -= zero_points[:, :, None]
    values *= scales[:, :, None]
    whole = None if zero_points is None else zero_points.astype(np.int8)
    return Rounded(codes.reshape(shape), scales, to_bfloat16_in_place(values).reshape(shape), whole)


def ranks_between(values: Float32, bounds: Float32) -> NDArray[np.uint8]:
    """How many of the ascending bounds lie below each value (a value on a bound counts as below it).

    Fifteen vectorized comparisons take half the time of a binary search, which branches at every step.
    """
    ranks = np.zeros(values.shape, np.uint8)
    above = np.empty(values.shape, np.bool_)
    for bound in bounds:
        np.greater(values, bound, out=above)
        ranks += above.view(np.uint8)
    return ranks
