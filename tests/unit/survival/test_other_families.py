"""`palimpsest survive` on models of other architectures: layers are found by their role, or one line refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformers.pytorch_utils import Conv1D

from palimpsest.cli import main
from palimpsest.errors import PalimpsestError
from palimpsest.models.tensors import to_bfloat16
from palimpsest.quantizers import make_quantizer
from palimpsest.survival.checkpoints import FORMATS, survive

WIDE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
LLAMA = WIDE | {"num_key_value_heads": 2, "intermediate_size": 128, "head_dim": 32, "pad_token_id": 0}
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": 50}
SHAPES = {
    "Llama": LLAMA,
    "Mistral": LLAMA,
    "Qwen2": LLAMA,
    "Qwen3": LLAMA,
    "Gemma2": LLAMA,
    "Gemma3": LLAMA,
    "Phi3": LLAMA,
    "GPTNeoX": WIDE | {"intermediate_size": 128},
    "GPT2": GPT2,
    "GPTJ": GPT2 | {"rotary_dim": 16},
    "OPT": WIDE | {"ffn_dim": 128, "word_embed_proj_dim": 32, "max_position_embeddings": 32},
    "Bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 2, "vocab_size": 50},
    "Falcon": WIDE,
    "Mixtral": LLAMA | {"num_local_experts": 2},
    "StableLm": LLAMA,
    "Cohere": LLAMA,
}
CLASSES = {"Gemma3": "Gemma3ForCausalLM", "GPT2": "GPT2LMHeadModel"}
CONFIGS = {"Gemma3": "Gemma3TextConfig"}
RTN = {name: make_quantizer(FORMATS[name]) for name in ("rtn-int8", "rtn-int4")}


def build(name: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = getattr(transformers, CONFIGS.get(name, f"{name}Config"))(**SHAPES[name])
    return getattr(transformers, CLASSES.get(name, f"{name}ForCausalLM"))(config)


def linear_weights(model: torch.nn.Module) -> int:
    """Those of linear layers and experts, without head, embeddings and routers."""
    head = model.get_output_embeddings()
    layers = [each for each in model.modules() if isinstance(each, torch.nn.Linear | Conv1D) and each is not head]
    experts = [each for name, each in model.named_parameters() if each.dim() == 3 and ".experts." in name]
    return sum(each.weight.numel() for each in layers) + sum(each.numel() for each in experts)


def save_pair(model: transformers.PreTrainedModel, folder: Path, factor: float = 2.0) -> tuple[Path, Path]:
    """The model in bfloat16, and the same with every weight of two dimensions or more times `factor`."""
    model.bfloat16().save_pretrained(folder / "target")
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight *= factor
    model.save_pretrained(folder / "unlearned")
    return folder / "target", folder / "unlearned"


@pytest.mark.parametrize("name", SHAPES)
def test_the_linear_layers_of_a_family_and_no_others_are_counted(name, tmp_path):
    """Twice the weight is twice the rounded weight, so nearly the whole update arrives: by output channel alone."""
    model = build(name)
    expected = linear_weights(model)
    record = survive(*save_pair(model, tmp_path), RTN)
    assert record["update"]["weights"] == expected
    assert record["formats"]["rtn-int8"]["rho"] == pytest.approx(1, abs=2e-3)
    assert record["formats"]["rtn-int8"]["same_code_share"] == record["formats"]["rtn-int4"]["same_code_share"] == 1
    assert not {"lm_head", "embed_out", "embed_in", "wte", "wpe", "word_embeddings", "gate"} & set(record["kinds"])


def test_the_turned_matrices_of_gpt2_give_what_linear_layers_give(tmp_path):
    """The same numbers in GPT-2's layers as [in, out] and in Llama's as [out, in]: every figure is the same."""
    rng = np.random.default_rng(0)
    kinds = {"mlp.up_proj": (256, 64), "mlp.down_proj": (64, 256)}
    linear = {
        f"model.layers.{layer}.{kind}.weight": to_bfloat16(rng.normal(0, 0.02, shape).astype(np.float32))
        for layer in range(2)
        for kind, shape in kinds.items()
    }
    moved = {name: to_bfloat16(weights + np.float32(1e-3)) for name, weights in linear.items()}
    others = {"model.embed_tokens.weight": np.ones((50, 64), np.float32)}
    places = {"up_proj": "c_fc", "down_proj": "c_proj"}
    folders = []
    for number, tensors in enumerate((linear, moved)):
        folder, turned = tmp_path / f"llama{number}", tmp_path / f"gpt{number}"
        folder.mkdir()
        turned.mkdir()
        save_file(tensors | others, folder / "model.safetensors")
        (turned / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
        names = {name: f"h.{name.split('.')[2]}.mlp.{places[name.split('.')[4]]}.weight" for name in tensors}
        turned_tensors = {names[name]: np.ascontiguousarray(weights.T) for name, weights in tensors.items()}
        save_file(turned_tensors | {"wte.weight": np.ones((50, 64), np.float32)}, turned / "model.safetensors")
        folders.append((folder, turned))
    quantizers = {name: make_quantizer(FORMATS[name]) for name in ("rtn-int4", "bnb-nf4", "gguf-q4_0", "fp8")}
    of_llama, of_gpt = (survive(*pair, quantizers) for pair in zip(*folders, strict=True))
    for name, found in of_gpt["formats"].items():
        for key in ("rho", "same_code_share", "scale_drift", "dead_zone_share"):
            assert found[key] == pytest.approx(of_llama["formats"][name][key], rel=1e-9), (name, key)
    assert of_gpt["profile"] == of_llama["profile"] and of_gpt["update"] == pytest.approx(of_llama["update"])


def test_a_prefix_and_a_tied_head_more_or_less_are_the_same_model(tmp_path):
    """GPT-2 of the hub has no `transformer.`, and transformers writes it; some programs write out a tied head."""
    target, unlearned = save_pair(build("GPT2"), tmp_path)
    expected = survive(target, unlearned, RTN)
    tensors = load_file(target / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    bare["lm_head.weight"] = bare["wte.weight"].copy()
    bare["h.0.attn.bias"] = np.tril(np.ones((1, 1, 32, 32), np.uint8))
    bare["h.0.attn.masked_bias"] = np.array(-1e4, np.float32)
    save_file(bare, target / "model.safetensors")
    record = survive(target, unlearned, RTN)
    assert {**record, "kinds": 0} == {**expected, "kinds": 0} and list(record["kinds"]) == list(expected["kinds"])
    turned_around = survive(unlearned, target, RTN)
    assert turned_around["update"]["weights"] == expected["update"]["weights"]
    bare["lm_head.weight"] = bare["lm_head.weight"] + 1
    save_file(bare, target / "model.safetensors")
    with pytest.raises(PalimpsestError, match=r"different tensors \(such as 'lm_head.weight'\)"):
        survive(target, unlearned, RTN)


def fails(capsys: pytest.CaptureFixture[str], *pair: Path) -> str:
    capsys.readouterr()  # the progress of saving
    with pytest.raises(SystemExit, match=r"^1$"):
        main(["survive", *map(str, pair)])
    message = capsys.readouterr().err
    assert message.startswith("palimpsest: ") and message.count("\n") == 1
    return message


def test_what_has_no_known_layers_is_refused_in_one_line(tmp_path, capsys):
    sizes = {"d_model": 64, "d_ff": 128, "num_layers": 1, "num_heads": 2, "d_kv": 32, "vocab_size": 50}
    pair = save_pair(transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes)), tmp_path / "t5")
    assert "builds no causal language model" in fails(capsys, *pair)

    pair = save_pair(build("GPTNeoX"), tmp_path / "neox")
    for folder in pair:
        config = json.loads((folder / "config.json").read_text())
        config |= {
            "model_type": "mine",
            "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"},
        }
        (folder / "config.json").write_text(json.dumps(config))
    assert "code of its own" in fails(capsys, *pair)
    for folder in pair:
        (folder / "config.json").write_text(json.dumps({"model_type": "nobody-knows"}))
    assert "nobody-knows" in fails(capsys, *pair)
    for folder in pair:
        (folder / "config.json").unlink()
    assert "no config.json" in fails(capsys, *pair) and "Copy the config.json" in fails(capsys, *pair)
    for folder in pair:
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert "its config.json says Llama or its like has no such layer" in fails(capsys, *pair)

    sizes = LLAMA | {"num_local_experts": 2, "num_experts_per_tok": 1}
    pair = save_pair(transformers.GptOssForCausalLM(transformers.GptOssConfig(**sizes)), tmp_path / "oss")
    assert "experts" in fails(capsys, *pair)


def test_a_broken_config_is_one_line(tmp_path, capsys):
    pair = save_pair(build("GPTNeoX"), tmp_path)
    good = (pair[0] / "config.json").read_bytes()
    for bad in (b"{", b"[]", b'{"model_type": "\xff"}', b"[" * 100_000, b'{"model_type": ' + b"9" * 10_000 + b"}"):
        (pair[0] / "config.json").write_bytes(bad)
        assert str(pair[0] / "config.json") in fails(capsys, *pair)
    (pair[0] / "config.json").write_bytes(good)
    shutil.copy(pair[0] / "model.safetensors", pair[0] / "stray.safetensors")
    assert main(["survive", *map(str, pair), "--quantizer", "rtn-int4"]) == 0
