"""A model that was unlearned elsewhere is taken as it is, and one that is not the target's is refused in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from families import make_model, make_tokenizer, save_family
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from palimpsest.errors import PalimpsestError
from palimpsest.models.brought import Brought, bring
from palimpsest.models.likeness import Target
from palimpsest.models.lora import CONFIG, WEIGHTS
from palimpsest.quantizers.gguf.backend import convert
from palimpsest.quantizers.gguf.model import write_unquantized

KEY = "methods.mine.checkpoint"
WIDTH = 32


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family("llama", tmp_path_factory.mktemp("brought") / "target", WIDTH)


@pytest.fixture
def unlearned(target: Path, tmp_path: Path) -> Path:
    """The target with other weights, as another program saved it."""
    network = AutoModelForCausalLM.from_pretrained(target, dtype=torch.bfloat16)
    for weight in network.parameters():
        weight.data += 0.01
    network.save_pretrained(tmp_path / "mine")
    make_tokenizer().save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


def take(source: Path | str, target: Path, said: str = "train") -> Brought:
    return bring(str(source), KEY, Target(said, target))


def weights(found: Brought) -> dict[str, torch.Tensor]:
    return {name: weight.detach() for name, weight in found.network.named_parameters()}


def refusal(source: Path | str, target: Path, said: str = "train") -> str:
    with pytest.raises(PalimpsestError) as caught:
        take(source, target, said)
    message = str(caught.value)
    assert "\n" not in message and KEY in message
    return message


def test_a_folder_is_taken_bit_by_bit(unlearned: Path, target: Path) -> None:
    found = take(unlearned, target)
    there = load_file(unlearned / "model.safetensors")
    assert all(torch.equal(weight, there[name]) for name, weight in weights(found).items())
    assert found.record == {
        "source": str(unlearned),
        "as": "checkpoint",
        "stored": ["BF16"],
        "tokenizer": "the target's, equal to its own",
    }


def test_it_is_asked_through_the_targets_tokenizer_and_what_its_own_does_otherwise_is_noted(
    unlearned: Path, target: Path
) -> None:
    settings = json.loads((unlearned / "tokenizer.json").read_text())
    (unlearned / "tokenizer.json").write_text(json.dumps(settings | {"post_processor": None}))
    found = take(unlearned, target)
    assert found.tokenizer("the line")["input_ids"][0] == found.tokenizer.bos_token_id
    assert found.record["tokenizer"] == "the target's; the brought one differs in what starts a text"
    for file in unlearned.glob("tokenizer*"):
        file.unlink()
    assert take(unlearned, target).record["tokenizer"] == "the target's: none was brought"


def test_an_unquantized_gguf_file_holds_the_same_weights(unlearned: Path, target: Path, tmp_path: Path) -> None:
    write_unquantized(unlearned, tmp_path / "mine.gguf")
    found, there = weights(take(tmp_path / "mine.gguf", target)), weights(take(unlearned, target))
    assert found.keys() == there.keys()
    assert all(torch.equal(found[name], there[name]) for name in there)


@pytest.mark.parametrize("kind", ["LoRA", "rsLoRA", "DoRA"])
def test_an_adapter_is_merged_in_float32_by_the_arithmetic_of_its_kind(kind: str, target: Path, tmp_path: Path) -> None:
    save_adapter(target, tmp_path / "adapter", use_rslora=kind == "rsLoRA", use_dora=kind == "DoRA")
    found = take(tmp_path / "adapter", target)
    assert found.record | {"source": ""} == {
        "source": "",
        "as": "adapter",
        "kind": kind,
        "rank": 4,
        "scale": 6,
        "base": "target",
        "tokenizer": "the target's: none was brought",
    }
    parts, base = load_file(tmp_path / "adapter" / WEIGHTS), load_file(target / "model.safetensors")
    scale = 6 / (4**0.5 if kind == "rsLoRA" else 4)
    for name, weight in weights(found).items():
        place = f"base_model.model.{name.removesuffix('.weight')}"
        wanted = base[name].float()
        if f"{place}.lora_A.weight" in parts:
            wanted = wanted + scale * parts[f"{place}.lora_B.weight"] @ parts[f"{place}.lora_A.weight"]
            assert "q_proj" in name or "down_proj" in name
        if kind == "DoRA" and f"{place}.lora_magnitude_vector" in parts:
            wanted *= (parts[f"{place}.lora_magnitude_vector"] / wanted.norm(dim=1))[:, None]
        torch.testing.assert_close(weight, wanted, rtol=1e-5, atol=1e-6)
    assert weight.dtype == torch.float32, "rounded once, when it is saved"


def test_an_adapter_is_merged_into_the_base_that_it_names(target: Path, unlearned: Path, tmp_path: Path) -> None:
    save_adapter(unlearned, tmp_path / "adapter")
    found = take(tmp_path / "adapter", target)
    assert found.record["base"] == found.base == str(unlearned)
    into_target = take(save_adapter(unlearned, tmp_path / "same", base=str(target)), target)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(weights(found)[name], weights(into_target)[name]) and into_target.base is None
    of_hub = take(save_adapter(unlearned, tmp_path / "hub", base="some/target"), target, said="some/target")
    assert torch.equal(weights(of_hub)[name], weights(into_target)[name])


def test_a_model_and_an_adapter_of_a_hub(
    target: Path, unlearned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache as huggingface_hub lays it out, and no network."""
    save_adapter(target, tmp_path / "adapter", base=str(target))
    commit = "0123456789abcdef" * 2 + "01234567"
    for name, folder in (("model", unlearned), ("adapter", tmp_path / "adapter")):
        place = tmp_path / f"hub/models--some--{name}"
        shutil.copytree(folder, place / "snapshots" / commit)
        (place / "refs").mkdir()
        (place / "refs/main").write_text(commit)
    for module in ("huggingface_hub.constants", "transformers.utils.hub.constants"):
        monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", True)
    found = take("some/model", target)
    assert found.record["revision"] == commit and found.record["source"] == "some/model"
    here = weights(take(unlearned, target))
    assert all(torch.equal(weight, here[name]) for name, weight in weights(found).items())
    found = take("some/adapter", target)
    assert (found.record["as"], found.record["revision"]) == ("adapter", commit)
    here = weights(take(tmp_path / "adapter", target))
    assert all(torch.equal(weight, here[name]) for name, weight in weights(found).items())
    assert "cannot load the model 'some/none'" in refusal("some/none", target)


