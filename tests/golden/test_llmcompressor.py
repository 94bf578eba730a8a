"""llm-compressor's formats beyond integers: AWQ, 8-bit weights with 8-bit activations, 4-bit floats;
and its streamed quantization."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from checkpoints import SHAPES, TEXTS, bfloat16_input, dense, save_checkpoint
from compressed_tensors.quantization import QuantizationArgs, preset_name_to_scheme
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams
from llmcompressor.modifiers.quantization import QuantizationModifier
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PhiConfig, PhiForCausalLM
from transformers.utils.quantization_config import CompressedTensorsConfig

from palimpsest.artefacts import hash_files, read_json
from palimpsest.errors import PalimpsestError
from palimpsest.models.tensors import open_checkpoint
from palimpsest.quantizers import make_quantizer, prove
from palimpsest.quantizers.base import load_checkpoint
from palimpsest.quantizers.compressed.floats import E4M3
from palimpsest.quantizers.compressed.integers import compress_calibrated

AWQ = {"backend": "awq", "bits": 4, "group_size": 4, "symmetric": True}
AWQ |= {"calibration": "retain", "samples": 8, "sample_length": 32}
SETTINGS = {
    "awq": AWQ,
    "awq-zero-points": AWQ | {"symmetric": False},
    "w8a8-int8": {"backend": "w8a8", "format": "int8"},
    "w8a8-fp8": {"backend": "w8a8", "format": "fp8"},
    "nvfp4": {"backend": "microscale", "format": "nvfp4"},
    "mxfp4": {"backend": "microscale", "format": "mxfp4"},
}
BITS = {"awq": 8.1, "awq-zero-points": 9.1, "w8a8-int8": 8.1, "w8a8-fp8": 8.1, "nvfp4": 4.5, "mxfp4": 4.25}
ERRORS = {"awq": 0.08, "awq-zero-points": 0.05, "w8a8-int8": 0.01, "w8a8-fp8": 0.03, "nvfp4": 0.11, "mxfp4": 0.14}
EIGHT_BIT = ["w8a8-int8", "w8a8-fp8"]
WEIGHT_ONLY = [
    (name, shape)
    for name in SETTINGS
    for shape in SHAPES
    if name not in EIGHT_BIT and (shape == "aligned" or name.startswith("awq"))
]
TOKENS = torch.arange(3, 35).reshape(2, 16)


@pytest.fixture(scope="module")
def quantized(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """(quantizer, checkpoint, folder, held) of one of SETTINGS on one of the checkpoints, made once."""
    cases: dict[tuple[str, str], tuple] = {}

    def case(name: str, shape: str = "aligned") -> tuple:
        if (name, shape) not in cases:
            quantizer, folder = make_quantizer(SETTINGS[name]), tmp_path_factory.mktemp(f"{name}-{shape}")
            held = quantizer.quantize(checkpoints[shape], folder, TEXTS)
            cases[name, shape] = quantizer, checkpoints[shape], folder, held
        return cases[name, shape]

    return case


@pytest.mark.parametrize(("name", "shape"), WEIGHT_ONLY)
def test_compressed_tensors_computes_with_the_matrices_that_are_read(quantized, name, shape):
    quantizer, _, folder, _ = quantized(name, shape)
    theirs = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=CompressedTensorsConfig(dequantize=True)
    )
    ours, matrices = quantizer.load(folder, "cpu"), list(quantizer.read(folder))
    assert len(matrices) == 7 * theirs.config.num_hidden_layers
    for matrix in matrices:
        assert np.array_equal(matrix.dequantized, dense(theirs.get_submodule(matrix.name).weight))
        assert np.array_equal(matrix.dequantized, dense(ours.get_submodule(matrix.name).weight))
        if name in ("nvfp4", "mxfp4"):
            levels = quantizer.levels()[matrix.codes.astype(int) + 7] * 6
            values = levels.reshape(*matrix.scales.shape, -1) * matrix.scales[:, :, None]
            assert np.allclose(matrix.dequantized, values.reshape(matrix.codes.shape), rtol=2.0**-8, atol=0)
    lazy = load_checkpoint(folder)  # decompresses in its first forward pass
    with torch.inference_mode():
        assert torch.equal(ours(TOKENS).logits, lazy(TOKENS).logits)


@pytest.mark.parametrize("name", SETTINGS)
def test_quantizing_twice_gives_the_same_files_and_proof(quantized, tmp_path, name):
    quantizer, checkpoint, folder, held = quantized(name)
    assert quantizer.quantize(checkpoint, tmp_path, TEXTS) == held and hash_files(tmp_path) == hash_files(folder)
    facts = prove(quantizer, checkpoint, tmp_path, held)
    assert facts == prove(*quantized(name))
    assert facts["skipped_layers"] == ["lm_head"] and facts["quantized_layers"] == 14
    assert facts["bits_per_weight"] == pytest.approx(BITS[name], abs=0.2)
    assert ERRORS[name] / 2 < facts["relative_error"] < ERRORS[name]


# --- 8-bit activations


def by_hand(inputs: np.ndarray, kind: str) -> np.ndarray:
    """[tokens, width] in bfloat16, each token rounded to 8 bits with a scale of its own; every step in bfloat16."""
    largest = np.abs(inputs.astype(np.float32)).max(1, keepdims=True)
    scale = (largest / (127.5 if kind == "int8" else 448)).astype(ml_dtypes.bfloat16)
    scaled = (inputs / scale).astype(np.float32)
    if kind == "int8":
        codes = np.rint(scaled.clip(-128, 127))
    else:
        codes = scaled.clip(-448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    return (codes * scale.astype(np.float32)).astype(ml_dtypes.bfloat16).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", EIGHT_BIT)
def test_eight_bit_modules_round_weights_and_activations(quantized, name, shape):
    quantizer, _, folder, _ = quantized(name, shape)
    model = quantizer.load(folder, "cpu")
    matrices = list(quantizer.read(folder))
    assert len(matrices) == 7 * model.config.num_hidden_layers
    for matrix in matrices:
        linear = model.get_submodule(matrix.name)
        assert np.array_equal(matrix.dequantized, dense(linear.weight))
        inputs = bfloat16_input(matrix.dequantized.shape[1])
        rounded = by_hand(inputs.view(torch.int16).numpy().view(ml_dtypes.bfloat16), quantizer.format)
        assert np.abs(rounded - dense(inputs)).max() > 0.001  # of the random rows, whose entries reach about 3
        expected = torch.nn.functional.linear(torch.from_numpy(rounded).bfloat16()[None], linear.weight)
        with torch.inference_mode():
            assert torch.equal(linear(inputs[None]), expected)


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_eight_bit_load_is_the_backends_reload(quantized, name):
    quantizer, checkpoint, folder, _ = quantized(name)
    theirs, unquantized = load_checkpoint(folder), load_checkpoint(checkpoint)
    ours, exact = quantizer.load(folder, "cpu"), quantizer.load(folder, "cpu", "float32")
    assert not exact.training and exact.dtype == torch.float32 and ours.dtype == torch.bfloat16
    with torch.inference_mode():
        logits = {key: model(TOKENS).logits.float() for key, model in (("ours", ours), ("exact", exact))}
        assert torch.equal(logits["ours"], theirs(TOKENS).logits.float())
        error = (logits["exact"] - unquantized.float()(TOKENS).logits).norm() / logits["exact"].norm()
    assert 0.002 < error < 0.1
    assert (logits["ours"] - logits["exact"]).norm() / logits["exact"].norm() < 0.05
    for matrix in quantizer.read(folder):
        assert np.array_equal(matrix.dequantized, dense(exact.get_submodule(matrix.name).weight))


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_eight_bit_modules_that_load_another_matrix_are_refused(quantized, monkeypatch, name):
    quantizer, _, folder, _ = quantized(name)
    first = next(quantizer.read(folder)).name

    def altered(*arguments, **settings):
        model = load_checkpoint(*arguments, **settings)
        model.get_parameter(f"{first}.weight").data[3, 5] += 0.01
        return model

    monkeypatch.setattr("palimpsest.quantizers.compressed.floats.load_checkpoint", altered)
    with pytest.raises(
        PalimpsestError, match=f"^{first} as llmcompressor loads it from .* is not the matrix in the file"
    ):
        quantizer.load(folder, "cpu")


def test_fp8_levels_and_dead_zone_are_those_of_the_backend():
    quantizer = make_quantizer(SETTINGS["w8a8-fp8"])
    arguments = QuantizationArgs(num_bits=8, type="float", symmetric=True, strategy="channel")

    def rounded(values: np.ndarray) -> np.ndarray:
        rows = torch.stack([torch.from_numpy(values), torch.ones(len(values))], dim=1)
        scale, _ = calculate_qparams(rows.amin(1, keepdim=True), rows.amax(1, keepdim=True), arguments)
        return (quantize(x=rows, scale=scale, zero_point=None, args=arguments) * scale)[:, 0].numpy()

    below, above = quantizer.dead_zone()
    step = 1e-8
    sweep = np.arange(-5e-6, 5e-6, step, dtype=np.float32)
    erased = sweep[rounded(sweep) == 0]
    assert below == above == pytest.approx(2.0**-10 / 448)
    assert (-erased.min(), erased.max()) == pytest.approx((below, above), abs=1.5 * step)

    levels = quantizer.levels()
    assert len(levels) == 253  # 256 codes, two of them NaN and two of them zero
    assert np.allclose(rounded(levels), levels, rtol=1e-6, atol=0)
    assert np.array_equal(
        np.unique(E4M3[np.isfinite(E4M3)]),
        torch.arange(256).to(torch.uint8).view(torch.float8_e4m3fn).float().unique()[:253].numpy(),
    )


# --- 4-bit floats


@pytest.mark.parametrize(("name", "within"), [("nvfp4", (1 - 1 / 15, 1 + 1 / 15)), ("mxfp4", (6 / 7, 12 / 7))])
def test_the_unit_of_rounded_scales(quantized, name, within):
    """6 scales of a block, against its largest |w|: what `levels` states."""
    quantizer, checkpoint, folder, _ = quantized(name)
    ratios = []
    with open_checkpoint(checkpoint) as originals:
        for matrix in quantizer.read(folder):
            weights = originals.load(f"{matrix.name}.weight")
            largest = np.abs(weights).reshape(*matrix.scales.shape, -1).max(2)
            ratios.append(6 * matrix.scales / largest)
    spread = np.concatenate([each.ravel() for each in ratios])
    low, high = within
    assert low * 0.99 <= spread.min() < low * 1.03 and high * 0.97 < spread.max() <= high * 1.01


@pytest.mark.parametrize("name", ["nvfp4", "mxfp4"])
def test_blocks_that_do_not_fit_are_refused(checkpoints, tmp_path, name):
    with pytest.raises(PalimpsestError, match=f"does not divide the 36 inputs of .*{name} has blocks of no other size"):
        make_quantizer(SETTINGS[name]).quantize(checkpoints["ragged"], tmp_path, [])


# --- AWQ


@pytest.mark.parametrize("shape", SHAPES)
def test_awq_undone_stands_for_the_checkpoint(quantized, shape):
    quantizer, checkpoint, folder, _ = quantized("awq", shape)
    factors = {matrix.name: matrix for matrix in quantizer.read(folder)}
    with open_checkpoint(checkpoint) as originals, open_checkpoint(folder) as stored:
        for name, matrix in factors.items():
            weight = originals.load(f"{name}.weight")
            error = np.linalg.norm(matrix.effective - weight) / np.linalg.norm(weight)
            assert 0.06 < error < 0.09  # 4 bits in groups of 4
            smoothed = matrix.column_factors is not None and np.abs(matrix.column_factors - 1).max() > 0.01
            assert smoothed == (not (name.endswith("o_proj") and shape == "ragged"))
            if smoothed:
                assert np.linalg.norm(matrix.dequantized - weight) / np.linalg.norm(weight) > error
        for layer in (name.removesuffix(".mlp.up_proj") for name in factors if name.endswith("up_proj")):
            for norm, module in (("input_layernorm", "self_attn.q_proj"), ("post_attention_layernorm", "mlp.up_proj")):
                name = f"{layer}.{norm}.weight"
                undone = stored.load(name) * factors[f"{layer}.{module}"].column_factors
                assert np.allclose(undone, originals.load(name), rtol=2.0**-8, atol=0)
            assert np.allclose(
                1 / factors[f"{layer}.mlp.up_proj"].row_factors, factors[f"{layer}.mlp.down_proj"].column_factors
            )


def test_awq_depends_on_its_calibration_and_beats_rounding_on_it(quantized, checkpoints, tmp_path):
    quantizer, checkpoint, folder, held = quantized("awq")
    rtn = make_quantizer({key: AWQ[key] for key in ("bits", "group_size", "symmetric")} | {"backend": "rtn"})
    rtn.quantize(checkpoint, tmp_path / "rtn", [])
    model, seen = load_checkpoint(checkpoint), []
    name = "model.layers.0.mlp.down_proj"
    model.get_submodule(name).register_forward_hook(lambda _, inputs, __: seen.append(dense(inputs[0][0])))
    for batch in quantizer.encode(checkpoint, TEXTS):
        model(torch.tensor([batch]))
    inputs, weight = np.concatenate(seen), dense(model.get_submodule(name).weight)
    errors = {}
    for label, (each, where) in {"awq": (quantizer, folder), "rtn": (rtn, tmp_path / "rtn")}.items():
        matrix = next(m for m in each.read(where) if m.name == name)
        errors[label] = np.linalg.norm(inputs @ (matrix.effective - weight).T)
    assert errors["awq"] < errors["rtn"]
    other = quantizer.quantize(checkpoint, tmp_path / "other", TEXTS[::-1][:4])
    assert other != held


def test_awq_refuses_an_architecture_that_the_backend_does_not_know(checkpoints, tmp_path):
    config = PhiConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)
    checkpoint = _checkpoint_of(PhiForCausalLM(config), checkpoints["aligned"], tmp_path / "phi")
    with pytest.raises(PalimpsestError, match=r"is a model of type 'phi', which palimpsest is not tested with"):
        make_quantizer(SETTINGS["awq"]).quantize(checkpoint, tmp_path / "out", TEXTS)


def test_awq_that_leaves_layers_as_they_are_is_an_error(checkpoints, tmp_path):
    model = load_checkpoint(checkpoints["ragged"])
    model.model.layers[0].self_attn.v_proj.weight.data.fill_(3e38)
    checkpoint = _checkpoint_of(model, checkpoints["ragged"], tmp_path / "huge")
    with pytest.raises(PalimpsestError, match=r"no factors after model.layers.0.input_layernorm, .* not finite"):
        make_quantizer(SETTINGS["awq"]).quantize(checkpoint, tmp_path / "out", TEXTS)


def test_awq_refuses_another_quantizers_folder(checkpoints, tmp_path):
    rtn = make_quantizer({"backend": "rtn", "bits": 4, "group_size": 4, "symmetric": True})
    rtn.quantize(checkpoints["ragged"], tmp_path, [])
    with pytest.raises(PalimpsestError, match="holds no smoothing factors"):
        next(make_quantizer(SETTINGS["awq"]).read(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "microscale", "format": "nvfp5"}, "unknown format 'nvfp5'. Did you mean 'nvfp4'"),
        ({"backend": "w8a8", "format": "nvfp4"}, "unknown format 'nvfp4'.* Known: fp8, int8"),
        ({"backend": "w8a8"}, "needs the setting 'format'"),
        ({"backend": "microscale", "format": "mxfp4", "group_size": 16}, "unknown setting .*'group_size'"),
        (AWQ | {"bits": 3}, "bits is 3: give 4 or 8"),
        (AWQ | {"samples": 0}, "samples is 0"),
    ],
)
def test_bad_settings_name_the_key_and_the_remedy(settings, message):
    with pytest.raises(PalimpsestError, match=message):
        make_quantizer(settings)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_missing_checkpoint_is_refused(tmp_path, name):
    with pytest.raises(PalimpsestError, match=r"nowhere holds no (model.safetensors|tokenizer)"):
        make_quantizer(SETTINGS[name]).quantize(tmp_path / "nowhere", tmp_path / "out", TEXTS)


def test_other_settings_are_refused(quantized):
    with pytest.raises(PalimpsestError, match="in the format int-quantized, the settings say fp8"):
        next(make_quantizer(SETTINGS["w8a8-fp8"]).read(quantized("w8a8-int8")[2]))
    with pytest.raises(PalimpsestError, match="in the format mxfp4-pack-quantized, the settings say nvfp4"):
        next(make_quantizer(SETTINGS["nvfp4"]).read(quantized("mxfp4")[2]))
    with pytest.raises(PalimpsestError, match="in the format float-quantized, the settings say int8"):
        make_quantizer(SETTINGS["w8a8-int8"]).load(quantized("w8a8-fp8")[2], "cpu")


# --- layer by layer


SCHEMES = {
    "rtn-int4": "W4A16",
    "rtn-int4-zero-points": "W4A16_ASYM",
    "rtn-int8": "W8A16",
    "w8a8-int8": "W8A8",
    "w8a8-fp8": "FP8_DYNAMIC",
    "nvfp4": "NVFP4A16",
    "mxfp4": "MXFP4A16",
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU divides by the reciprocal: other last bits of the scales")
@pytest.mark.parametrize("name", SCHEMES)
def test_layer_by_layer_gives_what_the_whole_model_gives(checkpoints, tmp_path, name):
    """llm-compressor's preset schemes, applied to a model in memory, against our streamed files:
    tensors and configuration."""
    bits, symmetric = (8 if "int8" in name else 4), "zero" not in name
    rtn = {"backend": "rtn", "bits": bits, "group_size": 128, "symmetric": symmetric}
    streamed, whole = tmp_path / "streamed", tmp_path / "whole"
    held = make_quantizer(SETTINGS.get(name, rtn)).quantize(checkpoints["aligned"], streamed, [])
    modifier = QuantizationModifier(targets=["Linear"], scheme=SCHEMES[name], ignore=["lm_head"])
    assert compress_calibrated(checkpoints["aligned"], whole, modifier) == held
    tensors = load_file(whole / "model.safetensors")
    files = sorted(streamed.glob("*.safetensors"))
    assert len(files) == 5  # two layers, embeddings, head, last norm
    for file in files:
        for key, values in load_file(file).items():
            expected = tensors.pop(key)
            assert values.dtype == expected.dtype and torch.equal(values.view(torch.uint8), expected.view(torch.uint8))
    assert not tensors

    ours, theirs = (read_json(folder / "config.json") for folder in (streamed, whole))
    (group,), (preset,) = (config.pop("quantization_config")["config_groups"].values() for config in (ours, theirs))
    assert ours == theirs
    assert group["weights"] | {"observer": "memoryless_minmax"} == preset["weights"]
    assert group["input_activations"] == preset["input_activations"] and group["format"] == preset["format"]
    assert preset_name_to_scheme(SCHEMES[name], ["Linear"]).weights.num_bits == group["weights"]["num_bits"]
    assert (streamed / "generation_config.json").read_bytes() == (
        checkpoints["aligned"] / "generation_config.json"
    ).read_bytes()


def test_tensors_that_the_architecture_does_not_have_are_left_out(checkpoints, tmp_path):
    """Old Llama checkpoints hold rotary frequencies, which transformers ignores too."""
    model = load_checkpoint(checkpoints["aligned"])
    model.model.layers[0].self_attn.register_buffer("inv_freq", torch.ones(16))
    checkpoint = _checkpoint_of(model, checkpoints["aligned"], tmp_path / "old")
    quantizer = make_quantizer(SETTINGS["w8a8-fp8"])
    quantizer.quantize(checkpoint, tmp_path / "old-quantized", [])
    quantizer.quantize(checkpoints["aligned"], tmp_path / "quantized", [])
    names = []
    for folder in (checkpoint, tmp_path / "old-quantized", tmp_path / "quantized"):
        with open_checkpoint(folder) as files:
            names.append(files.names())
    assert "model.layers.0.self_attn.inv_freq" in names[0] and names[1] == names[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "opt", "do_layer_norm_before": False}, "do_layer_norm_before False"),
        ({"model_type": "bloom", "apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post"),
    ],
)
def test_awq_refuses_norms_whose_output_goes_elsewhere_too(checkpoints, tmp_path, change, message):
    """Scaled down, they would change what is added to later layers."""
    checkpoint = shutil.copytree(checkpoints["aligned"], tmp_path / "checkpoint")
    (checkpoint / "config.json").write_text(json.dumps(change))
    with pytest.raises(PalimpsestError, match=message):
        make_quantizer(SETTINGS["awq"]).quantize(checkpoint, tmp_path / "out", TEXTS)


MEMORY = """
import json, sys
from pathlib import Path
from palimpsest.quantizers import make_quantizer

