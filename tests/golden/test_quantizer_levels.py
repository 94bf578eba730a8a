"""The level tables and dead zones that we state, against what the backends do to a sweep of weights around zero."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, get_4bit_type, int8_vectorwise_quant, quantize_4bit
from compressed_tensors.quantization import QuantizationArgs, preset_name_to_scheme
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from gguf import GGUFReader, GGUFWriter
from gguf_models import BYTE_LEVEL, byte_level, save
from safetensors.torch import load_file, save_file
from torchao.quantization import Int8Tensor, IntxUnpackedToInt8Tensor, PerRow
from torchao.quantization.quant_primitives import MappingType

from palimpsest.quantizers import make_quantizer
from palimpsest.quantizers.gguf.backend import FILE_TYPES, convert
from palimpsest.quantizers.grids.levels import zero_bin

STEP = 1e-4
SWEEP = np.arange(-0.2, 0.2, STEP, dtype=np.float32)  # in units of the block's largest |w|


def bitsandbytes_4bit(levels: str) -> np.ndarray:
    """What every weight of the sweep becomes in a block whose largest |w| is 1."""
    blocks = torch.zeros(len(SWEEP), 64)
    blocks[:, 0], blocks[:, 1] = torch.from_numpy(SWEEP), 1.0
    packed, state = quantize_4bit(blocks, blocksize=64, quant_type=levels)
    return dequantize_4bit(packed, state)[:, 0].numpy()


def bitsandbytes_int8() -> np.ndarray:
    """The same for rows of the 8-bit format; the sweep goes through float16."""
    rows = torch.stack([torch.from_numpy(SWEEP), torch.ones(len(SWEEP))], dim=1)
    codes, largest, _ = int8_vectorwise_quant(rows.half())
    return (codes[:, 0] * largest / 127).numpy()


def compressed_tensors(bits: int, lowest: float = -1.0, symmetric: bool = True) -> np.ndarray:
    """The same for one scale per row of an integer grid. lowest: the row's smallest weight; its largest is 1."""
    sweep = torch.from_numpy(SWEEP).clamp(min=lowest)
    rows = torch.stack([sweep, torch.ones(len(SWEEP)), torch.full((len(SWEEP),), lowest)], dim=1)
    arguments = QuantizationArgs(num_bits=bits, type="int", symmetric=symmetric, strategy="channel")
    scale, zero_point = calculate_qparams(rows.amin(1, keepdim=True), rows.amax(1, keepdim=True), arguments)
    codes = quantize(x=rows, scale=scale, zero_point=zero_point, args=arguments)
    return ((codes - zero_point) * scale)[:, 0].numpy()


def llama_cpp(kind: str) -> np.ndarray:
    """The same for llama.cpp's blocks, with scales that float16 holds exactly."""
    rows = np.zeros((len(SWEEP), 256), np.float32)
    if (
        kind == "q4_k_m"
    ):  # the first group's scale and minimum are 32/63 of the others', whatever the weight does to its fit
        step, grid = np.float32(2.0**-5), np.tile(np.arange(-8, 8, dtype=np.float32), 2)
        rows[:, :32], rows[:, 32:] = grid * step, np.tile(grid * step * 63 / 32, 7)
        unit, place = 7.5 * step, 8
    else:
        unit, place = {"q8_0": 127 / 128, "q4_0": 1.0, "q6_k": 1.0}[kind], 0
        if kind == "q6_k":  # 16 levels beside the weight pin its group's scale; the others have the same
            rows[:] = np.tile(np.arange(-32, 32, 4, dtype=np.float32) / 32, 16)
        rows[:, 1] = -unit
    rows[:, place] = SWEEP * unit
    with TemporaryDirectory() as folder:
        source, quantized, dequantized = (Path(folder, name) for name in ("source", "quantized", "dequantized"))
        writer = GGUFWriter(source, "llama")
        writer.add_block_count(1)
        writer.add_context_length(1)
        writer.add_embedding_length(rows.shape[1])
        writer.add_feed_forward_length(len(rows))
        writer.add_head_count(1)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_tensor("blk.0.ffn_up.weight", rows)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        convert(source, quantized, kind)
        convert(quantized, dequantized, "f32")
        return GGUFReader(dequantized).tensors[0].data[:, place] / unit


def gguf(kind: str) -> dict:
    return {"backend": "gguf", "format": kind, "outer": "bfloat16"}