def save_adapter(model: Path, folder: Path, base: str | None = None, **settings: Any) -> Path:
    """As PEFT saves one, with weights that are not those it begins with."""
    torch.manual_seed(1)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], **settings)
    wrapped = get_peft_model(network, config)
    for module in wrapped.modules():
        if isinstance(module, LoraLayer):
            torch.nn.init.normal_(module.lora_B["default"].weight, std=0.1)
            for vector in module.lora_magnitude_vector.values():
                vector.weight.data *= 1.5
    wrapped.save_pretrained(folder)
    if base is not None:
        edit(folder, base_model_name_or_path=base)
    return folder


def edit(folder: Path, **settings: Any) -> None:
    file = folder / CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "IA3"}, "an adapter of the type 'IA3', not LORA: merge it with PEFT's merge_and_unload"),
        ({"init_lora_weights": "pissa"}, "an adapter that began as 'pissa', which changes the base's weights: merge"),
        (
            {"alora_invocation_tokens": [1]},
            "with the setting 'alora_invocation_tokens', which is not known here: merge",
        ),
        ({"base_model_name_or_path": "/not/here"}, "for '/not/here', which is neither the target nor here: name the"),
        ({"target_modules": ["c_attn"]}, "it is for another base. Name the right one as base_model_name_or_path"),
        ({"r": 8}, "it is for another base. Name the right one as base_model_name_or_path"),
    ],
)
def test_an_adapter_that_cannot_be_merged(settings: dict, message: str, target: Path, tmp_path: Path) -> None:
    edit(save_adapter(target, tmp_path / "adapter"), **settings)
    assert message in refusal(tmp_path / "adapter", target)


def test_an_adapter_that_is_not_whole_or_is_two_models(target: Path, tmp_path: Path) -> None:
    folder = save_adapter(target, tmp_path / "adapter")
    (folder / "model.safetensors").touch()
    assert "an adapter that holds a whole model, too (model.safetensors): move away" in refusal(folder, target)
    (folder / "model.safetensors").unlink()
    parts = load_file(folder / WEIGHTS)
    first = min(parts)
    save_file({name: tensor for name, tensor in parts.items() if name != first}, folder / WEIGHTS)
    assert "is in one of the two alone): it is for another base" in refusal(folder, target)
    (folder / WEIGHTS).unlink()
    assert f"an adapter without {WEIGHTS}: save it in that format" in refusal(folder, target)


def test_an_adapter_for_a_base_of_another_architecture(target: Path, tmp_path: Path) -> None:
    other = save_family("llama", tmp_path / "other", 64)
    said = refusal(save_adapter(other, tmp_path / "adapter"), target)
    assert "and the target is one where it is " in said and "another architecture" in said


@pytest.mark.parametrize(
    ("family", "width", "message"),
    [
        ("qwen2", WIDTH, "a model of type 'qwen2', and the target is one of type 'llama': another architecture"),
        ("llama", 64, "a model whose "),
    ],
)
def test_another_architecture(family: str, width: int, message: str, target: Path, tmp_path: Path) -> None:
    said = refusal(save_family(family, tmp_path / "other", width), target)
    assert message in said and "another architecture. Bring a model that was unlearned from this target." in said


def test_another_vocabulary(unlearned: Path, target: Path, tmp_path: Path) -> None:
    network = make_model("llama", make_tokenizer(), WIDTH)
    network.resize_token_embeddings(network.config.vocab_size + 1)
    network.save_pretrained(tmp_path / "larger")
    assert "a model with embeddings of 326 rows, and the target has 325: another vocabulary" in refusal(
        tmp_path / "larger", target
    )
    settings = json.loads((unlearned / "tokenizer.json").read_text())
    words = settings["model"]["vocab"]
    words["e"], words["f"] = words["f"], words["e"]
    (unlearned / "tokenizer.json").write_text(json.dumps(settings))
    assert "for it, and the target has " in (said := refusal(unlearned, target)) and "another vocabulary" in said


def test_what_is_quantized_or_cannot_be_read(unlearned: Path, target: Path, tmp_path: Path) -> None:
    write_unquantized(unlearned, tmp_path / "mine.gguf")
    convert(tmp_path / "mine.gguf", tmp_path / "small.gguf", "q8_0")
    assert "is quantized already (Q8_0)" in refusal(tmp_path / "small.gguf", target)
    shutil.copytree(unlearned, tmp_path / "packed")
    config = json.loads((unlearned / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "packed/config.json").write_text(json.dumps(config))
    assert "is quantized already (gptq, 4 bits, says config.json)" in refusal(tmp_path / "packed", target)
    parts = load_file(unlearned / "model.safetensors")
    parts["model.norm.weight"][0] = float("nan")
    save_file(parts, unlearned / "model.safetensors", {"format": "pt"})
    assert "has weights that are no numbers (model.norm.weight)" in refusal(unlearned, target)
