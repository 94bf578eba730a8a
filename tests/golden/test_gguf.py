"""GGUF against llama.cpp, transformers and gguf:
one model in the checkpoint, in the file and in what each of them computes."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import dense
from cyllama.llama import llama_cpp
from gguf import GGUFReader, dequantize
from gguf_models import (
    BYTE_LEVEL,
    PROMPT,
    Model,
    byte_level,
    gguf,
    save,
)
from safetensors.numpy import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
)

from palimpsest.artefacts import hash_files
from palimpsest.errors import PalimpsestError
from palimpsest.models.checkpoint import load_model, load_tokenizer, save_checkpoint
from palimpsest.models.tensors import open_checkpoint
from palimpsest.quantizers import prove
from palimpsest.quantizers.base import Quantizer, load_checkpoint
from palimpsest.quantizers.gguf.backend import FILE_TYPES, convert
from palimpsest.quantizers.gguf.model import write_unquantized
from palimpsest.survival.measure import measure_survival

FORMATS = ("q8_0", "q4_0", "q4_k_m")


@dataclass(frozen=True)
class Case:
    quantizer: Quantizer
    checkpoint: Path
    folder: Path
    held: dict[str, str]

    @property
    def parts(self) -> tuple[Quantizer, Path, Path, dict[str, str]]:
        return self.quantizer, self.checkpoint, self.folder, self.held


@pytest.fixture(scope="module")
def quantized(llamas: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Case]:
    cases: dict[tuple[str, str], Case] = {}

    def quantize(kind: str, shape: str) -> Case:
        if (kind, shape) not in cases:
            quantizer, folder = gguf(kind), tmp_path_factory.mktemp(f"{kind}-{shape}")
            held = quantizer.quantize(llamas[shape], folder, [])
            cases[kind, shape] = Case(quantizer, llamas[shape], folder, held)
        return cases[kind, shape]

    return quantize


def logits_of_llama_cpp(path: Path, tokens: list[int]) -> np.ndarray:
    """[tokens, vocabulary], on CPU, one token after another, with keys and values cached in float32."""
    settings = llama_cpp.LlamaContextParams()
    settings.n_ctx, settings.n_threads, settings.type_k, settings.type_v, settings.flash_attn_type = 128, 1, 0, 0, 0
    model = Model(str(path), verbose=False)
    context, logits = llama_cpp.LlamaContext(model, settings, verbose=False), []
    for place, token in enumerate(tokens):
        batch = llama_cpp.LlamaBatch(n_tokens=1, embd=0, n_seq_max=1)
        batch.add(token, place, [0], True)
        context.decode(batch)
        logits.append(context.get_logits())
    return np.array(logits, np.float32)


def logits_of(model: torch.nn.Module, tokens: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return dense(model(torch.tensor([tokens])).logits[0])


def prompt(checkpoint: Path) -> list[int]:
    return AutoTokenizer.from_pretrained(checkpoint)(PROMPT)["input_ids"]


@pytest.mark.parametrize("shape", ["plain", "full"])
def test_the_unquantized_file_is_the_checkpoint(llamas, tmp_path, shape):
    """Rows in llama.cpp's order, metadata and rotary factors: all in float32, so that only sums differ."""
    write_unquantized(llamas[shape], tmp_path / "bfloat16.gguf")
    convert(tmp_path / "bfloat16.gguf", tmp_path / "float32.gguf", "f32")
    tokens = prompt(llamas[shape])
    theirs = logits_of_llama_cpp(tmp_path / "float32.gguf", tokens)
    ours = logits_of(load_checkpoint(llamas[shape], "float32"), tokens)
    assert len(tokens) > 20 and ours.std() > 0.5
    assert np.abs(theirs - ours).max() < 1e-4


