"""What of a model is known before it exists: the shapes of its matrices, and how many positions it has."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palimpsest.errors import PalimpsestError
from palimpsest.models.tensors import INDEX, WEIGHTS, read_settings

LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text")
"""Model types whose layers have the shapes, and the names, of Llama's."""


def positions_of(folder: Path) -> int | None:
    """How many tokens the model of a checkpoint folder has positions for;
    None where it has no bound, or no config.json says it."""
    if not (folder / "config.json").is_file():
        return None
    config = read_settings(folder / "config.json")
    for block in (config, config.get("text_config")):
        for key in ("max_position_embeddings", "n_positions"):
            if isinstance(block, dict) and type(block.get(key)) is int:
                return int(block[key])
    return None


def has_weights(folder: Path) -> bool:
    """Whether a folder has the safetensors from which shapes are read."""
    return (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()


def check_is_checkpoint(source: str | Path, key: str) -> None:
    """Raise PalimpsestError for a folder that holds no checkpoint. Of what is no folder here nothing is known yet.

    key: of params.yaml, or an option, for the message.
    """
    folder = Path(source)
    if not folder.is_dir():
        return
    lacks = "config.json" if not (folder / "config.json").is_file() else None if has_weights(folder) else WEIGHTS
    if lacks:
        raise PalimpsestError(
            f"{key} is {str(source)!r}, a folder without {lacks}: give the folder of a checkpoint, with config.json "
            "and *.safetensors, as transformers' save_pretrained writes it."
        )


def write_outline(folder: Path, config: Mapping[str, Any]) -> None:
    """A checkpoint folder whose weights file is a header and a hole: one layer of a Llama, for checks of its shapes.

    config: of the model as transformers names it (hidden_size, intermediate_size, num_attention_heads, ...). Every
    layer has the shapes of the first.
    """
    width, inner, heads = (config[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads"))
    head = config.get("head_dim") or width // heads
    shared = config.get("num_key_value_heads") or heads
    shapes = {
        "self_attn.q_proj": (heads * head, width),
        "self_attn.k_proj": (shared * head, width),
        "self_attn.v_proj": (shared * head, width),
        "self_attn.o_proj": (width, heads * head),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }
    header, end = {}, 0
    for name, (rows, columns) in shapes.items():
        place = [end, end + rows * columns]
        header[f"model.layers.0.{name}.weight"] = {"dtype": "U8", "shape": [rows, columns], "data_offsets": place}
        end = place[1]
    text = json.dumps(header).encode()
    with open(folder / WEIGHTS, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)  # a hole, which takes no room on the disk
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}), encoding="utf-8")
