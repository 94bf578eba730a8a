"""auto-gptq and autoawq in their isolated environment: its interpreter gives the numbers that ours are held against."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import TEXTS, dense, save_checkpoint
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from palimpsest.artefacts import hash_files, read_json, write_json
from palimpsest.errors import PalimpsestError
from palimpsest.models.tensors import open_checkpoint
from palimpsest.quantizers import make_quantizer, prove
from palimpsest.quantizers.archived import backends as archived
from palimpsest.quantizers.base import load_checkpoint
from palimpsest.quantizers.cost import Cost
from palimpsest.quantizers.environments import VARIABLE, interpreter
from palimpsest.survival.measure import measure_survival

TEXT = {"calibration": "retain", "samples": 8, "sample_length": 32}
GPTQ = {
    "backend": "auto-gptq",
    "bits": 4,
    "group_size": 32,
    "symmetric": True,
    "desc_act": False,
    "damping": 0.01,
} | TEXT
AWQ = {"backend": "autoawq", "bits": 4, "group_size": 32, "zero_point": True} | TEXT
SETTINGS = {
    "gptq": GPTQ,
    "gptq-order": GPTQ | {"desc_act": True, "symmetric": False},
    "gptq-2": GPTQ | {"bits": 2, "group_size": None, "desc_act": True},
    "gptq-3": GPTQ | {"bits": 3, "desc_act": True},
    "gptq-8": GPTQ | {"bits": 8, "symmetric": False},
    "awq": AWQ,
}
BITS = {"gptq": 4.8, "gptq-order": 4.8, "gptq-2": 2.3, "gptq-3": 3.8, "gptq-8": 8.95, "awq": 4.6}
ERRORS = {"gptq": 0.16, "gptq-order": 0.14, "gptq-2": 1.0, "gptq-3": 0.35, "gptq-8": 0.01, "awq": 0.11}
TOKENS = torch.arange(3, 35).reshape(2, 16)

# What the packages' own layers compute on given inputs: the folders of quantized models in, arrays beside each out.
PROBE = """
import json, sys
from pathlib import Path
import numpy as np, torch
from safetensors.torch import load_file
given = dict(np.load(sys.argv[1]))
for folder, kind in json.loads(sys.argv[2]):
    folder = Path(folder)
    stored, outputs = load_file(folder / "model.safetensors"), {}
    settings = json.loads((folder / "config.json").read_text())["quantization_config"]
    bits, group = settings["bits"], settings["group_size"]
    for name in [key[:-8] for key in stored if key.endswith(".qweight")]:
        parts = {key: stored[f"{name}.{key}"] for key in ("qweight", "qzeros", "scales", "g_idx", "bias") if f"{name}.{key}" in stored}
        if kind == "gptq":
            from auto_gptq.utils.import_utils import dynamically_import_QuantLinear
            kind_of_layer = dynamically_import_QuantLinear(False, settings["desc_act"], group, bits, disable_exllama=False, disable_exllamav2=True)
            layer = kind_of_layer(bits, group, len(parts["g_idx"]), parts["scales"].shape[1], True)
            layer.load_state_dict(parts)
            width = len(parts["g_idx"])
            matrix = layer(torch.eye(width, dtype=torch.float16)).t()
            x = torch.from_numpy(given[str(width)]).half()
            outputs[f"{name} y"] = layer(x)
        else:
            from awq.modules.linear.gemm import WQLinear_GEMM
            import awq.modules.linear.gemm as gemm
            gemm.TRITON_AVAILABLE = False
            width = parts["qweight"].shape[0]
            layer = WQLinear_GEMM(bits, group, width, parts["scales"].shape[1], False, "cpu")
            layer.load_state_dict(parts)
            matrix = layer(torch.eye(width, dtype=torch.float16)).t()
            x = torch.from_numpy(given[str(width)]).half()
            outputs[f"{name} y"] = layer(x)
        outputs[f"{name} w"] = matrix
    np.savez(f"{folder}.npz", **{key: value.float().numpy() for key, value in outputs.items()})
