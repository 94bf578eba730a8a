"""Whether a model that was made elsewhere can have been unlearned from a target: told from files, without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palimpsest.errors import PalimpsestError

SIZES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("n_embd", "n_layer", "n_head", "ffn_dim"),
)
"""What config.json calls the shape of a model, by its family."""


@dataclass(frozen=True)
class Target:
    """The model that a brought one must be made from.

    source: what params.yaml says of it, `train` or where it was taken from; folder: of its artefact.
    """

    source: str
    folder: Path

    def is_called(self, name: str) -> bool:
        """Whether a name, or a path, means it."""
        here = Path(name)
        places = [self.folder] + [Path(self.source)] * (self.source != "train")
        return name == self.source or (here.exists() and any(each.exists() and here.samefile(each) for each in places))


REMEDY = "Bring a model that was unlearned from this target."


def compare(found: Mapping[str, Any], target: Mapping[str, Any], key: str, source: str, remedy: str = REMEDY) -> None:
    """Raise PalimpsestError where two models differ in what is known of both: model_type, sizes, vocab_size.

    key: of params.yaml that names the first, for messages; source: what it is there; remedy: what to do.
    """
    kinds = found.get("model_type"), target.get("model_type")
    if None not in kinds and kinds[0] != kinds[1]:
        raise another_architecture(key, source, f"a model of type {kinds[0]!r}", f"one of type {kinds[1]!r}", remedy)
    for name in SIZES:
        sizes = found.get(name), target.get(name)
        if None not in sizes and sizes[0] != sizes[1]:
            raise another_architecture(key, source, f"a model with {name} {sizes[0]}", f"one with {sizes[1]}", remedy)
    rows = found.get("vocab_size"), target.get("vocab_size")
    if None not in rows and rows[0] != rows[1]:
        raise another_vocabulary(key, source, f"vocab_size {rows[0]}", f"{rows[1]}", remedy)


def is_hub_name(name: str) -> bool:
    """Whether something that is not here can be the name of a model on a hub."""
    return name.count("/") <= 1 and name[0] not in "./~" and not name.endswith((".gguf", "/")) and "\\" not in name


def another_architecture(key: str, source: str, found: str, wanted: str, remedy: str = REMEDY) -> PalimpsestError:
    return PalimpsestError(
        f"{key} is {str(source)!r}, {found}, and the target is {wanted}: another architecture. {remedy}"
    )


def another_vocabulary(key: str, source: str, found: str, wanted: str, remedy: str = REMEDY) -> PalimpsestError:
    return PalimpsestError(
        f"{key} is {str(source)!r}, a model with {found}, and the target has {wanted}: another vocabulary. {remedy}"
    )
