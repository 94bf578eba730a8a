"""The layers of a model by their role: which matrices a quantizer quantizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from palimpsest.errors import PalimpsestError, first_line
from palimpsest.models.families import FAMILIES, Family, model_type
from palimpsest.models.tensors import TensorFiles, read_settings

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from palimpsest.models.tensors import Float32

HEADS = ("lm_head",)

EMBEDDINGS = ("embed_tokens",)


@dataclass(frozen=True)
class Layers:
    """The matrices of a checkpoint, by role: module paths as its files have them, in name order.

    linear: what quantizers quantize; heads: the output head, none where it is the embeddings; embeddings: of tokens and
    positions; turned: those of `linear` that are stored [in, out].
    """

    linear: tuple[str, ...]
    heads: tuple[str, ...]
    embeddings: tuple[str, ...]
    turned: frozenset[str] = frozenset()

    def shape(self, files: TensorFiles, module: str) -> tuple[int, ...]:
        """[out, in] of a matrix, from the header of its file."""
        shape = files.shape(tensor_of(files, module))
        return shape[::-1] if module in self.turned else shape

    def load(self, files: TensorFiles, module: str) -> Float32:
        """[out, in] a matrix as a linear layer has it."""
        matrix = files.load(tensor_of(files, module))
        return matrix.T if module in self.turned else matrix


def tensor_of(files: TensorFiles, module: str) -> str:
    """The tensor of a module path: its weight, or, of stacked experts, the path itself."""
    return f"{module}.weight" if f"{module}.weight" in files else module


def layers_of(files: TensorFiles, kind: str | None = None) -> Layers:
    """The matrices of a checkpoint by their role in the architecture that its config.json names, or `kind`.

    A family of FAMILIES is known by its names; of another one transformers builds the model without weights (that takes
    torch and seconds); without a config.json the names are taken for Llama's. Every tensor of two or more dimensions is
    one of the three, also one that is not called `weight` (stacked experts), so that none is overlooked; masks and
    rotary frequencies are none. Raises PalimpsestError for an architecture that transformers does not know.
    """
    kind = kind or model_type(files.folder)
    family = FAMILIES["llama"] if kind is None else FAMILIES.get(kind)
    if family is None:
        return _of_skeleton(files)
    matrices = [name.removesuffix(".weight") for name in _matrices(files)]
    rest = [module for module in matrices if not is_named(module, family.embeddings + family.heads + family.routers)]
    return Layers(
        tuple(rest),
        tuple(module for module in matrices if is_named(module, family.heads)),
        tuple(module for module in matrices if is_named(module, family.embeddings)),
        frozenset(module for module in rest if is_named(module, family.turned)),
    )


def family_of(folder: Path) -> Family | None:
    """The family of a checkpoint folder, Llama where it has no config.json; None for one that is not tested here."""
    kind = model_type(folder)
    return FAMILIES["llama"] if kind is None else FAMILIES.get(kind)


def _matrices(files: TensorFiles) -> Iterator[str]:
    for name in files.names():
        shape = files.shape(name)
        if len(shape) > 1 and not is_buffer(name, shape):
            yield name


def _of_skeleton(files: TensorFiles) -> Layers:
    import torch
    from transformers.pytorch_utils import Conv1D

    model = skeleton(files.folder, most_layers=len(files.names()))
    head = model.get_output_embeddings()
    roles: dict[str, list[str]] = {"linear": [], "heads": [], "embeddings": [], "turned": []}
    stored = {id(weight): name for name, weight in as_stored(model).items()}
    for module in model.modules():
        weight: Any = getattr(module, "weight", None)
        place = stored.pop(id(weight), None)  # the first module that has it: a tied head comes after its embeddings
        if place is None or weight.dim() < 2:
            continue
        name = _name_in(files, place, model.base_model_prefix).removesuffix(".weight")
        if isinstance(module, torch.nn.Embedding):
            roles["embeddings"].append(name)
        elif module is head:
            roles["heads"].append(name)
        elif isinstance(module, torch.nn.Linear | Conv1D):
            roles["linear"].append(name)
            roles["turned"] += [name] if isinstance(module, Conv1D) else []
    for name in _matrices(files):
        module = name.removesuffix(".weight")
        if name in (getattr(model, "_tied_weights_keys", None) or ()) and module not in roles["embeddings"]:
            roles["heads"] += [] if module in roles["heads"] else [module]  # written out although it is tied
        elif not any(module in names for names in roles.values()):
            raise PalimpsestError(
                f"{name} in {files.folder} is the matrix of no linear layer of a {model.config.model_type} model: "
                f"palimpsest does not know this architecture's layers. Known are {', '.join(FAMILIES)}."
            )
    linear, heads, embeddings, turned = (sorted(roles[role]) for role in ("linear", "heads", "embeddings", "turned"))
    return Layers(tuple(linear), tuple(heads), tuple(embeddings), frozenset(turned))


def _name_in(files: TensorFiles, name: str, prefix: str) -> str:
    """A tensor's name in these files: some checkpoints leave out, or add, the prefix of the model without its head."""
    for each in (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"):
        if each in files:
            return each
    raise PalimpsestError(f"{files.folder} lacks {name}, which its config.json describes: fetch or save it again.")


def as_stored(model: Any) -> dict[str, Tensor]:
    """The weights by the names, and in the pieces, that its checkpoint has: transformers calls some otherwise in
    memory (GPT-NeoX's head), and joins others (Mixtral's experts)."""
    from transformers.core_model_loading import revert_weight_conversion

    return revert_weight_conversion(model, dict(model.named_parameters()))


def skeleton(folder: Path, most_layers: int | None = None) -> Any:
    """The model that the config.json of a folder describes, without weights.

    most_layers: that its files could hold; a config with more would be built for hours.
    Raises PalimpsestError where transformers knows no such causal language model.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

    path, known = folder / "config.json", f"Known families: {', '.join(FAMILIES)}."
    stated = read_settings(path)
    if "auto_map" in stated and stated.get("model_type") not in CONFIG_MAPPING:
        raise PalimpsestError(f"{path} needs code of its own (auto_map), which is never run here. {known}")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        layers = config.get_text_config().num_hidden_layers
        if most_layers is not None and layers > most_layers:
            raise ValueError(f"it has {layers} layers, which the weights beside it cannot be")
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        AssertionError,
        ImportError,
        OSError,
        RuntimeError,
        StrictDataclassError,
    ) as error:  # what models raise for settings that make no sense
        raise PalimpsestError(
            f"transformers builds no causal language model from {path}: {first_line(error)}. {known}"
        ) from error


def linear_layers(files: TensorFiles) -> Iterator[str]:
    """The module paths of a checkpoint's weight matrices in name order: embeddings left out, output head included.

    Every tensor of two or more dimensions counts, also one not called `weight` (fused experts),
    so that none is overlooked.
    """
    layers = layers_of(files)
    yield from sorted((*layers.linear, *layers.heads))


BUFFERS = ("inv_freq", "original_inv_freq", "masked_bias", "position_ids", "token_type_ids")
MASKS = ("bias", "mask", "causal_mask", "attn_mask")
"""Causal masks, [1, 1, positions, positions], under the names that GPT-2, GPT-NeoX, GPT-J and CodeGen store them."""


def is_buffer(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor of a checkpoint is no weight: rotary frequencies, masks, positions. Old checkpoints store them,
    every loader computes them anew."""
    last = name.rpartition(".")[2]
    return last in BUFFERS or (last in MASKS and len(shape) == 4)


def is_named(module: str, names: Sequence[str]) -> bool:
    """Whether the last part of a module path is one of `names`."""
    return module.rpartition(".")[2] in names


BY_HEAD = ("q_proj", "k_proj", "v_proj", "query_key_value")
"""Matrices of an attention block whose outputs lie head by head, each with its query, key and value where those are in
one matrix."""

IN_RUNS = ("qkv_proj", "c_attn")
"""Matrices whose outputs are the queries of all heads, then their keys, then their values."""

HEADS_TOGETHER = ("o_proj", "out_proj", "attention.dense", "self_attention.dense", "attn.c_proj")
"""Matrices whose inputs lie head by head."""

MLP = (
    *("gate_proj", "up_proj", "gate_up_proj", "down_proj", "fc1", "fc2", "mlp.c_fc", "mlp.c_proj"),
    *("dense_h_to_4h", "dense_4h_to_h"),
)
"""Matrices of an MLP block."""


def ends_with(module: str, names: Sequence[str]) -> bool:
    """Whether a module path ends with one of `names`, each of one or more of its parts."""
    return any(f".{module}".endswith(f".{name}") for name in names)


def decoder_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of the linear layers but the output head, by name: what quantizers quantize.

    Those of `turned_matrices` are [in, out], all others [out, in].
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()  # type: ignore[operator]
    return {
        f"{name}.weight": cast(nn.Parameter, module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def turned_matrices(model: nn.Module) -> set[str]:
    """The names of a model's matrices that are stored [in, out] (transformers' Conv1D)."""
    from transformers.pytorch_utils import Conv1D

    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}


def key_value_heads(config: Any) -> int:
    """How many heads of an attention block have keys and values of their own; the others share one of these."""
    if getattr(config, "model_type", None) == "falcon":
        alone = 1 if config.multi_query else config.num_attention_heads
        return config.num_kv_heads if config.new_decoder_architecture else alone
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads
