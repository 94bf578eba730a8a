"""docs/explanation/theory.md, statement by statement, on random matrices:
what rounding does to a shift and which shifts reach it."""

import numpy as np
import pytest
import torch

from palimpsest.models.tensors import to_bfloat16
from palimpsest.quantizers import make_quantizer
from palimpsest.quantizers.grids.rounding import in_groups, largest_magnitude
from palimpsest.survival.checkpoints import FORMATS
from palimpsest.training.storage import WEIGHT_STORAGE, round_stochastically

QUANTIZERS = {name: make_quantizer(settings) for name, settings in FORMATS.items()}
FOUR_BITS = ("rtn-int4", "rtn-int4-g128", "bnb-nf4", "bnb-fp4", "gguf-q4_0", "nvfp4", "mxfp4", "torchao-int4")
ROWS, COLUMNS = 512, 1024
BLOCKS = {
    "bnb-fp4": 64,
    "bnb-nf4": 64,
    "rtn-int4-g128": 128,
    "gguf-q8_0": 32,
    "gguf-q4_0": 32,
    "nvfp4": 16,
    "mxfp4": 32,
}
BLOCKS |= {"torchao-int4": 128}
"""Weights that share a scale, where that is not a row."""


def normal(seed: int = 0, scale: float = 0.02) -> np.ndarray:
    return to_bfloat16(np.random.default_rng(seed).normal(0, scale, (ROWS, COLUMNS)).astype(np.float32))


def signs(seed: int = 1) -> np.ndarray:
    return np.where(np.random.default_rng(seed).random((ROWS, COLUMNS)) < 0.5, -1, 1).astype(np.float32)


def round_all(name: str, weights: np.ndarray) -> np.ndarray:
    return QUANTIZERS[name].round(weights, float(np.abs(weights).max())).dequantized.astype(np.float64)


def survival(name: str, before: np.ndarray, after: np.ndarray) -> float:
    update = after.astype(np.float64) - before
    return float(((round_all(name, after) - round_all(name, before)) * update).sum() / (update**2).sum())


def in_place(weights: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """Steps of constant size and sign, each rounded to bfloat16 at once."""
    step, current = rate * signs(), weights
    for _ in range(steps):
        current = to_bfloat16(current + step)
    return current


# 1: a shift flips a code in proportion to its size


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 1.0, 1.3])
@pytest.mark.parametrize("name", ["rtn-int4", "torchao-int8"])
def test_a_shift_flips_a_code_with_probability_of_its_size_in_steps(name, share):
    """Over 500,000 weights the standard error is below 0.001; the largest weights stay, so that scales do."""
    quantizer, weights = QUANTIZERS[name], normal()
    before = quantizer.round(weights)
    shift = share * before.scales * signs()
    shift[np.abs(weights) > 0.9 * np.abs(weights).max(1, keepdims=True)] = 0
    after = quantizer.round(
        np.where(np.abs(weights + shift) < 0.95 * np.abs(weights).max(1, keepdims=True), weights + shift, weights)
    )
    assert np.array_equal(before.scales, after.scales)
    moved = np.abs(weights + shift) < 0.95 * np.abs(weights).max(1, keepdims=True)
    flipped = (before.codes != after.codes)[moved & (shift != 0)].mean()
    assert flipped == pytest.approx(min(share, 1.0), abs=0.01)


# 2: so rounding keeps the shift on average


@pytest.mark.parametrize("name", FOUR_BITS)
@pytest.mark.parametrize("shift", [2e-4, 1e-3])
def test_four_bits_keep_a_shift_of_all_weights_on_average(name, shift):
    """0.03 allows for the standard error (0.01 at most) and for uneven levels,
    which the normal density does not quite even out.

    MXFP4 cuts off what lies above 6 scales, up to a seventh of the block's largest |w|:
    the shifts of those weights are lost.
    """
    weights = normal()
    allowed = 0.08 if name == "mxfp4" else 0.03
    assert survival(name, weights, weights + shift * signs()) == pytest.approx(1, abs=allowed)


def test_the_spread_of_rho_is_that_of_independent_flips():
    """Var(rho) = (step / |d| - 1) / n for shifts of one size: 30 draws give their standard deviation within 40 %."""
    shift, step = 2e-4, float(QUANTIZERS["rtn-int4"].round(normal()).scales.mean())
    draws = []
    for seed in range(30):
        weights = normal(seed)[:64]
        draws.append(survival("rtn-int4", weights, weights + shift * signs(seed + 100)[:64]))
    expected = ((step / shift - 1) / (64 * COLUMNS)) ** 0.5
    assert np.std(draws) == pytest.approx(expected, rel=0.4)
    assert np.mean(draws) == pytest.approx(1, abs=4 * expected / 30**0.5)


@pytest.mark.parametrize("name", FOUR_BITS)
def test_so_do_float32_masters_and_stochastic_rounding(name):
    """100 steps of 5e-6: kept in float32 and rounded to bfloat16 once, or rounded at random in every step."""
    weights, step = normal(), 5e-6 * signs()
    once = to_bfloat16(weights + 100 * step)
    current, generator = torch.from_numpy(weights), torch.Generator().manual_seed(0)
    for _ in range(100):
        current = round_stochastically(current.float() + torch.from_numpy(step), generator)
    assert survival(name, weights, once) == pytest.approx(1, abs=0.05)
    assert survival(name, weights, current.float().numpy()) == pytest.approx(1, abs=0.05)


def test_from_a_bfloat16_target_a_sum_of_steps_changes_a_weight_exactly_beyond_half_an_ulp():
    """Not with probability |D| / ulp: the target lies on the grid.
    Toward zero from a power of two the half is a quarter."""
    weights, shift = normal(), np.random.default_rng(2).normal(0, 1e-4, (ROWS, COLUMNS)).astype(np.float32)
    exponents = np.floor(np.log2(np.maximum(np.abs(weights), 1e-30)))
    half_ulp = 2.0 ** (exponents - 8)
    changed = to_bfloat16(weights + shift) != weights
    power_of_two = np.abs(weights) == 2.0**exponents
    clear = np.abs(np.abs(shift) / half_ulp - 1) > 1e-4  # float32 adds with 2^-24
    assert np.array_equal(changed[clear & ~power_of_two], (np.abs(shift) > half_ulp)[clear & ~power_of_two])
    assert (changed & (np.abs(shift) < half_ulp))[power_of_two].any()


# 3: in bfloat16 only weights next to zero move


