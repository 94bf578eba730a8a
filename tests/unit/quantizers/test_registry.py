"""Quantizer settings, the parts of the readers and the checks of the proof. No backend is loaded here."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from palimpsest.errors import PalimpsestError
from palimpsest.models.tensors import to_bfloat16
from palimpsest.quantizers import QUANTIZERS, QuantizedMatrix, make_quantizer, prove
from palimpsest.quantizers.base import Quantizer, fingerprint
from palimpsest.quantizers.grids.levels import integer_levels, zero_bin
from palimpsest.quantizers.grids.packing import unpack_nibbles
from palimpsest.quantizers.grids.rounding import round_with_zero_points
from palimpsest.quantizers.proof import codes_per_group

RTN = {"backend": "rtn", "bits": 4, "group_size": 128, "symmetric": True}
FP4 = {"backend": "bnb-4bit", "levels": "fp4", "double_quantization": False}
INT8 = {"backend": "bnb-int8", "outlier_threshold": 6.0}
GPTQ = {**RTN, "backend": "gptq", "calibration": "retain", "samples": 32, "sample_length": 128, "damping": 0.01}
LAYER = "model.layers.0.mlp.up_proj"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    weight = np.random.default_rng(0).normal(0, 0.02, (6, 96)).astype(np.float32)
    embedding = np.ones((5, 7), np.float32)
    save_file({f"{LAYER}.weight": weight, "model.embed_tokens.weight": embedding}, tmp_path / "model.safetensors")
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("settings", [RTN, FP4, INT8, GPTQ, {"backend": "none"}])
def test_good_settings(settings):
    assert isinstance(make_quantizer(settings), QUANTIZERS[settings["backend"]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 4}, "have no backend"),
        ({"backend": "bnb-4bits"}, "Did you mean 'bnb-4bit'"),
        ({"backend": None}, "unknown quantizer backend 'None'"),
        (RTN | {"group_sise": 3}, "Did you mean 'group_size'"),
        (GPTQ | {"backend": "rtn"}, "'calibration'"),
        ({k: v for k, v in RTN.items() if k != "symmetric"}, "needs the setting 'symmetric'"),
        (RTN | {"bits": 3}, "bits is 3: give 4 or 8"),
        (RTN | {"group_size": 0}, "group_size is 0.*or null"),
        (RTN | {"symmetric": "yes"}, "symmetric is 'yes'"),
        (FP4 | {"levels": "nf5"}, "Did you mean 'nf4'"),
        (FP4 | {"double_quantization": 1}, "double_quantization is 1"),
        (INT8 | {"outlier_threshold": "6"}, "outlier_threshold is '6'"),
        (INT8 | {"outlier_threshold": -1.0}, "at least 0"),
        (GPTQ | {"samples": 0}, "samples is 0"),
        (GPTQ | {"damping": 0.0}, "damping is 0.0: give a number between 0 and 1"),
        ({"backend": "torchao-int8", "group_size": 0}, "group_size is 0.*or null"),
        ({"backend": "torchao-intx", "bits": 4, "group_size": None, "symmetric": "no"}, "symmetric is 'no'"),
        ({"backend": "gguf", "format": "q4_0", "outer": "defualt"}, "Did you mean 'default'"),
        (GPTQ | {"calibration": "retian"}, "Did you mean 'retain'"),
        (GPTQ | {"sample_length": 1.5}, "sample_length is 1.5"),
    ],
)
def test_bad_settings_name_the_key_and_the_remedy(settings, message):
    with pytest.raises(PalimpsestError, match=message):
        make_quantizer(settings)


CALIBRATION = {"calibration": "retain", "samples": 32, "sample_length": 128}
BACKENDS = {
    "bnb-int8": {"outlier_threshold": 6.0},
    "bnb-4bit": {"levels": "fp4", "double_quantization": False},
    "rtn": {"bits": 4, "group_size": 128, "symmetric": True},
    "gptq": {"bits": 4, "group_size": 128, "symmetric": True, "damping": 0.01} | CALIBRATION,
    "awq": {"bits": 4, "group_size": 128, "symmetric": True} | CALIBRATION,
    "gguf": {"format": "q4_0", "outer": "bfloat16"},
    "hqq": {"bits": 4, "group_size": 64, "device": "cpu"},
    "torchao-int8": {"group_size": 32},
    "torchao-int4": {"group_size": 32},
    "torchao-intx": {"bits": 4, "group_size": 32, "symmetric": True},
    "w8a8": {"format": "int8"},
    "microscale": {"format": "nvfp4"},
    "auto-gptq": {"bits": 4, "group_size": 128, "symmetric": True, "desc_act": False, "damping": 0.01} | CALIBRATION,
    "autoawq": {"bits": 4, "group_size": 128, "zero_point": True} | CALIBRATION,
}
MAY_BE_NULL = {
    (backend, "group_size") for backend in ("rtn", "gptq", "awq", "hqq", "torchao-int8", "torchao-intx", "auto-gptq")
}


def wrong_types() -> Iterator[tuple[str, str, object]]:
    """(backend, key, value): each good value in another type, and values of types that the key does not have."""
    for backend, settings in BACKENDS.items():
        for key, good in settings.items():
            wrong: list[object] = [[], [good], {}, str(good) if not isinstance(good, str) else "", math.nan]
            wrong += [] if isinstance(good, float) else [4.0, 32.0, 1.0]
            wrong += [1, 0] if isinstance(good, bool) else [True, False]
            wrong += [] if (backend, key) in MAY_BE_NULL else [None]
            yield from ((backend, key, value) for value in wrong)


def test_every_backend_is_tried_with_wrong_types():
    assert set(BACKENDS) == set(QUANTIZERS) - {"none"}
    for backend, settings in BACKENDS.items():
        make_quantizer({"backend": backend} | settings)


@pytest.mark.parametrize(("backend", "key", "value"), list(wrong_types()))
def test_a_setting_of_the_wrong_type_is_told_by_its_key(backend, key, value):
    with pytest.raises(PalimpsestError, match=rf"^(unknown )?{key}\b"):
        make_quantizer({"backend": backend} | BACKENDS[backend] | {key: value})


def test_the_formats_that_are_made_on_a_gpu():
    settings = {"none": {}} | BACKENDS
    on_gpu = {backend for backend in settings if make_quantizer({"backend": backend} | settings[backend]).uses_gpu}
    assert on_gpu == {"gptq", "awq", "auto-gptq", "autoawq", "torchao-int4"}
    assert make_quantizer({"backend": "hqq"} | BACKENDS["hqq"] | {"device": "cuda"}).uses_gpu


def test_a_key_that_is_a_number_is_unknown():
    with pytest.raises(PalimpsestError, match="unknown setting of quantizer backend 'rtn': '4'"):
        make_quantizer(RTN | {4: 4})


@pytest.mark.parametrize("settings", [RTN, GPTQ])
def test_a_group_size_that_does_not_divide_is_refused_before_quantizing(checkpoint, tmp_path, settings):
    with pytest.raises(PalimpsestError, match=f"group_size 128 does not divide the 96 inputs of {LAYER}"):
        make_quantizer(settings).quantize(checkpoint, tmp_path / "out", ["text"])


@pytest.mark.parametrize("settings", [RTN, FP4, INT8, GPTQ])
def test_a_missing_checkpoint_is_refused(tmp_path, settings):
    with pytest.raises(PalimpsestError, match=r"nowhere holds no model.safetensors"):
        make_quantizer(settings).quantize(tmp_path / "nowhere", tmp_path, ["text"])


def test_a_missing_tokenizer_is_refused(checkpoint, tmp_path):
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(PalimpsestError, match="holds no tokenizer"):
        make_quantizer(INT8).quantize(checkpoint, tmp_path, [])


def test_the_unquantized_precision_cannot_quantize(checkpoint, tmp_path):
    quantizer = make_quantizer({"backend": "none"})
    assert quantizer.dead_zone() == (0.0, 0.0)
    with pytest.raises(PalimpsestError, match="quantizes nothing"):
        quantizer.quantize(checkpoint, tmp_path, [])


@pytest.mark.parametrize("high_first", [True, False])
def test_unpack_nibbles(high_first):
    values = np.arange(100, 116, dtype=np.float32)
    packed = np.array([[0x10, 0xF2]], np.uint8)
    codes = [1, 0, 15, 2] if high_first else [0, 1, 2, 15]
    assert unpack_nibbles(packed, values, high_first).tolist() == [[100 + code for code in codes]]
    words = packed.view(np.uint16)
    assert unpack_nibbles(words, values.astype(np.int8), high_first).tolist() == [[100 + code for code in codes]]


def test_formats_whose_minimum_is_fitted_have_no_level_at_zero():
    formats = [{"backend": "gguf", "format": name, "outer": "bfloat16"} for name in ("q8_0", "q4_0", "q4_k_m")]
    hqq = {"backend": "hqq", "bits": 4, "group_size": 64, "device": "cpu"}
    on_grid = [make_quantizer(settings).zero_on_grid for settings in (*formats, hqq, RTN, FP4)]
    assert on_grid == [True, True, False, False, True, True]


def test_zero_bin():
    assert zero_bin(integer_levels(4, 7.0)) == pytest.approx((1 / 14, 1 / 14))
    assert zero_bin(integer_levels(8, 127.0)) == pytest.approx((0.5 / 127, 0.5 / 127))
    assert zero_bin(np.array([-1, -0.5, 0, 0.001, 0.2, 1])) == pytest.approx((0.25, 0.1005))


class Exact(Quantizer):
    """A quantizer that yields prepared matrices, to reach the checks that no sound backend trips."""

    packages = ("numpy",)
    bits = 4

    def __init__(self, *matrices: QuantizedMatrix) -> None:
        self.matrices = matrices

    def quantize(self, checkpoint, folder, calibration):
        raise NotImplementedError

    def read(self, folder: Path) -> Iterator[QuantizedMatrix]:
        yield from self.matrices

    def levels(self):
        return integer_levels(4, 7.5)


def matrix(name: str = LAYER, codes: int = 16) -> QuantizedMatrix:
    values = np.arange(6 * 96).reshape(6, 96) % codes
    return QuantizedMatrix(
        name, values.astype(np.uint8), np.ones((6, 1), np.float32), None, values.astype(np.float32), 288
    )


def proof_of(checkpoint: Path, *matrices: QuantizedMatrix) -> dict:
    return prove(
        Exact(*matrices), checkpoint, checkpoint, {each.name: fingerprint(each.dequantized) for each in matrices}
    )


def test_proof_counts_codes(checkpoint):
    facts = proof_of(checkpoint, matrix())
    assert facts["distinct_codes"] == {"least": 16, "most": 16} and facts["codes_per_group"] == {
        "least": 16,
        "mean": 16.0,
    }
    assert facts["bits_per_weight"] == 4.0
    with pytest.raises(PalimpsestError, match="has 17 codes, 4 bits allow 16"):
        proof_of(checkpoint, matrix(codes=17))


def test_codes_are_counted_in_each_group():
    codes = np.array([[0, 0, 1, 1, 2, 3], [5, 5, 5, 5, 5, 4]], np.int8)
    by_group = QuantizedMatrix(LAYER, codes, np.ones((2, 2), np.float32), None, codes.astype(np.float32), 6)
    assert codes_per_group(by_group) == (4, 2 + 3 + 1 + 2, 1)


def test_effective_undoes_what_the_backend_multiplied_by():
    factors = {"row_factors": np.array([2, 4], np.float32), "column_factors": np.array([1, 5, 10], np.float32)}
    original = np.arange(6, dtype=np.float32).reshape(2, 3)
    stored = original * factors["row_factors"][:, None] * factors["column_factors"]
    smoothed = QuantizedMatrix(LAYER, stored.astype(np.int8), np.ones((2, 1), np.float32), None, stored, 6, **factors)
    assert np.array_equal(smoothed.effective, original)


def test_proof_notices_left_out_experts_whose_tensor_is_not_called_weight(checkpoint):
    experts = np.ones((2, 6, 4), np.float32)
    tensors = load_file(checkpoint / "model.safetensors") | {"model.layers.0.mlp.experts.gate_up_proj": experts}
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(PalimpsestError, match=r"leaves out model.layers.0.mlp.experts.gate_up_proj"):
        proof_of(checkpoint, matrix())


def test_proof_refuses_a_matrix_that_the_checkpoint_does_not_have(checkpoint):
    with pytest.raises(PalimpsestError, match=r"which .* does not have"):
        proof_of(checkpoint, matrix("elsewhere"))


def test_proof_refuses_a_tensor_that_is_missing_or_that_the_checkpoint_does_not_have(checkpoint, tmp_path):
    tensors = load_file(checkpoint / "model.safetensors")
    for change, message in (
        ({"model.norm.weight": np.ones(7, np.float32)}, "holds model.norm.weight, which .* does not have"),
        ({"model.embed_tokens.weight": None}, "does not hold the checkpoint's model.embed_tokens.weight"),
        ({"lm_head.weight": np.full((5, 7), 2, np.float32)}, "lm_head.weight .* is not the checkpoint's"),
        ({"lm_head.weight": np.ones((5, 7), np.float32)}, ""),  # tied, and written out
        ({"model.rotary_emb.inv_freq": np.ones(4, np.float32)}, "holds model.rotary_emb.inv_freq"),
    ):
        folder = tmp_path / "quantized"
        folder.mkdir(exist_ok=True)
        altered = {name: values for name, values in (tensors | change).items() if values is not None}
        save_file(altered, folder / "model.safetensors")
        matrices = (Exact(matrix()), checkpoint, folder, {LAYER: fingerprint(matrix().dequantized)})
        if message:
            with pytest.raises(PalimpsestError, match=message):
                prove(*matrices)
        else:
            assert prove(*matrices)["unquantized"]["tensors"] == 2


def test_half_widths_of_grids_with_zero_points_in_groups_of_128_normal_weights():
    """What docs/reference/quantizers.md says of AWQ's grid beside the symmetric one."""
    weights = np.random.default_rng(0).standard_normal((1 << 16, 128)).astype(np.float32)
    halves = round_with_zero_points(to_bfloat16(weights), 4, 128).scales[:, 0] / 2 / np.abs(weights).max(1)
    assert (halves.min(), halves.max()) == pytest.approx((0.046, 0.067), abs=0.001)
    assert halves.mean() == pytest.approx(0.061, abs=5e-4)
