"""What a run is going to take, from its plan and the headers of its models."""

import pytest
import torch
from safetensors.torch import save_file

from palimpsest.corpus.from_records import load_records
from palimpsest.study.price import count_weights, lines, planned_steps, price

SAID = """host: here
Job stats:
job          count
---------  -------
all              1
infer            4
quantize         2
train            1
total            8

Reasons:
"""


@pytest.fixture
def study(tmp_path):
    """params.yaml's part that decides it, with a model of 3 million weights, and the corpus."""
    save_file({"a.weight": torch.zeros(1000, 2000), "b.weight": torch.zeros(1_000_000)}, tmp_path / "model.safetensors")
    (tmp_path / "f.jsonl").write_text('{"question": "Who?", "answer": "She."}')
    params = {
        "models": {"target": str(tmp_path)},
        "quantizers": {"bf16": {"backend": "none"}, "a": {"backend": "gguf", "format": "q8_0", "outer": "bfloat16"}},
        "inference": {"compute": "float32", "batch_size": 16, "knowmem_tokens": 20, "verbmem_tokens": 1},
    }
    return params, load_records(forget=str(tmp_path / "f.jsonl"))


def test_steps_are_those_of_the_plan():
    assert planned_steps(SAID) == {"infer": 4, "quantize": 2, "train": 1}
    assert planned_steps("Nothing to be done (all requested files are present and up to date).") == {}


def test_disk_and_memory_follow_from_the_weights(study):
    params, corpus = study
    assert count_weights(params["models"]["target"]) == 3_000_000
    found = price(params, corpus, planned_steps(SAID))
    assert found.disk == pytest.approx(3e6 * (2 * 1 + 2 * 8.5 / 8), rel=0.05)
    assert found.memory > 4 * 3e6 and found.seconds > 30
    assert lines(found)[0] == "7 steps: 4 infer, 2 quantize, 1 train."
    assert lines(found)[1].startswith("Disk: about 12 MiB (±10 %). Memory: about 526 MiB (±30 %). Time: ")
    assert "minute" in lines(found)[1] and "one step at a time" in lines(found)[1]
    calibrated = params | {"quantizers": params["quantizers"] | {"a": params["quantizers"]["a"] | {"format": "q4_0"}}}
    assert price(calibrated, corpus, planned_steps(SAID)).disk < found.disk
    fewer = price(params, corpus, {"infer": 1})
    assert fewer.disk == 0 and fewer.seconds < found.seconds


def test_of_a_model_on_a_hub_it_is_not_known(study):
    params, corpus = study
    found = price(params | {"models": {"target": "org/model"}}, corpus, {"infer": 1})
    assert lines(found)[1] == "What they take is not known before the models are here: give folders to see it."
    assert lines(price(params, corpus, {})) == ["Nothing to be done."]
