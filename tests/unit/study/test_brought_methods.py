"""What is wrong with a checkpoint that was unlearned elsewhere is told at planning, as far as files here tell it."""

import json
import re
from pathlib import Path

import pytest
from gguf import GGUFWriter
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from palimpsest.errors import PalimpsestError
from palimpsest.models.families import FAMILIES
from palimpsest.models.outline import write_outline
from palimpsest.quantizers.gguf.architectures import ARCHITECTURES
from palimpsest.study.brought import READABLE
from palimpsest.study.params import check_params, read_params
from palimpsest.study.run_checks import one_of

REPOSITORY = Path(__file__).parents[3]
SCHEMA = REPOSITORY / "workflow/schemas/params.schema.yaml"
SHAPE = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "max_position_embeddings": 256,
    "vocab_size": 300,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study's folder, with a checkpoint of the tiny study's shape, without its weights."""
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "mine")
    return tmp_path


def checkpoint(place: Path, **settings: object) -> Path:
    place.mkdir()
    write_outline(place, SHAPE | settings)
    (place / "model.safetensors").unlink()
    return place


def check(method: dict, models: dict | None = None, **blocks: object) -> None:
    params = read_params(REPOSITORY / "tests/tiny/params.yaml") | blocks
    params["methods"]["mine"] = method
    params["models"] |= models or {}
    check_params(params, SCHEMA, "params.yaml")


def refusal(method: dict | str, models: dict | None = None, **blocks: object) -> str:
    method = method if isinstance(method, dict) else {"checkpoint": method}
    with pytest.raises(PalimpsestError) as caught:
        check(method, models, **blocks)
    message = str(caught.value)
    assert message.startswith("params.yaml: ") and "\n" not in message
    return message.removeprefix("params.yaml: ")


def test_a_checkpoint_needs_no_key_of_training(folder: Path) -> None:
    check({"checkpoint": "mine", "storage": "float32", "note": "made by another tool"})
    check({"checkpoint": "some/model"})
    check({"checkpoint": "mine"}, {"target": "mine"})


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"learning_rate": 1.0e-5}, "methods.mine.learning_rate says how a method is trained here, and methods.mine.c"),
        ({"beta": 0.1}, "methods.mine.beta says how a method is trained here, and methods.mine.checkpoint that it was"),
        ({"notes": "x"}, "unknown key 'notes' in methods.mine. Did you mean 'note'?"),
        ({"format": "x"}, "unknown key 'format' in methods.mine. A checkpoint has checkpoint, storage, note."),
        ({"storage": "float16"}, "methods.mine.storage is 'float16': 'float16' is not one of "),
        ({"checkpoint": 3}, "methods.mine.checkpoint is 3: 3 is not of type 'string'"),
        ({"note": ""}, "methods.mine.note is '': "),
    ],
)
def test_its_keys(extra: dict, message: str, folder: Path) -> None:
    assert refusal({"checkpoint": "mine"} | extra).startswith(message)


def test_a_method_that_is_trained_is_told_of_its_own_keys_alone(folder: Path) -> None:
    said = refusal({"forget_loss": "ga"})
    assert said.startswith("methods.mine lacks the key 'retain_loss': add it (only ") and ", checkpoint," not in said
    assert "may be left out" in said
    assert refusal(read_params(REPOSITORY / "params.yaml")["methods"]["ga"] | {"note": "x"}) == (
        "unknown key 'note' in methods.mine. It belongs to a checkpoint."
    )


@pytest.mark.parametrize("source", ["./none", "/none/at/all", "a/b/c", "none.gguf", "../none"])
def test_a_path_at_which_nothing_is(source: str, folder: Path) -> None:
    assert refusal(source) == (
        f"methods.mine.checkpoint is {source!r}, and nothing is there: correct the path, or copy the model there."
    )
    made = folder / "results/models/mine/seed0/manifest.json"
    made.parent.mkdir(parents=True)
    made.touch()
    check({"checkpoint": source})  # what was made of it stands


def test_one_model_is_not_counted_for_several_seeds(folder: Path) -> None:
    assert refusal("mine", seeds=[0, 1]).startswith("methods.mine.checkpoint is one model, and seeds lists 2")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"model_type": "qwen2"},
            "a model of type 'qwen2', and the target is one of type 'llama': another architecture",
        ),
        ({"hidden_size": 96}, "a model with hidden_size 96, and the target is one with 64: another architecture"),
        ({"num_hidden_layers": 2}, "a model with num_hidden_layers 2, and the target is one with 1: another architect"),
        ({"vocab_size": 301}, "a model with vocab_size 301, and the target has 300: another vocabulary"),
    ],
)
def test_a_model_that_is_not_the_targets(settings: dict, message: str, folder: Path) -> None:
    checkpoint(folder / "other", **settings)
    assert message in refusal("other", {"target": "mine"})
    assert message in refusal("other", {"target": {"checkpoint": "mine", "tokenizer": "some/tokenizer"}})
    assert message in refusal("other", {"base": "mine"})
    if "vocab_size" not in settings:  # how many entries a tokenizer will have is not known before
        assert message in refusal("other")


def test_the_control_is_a_model_of_the_targets_kind(folder: Path) -> None:
    checkpoint(folder / "other", model_type="gpt_neox")
    said = refusal("mine", {"target": "mine", "retrain": "other"})
    assert said.startswith(
        "models.retrain is 'other', a model of type 'gpt_neox', and the target is one of type 'llama'"
    )
    assert said.endswith("Give one that was trained as the target was.")
    checkpoint(folder / "same")
    check({"checkpoint": "mine"}, {"target": "mine", "retrain": "same"})


def test_a_quantized_folder_is_refused(folder: Path) -> None:
    checkpoint(folder / "packed", quantization_config={"quant_method": "awq", "bits": 4})
    assert refusal("packed").startswith("packed is quantized already (awq, 4 bits, says config.json), and what is")


def test_an_adapter(folder: Path) -> None:
    (folder / "adapter").mkdir()
    (folder / "adapter/adapter_model.safetensors").touch()

    def adapter(**settings: object) -> None:
        (folder / "adapter/adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4} | settings))

    adapter(base_model_name_or_path="mine")
    check({"checkpoint": "adapter"})
    checkpoint(folder / "other", hidden_size=96)
    adapter(base_model_name_or_path="other")
    assert "a model with hidden_size 96, and the target is one with 64: another architecture" in refusal("adapter")
    checkpoint(folder / "packed", quantization_config={"quant_method": "awq", "bits": 4})
    adapter(base_model_name_or_path="packed")
    assert "packed is quantized already (awq" in refusal("adapter")
    adapter(base_model_name_or_path="/not/here")
    assert "an adapter for '/not/here', which is neither the target nor here" in refusal("adapter")
    adapter(base_model_name_or_path="/not/here", peft_type="LOHA")
    assert "an adapter of the type 'LOHA', not LORA" in refusal("adapter")
    (folder / "adapter/adapter_config.json").write_text("{")
    assert "adapter_config.json is not valid JSON" in refusal("adapter")


def write_gguf(file: Path, kind: str, width: int = 64) -> None:
    writer = GGUFWriter(file, kind)
    writer.add_block_count(1)
    writer.add_embedding_length(width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_of_another_family_or_shape(folder: Path) -> None:
    write_gguf(folder / "mine.gguf", "llama")
    check({"checkpoint": "mine.gguf"})
    write_gguf(folder / "wide.gguf", "llama", 96)
    assert "a model with hidden_size 96, and the target is one with 64: another architecture" in refusal("wide.gguf")
    write_gguf(folder / "qwen.gguf", "qwen2")
    assert "a model of type 'qwen2', and the target is one of type 'llama'" in refusal("qwen.gguf")
    write_gguf(folder / "rwkv.gguf", "rwkv6")
    assert "a GGUF file of a rwkv6 model, and the weights of llama, qwen2, " in refusal("rwkv.gguf")
    (folder / "broken.gguf").write_bytes(b"GGUF")
    assert "broken.gguf is no whole GGUF file" in refusal("broken.gguf")


def test_the_families_that_can_be_read_are_those_of_transformers_that_are_tested_here() -> None:
    read = {name.replace("_", "") for name in GGUF_SUPPORTED_ARCHITECTURES}
    assert {name.replace("_", "") for name in READABLE} <= read and set(READABLE.values()) <= set(FAMILIES)
    left_out = {kind for kind, each in ARCHITECTURES.items() if each.name not in READABLE}
    assert all(ARCHITECTURES[kind].name not in read for kind in left_out), left_out


def test_no_name_is_matched_by_nothing() -> None:
    assert not re.fullmatch(one_of([]), "") and not re.fullmatch(one_of([]), "a")