def torchao(bits: int | None, lowest: float = -1.0, symmetric: bool = True) -> np.ndarray:
    """The same for one scale per row of torchao's grids; None: the format with 8 bits only. lowest: as above."""
    sweep = torch.from_numpy(SWEEP).clamp(min=lowest)
    rows = torch.stack([sweep, torch.ones(len(SWEEP)), torch.full((len(SWEEP),), lowest)], dim=1)
    if bits is None:
        return Int8Tensor.from_hp(rows, PerRow()).dequantize()[:, 0].numpy()
    mapping = MappingType.SYMMETRIC if symmetric else MappingType.ASYMMETRIC
    codes = IntxUnpackedToInt8Tensor.from_hp(rows, (1, 3), getattr(torch, f"int{bits}"), mapping_type=mapping)
    return codes.dequantize()[:, 0].numpy()


def compressed_tensors_floats(scheme: str, largest_weight: float = 1.5) -> np.ndarray:
    """The same for blocks of 4-bit floats whose largest |w| is 6 scales, so that the scale is not rounded.

    largest_weight: 1.5 for that; MXFP4's scale is a power of two,
    so that for others the largest |w| is 3.5 to 7 scales.
    """
    arguments = preset_name_to_scheme(scheme, ["Linear"]).weights
    blocks = torch.zeros(len(SWEEP), arguments.group_size)
    blocks[:, 0], blocks[:, 1] = torch.from_numpy(SWEEP), 1.0
    blocks *= largest_weight  # 1.5: MXFP4's scale is 1/4
    largest = blocks.amax(1, keepdim=True)
    whole = generate_gparam(-largest.max(), largest.max()) if scheme == "NVFP4A16" else None
    scale, _ = calculate_qparams(-largest, largest, arguments, whole)
    codes = quantize(x=blocks, scale=scale, zero_point=None, args=arguments, global_scale=whole)
    scale = scale if whole is None else scale / whole
    return (codes * scale)[:, 0].numpy() / largest_weight


def rtn(bits: int) -> dict:
    return {"backend": "rtn", "bits": bits, "group_size": None, "symmetric": True}


def bnb(levels: str) -> dict:
    return {"backend": "bnb-4bit", "levels": levels, "double_quantization": False}


CASES = [
    (bnb("fp4"), lambda: bitsandbytes_4bit("fp4"), (0.0859, 0.0859)),
    (bnb("nf4"), lambda: bitsandbytes_4bit("nf4"), (0.0455, 0.0398)),
    ({"backend": "bnb-int8", "outlier_threshold": 6.0}, bitsandbytes_int8, (0.0039, 0.0039)),
    (rtn(4), lambda: compressed_tensors(4), (0.0667, 0.0667)),
    (rtn(8), lambda: compressed_tensors(8), (0.0039, 0.0039)),
    (gguf("q8_0"), lambda: llama_cpp("q8_0"), (0.0039, 0.0039)),
    (gguf("q4_0"), lambda: llama_cpp("q4_0"), (0.0625, 0.0625)),
    (gguf("q4_k_m"), lambda: llama_cpp("q4_k_m"), (0.0667, 0.0667)),
    ({"backend": "torchao-int8", "group_size": None}, lambda: torchao(None), (0.0039, 0.0039)),
    (
        {"backend": "torchao-intx", "bits": 4, "group_size": None, "symmetric": True},
        lambda: torchao(4),
        (0.0667, 0.0667),
    ),
    ({"backend": "w8a8", "format": "int8"}, lambda: compressed_tensors(8), (0.0039, 0.0039)),
    ({"backend": "microscale", "format": "nvfp4"}, lambda: compressed_tensors_floats("NVFP4A16"), (0.0417, 0.0417)),
    ({"backend": "microscale", "format": "mxfp4"}, lambda: compressed_tensors_floats("MXFP4A16"), (0.0417, 0.0417)),
]


@pytest.mark.parametrize(("settings", "backend", "expected"), CASES)
def test_dead_zone_is_where_the_backend_rounds_to_zero(settings, backend, expected):
    below, above = make_quantizer(settings).dead_zone()
    assert (below, above) == pytest.approx(expected, abs=5e-5)
    erased = SWEEP[np.abs(backend()) < 0.006]  # FP4's 0.0052 counts as zero, int8's first step of 0.0078 does not
    assert -erased.min() == pytest.approx(below, abs=1.5 * STEP)
    assert erased.max() == pytest.approx(above, abs=1.5 * STEP)


RTN_ZERO_POINTS = {"backend": "rtn", "bits": 4, "group_size": None, "symmetric": False}
INTX_ZERO_POINTS = {"backend": "torchao-intx", "bits": 4, "group_size": None, "symmetric": False}
MXFP4 = {"backend": "microscale", "format": "mxfp4"}
VARYING = [  # (settings, what the backend makes of the sweep, half-width: of one block)
    (RTN_ZERO_POINTS, lambda: compressed_tensors(4, -1.0, symmetric=False), 1 / 15),
    (RTN_ZERO_POINTS, lambda: compressed_tensors(4, -0.5, symmetric=False), 0.05),
    (RTN_ZERO_POINTS, lambda: compressed_tensors(4, -0.25, symmetric=False), 1.25 / 30),
    (INTX_ZERO_POINTS, lambda: torchao(4, -1.0, symmetric=False), 1 / 15),
    (INTX_ZERO_POINTS, lambda: torchao(4, -0.5, symmetric=False), 0.05),
    (MXFP4, lambda: compressed_tensors_floats("MXFP4A16", 7 * 0.249), 0.25 / 7),  # nearly 7 scales
    (MXFP4, lambda: compressed_tensors_floats("MXFP4A16", 1.5), 0.25 / 6),
    (MXFP4, lambda: compressed_tensors_floats("MXFP4A16", 0.875), 0.25 / 3.5),
]