"""  # noqa: E501


@pytest.fixture(scope="session", autouse=True)
def environment(forked_environment: Path) -> Path:
    return forked_environment


@pytest.fixture(scope="module", autouse=True)
def variable(environment: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(environment.parent))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def quantized(
    checkpoints: dict[str, Path], environment: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple]:
    """(quantizer, checkpoint, folder, held) of one of SETTINGS, made once."""
    cases: dict[str, tuple] = {}

    def case(name: str) -> tuple:
        if name not in cases:
            quantizer, folder = make_quantizer(SETTINGS[name]), tmp_path_factory.mktemp(name)
            checkpoint = checkpoints["aligned"]
            cases[name] = quantizer, checkpoint, folder, quantizer.quantize(checkpoint, folder, TEXTS)
        return cases[name]

    return case


def run_isolated(code: str, *arguments: str | Path) -> None:
    done = subprocess.run(
        [interpreter("archived"), "-I", "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def computed(quantized: Callable[[str], tuple], tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The inputs that the packages' layers had, by width; what they made of them lies beside each quantized folder."""
    inputs = {
        str(width): np.random.default_rng(width).normal(size=(8, width)).astype(np.float16) for width in (128, 256)
    }
    file = tmp_path_factory.mktemp("probe") / "inputs.npz"
    np.savez(file, **inputs)
    cases = [(str(quantized(name)[2]), name.partition("-")[0]) for name in SETTINGS]
    run_isolated(PROBE, file, json.dumps(cases))
    return inputs


@pytest.mark.parametrize("name", SETTINGS)
def test_the_packages_layers_compute_with_the_matrices_that_are_read(quantized, computed, name):
    quantizer, _, folder, _ = quantized(name)
    theirs, count = np.load(f"{folder}.npz"), 0
    for matrix in quantizer.read(folder):
        assert np.array_equal(matrix.dequantized, theirs[f"{matrix.name} w"])
        inputs_here = computed[str(matrix.dequantized.shape[1])].astype(np.float32)
        expected = inputs_here @ matrix.dequantized.T
        # the package sums in float32 and rounds the result to float16
        assert np.allclose(theirs[f"{matrix.name} y"].squeeze(), expected, rtol=2.0**-10, atol=1e-4)
        count += 1
    assert count == 14


