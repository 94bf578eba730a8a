"""Files of a few bytes that ask for memory without end, refused before a library takes it."""

from math import prod
from pathlib import Path

from palimpsest.errors import PalimpsestError
from palimpsest.models.gguf import read_header
from palimpsest.models.layers import skeleton
from palimpsest.models.tensors import open_checkpoint, read_settings

LARGER = 4
"""By how much a model may exceed its files: those that repeat weights (ALBERT, tied heads) do by less."""
UNUSED_IDS = 1 << 20
"""How far the ids of a tokenizer's tokens may lie beyond their number."""
WIDTHS = ("embedding_length", "feed_forward_length", "vocab_size", "attention.head_count", "attention.head_count_kv")
"""Settings of a GGUF file that no tensor's side is smaller than."""


def check_size(folder: Path) -> None:
    """Raise PalimpsestError for a config.json of a model that is far larger than the files beside it: transformers
    would draw what is missing at random, until memory ends."""
    if not (folder / "config.json").exists():
        return
    with open_checkpoint(folder) as files:
        shapes = [files.shape(name) for name in files.names()]
    held = sum(map(prod, shapes))
    described = sum(weight.numel() for weight in skeleton(folder, most_layers=len(shapes)).parameters())
    if described > LARGER * held:
        raise PalimpsestError(f"config.json describes {described:,} weights, and its files hold {held:,}")


def check_gguf(path: Path) -> None:
    """Raise PalimpsestError for a GGUF file that its reader would loop over, or whose settings describe a model that
    its tensors cannot be."""
    tensors, numbers = read_header(path)
    widest = max((size for tensor in tensors for size in tensor.shape), default=0)
    for key, number in numbers.items():
        setting = key.partition(".")[2]
        most = len(tensors) if setting == "block_count" else widest if setting in WIDTHS else number
        if number > most:
            raise PalimpsestError(
                f"{path} says {key} {number}, and holds {len(tensors)} tensors of at most {widest} rows or columns: "
                "copy or download it again."
            )


def check_token_ids(folder: Path) -> None:
    """Raise PalimpsestError for a tokenizer.json with a token whose id is far beyond the number of tokens: the library
    makes room for all ids before, and ends the program where there is none."""
    path = folder / "tokenizer.json"
    if not path.exists():
        return
    match read_settings(path):
        case {"model": {"vocab": dict() as vocabulary}, **rest}:
            added = rest.get("added_tokens")
            listed = [token.get("id") for token in added if isinstance(token, dict)] if isinstance(added, list) else []
            ids = [number for number in (*vocabulary.values(), *listed) if isinstance(number, int)]
            if ids and max(ids) > len(ids) + UNUSED_IDS:
                raise PalimpsestError(f"{path} gives a token the id {max(ids)}, and has {len(ids)} tokens")
