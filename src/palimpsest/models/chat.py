"""The chat template of a checkpoint folder, read from its files alone: no tokenizer is made, no library imported."""

from pathlib import Path
from typing import Any

from palimpsest.models.tensors import read_settings

CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
"""Where a tokenizer keeps it: in a file of its own, or, of older versions of transformers, among its settings."""


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder brings a tokenizer that says what it has; an adapter's need not."""
    return (folder / CONFIG).is_file()


def chat_template_of(folder: Path) -> str | None:
    """None where the folder has none. Raises PalimpsestError for files that cannot be read."""
    if (folder / TEMPLATE).is_file():
        return (folder / TEMPLATE).read_text(encoding="utf-8", errors="replace")
    if not has_tokenizer(folder):
        return None
    found: Any = read_settings(folder / CONFIG).get("chat_template")
    if isinstance(found, list):  # several, by name
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get("default")
    return found if isinstance(found, str) and found else None