@pytest.mark.parametrize("shape", ["plain", "full"])
@pytest.mark.parametrize("kind", FORMATS)
def test_matrices_are_those_of_transformers_and_of_gguf(quantized, kind, shape):
    case = quantized(kind, shape)
    theirs = AutoModelForCausalLM.from_pretrained(case.folder, gguf_file="model.gguf", dtype=torch.float32)
    ours = case.quantizer.load(case.folder, "cpu", "float32")
    stored = {tensor.name: tensor for tensor in GGUFReader(case.folder / "model.gguf").tensors}
    matrices = list(case.quantizer.read(case.folder))
    assert [matrix.name for matrix in matrices] == sorted(case.held)
    assert len(matrices) == 7 * ours.config.num_hidden_layers
    for matrix in matrices:
        assert np.array_equal(matrix.dequantized, dense(theirs.get_submodule(matrix.name).weight))
        assert np.array_equal(matrix.dequantized, dense(ours.get_submodule(matrix.name).weight))
        values = matrix.codes.reshape(*matrix.scales.shape, -1) * matrix.scales[:, :, None]
        if matrix.minimums is not None:
            values -= matrix.minimums[:, :, None]
        assert np.array_equal(matrix.dequantized, values.reshape(matrix.codes.shape))
    down = next(matrix for matrix in matrices if matrix.name.endswith("0.mlp.down_proj"))
    tensor = stored["blk.0.ffn_down.weight"]
    assert np.array_equal(down.dequantized, dequantize(tensor.data, tensor.tensor_type))
    assert down.stored_bytes == tensor.n_bytes == tensor.data.size


OUTER = {  # what llama.cpp makes of embeddings and head; where they are tied, the embeddings get the head's type
    "q8_0": ("Q8_0", "Q8_0"),
    "q4_0": ("Q4_0", "Q6_K"),
    "q4_k_m": ("Q4_K", "Q6_K"),
}


@pytest.mark.parametrize("shape", ["plain", "full"])
@pytest.mark.parametrize("kind", FORMATS)
def test_embeddings_and_head_as_llama_cpp_deploys_them(llamas, tmp_path, kind, shape):
    quantizer, checkpoint, tied = gguf(kind, "default"), llamas[shape], shape == "full"
    folders = [tmp_path / "first", tmp_path / "second"]
    held = [quantizer.quantize(checkpoint, folder) for folder in folders]
    assert held[0] == held[1] and hash_files(folders[0]) == hash_files(folders[1])
    stored = {tensor.name: tensor for tensor in GGUFReader(folders[0] / "model.gguf").tensors}
    embeddings, head = OUTER[kind]
    expected = {"model.embed_tokens": ("token_embd.weight", head if tied else embeddings)}
    expected |= {} if tied else {"lm_head": ("output.weight", head)}
    matrices = {matrix.name: matrix for matrix in quantizer.read(folders[0])}
    theirs = AutoModelForCausalLM.from_pretrained(folders[0], gguf_file="model.gguf", dtype=torch.float32)
    ours = quantizer.load(folders[0], "cpu", "float32")
    for name, (place, type_name) in expected.items():
        assert stored[place].tensor_type.name == type_name
        assert np.array_equal(matrices[name].dequantized, dequantize(stored[place].data, stored[place].tensor_type))
        for model in (theirs, ours):
            assert np.array_equal(matrices[name].dequantized, dense(model.get_submodule(name).weight))
    facts = prove(quantizer, checkpoint, folders[0], held[0])
    assert facts["quantized_layers"] == len(matrices) == 7 * len(ours.model.layers) + len(expected)
    assert facts["skipped_layers"] == [] and facts["unquantized"]["tensors"] > 0
    convert(folders[0] / "model.gguf", tmp_path / "float32.gguf", "f32")
    tokens = prompt(checkpoint)
    assert np.abs(logits_of_llama_cpp(tmp_path / "float32.gguf", tokens) - logits_of(ours, tokens)).max() < 1e-3


def test_an_altered_head_is_noticed_where_it_is_quantized(llamas, tmp_path):
    quantizer = gguf("q4_k_m", "default")
    held = quantizer.quantize(llamas["plain"], tmp_path)
    tensor = next(t for t in GGUFReader(tmp_path / "model.gguf", "r+").tensors if t.name == "output.weight")
    tensor.data[0, 5] ^= 1
    tensor.data.base.flush()
    with pytest.raises(PalimpsestError, match=r"lm_head read back from .* is not what the backend held"):
        prove(quantizer, llamas["plain"], tmp_path, held)
    with pytest.raises(PalimpsestError, match="is Q6_K, which is not part of q8_0"):
        list(gguf("q8_0").read(tmp_path))


