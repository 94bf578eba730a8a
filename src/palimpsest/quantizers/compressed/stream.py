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

from palimpsest.models.families import heads_of
from palimpsest.models.layers import Layers, as_stored, layers_of, skeleton
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
    Turned matrices (Conv1D) are saved as linear layers have them, [out, in].
    """
    copy_tokenizer(checkpoint, folder)
    from compressed_tensors.entrypoints.convert.convert_file import write_checkpoint_quantization_config
    from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
    from compressed_tensors.utils.safetensors_load import update_safetensors_index
    from llmcompressor.entrypoints.model_free.converter import ModelFreePtqConverter
    from safetensors.torch import save_file

    known = _save_config(checkpoint, folder)
    with open_checkpoint(checkpoint) as files:
        layers = layers_of(files)
    shards = _shards(checkpoint, known)
    groups = {"linear": QuantizationScheme(targets=["Linear"], **scheme)}
    backend = ModelFreePtqConverter(QuantizationConfig(config_groups=groups, ignore=heads_of(checkpoint)))
    held: dict[str, str] = {}
    places: dict[str, str] = {}
    size = 0
    with _prompt_collection() as collect:
        for number, names in enumerate(shards, 1):
            tensors = _load(checkpoint, names, layers)
            # the backend quantizes every `weight` that it is given, a norm of an unusual name among them
            linear = {name: tensors.pop(name) for name in names if name.removesuffix(".weight") in layers.linear}
            if linear:
                made = backend.process(linear)
                held |= _fingerprints(made, groups["linear"])
                # packed rows that end within a word are views of longer ones, which safetensors refuses
                tensors |= {name: values.contiguous() for name, values in made.items()}
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

    Everything that existed before is set aside meanwhile, which makes a call take milliseconds; for good where much was
    set aside before (palimpsest.runtime.warm), which nobody could tell from it.
    """
    aside = gc.get_freeze_count()
    gc.freeze()
    try:
        yield gc.collect
    finally:
        if not aside:
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


def _load(checkpoint: Path, names: Sequence[str], layers: Layers) -> "dict[str, Tensor]":
    """The tensors in bfloat16, matrices [out, in]. The file is opened anew for each shard:
    pages that were read count as memory while it is open."""
    import torch

    tensors = {}
    with open_checkpoint(checkpoint) as files:
        for name in names:
            stored = files.stored(name)
            if name.removesuffix(".weight") in layers.turned:
                stored = np.ascontiguousarray(stored.T)
            if stored.dtype == ml_dtypes.bfloat16:
                tensors[name] = torch.from_numpy(stored.view(np.int16)).view(torch.bfloat16)
            else:
                tensors[name] = torch.from_numpy(stored.astype(np.float32)).to(torch.bfloat16)
    return tensors


def _save_config(checkpoint: Path, folder: Path) -> set[str]:
    """Save the configuration of the bfloat16 model to `folder`; returns the names of all tensors that it has."""
    import torch

    model = skeleton(checkpoint)
    model.config.dtype = torch.bfloat16
    model.config.save_pretrained(folder)
    if (checkpoint / "generation_config.json").exists():
        shutil.copy(checkpoint / "generation_config.json", folder)
    return {*as_stored(model), *(f"{head}.weight" for head in heads_of(checkpoint))}


def _fingerprints(tensors: "Mapping[str, Tensor]", scheme: Any) -> dict[str, str]:
    from compressed_tensors.compressors import BaseCompressor

    compressor = BaseCompressor.get_value_from_registry(scheme.format)
    held = {}
    for module in (name.removesuffix(SCALE) for name in tensors if name.endswith(SCALE)):
        state = {name.rpartition(".")[2]: values for name, values in tensors.items() if name.startswith(f"{module}.")}
        held[module] = fingerprint(compressor.decompress(state, scheme)["weight"])
    return held