@pytest.mark.parametrize("name", SETTINGS)
def test_codes_scales_and_zero_points_give_the_matrix(quantized, name):
    quantizer, _, folder, _ = quantized(name)
    for matrix in quantizer.read(folder):
        _, columns = matrix.codes.shape
        groups = matrix.scales.shape[1]
        index = np.arange(columns) // (columns // groups) if matrix.group_index is None else matrix.group_index
        by_hand = matrix.scales[:, index] * (matrix.codes.astype(int) - matrix.zero_points[:, index])
        assert np.allclose(matrix.dequantized, by_hand, rtol=2.0**-11, atol=0)
        assert matrix.codes.max() < 2**quantizer.bits and matrix.zero_points.max() <= 2**quantizer.bits
        assert np.array_equal(np.bincount(index), np.full(groups, columns // groups))
        scattered = name in ("gptq-order", "gptq-3")
        assert (matrix.group_index is not None) == scattered
        if scattered:
            assert (np.diff(matrix.group_index) < 0).any()


@pytest.mark.parametrize("name", ["gptq-order", "awq"])
def test_quantizing_twice_gives_the_same_files(quantized, archived_environment, tmp_path, monkeypatch, name):
    """The second time by the environment's own interpreter, started anew."""
    monkeypatch.setenv(VARIABLE, str(archived_environment.parent))
    quantizer, checkpoint, folder, held = quantized(name)
    assert quantizer.quantize(checkpoint, tmp_path, TEXTS) == held
    assert hash_files(tmp_path) == hash_files(folder)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="on CUDA")
@pytest.mark.parametrize("name", ["gptq", "gptq-order", "awq"])
def test_on_cuda_the_packages_prove_repeat_themselves_and_report_their_memory(checkpoints, tmp_path, name):
    """The other tests of this file run on CUDA too where there is one: the worker takes it."""
    quantizer, checkpoint = make_quantizer(SETTINGS[name]), checkpoints["aligned"]
    measured = Cost()
    with measured:
        held = quantizer.quantize(checkpoint, tmp_path / "first", TEXTS)
    assert measured.device == "cuda" and measured.record()["device_peak_mib"] > 0
    assert prove(quantizer, checkpoint, tmp_path / "first", held)["quantized_layers"] == 14
    assert quantizer.quantize(checkpoint, tmp_path / "second", TEXTS) == held
    assert hash_files(tmp_path / "first") == hash_files(tmp_path / "second")


@pytest.mark.parametrize(("device", "peak"), [("cuda", 3 << 20), ("cpu", None)])
def test_what_the_worker_had_on_the_gpu_is_in_the_cost(checkpoints, tmp_path, monkeypatch, device, peak):
    """A worker that computes nothing and reports a peak, because a machine without CUDA has no other."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, sys; from pathlib import Path; job = json.loads(Path(sys.argv[1]).read_text());"
        "Path(job['result']).write_text("
        f"json.dumps({{'held': {{'a': 'b'}}, 'device': {device!r}, 'device_peak_bytes': {peak}}}))"
    )
    monkeypatch.setattr(archived, "WORKER", worker)
    monkeypatch.setattr("palimpsest.quantizers.cost._device_peaks", [])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    measured = Cost()
    with measured:
        assert make_quantizer(AWQ).quantize(checkpoints["aligned"], tmp_path / "out", TEXTS) == {"a": "b"}
    assert measured.device == device
    assert measured.record()["device_peak_mib"] == (3.0 if peak else None)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_proof_passes(quantized, name):
    quantizer, checkpoint, folder, held = quantized(name)
    facts = prove(quantizer, checkpoint, folder, held)
    assert facts["skipped_layers"] == ["lm_head"] and facts["quantized_layers"] == 14
    assert facts["bits_per_weight"] == pytest.approx(BITS[name], abs=0.1)
    assert ERRORS[name] / 2 < facts["relative_error"] < ERRORS[name]
    assert facts["backend_version"] == {"auto-gptq": "0.7.1", "autoawq": "0.2.9"}[facts["backend"]]
    assert facts["codes_per_group"]["mean"] > 0.7 * 2 ** min(quantizer.bits, 4)


@pytest.mark.parametrize("name", ["gptq", "gptq-order", "awq"])
def test_the_loaded_model_is_near_the_checkpoint_and_runs_in_the_types_of_the_package(quantized, name):
    quantizer, checkpoint, folder, _ = quantized(name)
    model, exact, original = (
        quantizer.load(folder, "cpu"),
        quantizer.load(folder, "cpu", "float32"),
        load_checkpoint(checkpoint),
    )
    assert model.dtype == torch.float16 and exact.dtype == torch.float32 and not model.training
    for matrix in quantizer.read(folder):
        assert np.array_equal(matrix.dequantized, dense(model.get_submodule(matrix.name).weight))
        assert np.array_equal(matrix.dequantized, dense(exact.get_submodule(matrix.name).weight))
    with torch.inference_mode():
        logits, expected = exact(TOKENS).logits, original.float()(TOKENS).logits
    assert 0.005 < (logits - expected).norm() / expected.norm() < 0.3


@pytest.mark.parametrize("name", ["gptq", "gptq-order"])
def test_gptq_beats_rounding_on_its_calibration_text(quantized, tmp_path, name):
    quantizer, checkpoint, folder, _ = quantized(name)
    rtn = make_quantizer({"backend": "rtn", "bits": 4, "group_size": 32, "symmetric": quantizer.symmetric})
    rtn.quantize(checkpoint, tmp_path, [])
    assert output_error(quantizer, checkpoint, folder) < output_error(rtn, checkpoint, tmp_path, quantizer)


def output_error(quantizer, checkpoint: Path, folder: Path, encoder=None) -> float:
    """Of the first q_proj, on the inputs that it has in the unquantized model."""
    model, seen, name = load_checkpoint(checkpoint), [], "model.layers.0.self_attn.q_proj"
    model.get_submodule(name).register_forward_hook(lambda _, inputs, __: seen.append(dense(inputs[0][0])))
    for batch in (encoder or quantizer).encode(checkpoint, TEXTS):
        model(torch.tensor([batch]))
    matrix = next(each for each in quantizer.read(folder) if each.name == name)
    return float(np.linalg.norm(np.concatenate(seen) @ (matrix.effective - dense(model.get_submodule(name).weight)).T))


def test_awq_undone_stands_for_the_checkpoint(quantized):
    quantizer, checkpoint, folder, _ = quantized("awq")
    factors = {matrix.name: matrix for matrix in quantizer.read(folder)}
    with open_checkpoint(checkpoint) as originals, open_checkpoint(folder) as stored:
        for name, matrix in factors.items():
            weight = originals.load(f"{name}.weight")
            error = np.linalg.norm(matrix.effective - weight) / np.linalg.norm(weight)
            assert 0.06 < error < 0.13
            assert np.abs(matrix.column_factors - 1).max() > 0.01
            assert np.linalg.norm(matrix.dequantized - weight) / np.linalg.norm(weight) > error
            assert (matrix.row_factors is not None) == name.endswith(("v_proj", "up_proj"))
        for layer in (name.removesuffix(".mlp.up_proj") for name in factors if name.endswith("up_proj")):
            for norm, module in (("input_layernorm", "self_attn.q_proj"), ("post_attention_layernorm", "mlp.up_proj")):
                name = f"{layer}.{norm}.weight"
                undone = stored.load(name) * factors[f"{layer}.{module}"].column_factors
                assert np.allclose(undone, originals.load(name), rtol=2.0**-10, atol=0)
            rows, columns = (
                factors[f"{layer}.mlp.up_proj"].row_factors,
                factors[f"{layer}.mlp.down_proj"].column_factors,
            )
            assert np.allclose(1 / rows, columns)


def test_calibration_text_decides(quantized, tmp_path):
    for name in ("gptq", "awq"):
        quantizer, checkpoint, _, held = quantized(name)
        assert quantizer.quantize(checkpoint, tmp_path / name, TEXTS[::-1][:4]) != held


def test_survival_of_an_unchanged_order_by_activation_is_defined(quantized, checkpoints):
    quantizer, checkpoint, folder, _ = quantized("gptq-order")
    record = measure_survival(checkpoint, checkpoint, folder, folder, quantizer)["all"]
    assert record["rho"] is None and record["same_code_share"] == 1.0 and record["scale_drift"] == 0.0
    assert record["scales"] == record["codes"]  # one per weight: a group's columns differ from model to model


# --- levels and dead zones

SWEEP_GPTQ = """
import sys, numpy as np, torch
from auto_gptq.quantization.quantizer import Quantizer
sweep = torch.from_numpy(np.load(sys.argv[1]))
rows = torch.stack([sweep, torch.ones(len(sweep)), -torch.ones(len(sweep))], 1)
quantizer = Quantizer()
quantizer.configure(4, perchannel=True, sym=sys.argv[3] == "true")
quantizer.find_params(rows, weight=True)
np.save(sys.argv[2], quantizer.quantize(rows)[:, 0].numpy())
"""
SWEEP_AWQ = """
import sys, numpy as np, torch
from awq.quantize.quantizer import AwqQuantizer
sweep = torch.from_numpy(np.load(sys.argv[1]))
rows = torch.stack([sweep, torch.ones(len(sweep)), -torch.ones(len(sweep))], 1)
quantizer = object.__new__(AwqQuantizer)
quantizer.group_size, quantizer.zero_point, quantizer.w_bit = 3, True, 4
np.save(sys.argv[2], quantizer.pseudo_quantize_tensor(rows)[0][:, 0].numpy())
"""


@pytest.mark.parametrize(
    ("name", "code", "extra"), [("gptq", SWEEP_GPTQ, "true"), ("gptq", SWEEP_GPTQ, "false"), ("awq", SWEEP_AWQ, "")]
)
def test_dead_zone_and_levels_are_those_of_the_package(tmp_path, name, code, extra):
    step = 1e-4
    sweep = np.arange(-0.2, 0.2, step, dtype=np.float32)
    np.save(tmp_path / "sweep.npy", sweep)
    run_isolated(code, tmp_path / "sweep.npy", tmp_path / "values.npy", extra)
    values, quantizer = np.load(tmp_path / "values.npy"), make_quantizer(SETTINGS[name])
    below, above = quantizer.dead_zone()
    assert (below, above) == pytest.approx((1 / 15, 1 / 15))
    erased = sweep[np.abs(values) < 0.006]
    assert (-erased.min(), erased.max()) == pytest.approx((below, above), abs=1.5 * step)
    assert np.abs(np.unique(values)[:, None] - quantizer.levels()).min(1).max() < 1e-6


# --- what goes wrong


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (GPTQ | {"bits": 5}, "bits is 5: give 2, 3, 4 or 8"),
        (GPTQ | {"group_size": 0}, "group_size is 0.*or null"),
        (GPTQ | {"symmetric": 1}, "symmetric is 1: give true or false"),
        (GPTQ | {"desc_act": None}, "desc_act is None: give true or false"),
        (GPTQ | {"damping": 1.0}, "damping is 1.0: give a number between 0 and 1"),
        (GPTQ | {"damping": "x"}, "damping is 'x'"),
        (GPTQ | {"calibration": "retian"}, "Did you mean 'retain'"),
        (GPTQ | {"zero_point": True}, "unknown setting .*'zero_point'"),
        (AWQ | {"bits": 8}, "bits is 8: autoawq packs 4 bits only"),
        (AWQ | {"group_size": None}, "group_size is None.*no grid with one scale per output channel"),
        (AWQ | {"zero_point": False}, "zero_point is False: give true"),
        (AWQ | {"samples": 0}, "samples is 0"),
    ],
)
def test_bad_settings_name_the_key_and_the_remedy(settings, message):
    with pytest.raises(PalimpsestError, match=message):
        make_quantizer(settings)


@pytest.mark.parametrize(
    ("name", "message"), [("gptq", "does not divide the 36 inputs"), ("awq", "does not divide the 36 inputs")]
)
def test_groups_that_do_not_fit_are_refused(checkpoints, tmp_path, name, message):
    with pytest.raises(PalimpsestError, match=message):
        make_quantizer(SETTINGS[name]).quantize(checkpoints["ragged"], tmp_path, TEXTS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            GPTQ | {"group_size": 4},
            "auto-gptq takes 32 outputs and 32 inputs at a time, which do not divide the 40 and 36",
        ),
        (AWQ | {"group_size": 4}, "autoawq takes 64 outputs and 1 inputs at a time, which do not divide the 40 and 36"),
    ],
)
def test_layers_that_the_packages_would_cut_off_are_refused(checkpoints, tmp_path, settings, message):
    with pytest.raises(PalimpsestError, match=message):
        make_quantizer(settings).quantize(checkpoints["ragged"], tmp_path, TEXTS)


@pytest.mark.parametrize("name", ["gptq", "awq"])
def test_a_failing_worker_gives_its_last_words(checkpoints, tmp_path, name):
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(checkpoints["aligned"], checkpoint)
    weights = load_file(checkpoint / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        PalimpsestError,
        match=r"(?s)failed \(exit status 1\).*model.layers.1.mlp.up_proj.weight .* not finite in float16",
    ):
        make_quantizer(SETTINGS[name]).quantize(checkpoint, tmp_path / "out", TEXTS)


@pytest.mark.parametrize(("rows", "spoiled"), [(slice(8, 9), True), (slice(None), False)])
def test_zero_points_that_auto_gptq_cannot_pack_are_an_error(checkpoints, tmp_path, rows, spoiled):
    """Minus one, packed, sets the bits of the rows after it;
    where every row has it, the layer's arithmetic wraps to 0 again."""
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(checkpoints["aligned"], checkpoint)
    weights = load_file(checkpoint / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][rows].abs_()
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    quantizer = make_quantizer(GPTQ | {"symmetric": False})
    if spoiled:
        with pytest.raises(PalimpsestError, match=r"does not pack what it computed for model.layers.0.mlp.up_proj"):
            quantizer.quantize(checkpoint, tmp_path / "out", TEXTS)
        return
    prove(quantizer, checkpoint, tmp_path / "out", quantizer.quantize(checkpoint, tmp_path / "out", TEXTS))
    matrix = next(each for each in quantizer.read(tmp_path / "out") if each.name.endswith("0.mlp.up_proj"))
    assert (matrix.zero_points == 0).mean() > 0.2


def test_the_package_gets_the_rotary_frequencies_of_the_checkpoint(tmp_path):
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_key_value_heads": 4}
    checkpoint = save_checkpoint(
        tmp_path / "checkpoint", rope_parameters={"rope_type": "default", "rope_theta": 50.0}, **shape
    )
    converted = archived._for_transformers_4(checkpoint, tmp_path / "converted")
    code = (
        "import sys, numpy as np, torch; from transformers import AutoModelForCausalLM as A;"
        "m = A.from_pretrained(sys.argv[1], torch_dtype=torch.float32);"
        "np.save(sys.argv[2], m(torch.arange(3, 35).reshape(2, 16)).logits.detach().numpy())"
    )
    run_isolated(code, converted, tmp_path / "logits.npy")
    with torch.inference_mode():
        ours = load_checkpoint(checkpoint, "float32")(TOKENS).logits.numpy()
    assert np.allclose(np.load(tmp_path / "logits.npy"), ours, atol=1e-5)
    quantizer = make_quantizer(GPTQ | {"samples": 2})
    quantizer.quantize(checkpoint, tmp_path / "out", TEXTS)
    assert quantizer.load(tmp_path / "out", "cpu").config.rope_parameters["rope_theta"] == 50.0


def test_scaled_rotary_embeddings_keep_their_settings(tmp_path):
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope["original_max_position_embeddings"] = 64
    (tmp_path / "config.json").write_text(json.dumps(LlamaConfig(rope_parameters=rope).to_dict()))
    converted = read_json(archived._for_transformers_4(tmp_path, tmp_path / "converted") / "config.json")
    assert converted["rope_theta"] == 5e5 and "rope_parameters" not in converted
    assert converted["rope_scaling"] == {key: value for key, value in rope.items() if key != "rope_theta"}
    write_json(tmp_path / "config.json", {"rope_parameters": {"full_attention": {}, "sliding_attention": {}}})
    with pytest.raises(PalimpsestError, match="other rotary embeddings in other layers"):
        archived._for_transformers_4(tmp_path, tmp_path / "again")


def test_biases_that_the_checkpoint_has_are_kept(tmp_path):
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_key_value_heads": 4}
    checkpoint = save_checkpoint(tmp_path / "checkpoint", attention_bias=True, tie_word_embeddings=True, **shape)
    weights = load_file(checkpoint / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.bias"
    weights[name] = torch.arange(64).to(weights[name].dtype)
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    for settings in (GPTQ, AWQ):
        quantizer, folder = make_quantizer(settings), tmp_path / settings["backend"]
        prove(quantizer, checkpoint, folder, quantizer.quantize(checkpoint, folder, TEXTS))
        model = quantizer.load(folder, "cpu")
        assert torch.equal(model.get_parameter(name), torch.arange(64).half())
        assert model.get_submodule("model.layers.0.mlp.up_proj").bias is None


def test_other_settings_are_refused(quantized):
    with pytest.raises(PalimpsestError, match=r"the settings say .*'desc_act': True"):
        next(make_quantizer(SETTINGS["gptq-order"]).read(quantized("gptq")[2]))
    with pytest.raises(PalimpsestError, match="'group_size': 64"):
        next(make_quantizer(AWQ | {"group_size": 64}).read(quantized("awq")[2]))
    with pytest.raises(PalimpsestError, match="holds no smoothing factors"):
        next(make_quantizer(AWQ).read(quantized("gptq")[2]))
