"""The block formats of llama.cpp (ggml-common.h), unpacked with NumPy; every product below is exact in float32."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palimpsest.models.tensors import Float32

# one block of each format, field by field
Q8_0 = np.dtype([("d", "<f2"), ("codes", "i1", (32,))])
Q4_0 = np.dtype([("d", "<f2"), ("nibbles", "u1", (16,))])
Q4_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", (12,)), ("nibbles", "u1", (4, 32))])
Q5_K = np.dtype(
    [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", (12,)), ("high", "u1", (32,)), ("nibbles", "u1", (4, 32))]
)
Q6_K = np.dtype([("low", "u1", (2, 2, 32)), ("high", "u1", (2, 32)), ("scales", "i1", (16,)), ("d", "<f2")])


class Blocks(NamedTuple):
    """A matrix in blocks: value = scale * code - minimum.

    codes: [rows, columns]; scales: float32 [rows, groups];
    minimums: float32 [rows, groups], or None where they are all zero.
    """

    codes: NDArray[np.integer]
    scales: Float32
    minimums: Float32 | None

    def dequantize(self) -> Float32:
        """[rows, columns] the values that llama.cpp's dequantize_row_* gives."""
        values = self.codes.astype(np.float32)
        groups = values.reshape(*self.scales.shape, -1)  # a view: changed in place below
        groups *= self.scales[:, :, None]
        if self.minimums is not None:
            groups -= self.minimums[:, :, None]
        return values


class BlockFormat(NamedTuple):
    """bits: of a code; block: weights in a block, by which the width of a matrix must be divisible."""

    bits: int
    block: int
    layout: np.dtype
    split: Callable[[NDArray], Blocks]

    def unpack(self, packed: NDArray[np.uint8]) -> Blocks:
        """packed: [rows, bytes]."""
        return self.split(np.ascontiguousarray(packed).view(self.layout))


def _q8_0(blocks: NDArray) -> Blocks:
    """32 weights: a float16 scale and signed bytes."""
    return Blocks(_rows(blocks["codes"]), blocks["d"].astype(np.float32), None)


def _q4_0(blocks: NDArray) -> Blocks:
    """32 weights: a float16 scale and codes -8 ... 7; the low nibbles are the first 16 weights."""
    codes = _nibbles(blocks["nibbles"], axis=-2).view(np.int8) - np.int8(8)
    return Blocks(_rows(codes), blocks["d"].astype(np.float32), None)


def _q4_k(blocks: NDArray) -> Blocks:
    """256 weights in 8 groups of 32: codes 0 ... 15, 6-bit scales and minimums, each in units of a float16."""
    return _with_minimums(blocks, _nibbles(blocks["nibbles"], axis=-2))


def _q5_k(blocks: NDArray) -> Blocks:
    """As Q4_K, with codes 0 ... 31: bit g of the byte l is the fifth of weight l of group g."""
    fifth = blocks["high"][..., None, :] >> np.arange(8, dtype=np.uint8)[:, None] & 1  # [..., group, 32]
    codes = _nibbles(blocks["nibbles"], axis=-2)
    codes |= fifth.reshape(codes.shape).astype(np.uint8) << 4
    return _with_minimums(blocks, codes)


def _with_minimums(blocks: NDArray, codes: NDArray[np.uint8]) -> Blocks:
    """Bytes 0-3 of the 12: scales 0-3, bytes 4-7: minimums 0-3, in their low 6 bits; bytes 8-11: the low 4 bits of
    scales 4-7 and, above them, of minimums 4-7, whose upper 2 bits are those of bytes 0-3 and 4-7.
    """
    first, second, third = np.split(blocks["scales"], 3, axis=-1)
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=-1)
    minimums = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=-1)
    d, dmin = (blocks[name].astype(np.float32)[..., None] for name in ("d", "dmin"))
    return Blocks(_rows(codes), _rows(d * scales), _rows(dmin * minimums))


def _q6_k(blocks: NDArray) -> Blocks:
    """256 weights in 16 groups of 16: codes -32 ... 31 and signed 8-bit scales in units of a float16.

    Of each half of 128 weights, 64 bytes hold the low 4 bits (first all low nibbles, then all high ones) and 32 bytes
    the upper 2 bits of the weights at l, l + 32, l + 64 and l + 96.
    """
    low = _nibbles(blocks["low"], axis=-3)  # [..., half, nibble, part, 32]
    upper = blocks["high"][..., None, :] >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3  # [..., half, quarter, 32]
    codes = (low | (upper.reshape(low.shape) << 4)).view(np.int8) - np.int8(32)
    return Blocks(_rows(codes), _rows(blocks["d"].astype(np.float32)[..., None] * blocks["scales"]), None)


def _nibbles(packed: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    """The low and the high halves of bytes, along a new axis."""
    return np.stack([packed & 15, packed >> 4], axis)


def _rows(parts: NDArray) -> NDArray:
    """[rows, ...] to [rows, all the rest]."""
    return np.ascontiguousarray(parts).reshape(len(parts), -1)


FORMATS: dict[str, BlockFormat] = {
    "Q8_0": BlockFormat(8, 32, Q8_0, _q8_0),
    "Q4_0": BlockFormat(4, 32, Q4_0, _q4_0),
    "Q4_K": BlockFormat(4, 256, Q4_K, _q4_k),
    "Q5_K": BlockFormat(5, 256, Q5_K, _q5_k),
    "Q6_K": BlockFormat(6, 256, Q6_K, _q6_k),
}
"""By the names that gguf.GGMLQuantizationType has for them."""
