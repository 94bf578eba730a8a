"""Tokenizers and causal language models: from scratch, from a local folder or from the hub."""

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from palimpsest.artefacts import Origin, atomic_directory, write_manifest
from palimpsest.errors import PalimpsestError, first_line
from palimpsest.models.bounds import check_gguf, check_size, check_token_ids
from palimpsest.models.families import check_known
from palimpsest.models.gguf_words import cut_as_the_file_says
from palimpsest.models.layers import BUFFERS
from palimpsest.models.quantized import already_quantized, quantization_of, reject_adapter

log = logging.getLogger(__name__)

CONTENT = {"model": "config.json and *.safetensors", "tokenizer": "tokenizer files"}
"""What a folder of each must hold."""


def load_published(source: str | Mapping[str, str], key: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A published checkpoint in bfloat16 and its tokenizer, from a folder or the hub.

    source: where both are, or "checkpoint" and "tokenizer" apart; key: of params.yaml, for messages. The tokenizer
    comes first: it is small, and may be gated.
    """
    if isinstance(source, str):
        check_unquantized(source, key)
        tokenizer, model = load_tokenizer(source, key=key), load_model(source, torch.bfloat16, key=key)
        check_tokenizer(model, tokenizer, source)
    else:
        check_unquantized(source["checkpoint"], f"{key}.checkpoint")
        tokenizer = load_tokenizer(source["tokenizer"], key=f"{key}.tokenizer")
        model = load_model(source["checkpoint"], torch.bfloat16, key=f"{key}.checkpoint")
        check_tokenizer(model, tokenizer, source["tokenizer"])
    check_finite(model, key)
    return model, tokenizer


def check_finite(model: PreTrainedModel, key: str) -> None:
    """Raise PalimpsestError for a weight that is NaN or infinite, or so in bfloat16, in which models are saved.

    key: of params.yaml, where a user gave the checkpoint.
    """
    broken = [name for name, weight in model.named_parameters() if not weight.to(torch.bfloat16).isfinite().all()]
    if broken:
        raise PalimpsestError(f"the checkpoint of {key} has weights that are no numbers ({broken[0]}): fetch it again.")


def load_model(
    source: str | Path, dtype: torch.dtype, trust_remote_code: bool = False, key: str = ""
) -> PreTrainedModel:
    """A causal LM from a checkpoint folder or the hub (safetensors only), or from a GGUF file, dequantized.

    key: of params.yaml, where a user gave the source.
    Raises PalimpsestError when it cannot be loaded, is not whole, or is a folder that is quantized already.
    """
    check_unquantized(source, key, may_be_gguf=True)
    try:
        check_size(Path(source))
    except PalimpsestError as error:
        raise PalimpsestError(_cannot_load("model", source, error, key)) from error
    folder, file = _located(source)
    kind = file or {"use_safetensors": True}
    try:
        if key:  # before gigabytes are read
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, **file)
            check_known(config.model_type, source, key)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # otherwise its message is "look at the above report"
            **kind,
        )
    except PalimpsestError:
        raise
    except Exception as error:  # whatever transformers and the packages beneath it meet in broken files
        _check_cached(source, key)  # it may be that the packages of its own quantization are missing
        raise PalimpsestError(_cannot_load("model", source, error, key)) from error
    model, report = loaded
    _check_cached(source, key)
    if report["mismatched_keys"]:
        raise PalimpsestError(_cannot_load("model", source, _mismatch(report["mismatched_keys"]), key))
    check_all_loaded(report, source)
    if file:
        model.hf_quantizer.remove_quantization_config(model)  # its weights are dense; otherwise it could not be saved
    _make_saveable(model, source)
    return model


def check_unquantized(
    source: str | Path, key: str = "", may_be_gguf: bool = False, name: str | Path | None = None
) -> None:
    """Raise PalimpsestError when a checkpoint is quantized already, so that no code is ever taken for a weight.

    key: of params.yaml, where a user gave the source; may_be_gguf: see `quantization_of`; name: what messages call it.
    """
    reject_adapter(Path(source))
    try:
        found = quantization_of(source, may_be_gguf)
    except PalimpsestError as error:
        raise PalimpsestError(_cannot_load("model", name or source, error, key)) from error
    if found:
        raise already_quantized(name or source, found, key)


def load_tokenizer(source: str | Path, trust_remote_code: bool = False, key: str = "") -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint or GGUF file, with a padding token: EOS where it has none, as MUSE does.
    It may lack BOS, EOS and padding; palimpsest.models.encoding says what stands for them.

    key: of params.yaml, where a user gave the source.
    """
    folder, file = _located(source)
    try:
        check_token_ids(Path(source))
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, **file)
        if file:  # transformers takes BOS for EOS and padding; the file's header knows them
            config = AutoConfig.from_pretrained(folder, **file)
            for role in ("bos", "eos", "pad"):
                number = getattr(config, f"{role}_token_id")
                setattr(tokenizer, f"{role}_token", None if number is None else tokenizer.convert_ids_to_tokens(number))
            cut_as_the_file_says(tokenizer, Path(source))
    except PalimpsestError:
        raise
    except Exception as error:  # tokenizers raises no narrower one
        raise PalimpsestError(_cannot_load("tokenizer", source, error, key)) from error
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _mismatch(found: Collection[tuple[str, Sequence[int], Sequence[int]]]) -> ValueError:
    """found: (name, shape in the files, shape in the model) of each weight that does not fit."""
    name, stored, described = min(found)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return ValueError(f"{name} is {list(stored)} in its files and {list(described)} by its config.json{more}")