def test_survival_counts_embeddings_and_head_where_they_are_quantized(llamas, tmp_path):
    quantizer = gguf("q4_k_m", "default")
    quantizer.quantize(llamas["plain"], tmp_path)
    record = measure_survival(llamas["plain"], llamas["plain"], tmp_path, tmp_path, quantizer)
    names = {matrix["name"] for matrix in record["matrices"]}
    assert {"model.embed_tokens", "lm_head"} < names
    with open_checkpoint(llamas["plain"]) as files:
        vectors = sum(int(np.prod(files.shape(name))) for name in files.names() if len(files.shape(name)) == 1)
    assert record["outside"]["weights"] == vectors


def test_training_can_start_from_a_file(quantized, tmp_path):
    """The weights that llama.cpp computes with and the checkpoint's special tokens,
    and it can be saved as any other model."""
    case = quantized("q8_0", "plain")
    file = case.folder / "model.gguf"
    model, tokenizer = load_model(file, torch.float32), load_tokenizer(file)
    theirs = AutoTokenizer.from_pretrained(case.checkpoint)
    assert tokenizer(PROMPT)["input_ids"] == theirs(PROMPT)["input_ids"]
    assert (tokenizer.bos_token, tokenizer.eos_token) == (theirs.bos_token, theirs.eos_token) == ("<s>", "</s>")
    for matrix in case.quantizer.read(case.folder):
        assert np.array_equal(matrix.dequantized, dense(model.get_submodule(matrix.name).weight))
    logits = logits_of(model, prompt(case.checkpoint))
    save_checkpoint(model, tokenizer, tmp_path)
    assert np.abs(logits_of(load_model(tmp_path, torch.float32), prompt(case.checkpoint)) - logits).max() < 0.2


@pytest.mark.parametrize("shape", ["plain", "full"])
@pytest.mark.parametrize("kind", FORMATS)
def test_llama_cpp_computes_with_the_matrices_that_are_loaded(quantized, tmp_path, kind, shape):
    case = quantized(kind, shape)
    tokens = prompt(case.checkpoint)
    ours = logits_of(case.quantizer.load(case.folder, "cpu", "float32"), tokens)
    convert(case.folder / "model.gguf", tmp_path / "float32.gguf", "f32")
    assert np.abs(logits_of_llama_cpp(tmp_path / "float32.gguf", tokens) - ours).max() < 1e-4
    # from the quantized file itself, activations are rounded to 8 bits, and to bfloat16 before the output head
    rounded = logits_of_llama_cpp(case.folder / "model.gguf", tokens) - ours
    assert 1e-4 < np.abs(rounded).mean() < 0.05 * np.abs(ours).mean()
    if kind != "q8_0":
        unquantized = logits_of(load_checkpoint(case.checkpoint, "float32"), tokens)
        assert np.abs(rounded).mean() < 0.25 * np.abs(unquantized - ours).mean()


@pytest.mark.parametrize("kind", FORMATS)
def test_quantizing_twice_gives_the_same_files_and_proof(quantized, tmp_path, monkeypatch, kind):
    case = quantized(kind, "plain")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    held = case.quantizer.quantize(case.checkpoint, tmp_path, [])
    assert held == case.held and hash_files(tmp_path) == hash_files(case.folder)
    assert prove(case.quantizer, case.checkpoint, tmp_path, held) == prove(*case.parts)
    expected = {"config.json", "generation_config.json", "model.gguf", "tokenizer.json", "tokenizer_config.json"}
    assert set(hash_files(tmp_path)) == expected


