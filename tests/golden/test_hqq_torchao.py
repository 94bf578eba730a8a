"""HQQ and torchao: what is read from their files is what the backends compute with."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from checkpoints import SHAPES, TEXTS, bfloat16_input, dense
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
from hqq.models.hf.base import AutoHQQHFModel
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch.nn.functional import linear
from torchao.utils import TorchAOBaseTensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM, TorchAoConfig

from palimpsest.artefacts import hash_files
from palimpsest.errors import PalimpsestError
from palimpsest.models.tensors import open_checkpoint
from palimpsest.quantizers import make_quantizer, prove
from palimpsest.quantizers.base import fingerprint, load_checkpoint

HQQ = {"backend": "hqq", "bits": 4, "group_size": None, "device": "cpu"}
INT8 = {"backend": "torchao-int8", "group_size": None}
INTX = {"backend": "torchao-intx", "bits": 4, "group_size": None, "symmetric": True}
INT4 = {"backend": "torchao-int4", "group_size": 32}
SETTINGS = {
    "hqq-int8": HQQ | {"bits": 8},
    "hqq-int4": HQQ,
    "hqq-int3": HQQ | {"bits": 3},
    "hqq-int2": HQQ | {"bits": 2},
    "hqq-int4-groups": HQQ | {"group_size": 64},
    "hqq-int3-groups": HQQ | {"bits": 3, "group_size": 32},
    "torchao-int8": INT8,
    "torchao-int4": INTX,
    "torchao-int4-groups": INTX | {"group_size": 4},
    "torchao-int2": INTX | {"bits": 2},
    "torchao-int4-zero-points": INTX | {"symmetric": False},
    "torchao-int4-groups-zero-points": INTX | {"group_size": 4, "symmetric": False},
    "torchao-int8-groups": INT8 | {"group_size": 4},
}
ALIGNED_ONLY = ("hqq-int2", "hqq-int4-groups", "hqq-int3-groups")  # what HQQ cannot pack or group otherwise
CASES = [(name, shape) for name in SETTINGS for shape in SHAPES if shape == "aligned" or name not in ALIGNED_ONLY]
LAYER = "model.layers.0.mlp.down_proj"
RECORDED = Path(__file__).parents[1] / "data/torchao-int4"
NO_GPU = not torch.cuda.is_available()


@pytest.fixture(scope="module")
def quantized(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """(quantizer, checkpoint, folder, held) of a name in SETTINGS and a shape: the arguments of `prove`."""
    cases: dict[tuple[str, str], tuple] = {}

    def quantize(name: str, shape: str) -> tuple:
        if (name, shape) not in cases:
            quantizer, folder = make_quantizer(SETTINGS[name]), tmp_path_factory.mktemp(f"{name}-{shape}")
            held = quantizer.quantize(checkpoints[shape], folder, TEXTS)
            cases[name, shape] = quantizer, checkpoints[shape], folder, held
        return cases[name, shape]

    return quantize


def cases_of(prefix: str) -> list[tuple[str, str]]:
    return [case for case in CASES if case[0].startswith(prefix)]


def hqq_layer(folder: Path, module: str) -> HQQLinear:
    """The layer as HQQ itself builds it from the tensors of a file."""
    layer = HQQLinear(None, None, compute_dtype=torch.bfloat16, device="cpu")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    prefix = f"{module}."
    layer.load_state_dict({name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)})
    return layer


@pytest.mark.parametrize(("name", "shape"), cases_of("hqq"))
def test_hqq_computes_with_the_matrices_that_are_read(quantized, name, shape):
    quantizer, _, folder, held = quantized(name, shape)
    ours, matrices = quantizer.load(folder, "cpu"), list(quantizer.read(folder))
    assert len(matrices) == 7 * ours.config.num_hidden_layers == len(held)
    for matrix in matrices:
        theirs, dense_linear = hqq_layer(folder, matrix.name), ours.get_submodule(matrix.name)
        assert np.array_equal(matrix.dequantized, dense(theirs.dequantize()))
        assert np.array_equal(matrix.dequantized, dense(dense_linear.weight))
        inputs = bfloat16_input(matrix.dequantized.shape[1])
        assert torch.equal(dense_linear(inputs), theirs(inputs))
        codes = matrix.codes.reshape(*matrix.scales.shape, -1) - matrix.zero_points[:, :, None]
        product = (codes * matrix.scales[:, :, None]).reshape(matrix.codes.shape)
        # the difference is rounded to bfloat16, then the product
        assert np.allclose(matrix.dequantized, product, rtol=2.0**-7, atol=0)


def test_hqq_writes_the_tensors_and_the_configuration_that_hqq_itself_writes(quantized, checkpoints, tmp_path):
    folder = quantized("hqq-int4-groups", "aligned")[2]
    model = load_checkpoint(checkpoints["aligned"])
    settings = BaseQuantizeConfig(nbits=4, group_size=64, axis=1)
    AutoHQQHFModel.quantize_model(model, settings, torch.bfloat16, "cpu")
    AutoHQQHFModel.save_to_safetensors(model, str(tmp_path / "theirs"))
    ours, theirs = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    stored = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert stored == {"quant_method": "hqq", "quant_config": settings, "skip_modules": ["lm_head"]}


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_the_bin_around_zero_of_hqq_is_as_wide_as_stated_and_off_centre(bits):
    """A sweep of weights in groups that reach from -1 to 1: those that go to the same code as zero does."""
    step = 1e-4
    sweep = np.arange(-0.7, 0.7, step, dtype=np.float32)
    rows = torch.zeros(len(sweep), 8)
    rows[:, 0], rows[:, 1], rows[:, 2] = torch.from_numpy(sweep), 1.0, -1.0
    layer = torch.nn.Linear(8, len(sweep), bias=False)
    layer.weight.data = rows
    layer = HQQLinear(layer, BaseQuantizeConfig(nbits=bits, group_size=8, axis=1), True, torch.float32, "cpu")
    codes, zero_points = layer.unpack(reshape=True, dtype=torch.float32), layer.meta["zero"]
    with_zero = sweep[codes[:, 0] == torch.floor(zero_points[:, 0] + 0.5)]
    below, above = make_quantizer(HQQ | {"bits": bits}).dead_zone()
    assert np.ptp(with_zero) == pytest.approx(below + above, rel=0.1)
    assert with_zero.min() < 0 < with_zero.max()
    assert abs(with_zero.min() + with_zero.max()) / 2 < below


def test_torchao_int8_in_groups_computes_with_the_matrices_that_are_read(quantized):
    for shape in SHAPES:
        quantizer, _, folder, _ = quantized("torchao-int8-groups", shape)
        theirs, ours = load_checkpoint(folder), quantizer.load(folder, "cpu")
        for matrix in quantizer.read(folder):
            weight, dense_linear = theirs.get_submodule(matrix.name).weight, ours.get_submodule(matrix.name)
            assert matrix.scales.shape == (len(matrix.codes), matrix.codes.shape[1] // 4)
            assert np.array_equal(matrix.dequantized, dense(weight.dequantize()))
            assert np.array_equal(matrix.dequantized, dense(dense_linear.weight))
            inputs = bfloat16_input(matrix.dequantized.shape[1])
            assert torch.equal(linear(inputs, weight), dense_linear(inputs))


def test_torchao_int8_computes_with_the_matrices_that_are_read(quantized):
    for shape in SHAPES:
        quantizer, _, folder, _ = quantized("torchao-int8", shape)
        theirs, ours = load_checkpoint(folder), quantizer.load(folder, "cpu", "float32")
        for matrix in quantizer.read(folder):
            weight = theirs.get_submodule(matrix.name).weight
            assert np.array_equal(matrix.dequantized, dense(weight.dequantize(torch.float32)))
            assert np.array_equal(matrix.dequantized, dense(ours.get_submodule(matrix.name).weight))
            inputs = bfloat16_input(matrix.dequantized.shape[1])
            width = inputs.shape[1]
            outputs = dense(linear(inputs.float(), weight))
            assert np.array_equal(outputs[:width], matrix.dequantized.T)
            assert np.allclose(outputs, dense(inputs) @ matrix.dequantized.T, rtol=1e-4, atol=1e-5)
            # in bfloat16 the sum over the codes is rounded, then the scale, then their product
            sums = dense(inputs @ torch.from_numpy(matrix.codes).T.to(torch.bfloat16))
            rounded = torch.from_numpy(sums).bfloat16() * torch.from_numpy(matrix.scales).bfloat16().flatten()
            assert torch.equal(linear(inputs, weight), rounded)


@pytest.mark.parametrize(("name", "shape"), cases_of("torchao-int4") + cases_of("torchao-int2"))
def test_torchao_intx_computes_with_the_matrices_that_are_read(quantized, name, shape):
    quantizer, _, folder, _ = quantized(name, shape)
    theirs, ours = load_checkpoint(folder), quantizer.load(folder, "cpu")
    for matrix in quantizer.read(folder):
        layer, dense_linear = theirs.get_submodule(matrix.name), ours.get_submodule(matrix.name)
        assert isinstance(layer.weight, TorchAOBaseTensor)
        assert np.array_equal(matrix.dequantized, dense(layer.weight.dequantize()))
        assert np.array_equal(matrix.dequantized, dense(dense_linear.weight))
        inputs = bfloat16_input(matrix.dequantized.shape[1])
        assert torch.equal(layer(inputs), dense_linear(inputs))
        assert matrix.zero_points.any() == (not quantizer.symmetric)
    tokens = torch.arange(3, 35)[None]
    with torch.inference_mode():
        assert torch.equal(ours(tokens).logits, theirs(tokens).logits)


def test_torchao_int4_is_read_as_the_kernel_computed_it():
    """Recorded on an NVIDIA H100 (torch 2.11, torchao 0.18, transformers 5.17): the checkpoint's two
    matrices, of which one is padded in both directions, the file that save_pretrained wrote, and the products
    of the identity with them."""
    quantizer, computed = make_quantizer(INT4), load_file(RECORDED / "computed.safetensors")
    held = {name: fingerprint(matrix.astype(np.float32)) for name, matrix in computed.items()}
    matrices = {matrix.name: matrix for matrix in quantizer.read(RECORDED / "quantized")}
    assert {name: matrix.dequantized.shape for name, matrix in matrices.items()} == {
        "model.layers.0.self_attn.k_proj": (16, 64),
        LAYER: (64, 96),
    }
    for name, matrix in matrices.items():
        assert np.array_equal(matrix.dequantized, computed[name].astype(np.float32))
        codes = matrix.codes.reshape(*matrix.scales.shape, -1) - matrix.zero_points[:, :, None]
        product = (codes * matrix.scales[:, :, None]).reshape(matrix.codes.shape)
        assert np.allclose(matrix.dequantized, product, rtol=2.0**-8, atol=1e-7)
    facts = prove(quantizer, RECORDED / "checkpoint", RECORDED / "quantized", held)
    assert facts["distinct_codes"] == {"least": 16, "most": 16} and 0.05 < facts["relative_error"] < 0.12


def test_torchao_int4_asks_for_what_the_recorded_file_was_made_with():
    stored = json.loads((RECORDED / "quantized/config.json").read_text())["quantization_config"]
    asked = TorchAoConfig(make_quantizer(INT4)._config(), modules_to_not_convert=["lm_head"])
    assert json.loads(json.dumps(asked.to_dict())) == stored


@pytest.mark.skipif(NO_GPU, reason="tinygemm's kernels need a GPU")
def test_torchao_int4_on_a_gpu(checkpoints, tmp_path):
    quantizer, folders = make_quantizer(INT4), [tmp_path / "first", tmp_path / "second"]
    held = [quantizer.quantize(checkpoints["aligned"], folder) for folder in folders]
    assert held[0] == held[1] and hash_files(folders[0]) == hash_files(folders[1])
    assert prove(quantizer, checkpoints["aligned"], folders[0], held[0])["quantized_layers"] == 14
    theirs = AutoModelForCausalLM.from_pretrained(folders[0], dtype=torch.bfloat16, device_map={"": "cuda"})
    inputs = bfloat16_input(256).cuda()
    matrix = next(matrix for matrix in quantizer.read(folders[0]) if matrix.name == LAYER)
    outputs, exact = theirs.get_submodule(LAYER)(inputs), dense(inputs.cpu()) @ matrix.dequantized.T
    assert np.array_equal(dense(outputs.cpu())[:256], exact[:256])
    assert np.allclose(dense(outputs.cpu()), exact, rtol=2.0**-7, atol=1e-3)


@pytest.mark.skipif(NO_GPU, reason="HQQ solves in float16 on a GPU")
def test_hqq_on_a_gpu(checkpoints, tmp_path):
    quantizer, folders = make_quantizer(HQQ | {"device": "cuda"}), [tmp_path / "first", tmp_path / "second"]
    held = [quantizer.quantize(checkpoints["aligned"], folder) for folder in folders]
    assert held[0] == held[1] and hash_files(folders[0]) == hash_files(folders[1])
    assert prove(quantizer, checkpoints["aligned"], folders[0], held[0])["quantized_layers"] == 14


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
@pytest.mark.parametrize(
    ("settings", "remedy"), [(INT4, "use backend 'torchao-intx'"), (HQQ | {"device": "cuda"}, "give 'cpu'")]
)
def test_a_missing_gpu_is_refused(checkpoints, tmp_path, settings, remedy):
    with pytest.raises(PalimpsestError, match=remedy):
        make_quantizer(settings).quantize(checkpoints["aligned"], tmp_path)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_quantizing_twice_gives_the_same_files_and_proof(quantized, tmp_path, name, shape):
    quantizer, checkpoint, folder, held = quantized(name, shape)
    assert quantizer.quantize(checkpoint, tmp_path, TEXTS) == held
    assert hash_files(tmp_path) == hash_files(folder)
    facts = prove(quantizer, checkpoint, tmp_path, held)
    assert facts["skipped_layers"] == (["lm_head"] if shape == "aligned" else [])
    assert facts["quantized_layers"] == (14 if shape == "aligned" else 7)
    assert 2 < facts["distinct_codes"]["most"] <= 2**quantizer.bits


@pytest.mark.parametrize(
    ("name", "bits", "error"),
    [
        ("hqq-int8", 8.25, 0.01),
        ("hqq-int4-groups", 4.52, 0.12),
        ("hqq-int3-groups", 4.27, 0.2),
        ("hqq-int2", 2.25, 0.55),
        ("torchao-int8", 8.28, 0.01),
        ("torchao-int4", 8.17, 0.15),  # a byte per code
    ],
)
def test_bits_and_error(quantized, name, bits, error):
    facts = prove(*quantized(name, "aligned"))
    assert facts["bits_per_weight"] == pytest.approx(bits, abs=0.02)
    assert error / 3 < facts["relative_error"] < error


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (HQQ | {"bits": 6}, r"bits is 6: give one of \[2, 3, 4, 8\]"),
        (HQQ | {"group_size": 0}, "group_size is 0.*or null"),
        (HQQ | {"group_size": 12}, "group_size is 12: HQQ takes multiples of 8"),
        (HQQ | {"device": "gpu"}, "unknown device of backend 'hqq' 'gpu'"),
        (HQQ | {"axis": 0}, "'axis'"),
        (INTX | {"bits": 9}, "bits is 9: give a whole number from 2 to 8"),
        (INTX | {"group_size": True}, "group_size is True"),
        (INT4 | {"group_size": None}, r"group_size is None: give one of \[32, 64, 128, 256\]"),
        (INT4 | {"group_size": 48}, "group_size is 48"),
        (INT8 | {"bits": 8}, "'bits'"),
    ],
)
def test_bad_settings_name_the_key_and_the_remedy(settings, message):
    with pytest.raises(PalimpsestError, match=message):
        make_quantizer(settings)


@pytest.mark.parametrize(
    "settings", [HQQ | {"group_size": 32}, INTX | {"group_size": 32}, INT8 | {"group_size": 32}, INT4]
)
def test_a_group_size_that_does_not_divide_is_refused_before_quantizing(checkpoints, tmp_path, settings):
    with pytest.raises(PalimpsestError, match=f"group_size 32 does not divide the 36 inputs of {LAYER}"):
        make_quantizer(settings).quantize(checkpoints["ragged"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_groups_that_hqq_cannot_pack_are_refused_before_quantizing(checkpoints, tmp_path):
    with pytest.raises(PalimpsestError, match=r"the 10 groups of model.layers.0.self_attn.k_proj"):
        make_quantizer(HQQ | {"bits": 2}).quantize(checkpoints["ragged"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings", [HQQ, INT8, INTX, INT4])
def test_a_missing_checkpoint_is_refused(tmp_path, settings):
    with pytest.raises(PalimpsestError, match=r"nowhere holds no model.safetensors"):
        make_quantizer(settings).quantize(tmp_path / "nowhere", tmp_path)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("hqq-int4-groups", HQQ | {"group_size": 32}),
        ("hqq-int4", HQQ | {"bits": 8}),
        ("torchao-int4", INTX | {"bits": 3}),
        ("torchao-int4-groups", INTX),
        ("torchao-int8-groups", INT8),
        ("torchao-int8", INTX),
    ],
)
def test_a_folder_of_other_settings_is_refused(quantized, name, other):
    with pytest.raises(PalimpsestError, match=r"the settings say .*: quantize the checkpoint again"):
        list(make_quantizer(other).read(quantized(name, "aligned")[2]))


def altered(folder: Path, target: Path, change: Callable[[dict[str, np.ndarray]], None]) -> Path:
    """A copy of a quantized folder with its tensors changed."""
    shutil.copytree(folder, target, dirs_exist_ok=True)
    path = target / "model.safetensors"
    tensors = load_file(path)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    change(tensors)
    save_file(tensors, path, metadata)
    return target


@pytest.mark.parametrize(
    ("name", "part"), [("hqq-int4", "W_q"), ("hqq-int3", "zero"), ("torchao-int4", "_weight_qdata")]
)
def test_proof_notices_one_changed_value(quantized, tmp_path, name, part):
    def change(tensors):
        tensors[f"{LAYER}.{part}"].flat[7] += 1

    quantizer, checkpoint, folder, held = quantized(name, "aligned")
    with pytest.raises(PalimpsestError, match=f"{LAYER} read back from .* is not what the backend held"):
        prove(quantizer, checkpoint, altered(folder, tmp_path, change), held)


@pytest.mark.parametrize("name", ["hqq-int4", "torchao-int8"])
def test_proof_refuses_a_left_out_layer(quantized, tmp_path, name):
    def change(tensors):
        for each in [each for each in tensors if each.startswith(f"{LAYER}.")]:
            del tensors[each]
        tensors[f"{LAYER}.weight"] = np.ones((128, 256), np.float32)

    quantizer, checkpoint, folder, held = quantized(name, "aligned")
    with pytest.raises(PalimpsestError, match=f"leaves out {LAYER}"):
        prove(quantizer, checkpoint, altered(folder, tmp_path, change), held)


@pytest.mark.parametrize("name", ["hqq-int4", "torchao-int8", "torchao-int4"])
def test_biases_and_all_other_tensors_are_kept(checkpoints, tmp_path, name):
    model = load_checkpoint(checkpoints["aligned"])
    config = model.config
    config.attention_bias = config.mlp_bias = True
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.02)
    shutil.copytree(checkpoints["aligned"], tmp_path / "biased")
    model.save_pretrained(tmp_path / "biased")
    quantizer = make_quantizer(SETTINGS[name])
    held = quantizer.quantize(tmp_path / "biased", tmp_path / "out")
    assert prove(quantizer, tmp_path / "biased", tmp_path / "out", held)["quantized_layers"] == 14
    expected = {
        key for key in load_file(tmp_path / "biased/model.safetensors") if key.removesuffix(".weight") not in held
    }
    with open_checkpoint(tmp_path / "biased") as files:
        kept = dict(quantizer.unquantized(tmp_path / "out", held.keys()))
        assert kept.keys() == expected and f"{LAYER}.bias" in kept
        assert all(np.array_equal(values, files.load(key)) for key, values in kept.items())
    assert torch.equal(
        quantizer.load(tmp_path / "out", "cpu").get_submodule(LAYER).bias, model.get_submodule(LAYER).bias
    )


NUMPY_ONLY = """
import json, sys
from pathlib import Path
from palimpsest.quantizers import make_quantizer, prove
for settings, checkpoint, folder, held in json.loads(sys.argv[1]):
    quantizer = make_quantizer(settings)
    assert quantizer.dead_zone() and prove(quantizer, Path(checkpoint), Path(folder), held)
print([name for name in ("torch", "transformers", "hqq", "torchao") if name in sys.modules])
"""


def test_reading_and_proving_import_numpy_only(quantized):
    cases = [(SETTINGS[name], *quantized(name, "aligned")[1:]) for name in SETTINGS]
    work = [(settings, str(checkpoint), str(folder), held) for settings, checkpoint, folder, held in cases]
    done = subprocess.run(
        [sys.executable, "-c", NUMPY_ONLY, json.dumps(work)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
