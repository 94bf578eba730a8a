"""Checkpoints as they are found: what is loaded can be trained and saved."""

import json

import pytest
import torch

from palimpsest.models.checkpoint import load_model, save_checkpoint


@pytest.mark.parametrize(
    ("stated", "kept"),
    [
        ({"temperature": 0.9, "top_p": 0.6, "eos_token_id": [1, 5]}, {"eos_token_id": [1, 5]}),
        ({"length_penalty": 2.0, "temperature": -1.0, "eos_token_id": [1, 5], "bos_token_id": 0}, {"bos_token_id": 0}),
        ({"repetition_penalty": 1.1, "eos_token_id": 1}, {"repetition_penalty": 1.1, "eos_token_id": 1}),
    ],
)
def test_a_generation_config_that_cannot_be_saved_costs_no_model(tiny, tmp_path, stated, kept):
    model, tokenizer, _ = tiny
    model.save_pretrained(tmp_path / "published")
    (tmp_path / "published" / "generation_config.json").write_text(json.dumps(stated))
    loaded = load_model(tmp_path / "published", torch.float32)
    save_checkpoint(loaded, tokenizer, tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert kept.items() <= saved.items()
    assert saved["eos_token_id"] == stated["eos_token_id"]
