"""The families of models that are tested here, each with the names under which its checkpoints keep what.

A family is what config.json calls `model_type`. What quantizes and measures asks for a layer's role; the names of one
family say it without building a model, which takes torch. A test holds them to the models that transformers builds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from palimpsest.errors import PalimpsestError
from palimpsest.models.tensors import read_settings


@dataclass(frozen=True)
class Family:
    """The last parts of module paths, by role.

    embeddings: of tokens, the input embedding first, and of positions; heads: what gives the logits, in the files and
    in memory; routers: matrices that choose experts; turned: linear layers whose weights are stored [in, out] (Conv1D).
    own_linear: whether its linear layers are a class of their own, which backends that ask for torch's do not see.
    offset_norms: norms multiply by 1 + their weight.
    """

    title: str
    embeddings: tuple[str, ...] = ("embed_tokens",)
    heads: tuple[str, ...] = ("lm_head",)
    routers: tuple[str, ...] = ()
    turned: tuple[str, ...] = ()
    own_linear: bool = False
    offset_norms: bool = False


FAMILIES: dict[str, Family] = {
    "llama": Family("Llama"),
    "mistral": Family("Mistral"),
    "qwen2": Family("Qwen2"),
    "qwen3": Family("Qwen3"),
    "gemma2": Family("Gemma 2", offset_norms=True),
    "gemma3_text": Family("Gemma 3 (text)", offset_norms=True),
    "phi3": Family("Phi-3"),
    "gpt_neox": Family("GPT-NeoX", embeddings=("embed_in",), heads=("embed_out", "lm_head")),
    "gpt2": Family("GPT-2", embeddings=("wte", "wpe"), turned=("c_attn", "c_proj", "c_fc"), own_linear=True),
    "opt": Family("OPT", embeddings=("embed_tokens", "embed_positions")),
    "bloom": Family("BLOOM", embeddings=("word_embeddings",)),
    "falcon": Family("Falcon", embeddings=("word_embeddings",), own_linear=True),
    "mixtral": Family("Mixtral", routers=("gate",)),
}
"""By model type."""


def model_type(folder: Path) -> str | None:
    """What the config.json of a checkpoint folder calls its architecture; None where there is no config.json.

    Raises PalimpsestError for a config.json that does not say.
    """
    path = folder / "config.json"
    if not path.exists():
        return None
    found = read_settings(path).get("model_type")
    if not isinstance(found, str):
        raise PalimpsestError(f"{path} names no model_type: save the checkpoint again with transformers.")
    return found


def heads_of(folder: Path) -> list[str]:
    """What the output head of a checkpoint is called, in the files and in memory: what no backend is to quantize."""
    return list(FAMILIES.get(model_type(folder) or "llama", FAMILIES["llama"]).heads)


def check_known(kind: str, source: object, key: str = "") -> None:
    """Raise PalimpsestError for a model type that is not tested here: nothing says what its layers are.

    key: of params.yaml, where a user gave the source.
    """
    if kind not in FAMILIES:
        where = f"{key} is {str(source)!r}," if key else f"{source} is"
        known = ", ".join(f"{name} ({family.title})" for name, family in FAMILIES.items())
        raise PalimpsestError(
            f"{where} a model of type {kind!r}, which palimpsest is not tested with, so no quantizer here takes it: "
            f"choose a model of one of the types {known}."
        )


def check_taken(kind: str, refused: Mapping[str, Mapping[str, str]], source: object) -> None:
    """Raise PalimpsestError for a model of a type that one of a study's quantizers refuses.

    refused: by the quantizer's name in params.yaml, why it refuses which model type.
    """
    for name, reasons in refused.items():
        if kind in reasons:
            rest = ", ".join(other for other, each in refused.items() if kind not in each)
            raise PalimpsestError(
                f"quantizers.{name} does not take {str(source)!r}, a model of type {kind!r}: {reasons[kind]}. Of this "
                f"study's formats it can go through {rest}; `palimpsest families {kind}` lists all that take it."
            )