def check_all_loaded(report: Mapping[str, Any], source: str | Path) -> None:
    """report: transformers' loading info. Raises PalimpsestError for a weight that is not in the files,
    which would be random, and for one that the model has no place for; rotary frequencies, which old
    checkpoints carry, are computed."""
    for problem in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        names = sorted(str(name) for name in report[problem] if str(name).rpartition(".")[2] not in BUFFERS)
        if names:
            raise PalimpsestError(
                f"{source} does not hold the weights that its config.json describes ({len(names)} "
                f"{problem.replace('_', ' ')}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}): fetch or "
                "save the checkpoint again."
            )


def check_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: str | Path) -> None:
    """Raises PalimpsestError when the tokenizer can produce tokens that the model does not know."""
    rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[union-attr, index]
    if len(tokenizer) > rows:
        raise PalimpsestError(
            f"the tokenizer of {source} has {len(tokenizer)} tokens, the model's embedding {rows} rows: "
            "they do not belong together."
        )


def current_device() -> str:
    """What models run on here: `cuda` or `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def store_weights(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Change the type of the weights alone:
    `model.to(dtype)` would round the rotary frequencies too, and with them positions."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)


def check_savable(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: str | Path) -> None:
    """Save everything but the weights of `source` to a scratch folder: what cannot be saved is known before training.

    Raises PalimpsestError that says what transformers refuses, such as settings of generation that contradict.
    """
    with TemporaryDirectory() as scratch:
        for each in (model.config, model.generation_config, tokenizer):
            try:
                if each is not None:
                    each.save_pretrained(scratch)
            except (ValueError, TypeError) as error:
                raise PalimpsestError(
                    f"the {type(each).__name__} of {source} could not be saved with the trained model: "
                    f"{' '.join(str(error).split()).rstrip('.')}. Mend its file there first."
                ) from error


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save as bfloat16 safetensors: the one place where float32 training weights are rounded."""
    store_weights(model, torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="5GB")
    tokenizer.save_pretrained(folder)


def write_model(
    folder: Path, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, origin: Origin, **fields: Any
) -> None:
    """The artefact of a model: its checkpoint, and a manifest with its size and the given fields,
    those of write_manifest among them."""
    with atomic_directory(folder) as draft:
        save_checkpoint(network, tokenizer, draft)
        write_manifest(draft, origin, parameters=network.num_parameters(), **fields)


def _make_saveable(model: Any, source: str | Path) -> None:
    """Llama 2 was published with a temperature for sampling and sampling off; transformers 5 refuses to save that, and
    a trained model would be lost. What else it refuses to save is dropped but for the tokens that start, end and pad;
    our own responses depend on none of it."""
    config, usual = model.generation_config, GenerationConfig()
    if config is None:
        return
    if not config.do_sample:
        for name in ("temperature", "top_k", "top_p", "min_p", "typical_p"):
            setattr(config, name, getattr(usual, name))
    try:
        config.validate(strict=True)
    except ValueError as error:
        log.warning("of the generation config of %s only the token ids are kept: %s", source, first_line(error))
        tokens = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        model.generation_config = GenerationConfig(**tokens)


def _located(source: str | Path) -> tuple[str | Path, dict[str, Any]]:
    """Where transformers looks for a model, and which file it is to take there if the source is one."""
    path = Path(source)
    if path.suffix != ".gguf":
        return source, {}
    check_gguf(path)
    return path.parent, {"gguf_file": path.name}


def _check_cached(source: str | Path, key: str) -> None:
    """`check_unquantized` of a hub's model, once its files are in the cache."""
    from transformers.utils import cached_file

    if Path(source).exists():
        return
    file = cached_file(str(source), "config.json", local_files_only=True, _raise_exceptions_for_missing_entries=False)
    if file:
        check_unquantized(Path(file).parent, key, name=source)


def _cannot_load(what: str, source: str | Path, error: Exception, key: str) -> str:
    reason = (
        f"{type(error).__name__}: {first_line(error)}"
        if isinstance(error, LookupError | TypeError)
        else first_line(error)
    )
    hub = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(source)) and not Path(source).exists()
    asked = (
        f"Request it at https://huggingface.co/{source} (if it is gated: accept the licence) "
        "and log in with `hf auth login`, or "
    )
    local = f"point {key} of params.yaml at" if key else "give"
    remedy = f"{asked if hub else ''}{local} a local folder with {CONTENT[what]}."
    return f"cannot load the {what} {str(source)!r}: {reason.rstrip('.: ')}. {remedy[0].upper()}{remedy[1:]}"
