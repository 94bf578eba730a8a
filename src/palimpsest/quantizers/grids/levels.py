"""The grids: what values codes can stand for, and how wide the bin around zero is."""

import numpy as np

from palimpsest.models.tensors import Float32

# bitsandbytes' tables by code. FP4 is sign, two exponent bits, one mantissa bit, divided by its largest value 12.
FP4 = np.array([0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0], np.float32) / np.float32(12)
# NF4: quantiles of the normal distribution (QLoRA, arXiv 2305.14314, appendix E).
NF4 = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)
FLOAT_LEVELS: dict[str, Float32] = {"fp4": np.concatenate([FP4, -FP4]), "nf4": NF4}

NEGLIGIBLE = 10.0

WITH_ZERO_POINTS = (0.5, 1.0)
"""`Quantizer.dead_zone_range` of grids whose scale is the group's range, zero included, over 2^bits - 1: the
range is once the largest |w| where all weights lie on one side of zero, and twice that in a group centred on
zero, of which `levels` speaks."""


def integer_levels(bits: int, divisor: float) -> Float32:
    """[2^bits] the signed codes divided by `divisor`, the code (not necessarily whole) of the block's largest |w|."""
    return (np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)) / divisor).astype(np.float32)


def zero_bin(levels: Float32) -> tuple[float, float]:
    """Half-widths of the bin around zero, below and above, in the units of `levels` (rounding to the nearest level).

    A level next to zero that is more than ten times smaller than its outer neighbour counts as zero: FP4's
    0.0052 moves a weight by half a percent of the block's largest, so what is rounded to it has lost its value
    (and may flip its sign).
    """
    return _half_width(-levels[levels < 0]), _half_width(levels[levels > 0])


def _half_width(magnitudes: Float32) -> float:
    first, *others = np.unique(magnitudes)[:2].astype(float)  # 2 bits have a single level above zero
    return (first + others[0]) / 2 if others and others[0] > NEGLIGIBLE * first else first / 2
