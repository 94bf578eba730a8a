"""Formats that need no data, one decoder layer in memory at a time:
llm-compressor's arithmetic without the model around it."""

import gc
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from palimpsest.errors import PalimpsestError
from palimpsest.models.layers import HEADS, is_named, linear_layers
from palimpsest.models.tensors import open_checkpoint
from palimpsest.quantizers.base import copy_tokenizer, fingerprint

if TYPE_CHECKING:
    from torch import Tensor

LAYER = re.compile(r".+?\.(\d+)\.")
SCALE = ".weight_scale"


def compress_layers(checkpoint: Path, folder: Path, scheme: Mapping[str, Any]) -> dict[str, str]:
    """Quantize the linear layers of `checkpoint` but the output head;
    save everything to `folder`, a file per decoder layer.

    scheme: the weights and input_activations of a compressed-tensors scheme. The work is done by the converter behind
    llm-compressor's `model_free_ptq`, which itself holds a whole file of the checkpoint in memory;
    here it gets a layer at a time.
    Returns the fingerprints of the matrices that compressed-tensors decompresses from what is about to be saved.
    Raises PalimpsestError when the checkpoint's matrices are not the linear layers of its architecture.
    """
    copy_tokenizer(checkpoint, folder)
    with open_checkpoint(checkpoint):  # a missing checkpoint is told before seconds are spent on imports
        pass
    from compressed_tensors.entrypoints.convert.convert_file import write_checkpoint_quantization_config
    from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
    from compressed_tensors.utils.safetensors_load import update_safetensors_index
    from llmcompressor.entrypoints.model_free.converter import ModelFreePtqConverter
    from safetensors.torch import save_file

    linear, known = _save_config(checkpoint, folder)
    shards = _shards(checkpoint, known)
    groups = {"linear": QuantizationScheme(targets=["Linear"], **scheme)}
    backend = ModelFreePtqConverter(QuantizationConfig(config_groups=groups, ignore=list(HEADS)))
    held: dict[str, str] = {}
    places: dict[str, str] = {}
    size = 0
    with _prompt_collection() as collect:
        for number, names in enumerate(shards, 1):
            tensors = _load(checkpoint, names)
            if any(name.removesuffix(".weight") in linear for name in names):
                tensors = backend.process(tensors)
                held |= _fingerprints(tensors, groups["linear"])
                # packed rows that end within a word are views of longer ones, which safetensors refuses
                tensors = {name: values.contiguous() for name, values in tensors.items()}
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            save_file(tensors, folder / file, {"format": "pt"})
            places |= dict.fromkeys(tensors, file)
            size += sum(values.nbytes for values in tensors.values())
            del tensors
            collect()
    update_safetensors_index(folder, size, places)
    write_checkpoint_quantization_config(folder, [backend])
    return held


@contextmanager
def _prompt_collection() -> Iterator[Callable[[], object]]:
    """A call that frees what a layer left behind:
    the backend's modules refer to themselves, so they stay until they are collected.

    Everything that existed before is set aside meanwhile, which makes a call take milliseconds.
    """
    gc.freeze()
    try:
        yield gc.collect
    finally:
        gc.unfreeze()


def _shards(checkpoint: Path, known: set[str]) -> list[list[str]]:
    """The names of the tensors in each file to be written, of those that are `known`:
    decoder layers by number, then the rest.

    Matrices outside the layers (embeddings, output head) get a file each, the vectors outside share one.
    """
    layers: dict[tuple[int, str], list[str]] = {}
    others: dict[str, list[str]] = {}
    with open_checkpoint(checkpoint) as files:
        for name in sorted(known.intersection(files.names())):
            if layer := LAYER.match(name):
                layers.setdefault((int(layer[1]), layer[0]), []).append(name)
            else:
                others.setdefault(name if len(files.shape(name)) > 1 else "", []).append(name)
    return [layers[key] for key in sorted(layers)] + [others[key] for key in sorted(others)]


def _load(checkpoint: Path, names: Sequence[str]) -> "dict[str, Tensor]":
    """The tensors in bfloat16. The file is opened anew for each shard:
    pages that were read count as memory while it is open."""
    import torch

    tensors = {}
    with open_checkpoint(checkpoint) as files:
        for name in names:
            stored = files.stored(name)
            if stored.dtype == ml_dtypes.bfloat16:
                tensors[name] = torch.from_numpy(stored.view(np.int16)).view(torch.bfloat16)
            else:
                tensors[name] = torch.from_numpy(stored.astype(np.float32)).to(torch.bfloat16)
    return tensors


def _save_config(checkpoint: Path, folder: Path) -> tuple[set[str], set[str]]:
    """Save the configuration of the bfloat16 model to `folder`;
    returns its linear layers but the output head, and all its tensors.

    llm-compressor's converter knows a matrix by its tensor's name; whether it is a linear layer, the only thing that
    the saved format can be loaded into, shows in a model without weights.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    config.dtype = torch.bfloat16
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    config.save_pretrained(folder)
    if (checkpoint / "generation_config.json").exists():
        shutil.copy(checkpoint / "generation_config.json", folder)

    linear = {name for name, module in skeleton.named_modules() if isinstance(module, torch.nn.Linear)}
    with open_checkpoint(checkpoint) as files:
        odd = {name for name in linear.symmetric_difference(linear_layers(files)) if not is_named(name, HEADS)}
    if odd:
        raise PalimpsestError(
            f"{', '.join(sorted(odd))} is a matrix of {checkpoint} or a linear layer of {config.architectures}, but "
            "not both: compressed-tensors quantizes linear layers, so use another backend for this model."
        )
    return {name for name in linear if not is_named(name, HEADS)}, set(skeleton.state_dict())


def _fingerprints(tensors: "Mapping[str, Tensor]", scheme: Any) -> dict[str, str]:
    from compressed_tensors.compressors import BaseCompressor

    compressor = BaseCompressor.get_value_from_registry(scheme.format)
    held = {}
    for module in (name.removesuffix(SCALE) for name in tensors if name.endswith(SCALE)):
        state = {name.rpartition(".")[2]: values for name, values in tensors.items() if name.startswith(f"{module}.")}
        held[module] = fingerprint(compressor.decompress(state, scheme)["weight"])
    return held