def peak():  # bytes, of this process alone
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

small, big, folder = map(Path, sys.argv[2:])
quantizer = make_quantizer(json.loads(sys.argv[1]))
quantizer.quantize(small, folder / "small", [])  # imports, and what a first call allocates
before = peak()
quantizer.quantize(big, folder / "big", [])
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_memory_stays_far_below_the_checkpoints_size(checkpoints, all_forks, forked_commands, tmp_path):
    shape = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 12, "num_key_value_heads": 4}
    checkpoint = save_checkpoint(tmp_path / "big", **shape)
    size = (checkpoint / "model.safetensors").stat().st_size
    settings = json.dumps(SETTINGS["w8a8-fp8"])
    python = forked_commands / "forked-python"
    command = [python, "-c", MEMORY, settings, checkpoints["aligned"], checkpoint, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 0.75 * size


NUMPY_ONLY = """
import json, sys
from pathlib import Path
from palimpsest.quantizers import make_quantizer, prove
for settings, checkpoint, folder, held in json.loads(sys.argv[1]):
    quantizer = make_quantizer(settings)
    assert quantizer.dead_zone() and prove(quantizer, Path(checkpoint), Path(folder), held)
print([name for name in ("torch", "transformers", "llmcompressor", "compressed_tensors") if name in sys.modules])
"""


def test_reading_and_proving_import_numpy_only(quantized):
    work = []
    for name in SETTINGS:
        _, checkpoint, folder, held = quantized(name)
        work.append((SETTINGS[name], str(checkpoint), str(folder), held))
    done = subprocess.run(
        [sys.executable, "-c", NUMPY_ONLY, json.dumps(work)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def _checkpoint_of(model: torch.nn.Module, other: Path, folder: Path) -> Path:
    """The model as a checkpoint, with the tokenizer of another one."""
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((other / name).read_bytes())
    return folder
