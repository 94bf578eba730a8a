"""A model that was unlearned elsewhere, as the study takes it: in bfloat16, through the target's tokenizer.

It must be the target's kind of model, weight by weight, and have its vocabulary. It is asked through the target's
tokenizer, so that both get the same tokens; what its own does otherwise is noted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palimpsest.models.checkpoint import check_finite, check_savable, check_tokenizer, load_model, load_tokenizer
from palimpsest.models.encoding import start_tokens
from palimpsest.models.families import model_type
from palimpsest.models.gguf import read_header
from palimpsest.models.layers import as_stored
from palimpsest.models.likeness import Target, another_architecture, another_vocabulary, is_hub_name
from palimpsest.models.lora import CONFIG, WEIGHTS, base_of, is_adapter, merge, read_adapter
from palimpsest.models.quantized import reject_quantized
from palimpsest.models.tensors import DENSE, open_checkpoint

OWN_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class Brought:
    """network: in bfloat16; tokenizer: the target's; record: what the manifest says; base: a base that lies here, into
    which an adapter was merged, and which is not the target."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    record: dict[str, Any]
    base: str | None = None


def bring(source: str, key: str, target: Target) -> Brought:
    """A checkpoint folder, a model of a hub, an unquantized GGUF file, or an adapter merged into its base.

    key: of params.yaml, for messages. Raises PalimpsestError for a model that is quantized, not whole, or not of the
    target's kind.
    """
    tokenizer = load_tokenizer(target.folder)
    base = None
    if folder := _adapter_folder(source):
        adapter = read_adapter(folder, key)
        name = base_of(adapter, target, key)
        reject_quantized(name, key)
        network = merge(load_model(name, torch.float32, key=key), adapter, str(name), key)
        record = {"as": "adapter", **adapter.record(), "base": "target" if name == target.folder else str(name)}
        record |= {} if folder == Path(source) else {"revision": folder.name}  # of a hub's cache
        base = str(name) if name != target.folder and Path(name).exists() else None
    else:
        reject_quantized(source, key)
        network = load_model(source, torch.bfloat16, key=key)
        record = {"as": "checkpoint", **_found(source, network)}
    _check_kind(network, source, key, target.folder)
    check_finite(network, key)
    note = _compare_tokenizers(str(folder or source), key, tokenizer)
    check_tokenizer(network, tokenizer, source)
    check_savable(network, tokenizer, source)
    return Brought(network, tokenizer, {"source": str(source), **record, "tokenizer": note}, base)


def _adapter_folder(source: str) -> Path | None:
    """Where the adapter lies that a source is, fetched from a hub where it is there; None for one that is none."""
    if is_adapter(source):
        return Path(source)
    if Path(source).exists() or not is_hub_name(source):
        return None
    from transformers.utils import cached_file

    found = [
        cached_file(
            source,
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        for name in (CONFIG, WEIGHTS)
    ]
    return Path(found[0]).parent if found[0] else None


def _found(source: str, network: PreTrainedModel) -> dict[str, Any]:
    """How the weights are stored where they were taken from, and of a hub's model its commit."""
    path = Path(source)
    if path.is_file():
        kinds = {tensor.kind for tensor in read_header(path).tensors}
    elif path.is_dir():
        with open_checkpoint(path) as files:
            kinds = {files.dtype(name) for name in files.names()} & set(DENSE)
    else:
        return {"revision": getattr(network.config, "_commit_hash", None)}
    return {"stored": sorted(kinds)}


def _check_kind(network: PreTrainedModel, source: str, key: str, target: Path) -> None:
    """Raise PalimpsestError unless the model has the target's architecture, shape by shape, and its embeddings the rows
    of the target's."""
    kind, wanted = network.config.model_type, model_type(target)
    if kind != wanted:
        raise another_architecture(key, source, f"a model of type {kind!r}", f"one of type {wanted!r}")
    embeddings = network.get_input_embeddings().weight  # type: ignore[union-attr]
    with open_checkpoint(target) as files:
        for name, weight in as_stored(network).items():
            shape, there = tuple(weight.shape), files.shape(name) if name in files else None
            if weight is embeddings and there and there[0] != shape[0]:
                raise another_vocabulary(key, source, f"embeddings of {shape[0]} rows", f"{there[0]}")
        for name, shape, there in _differing(network, files):
            raise another_architecture(key, source, f"a model whose {name} is {shape}", f"one where it is {there}")


def _differing(network: PreTrainedModel, files: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, shape here, shape there) of each weight that is another in the target; a head that is the embeddings may
    be left out on either side."""
    head: Any = network.get_output_embeddings()
    for name, weight in as_stored(network).items():
        there = files.shape(name) if name in files else None
        if there != tuple(weight.shape) and not (there is None and head is not None and weight is head.weight):
            yield name, list(weight.shape), there and list(there)


def _compare_tokenizers(source: str, key: str, target: PreTrainedTokenizerBase) -> str:
    """What the manifest says of the tokenizer. Raises PalimpsestError for one that numbers tokens otherwise; one may
    have more, behind the target's: GGUF files name rows without a token."""
    path = Path(source)
    if path.is_dir() and not any((path / name).exists() for name in OWN_TOKENIZER):
        return "the target's: none was brought"
    own = load_tokenizer(source, key=key)
    mine, wanted = own.get_vocab(), target.get_vocab()
    for token, number in wanted.items():
        if mine.get(token) != number:
            where = "no such token" if token not in mine else f"{mine[token]} for it"
            raise another_vocabulary(key, source, f"a tokenizer with {where}", f"{token!r} as token {number}")
    if surplus := sorted(token for token, number in mine.items() if token not in wanted and number < len(wanted)):
        raise another_vocabulary(key, source, f"the token {surplus[0]!r}", "another in its place")
    apart = {
        "what starts a text": (start_tokens(own), start_tokens(target)),
        "what ends a text": (own.eos_token_id, target.eos_token_id),
        "the chat template": (getattr(own, "chat_template", None), getattr(target, "chat_template", None)),
    }
    other = [name for name, (here, there) in apart.items() if here != there]
    return f"the target's; the brought one differs in {', '.join(other)}" if other else "the target's, equal to its own"