@pytest.mark.parametrize(
    ("kind", "bits_per_weight", "layers", "codes"),
    [("q8_0", 8.5, {"8": 14}, 255), ("q4_0", 4.5, {"4": 14}, 16), ("q4_k_m", 4.7865, {"4": 12, "6": 2}, 64)],
)
def test_proof(quantized, kind, bits_per_weight, layers, codes):
    facts = prove(*quantized(kind, "plain").parts)
    assert facts["backend"] == "cyllama" and facts["skipped_layers"] == ["lm_head"]
    assert facts["bits_per_weight"] == pytest.approx(bits_per_weight, abs=1e-4)
    assert facts["layers_by_bits"] == layers and facts["distinct_codes"]["most"] == codes
    assert 0 < facts["relative_error"] < (0.1 if codes < 255 else 0.006)


@pytest.mark.parametrize("shape", ["plain", "full"])
def test_everything_else_is_as_in_the_checkpoint(quantized, shape):
    case = quantized("q4_k_m", shape)
    stored = load_file(case.checkpoint / "model.safetensors")
    rest = dict(case.quantizer.unquantized(case.folder, case.held.keys()))
    assert {f"{name}.weight" for name in case.held} | rest.keys() == stored.keys()
    for name, values in rest.items():
        assert values.dtype == np.float32 and np.array_equal(values, stored[name].astype(np.float32))
    model = case.quantizer.load(case.folder, "cpu")
    assert model.dtype == torch.bfloat16 and not model.training and model.generation_config.eos_token_id == 1


def test_a_float32_checkpoint_is_rounded_to_bfloat16_first(quantized, tmp_path):
    case = quantized("q4_0", "plain")
    checkpoint = save(tmp_path / "float32", byte_level(BYTE_LEVEL), torch.float32)
    held = case.quantizer.quantize(checkpoint, tmp_path / "quantized", [])
    assert held == case.held
    ours, theirs = (
        dict(case.quantizer.unquantized(each, held.keys())) for each in (tmp_path / "quantized", case.folder)
    )
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_zero_lies_anywhere_between_two_levels_of_q4_k(quantized):
    case = quantized("q4_k_m", "plain")
    matrix = next(matrix for matrix in case.quantizer.read(case.folder) if matrix.name.endswith("0.mlp.up_proj"))
    assert matrix.bits == 4 and matrix.scales.min() > 0
    zero = matrix.minimums / matrix.scales
    shares = np.histogram(zero % 1, bins=4, range=(0, 1))[0] / zero.size
    assert zero.size == 4096 and np.abs(shares - 0.25).max() < 0.05


@pytest.mark.parametrize(("kind", "least", "most"), [("q8_0", 0.95, 1.05), ("q4_0", 0, 0.1), ("q4_k_m", 0.8, 1.2)])
def test_small_moves_next_to_zero_survive_unless_zero_is_a_level(quantized, tmp_path, kind, least, most):
    """What training in bfloat16 does: only the weights next to zero move, and by less than a step of 4 bits."""
    case = quantized(kind, "plain")
    checkpoint = shutil.copytree(case.checkpoint, tmp_path / "moved")
    tensors, generator = load_file(checkpoint / "model.safetensors"), np.random.default_rng(0)
    for name in (name for name in tensors if name.endswith("proj.weight")):
        weights = tensors[name].astype(np.float32)
        weights += np.where(np.abs(weights) < 0.004, generator.choice([-0.001, 0.001], weights.shape), 0)
        tensors[name] = weights.astype(tensors[name].dtype)
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    case.quantizer.quantize(checkpoint, tmp_path / "quantized", [])
    record = measure_survival(case.checkpoint, checkpoint, case.folder, tmp_path / "quantized", case.quantizer)
    assert least <= record["all"]["rho"] <= most


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        ("q4_0", "ragged", "down_proj in .* has 36 inputs, q4_0 needs a multiple of 32"),
        ("q4_k_m", "aligned", "gate_proj in .* has 128 inputs, q4_k_m needs a multiple of 256"),
    ],
)
def test_a_width_that_llama_cpp_would_store_otherwise_is_refused(checkpoints, tmp_path, kind, shape, message):
    with pytest.raises(PalimpsestError, match=message):
        gguf(kind).quantize(checkpoints[shape], tmp_path, [])
    assert not any(tmp_path.iterdir())


