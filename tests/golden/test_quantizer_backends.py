"""Our readers against the backends themselves:
what is read, what is loaded and what the backend computes are one matrix."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bitsandbytes
import ml_dtypes
import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant, quantize_4bit
from checkpoints import SHAPES, TEXTS, bfloat16_input, dense, save_checkpoint
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils.quantization_config import CompressedTensorsConfig

from palimpsest.artefacts import hash_files
from palimpsest.errors import PalimpsestError
from palimpsest.quantizers import make_quantizer, prove
from palimpsest.quantizers.base import Quantizer, load_checkpoint

CALIBRATION = {"calibration": "retain", "samples": 8, "sample_length": 32}
SETTINGS = {
    "bnb-int8": {"backend": "bnb-int8", "outlier_threshold": 6.0},
    "bnb-fp4": {"backend": "bnb-4bit", "levels": "fp4", "double_quantization": False},
    "bnb-nf4": {"backend": "bnb-4bit", "levels": "nf4", "double_quantization": False},
    "bnb-nf4-double": {"backend": "bnb-4bit", "levels": "nf4", "double_quantization": True},
    "rtn-int4": {"backend": "rtn", "bits": 4, "group_size": None, "symmetric": True},
    "rtn-int4-groups": {"backend": "rtn", "bits": 4, "group_size": 4, "symmetric": True},
    "rtn-int4-zero-points": {"backend": "rtn", "bits": 4, "group_size": 4, "symmetric": False},
    "rtn-int8": {"backend": "rtn", "bits": 8, "group_size": None, "symmetric": True},
    "rtn-int8-zero-points": {"backend": "rtn", "bits": 8, "group_size": 4, "symmetric": False},
    "gptq": {"backend": "gptq", "bits": 4, "group_size": 4, "symmetric": True, "damping": 0.01, **CALIBRATION},
}
BITSANDBYTES_4BIT = [name for name in SETTINGS if SETTINGS[name]["backend"] == "bnb-4bit"]
COMPRESSED = [name for name in SETTINGS if SETTINGS[name]["backend"] in ("rtn", "gptq")]


@dataclass(frozen=True)
class Case:
    """One quantizer applied to one checkpoint."""

    quantizer: Quantizer
    checkpoint: Path
    folder: Path
    held: dict[str, str]

    @property
    def parts(self) -> tuple[Quantizer, Path, Path, dict[str, str]]:
        return self.quantizer, self.checkpoint, self.folder, self.held


@pytest.fixture(scope="module")
def quantized(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Case]:
    cases: dict[tuple[str, str], Case] = {}

    def quantize(name: str, shape: str) -> Case:
        if (name, shape) not in cases:
            quantizer, folder = make_quantizer(SETTINGS[name]), tmp_path_factory.mktemp(f"{name}-{shape}")
            held = quantizer.quantize(checkpoints[shape], folder, TEXTS)
            cases[name, shape] = Case(quantizer, checkpoints[shape], folder, held)
        return cases[name, shape]

    return quantize


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", BITSANDBYTES_4BIT)
def test_bitsandbytes_4bit_computes_with_the_matrices_that_are_read(quantized, name, shape):
    case = quantized(name, shape)
    theirs, ours = load_checkpoint(case.folder), case.quantizer.load(case.folder, "cpu")
    matrices = list(case.quantizer.read(case.folder))
    assert len(matrices) == 7 * theirs.config.num_hidden_layers
    for matrix in matrices:
        weight, linear = theirs.get_submodule(matrix.name).weight, ours.get_submodule(matrix.name)
        assert np.array_equal(matrix.dequantized, dense(dequantize_4bit(weight.data, weight.quant_state)))
        assert np.array_equal(matrix.dequantized, dense(linear.weight))
        weight = weight.to("cpu")  # a GPU adds up in another order
        inputs = bfloat16_input(matrix.dequantized.shape[1])
        assert torch.equal(linear(inputs), bitsandbytes.matmul_4bit(inputs, weight, quant_state=weight.quant_state))


@pytest.mark.parametrize("shape", SHAPES)
def test_bitsandbytes_int8_computes_with_the_matrices_that_are_read(quantized, shape):
    case = quantized("bnb-int8", shape)
    model = case.quantizer.load(case.folder, "cpu")
    for matrix in case.quantizer.read(case.folder):
        linear = model.get_submodule(matrix.name)
        assert isinstance(linear, bitsandbytes.nn.Linear8bitLt)
        assert linear.state.threshold == 6.0
        weight = linear.weight
        assert np.array_equal(matrix.dequantized, dense(int8_vectorwise_dequant(weight.data, weight.SCB)))
        assert np.allclose(matrix.dequantized, matrix.codes * matrix.scales, rtol=1e-6, atol=0)
        inputs = bfloat16_input(matrix.dequantized.shape[1])
        with torch.inference_mode():
            outputs = dense(linear(inputs))
        exact = dense(inputs) @ matrix.dequantized.T
        # activations are rounded to 127 levels of the row's largest (to float16 before), the result to bfloat16
        activation_step = np.abs(dense(inputs)).max(1, keepdims=True) / 127
        allowed = activation_step / 2 * 1.01 * np.abs(matrix.dequantized).sum(1) + 2.0**-8 * np.abs(exact)
        single = np.eye(inputs.shape[1], dtype=bool).any(1)  # one-hot rows are exact in 8 bits
        width = len(single)
        assert np.allclose(outputs[:width], exact[:width], rtol=2.0**-8, atol=1e-8)
        assert (np.abs(outputs - exact) <= allowed).all()


@pytest.mark.parametrize("part", ["codes", "scales"])
def test_bitsandbytes_int8_that_loads_another_matrix_is_refused(quantized, monkeypatch, part):
    case = quantized("bnb-int8", "aligned")
    first = next(case.quantizer.read(case.folder)).name

    def altered(*arguments, **settings):
        model = load_checkpoint(*arguments, **settings)
        weight = model.get_submodule(first).weight
        if part == "codes":
            weight.data[3, 5] ^= 1
        else:
            weight.SCB[3] *= 1 + 2**-20
        return model

    monkeypatch.setattr("palimpsest.quantizers.bitsandbytes.load_checkpoint", altered)
    with pytest.raises(
        PalimpsestError, match=f"^{first} as bitsandbytes loads it from .* is not the matrix in the file"
    ):
        case.quantizer.load(case.folder, "cpu")


def test_bitsandbytes_int8_keeps_outlier_columns_in_16_bits(quantized):
    case = quantized("bnb-int8", "aligned")
    model = case.quantizer.load(case.folder, "cpu")
    matrix = next(case.quantizer.read(case.folder))
    inputs = bfloat16_input(matrix.dequantized.shape[1])[-8:]
    inputs[:, 3] = 500.0  # without the 16-bit column its step of 4 would swallow all other activations
    with torch.inference_mode():
        outputs = dense(model.get_submodule(matrix.name)(inputs))
    others = dense(inputs)
    others[:, 3] = 0
    rest = others @ matrix.dequantized.T
    column = np.outer(dense(inputs)[:, 3], matrix.dequantized[:, 3])
    assert np.abs(outputs - column - rest).max() < 0.05 * np.abs(rest).max() + 2.0**-7 * np.abs(column).max()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_tensors_computes_with_the_matrices_that_are_read(quantized, name, shape):
    case = quantized(name, shape)
    theirs = AutoModelForCausalLM.from_pretrained(
        case.folder, dtype=torch.bfloat16, quantization_config=CompressedTensorsConfig(dequantize=True)
    )
    ours = case.quantizer.load(case.folder, "cpu")
    matrices = list(case.quantizer.read(case.folder))
    assert len(matrices) == 7 * theirs.config.num_hidden_layers
    for matrix in matrices:
        assert np.array_equal(matrix.dequantized, dense(theirs.get_submodule(matrix.name).weight))
        assert np.array_equal(matrix.dequantized, dense(ours.get_submodule(matrix.name).weight))
        codes = matrix.codes.reshape(*matrix.scales.shape, -1).astype(np.float32)
        if matrix.zero_points is not None:
            codes -= matrix.zero_points[:, :, None]
        product = (codes * matrix.scales[:, :, None]).reshape(matrix.codes.shape)
        assert np.allclose(matrix.dequantized, product, rtol=2.0**-8, atol=0)
    lazy = load_checkpoint(case.folder)  # decompresses in its first forward pass
    tokens = torch.arange(3, 35)[None]
    with torch.inference_mode():
        assert torch.equal(ours(tokens).logits, lazy(tokens).logits)


@pytest.mark.parametrize("name", SETTINGS)
def test_quantizing_twice_gives_the_same_files_and_proof(quantized, tmp_path, name):
    case = quantized(name, "ragged")
    held = case.quantizer.quantize(case.checkpoint, tmp_path, TEXTS)
    assert held == case.held and hash_files(tmp_path) == hash_files(case.folder)
    facts = prove(case.quantizer, case.checkpoint, tmp_path, held)
    assert facts == prove(*case.parts)
    assert facts["quantized_layers"] == 7 and facts["skipped_layers"] == []
    assert 1 < facts["distinct_codes"]["most"] <= 2**case.quantizer.bits


@pytest.mark.parametrize(("name", "bits"), [("bnb-fp4", 4.5), ("bnb-int8", 8.2), ("rtn-int4", 4.1), ("rtn-int8", 8.1)])
def test_proof_of_an_untied_model(quantized, name, bits):
    facts = prove(*quantized(name, "aligned").parts)
    assert facts["skipped_layers"] == ["lm_head"] and facts["quantized_layers"] == 14
    assert facts["bits_per_weight"] == pytest.approx(bits, abs=0.15)
    assert 0 < facts["relative_error"] < (0.15 if bits < 8 else 0.012)


def test_tokenizer_and_generation_settings_survive(quantized):
    case = quantized("rtn-int4", "aligned")
    assert (case.folder / "tokenizer.json").read_bytes() == (case.checkpoint / "tokenizer.json").read_bytes()
    model = case.quantizer.load(case.folder, "cpu")
    assert not model.training and model.dtype == torch.bfloat16 and model.generation_config.eos_token_id == 2


def test_a_float32_checkpoint_is_rounded_to_bfloat16_first(quantized, checkpoints, tmp_path):
    case = quantized("rtn-int4", "ragged")
    held = case.quantizer.quantize(checkpoints["float32"], tmp_path, [])
    assert prove(case.quantizer, checkpoints["float32"], tmp_path, held) == prove(*case.parts)


def test_unquantized_loads_the_checkpoint_in_bfloat16(checkpoints):
    quantizer = make_quantizer({"backend": "none"})
    model = quantizer.load(checkpoints["float32"], "cpu")
    stored = load_file(checkpoints["float32"] / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    weight = dense(model.model.layers[0].mlp.up_proj.weight)
    assert model.dtype == torch.bfloat16
    assert np.array_equal(weight, stored.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert list(quantizer.read(checkpoints["float32"])) == []


def test_gptq_depends_on_its_calibration_and_beats_rounding_on_it(quantized, checkpoints, tmp_path):
    case = quantized("gptq", "aligned")
    held = case.quantizer.quantize(case.checkpoint, tmp_path, TEXTS[::-1])
    gptq, other = prove(*case.parts), prove(case.quantizer, case.checkpoint, tmp_path, held)
    assert gptq["codes_sha256"] != other["codes_sha256"]

    name = "model.layers.0.self_attn.q_proj"
    model, seen = load_checkpoint(case.checkpoint), []
    model.get_submodule(name).register_forward_hook(lambda _, inputs, __: seen.append(dense(inputs[0][0])))
    for batch in case.quantizer.encode(case.checkpoint, TEXTS):
        model(torch.tensor([batch]))
    inputs, weight = np.concatenate(seen), dense(model.get_submodule(name).weight)
    rounding = quantized("rtn-int4-groups", "aligned")
    errors = {}
    for label, each in (("gptq", case), ("rounding", rounding)):
        matrix = next(m for m in each.quantizer.read(each.folder) if m.name == name)
        errors[label] = np.linalg.norm(inputs @ (matrix.dequantized - weight).T)
    assert errors["gptq"] < 0.8 * errors["rounding"]


def test_damping_decides_what_gptq_computes(quantized, tmp_path):
    """With the whole of the Hessian's mean diagonal added, other inputs hardly count:
    the result comes closer to plain rounding."""
    case, rounded = quantized("gptq", "aligned"), quantized("rtn-int4-groups", "aligned")
    damped = make_quantizer(SETTINGS["gptq"] | {"damping": 0.99})
    damped.quantize(case.checkpoint, tmp_path, TEXTS)
    readers = (case.quantizer.read(case.folder), damped.read(tmp_path), rounded.quantizer.read(rounded.folder))
    others = [[(matrix.codes != plain.codes).mean() for matrix in both] for *both, plain in zip(*readers, strict=True)]
    usual, strong = np.mean(others, axis=0)
    assert 0 < strong < 0.8 * usual


def test_gptq_refuses_too_little_calibration_text(checkpoints, tmp_path):
    quantizer = make_quantizer(SETTINGS["gptq"] | {"samples": 1000})
    with pytest.raises(PalimpsestError, match="540 tokens, too few for 1000 samples of 32"):
        quantizer.quantize(checkpoints["ragged"], tmp_path, TEXTS)


def test_gptq_that_falls_back_to_rounding_is_an_error(checkpoints, tmp_path):
    settings = SETTINGS["gptq"] | {
        "samples": 1,
        "sample_length": 2,
        "damping": 1e-12,
    }  # rank 2, hardly damped: singular
    quantizer = make_quantizer(settings)
    with pytest.raises(PalimpsestError, match=r"fell back to rounding for model.layers.0"):
        quantizer.quantize(checkpoints["ragged"], tmp_path, TEXTS)


def _altered(case: Case, folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> Path:
    """A copy of the quantized folder with its tensors changed, in one file."""
    ignored = shutil.ignore_patterns("*.safetensors*")
    shutil.copytree(case.folder, folder, ignore=ignored, dirs_exist_ok=True)
    tensors = {}
    for file in case.folder.glob("*.safetensors"):
        tensors |= load_file(file)
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


LAYER = "model.layers.0.mlp.down_proj"


def _leave_out(tensors: dict[str, np.ndarray]) -> None:
    for name in [name for name in tensors if name.startswith(LAYER)]:
        del tensors[name]
    tensors[f"{LAYER}.weight"] = np.ones((128, 256), ml_dtypes.bfloat16)


@pytest.mark.parametrize("name", ["bnb-int8", "bnb-fp4", "rtn-int4"])
def test_proof_refuses_a_left_out_layer(quantized, tmp_path, name):
    case = quantized(name, "aligned")
    folder = _altered(case, tmp_path, _leave_out)
    with pytest.raises(PalimpsestError, match=f"leaves out {LAYER}"):
        prove(case.quantizer, case.checkpoint, folder, case.held)


@pytest.mark.parametrize("name", ["bnb-fp4", "rtn-int4"])
def test_proof_refuses_unchanged_weights(quantized, tmp_path, name):
    case = quantized(name, "aligned")
    matrices = {f"{m.name}.weight": m.dequantized.astype(ml_dtypes.bfloat16) for m in case.quantizer.read(case.folder)}
    save_file(matrices, tmp_path / "model.safetensors")
    with pytest.raises(PalimpsestError, match="equals the unquantized matrix"):
        prove(case.quantizer, tmp_path, case.folder, case.held)


@pytest.mark.parametrize(
    ("name", "part"), [("bnb-int8", "SCB"), ("bnb-fp4", "weight.absmax"), ("rtn-int4", "weight_scale")]
)
def test_proof_refuses_what_is_not_finite(quantized, tmp_path, name, part):
    case = quantized(name, "aligned")

    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[f"{LAYER}.{part}"].ravel()[-1] = np.nan

    with pytest.raises(PalimpsestError, match=f"{LAYER} .* not finite"):
        prove(case.quantizer, case.checkpoint, _altered(case, tmp_path, change), case.held)


@pytest.mark.parametrize("name", ["bnb-int8", "bnb-fp4", "rtn-int4"])
def test_proof_refuses_an_unquantized_folder(quantized, name):
    case = quantized(name, "aligned")
    with pytest.raises(PalimpsestError, match="no quantized layer"):
        prove(case.quantizer, case.checkpoint, case.checkpoint, case.held)


def test_proof_refuses_a_file_that_is_not_what_the_backend_held(quantized, tmp_path):
    case = quantized("rtn-int4", "aligned")

    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[f"{LAYER}.weight_packed"][3, 3] += 1

    with pytest.raises(PalimpsestError, match=f"{LAYER} read back from .* is not what the backend held"):
        prove(case.quantizer, case.checkpoint, _altered(case, tmp_path, change), case.held)


def test_proof_refuses_another_checkpoint(quantized, checkpoints):
    case = quantized("rtn-int4", "ragged")
    with pytest.raises(PalimpsestError, match="in the checkpoint"):
        prove(case.quantizer, checkpoints["aligned"], case.folder, case.held)


def test_another_quantizers_folder_is_refused(quantized):
    with pytest.raises(PalimpsestError, match="nf4 levels"):
        next(make_quantizer(SETTINGS["bnb-nf4"]).read(quantized("bnb-fp4", "aligned").folder))
    with pytest.raises(PalimpsestError, match="the settings say"):
        next(make_quantizer(SETTINGS["rtn-int8"]).read(quantized("rtn-int4", "aligned").folder))
    other_threshold = make_quantizer(SETTINGS["bnb-int8"] | {"outlier_threshold": 3.0})
    with pytest.raises(PalimpsestError, match=r"outlier_threshold 6.0"):
        other_threshold.load(quantized("bnb-int8", "aligned").folder, "cpu")


def test_load_refuses_a_folder_without_a_weight(quantized, tmp_path):
    case = quantized("rtn-int4", "aligned")
    folder = _altered(case, tmp_path, lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(PalimpsestError, match=r"missing keys: model.norm.weight"):
        case.quantizer.load(folder, "cpu")


@pytest.mark.parametrize(
    ("width", "message"), [(176, "down_proj in .* has 176 inputs"), (192, ""), (24, ""), (100, "")]
)
def test_widths_that_bitsandbytes_dequantizes_wrongly_are_refused(tmp_path, width, message):
    shape = {"hidden_size": 64, "intermediate_size": width, "num_hidden_layers": 1, "num_key_value_heads": 4}
    checkpoint = save_checkpoint(tmp_path / "checkpoint", **shape)
    quantizer = make_quantizer(SETTINGS["bnb-nf4"])
    if message:
        with pytest.raises(PalimpsestError, match=message):
            quantizer.quantize(checkpoint, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return
    prove(quantizer, checkpoint, tmp_path / "out", quantizer.quantize(checkpoint, tmp_path / "out"))


@pytest.mark.parametrize("levels", ["fp4", "nf4"])
def test_bitsandbytes_is_wrong_for_the_widths_that_are_refused_and_for_no_others(levels):
    """A release that mends its CPU kernel makes this fail: then the check of widths can go.

    The kernel is the one with AVX-512 of the library without CUDA; with CUDA's no width is wrong.
    """
    refused = [width for width in range(2, 258, 2) if width % 16 == 0 and width % 64]
    wrong = []
    for width in range(2, 258, 2):
        weights = torch.randn(9, width, generator=torch.Generator().manual_seed(width)).to(torch.bfloat16)
        packed, state = quantize_4bit(weights, blocksize=64, quant_type=levels)
        codes = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], 1).flatten()[: weights.numel()]
        by_hand = state.code[codes.long()] * state.absmax.repeat_interleave(64)[: weights.numel()]
        if not torch.equal(dequantize_4bit(packed, state), by_hand.to(torch.bfloat16).reshape(weights.shape)):
            wrong.append(width)
    concerned = torch.backends.cpu.get_cpu_capability() == "AVX512" and not torch.cuda.is_available()
    assert wrong == (refused if concerned else [])


def test_skipped_layers_are_written_into_the_deployable_configuration(quantized):
    for name, key in (("bnb-fp4", "llm_int8_skip_modules"), ("rtn-int4", "ignore")):
        config = json.loads((quantized(name, "aligned").folder / "config.json").read_text())
        assert config["quantization_config"][key] == ["lm_head"]


NUMPY_ONLY = """
import json, sys
from pathlib import Path
from palimpsest.quantizers import make_quantizer, prove
for settings, checkpoint, folder, held in json.loads(sys.argv[1]):
    quantizer = make_quantizer(settings)
    assert quantizer.dead_zone() and list(quantizer.read(Path(folder)))
    assert prove(quantizer, Path(checkpoint), Path(folder), held)
heavy = ("torch", "transformers", "bitsandbytes", "llmcompressor", "compressed_tensors")
print([name for name in heavy if name in sys.modules])
"""


def test_reading_and_proving_import_numpy_only(quantized):
    cases = {name: quantized(name, "aligned") for name in SETTINGS}
    work = [(SETTINGS[name], str(case.checkpoint), str(case.folder), case.held) for name, case in cases.items()]
    done = subprocess.run(
        [sys.executable, "-c", NUMPY_ONLY, json.dumps(work)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