def train_in_bfloat16(rate: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(|w|, moved) of 30,000 weights over 8 octaves around the border, after AdamW on constant gradients."""
    generator = torch.Generator().manual_seed(0)
    magnitudes = rate * torch.exp2(torch.rand(30000, generator=generator) * 8 + 5)
    start = (magnitudes * torch.sign(torch.randn(30000, generator=generator))).to(torch.bfloat16)
    weights = torch.nn.Parameter(start.clone())
    recipe, arguments = WEIGHT_STORAGE["bfloat16"].optimizers["adamw"](rate, 0.0, 0)
    optimizer = recipe([weights], **arguments)
    weights.grad = torch.sign(torch.randn(30000, generator=generator)).to(torch.bfloat16) * 0.37
    for _ in range(steps):
        optimizer.step()
    return start.float().abs().numpy(), (weights.detach() != start).numpy()


@pytest.mark.parametrize("steps", [1, 50, 250])
@pytest.mark.parametrize("rate", [1e-6, 5e-6, 1e-5, 1e-4])
def test_in_bfloat16_weights_below_256_rates_move_and_those_from_512_on_do_not(rate, steps):
    magnitudes, moved = train_in_bfloat16(rate, steps)
    border = 2.0 ** np.ceil(np.log2(256 * rate))
    assert moved[magnitudes < border].all()
    assert not moved[
        magnitudes > border
    ].any()  # at the border itself, a power of two, half an ulp toward zero is a quarter
    assert not moved[magnitudes >= 512 * rate].any()


def test_in_long_runs_the_second_moment_stalls_and_the_reach_grows_by_an_octave():
    """PyTorch keeps AdamW's moments in the type of the weights: the normalized step grows from 1 to 2."""
    magnitudes, moved = train_in_bfloat16(1e-5, 1000)
    border = 2.0 ** np.ceil(np.log2(256e-5))
    assert moved[magnitudes < 2 * border].all() and not moved[magnitudes > 2 * border].any()


# 4: 4-bit grids have a bin around zero


WITH_ZERO_POINTS = "rtn-int4-g128 with zero points"
ON_GRID = {name: quantizer for name, quantizer in QUANTIZERS.items() if quantizer.zero_on_grid}
ON_GRID[WITH_ZERO_POINTS] = make_quantizer({"backend": "rtn", "bits": 4, "group_size": 128, "symmetric": False})
BLOCKS[WITH_ZERO_POINTS] = 128


def over_octaves(block: int | None) -> np.ndarray:
    """22 octaves of size, with one weight in each block that is larger than all others."""
    rng = np.random.default_rng(3)
    sizes = 0.9 * 2.0 ** (-22 * rng.random((ROWS, COLUMNS)))
    sizes[: ROWS // 2] = 0.15 * rng.random((ROWS // 2, COLUMNS))
    weights = to_bfloat16((0.05 * signs() * sizes).astype(np.float32))
    groups = in_groups(weights, block)
    groups[:, :, 0] = 0.05 * np.where(rng.random(groups.shape[:2]) < 0.5, -1, 1)
    return to_bfloat16(weights)


def heavy_tailed(block: int | None) -> np.ndarray:
    """Student's t with 3 degrees of freedom:
    the largest weight of a block is many times the usual one, as in real models."""
    return to_bfloat16((0.02 * np.random.default_rng(5).standard_t(3, (ROWS, COLUMNS))).astype(np.float32))


def scale_unit(name: str, groups: np.ndarray) -> np.ndarray:
    """What a dead zone is given in: the largest |w| of a block;
    with a zero point half its range, which need not be centred."""
    if name == WITH_ZERO_POINTS:
        return (groups.max(-1) - groups.min(-1)) / 2
    return largest_magnitude(groups)


def slack(name: str) -> tuple[float, float]:
    """Around the stated width: the quantizer's own range and 1 %, for scales in 8 bits; with zero points, whose range
    `scale_unit` takes out, the sum of quotient and zero point is rounded to 8 bits too."""
    low, high = ON_GRID[name].dead_zone_range()
    return (0.95, 1.05) if name == WITH_ZERO_POINTS else (0.99 * low, 1.01 * high)


@pytest.mark.parametrize(("draw", "at_least"), [(over_octaves, 1000), (heavy_tailed, 10)])
@pytest.mark.parametrize("name", ON_GRID)
def test_weights_inside_the_dead_zone_become_zero_and_no_others(name, draw, at_least):
    quantizer, block = ON_GRID[name], BLOCKS.get(name)
    below, above = quantizer.dead_zone()
    low, high = slack(name)
    weights = draw(block)
    groups = in_groups(weights, block)
    relative = groups / scale_unit(name, groups)[:, :, None]
    zero = in_groups(quantizer.is_zero(quantizer.round(weights, float(np.abs(weights).max()))), block)
    inside = (relative > -below * low) & (relative < above * low)
    outside = (relative < -below * high) | (relative > above * high)
    assert inside.sum() > at_least and outside.sum() > 1000
    assert zero[inside].all() and not zero[outside].any()


def test_where_zero_lies_between_levels_its_bin_is_as_wide_and_off_centre():
    quantizer = QUANTIZERS["torchao-int4"]
    width, weights = sum(quantizer.dead_zone()), normal()
    weights[:, ::128] = 0
    groups = in_groups(weights, 128)
    codes = in_groups(quantizer.round(weights).codes, 128)
    same = codes == codes[:, :, :1]  # as the weight at zero
    relative = np.where(same, groups / largest_magnitude(groups)[:, :, None], 0)
    assert (np.ptp(relative, axis=-1) <= 1.1 * width).all()  # differences are rounded to 8 bits, a sixteenth of a step
    centres = (relative.max(-1) + relative.min(-1)) / 2
    assert np.abs(centres).max() < width and np.abs(centres).mean() > 0.1 * width


# 5: where the two meet


def found_around_the_border(name: str) -> tuple[list[float], list[float]]:
    """rho of updates whose reach, 2^ceil(log2(256 rate)), is within the dead zone of every block,
    and of those far beyond it."""
    weights = normal()
    zones = min(QUANTIZERS[name].dead_zone()) * largest_magnitude(in_groups(weights, BLOCKS.get(name)))
    within, beyond = [], []
    for exponent in range(-12, -3):
        reach = 2.0**exponent
        if reach < zones.min():
            within.append(survival(name, weights, in_place(weights, reach / 300, 100)))
        elif reach > 6 * zones.mean():
            beyond.append(survival(name, weights, in_place(weights, reach / 300, 100)))
    return within, beyond


@pytest.mark.parametrize("name", ["rtn-int4", "rtn-int4-g128", "bnb-nf4"])
def test_an_update_within_the_dead_zone_is_erased_and_one_far_beyond_it_survives(name):
    within, beyond = found_around_the_border(name)
    assert len(within) >= 3 and max(np.abs(within)) < 0.1
    assert len(beyond) >= 1 and np.allclose(beyond, 1, atol=0.1)


def test_within_fp4s_dead_zone_nothing_but_signs_of_its_smallest_level_arrives():
    """rho is then not near 0 (0.1 to 1.4):
    it counts sign flips of values of half a percent of the block's largest |w|."""
    weights, quantizer = normal(), QUANTIZERS["bnb-fp4"]
    largest = largest_magnitude(in_groups(weights, 64))
    zone = min(quantizer.dead_zone()) * largest.min()
    for exponent in range(-12, int(np.floor(np.log2(zone))) + 1):
        moved = in_place(weights, 2.0**exponent / 300, 100)
        before, after = (quantizer.round(each) for each in (weights, moved))
        changed = moved != weights
        assert quantizer.is_zero(before)[changed].all() and quantizer.is_zero(after)[changed].all()
        arrived = np.abs(in_groups(after.dequantized - before.dequantized, 64)) / largest[:, :, None]
        assert 0.005 < arrived.max() < 2 * 0.0053
        assert 0.1 < survival("bnb-fp4", weights, moved) < 1.4
    _, beyond = found_around_the_border("bnb-fp4")
    assert len(beyond) >= 1 and np.allclose(beyond, 1, atol=0.1)


def test_a_rate_below_the_border_is_not_enough_if_its_octave_reaches_beyond():
    """256 rate below the dead zone, the octave's edge above it: most of the update arrives.
    The border counts, not 256 rate."""
    weights = normal()
    zone = float(QUANTIZERS["rtn-int4"].dead_zone()[0] * np.abs(weights).max(1).mean())
    rate = 0.0041 / 256
    assert 256 * rate < zone < 2.0 ** np.ceil(np.log2(256 * rate))
    assert survival("rtn-int4", weights, in_place(weights, rate, 100)) > 0.5


@pytest.mark.parametrize("scale", [0.016, 0.02, 0.024, 0.028])
def test_just_beyond_the_dead_zone_rho_exceeds_1(scale):
    """One border within the reach C, at z:
    rho is about 2 z / C, to the 12 % by which the density of the weights is not flat."""
    weights, reach = normal(0, scale), 2.0**-7
    zone = float(QUANTIZERS["rtn-int4"].dead_zone()[0] * np.abs(weights).max(1).mean())
    assert zone < 0.9 * reach < 2.2 * zone
    assert survival("rtn-int4", weights, in_place(weights, reach / 300, 3)) == pytest.approx(2 * zone / reach, rel=0.12)


# 6: a target that lies on the format's own grid


@pytest.mark.parametrize("name", ["rtn-int4", "rtn-int4-g128", "bnb-nf4", "gguf-q4_0"])
def test_on_the_formats_own_grid_a_small_update_of_all_weights_is_erased(name):
    """Kept in float32: a hundredth of a step flips no code there,
    and arrives once the weights are spread over their bins again."""
    on_grid = round_all(name, normal()).astype(np.float32)
    step = largest_magnitude(on_grid).mean() / 8
    spread = on_grid + np.random.default_rng(2).normal(0, step, on_grid.shape).astype(np.float32)
    assert abs(survival(name, on_grid, on_grid + step / 100 * signs())) < 0.1
    assert survival(name, spread, spread + step / 100 * signs()) == pytest.approx(1, abs=0.1)