def test_a_matrix_in_another_format_than_asked_for_is_refused(quantized, tmp_path, monkeypatch):
    case = quantized("q4_0", "plain")
    with pytest.raises(PalimpsestError, match="is Q4_0, which is not part of q8_0"):
        next(gguf("q8_0").read(case.folder))
    monkeypatch.setitem(FILE_TYPES, "q4_0", "MOSTLY_Q5_K_M")
    with pytest.raises(PalimpsestError, match=r"llama.cpp made .* Q5_K where q4_0 should have Q4_0"):
        case.quantizer.quantize(case.checkpoint, tmp_path, [])


def test_proof_refuses_an_altered_file(quantized, tmp_path):
    case = quantized("q4_0", "plain")
    folder = shutil.copytree(case.folder, tmp_path / "altered")
    tensor = next(t for t in GGUFReader(folder / "model.gguf", "r+").tensors if t.name == "blk.1.attn_k.weight")
    tensor.data[0, 5] ^= 1
    tensor.data.base.flush()
    with pytest.raises(
        PalimpsestError, match=r"layers.1.self_attn.k_proj read back from .* is not what the backend held"
    ):
        prove(case.quantizer, case.checkpoint, folder, case.held)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model_type": "opt"},
            "of type 'opt', which cyllama does not quantize here: llama.cpp has no such architecture",
        ),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "rope_type 'linear'"),
    ],
)
def test_a_model_that_the_file_cannot_hold_is_refused(llamas, tmp_path, change, message):
    checkpoint = shutil.copytree(llamas["plain"], tmp_path / "checkpoint")
    config = json.loads((checkpoint / "config.json").read_text()) | change
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(PalimpsestError, match=message):
        gguf("q4_0").quantize(checkpoint, tmp_path / "quantized", [])


def test_tensors_that_llama_does_not_have_are_refused_and_stored_frequencies_left_out(llamas, tmp_path):
    checkpoint = shutil.copytree(llamas["plain"], tmp_path / "checkpoint")
    path = checkpoint / "model.safetensors"
    frequencies = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(32, np.float32)}
    save_file(load_file(path) | frequencies, path)
    gguf("q8_0").quantize(checkpoint, tmp_path / "quantized", [])
    save_file(load_file(path) | {"model.layers.0.self_attn.q_norm.weight": np.ones(32, np.float32)}, path)
    with pytest.raises(PalimpsestError, match=r"holds model.layers.0.self_attn.q_norm.weight, which llama.cpp's Llama"):
        gguf("q8_0").quantize(checkpoint, tmp_path / "again", [])


def test_llama_cpp_gives_its_reason_when_it_fails(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"no GGUF file")
    with pytest.raises(PalimpsestError, match=r"cannot write .* as q4_0: .*failed"):
        convert(tmp_path / "broken.gguf", tmp_path / "out.gguf", "q4_0")


def test_bad_settings_and_missing_files_are_told(tmp_path):
    with pytest.raises(PalimpsestError, match="Did you mean 'q4_k_m'"):
        gguf("q4_km")
    with pytest.raises(PalimpsestError, match=r"model.gguf does not exist"):
        next(gguf("q4_0").read(tmp_path))
    with pytest.raises(PalimpsestError, match=r"holds no model.safetensors"):
        gguf("q4_0").quantize(tmp_path, tmp_path / "quantized", [])


def test_reading_needs_no_torch(quantized):
    case = quantized("q4_k_m", "plain")
    code = (
        "import sys; from pathlib import Path; from palimpsest.quantizers import make_quantizer\n"
        "quantizer = make_quantizer({'backend': 'gguf', 'format': 'q4_k_m', 'outer': 'bfloat16'}); "
        "folder = Path(sys.argv[1])\n"
        "assert len(list(quantizer.read(folder))) == 14\n"
        "assert not {'torch', 'transformers', 'cyllama'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(case.folder)], check=True)