@pytest.mark.parametrize(("settings", "backend", "half"), VARYING)
def test_where_the_dead_zone_varies_from_block_to_block_it_stays_in_the_stated_range(settings, backend, half):
    quantizer = make_quantizer(settings)
    erased = SWEEP[np.abs(backend()) < 0.006]
    assert erased.max() == pytest.approx(half, abs=2 * STEP) and -erased.min() == pytest.approx(half, abs=2 * STEP)
    low, high = (factor * quantizer.dead_zone()[0] for factor in quantizer.dead_zone_range())
    assert low - 2 * STEP < half < high + 2 * STEP and low < high


@pytest.mark.parametrize("settings", [rtn(4), rtn(8), bnb("nf4"), {"backend": "bnb-int8", "outlier_threshold": 6.0}])
def test_other_formats_have_one_dead_zone(settings):
    assert make_quantizer(settings).dead_zone_range() == (1.0, 1.0)


def test_the_levels_of_q6_k(monkeypatch):
    """Of the v_proj and down_proj of a q4_k_m file that have 6 bits."""
    monkeypatch.setitem(FILE_TYPES, "q6_k", "MOSTLY_Q6_K")
    levels = make_quantizer(gguf("q4_k_m")).level_tables()["Q6_K"]
    values = llama_cpp("q6_k")
    assert np.abs(np.unique(values)[:, None] - levels).min(1).max() < 1e-6 and len(np.unique(values)) > 10
    erased, (below, above) = SWEEP[values == 0], zero_bin(levels)
    assert (-erased.min(), erased.max()) == pytest.approx((below, above), abs=1.5 * STEP)


@pytest.mark.parametrize("settings", [{"backend": "bnb-int8", "outlier_threshold": 6.0}, gguf("q8_0")])
def test_minus_128_is_no_code_of_grids_that_end_at_127(settings, tmp_path):
    """In the files: rows that hold their largest |w| with either sign,
    one of them beyond the other by the least that there is."""
    quantizer = make_quantizer(settings)
    assert len(quantizer.levels()) == 255 and quantizer.levels()[0] == -1 == -quantizer.levels()[-1]
    checkpoint = save(tmp_path / "checkpoint", byte_level(BYTE_LEVEL))
    weights = load_file(checkpoint / "model.safetensors")
    matrix = weights["model.layers.0.mlp.up_proj.weight"]
    matrix[::2, 0], matrix[::2, 1], matrix[1::2, 2], matrix[1::2, 3] = -1.0, 0.9961, -0.9961, 1.0
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    quantizer.quantize(checkpoint, tmp_path / "quantized")
    codes = np.concatenate([each.codes.ravel() for each in quantizer.read(tmp_path / "quantized")])
    assert codes.min() == -127 and codes.max() == 127


@pytest.mark.parametrize(("settings", "backend", "expected"), CASES)
def test_every_value_that_the_backend_gives_is_one_of_the_levels(settings, backend, expected):
    levels, values = make_quantizer(settings).levels(), np.unique(backend())
    assert len(values) > 2
    assert np.abs(values[:, None] - levels).min(1).max() < 1e-6


@pytest.mark.parametrize("name", ["fp4", "nf4"])
def test_level_tables_by_code_are_those_of_bitsandbytes(name):
    assert np.array_equal(make_quantizer(bnb(name)).levels(), get_4bit_type(name, device="cpu").numpy())


@pytest.mark.parametrize("bits", [4, 8])
def test_integer_levels_are_the_codes_of_compressed_tensors_times_its_scale(bits):
    row = torch.linspace(-1, 1, 4001)[None]
    arguments = QuantizationArgs(num_bits=bits, type="int", symmetric=True, strategy="channel")
    scale, zero_point = calculate_qparams(row.amin(1, keepdim=True), row.amax(1, keepdim=True), arguments)
    values = np.unique((quantize(x=row, scale=scale, zero_point=zero_point, args=arguments) * scale).numpy())
    # the lowest code takes the block's largest |w|
    # when the scale's rounding leaves it beyond half a step: not in float32
    assert np.allclose(values, make_quantizer(rtn(bits)).levels()[1:], atol=1e-6)
