"""Whether formats, lengths and calibration text fit the models of a study.

Of models from scratch, and of folders that lie here, it is known before anything is trained. What is on a hub is for
the steps.

Nothing here imports torch.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from palimpsest.corpus.checks import check_corpus
from palimpsest.corpus.corpus import Corpus
from palimpsest.corpus.generic import generic_texts
from palimpsest.corpus.sources import load_corpus
from palimpsest.errors import PalimpsestError
from palimpsest.models.outline import LLAMA_LIKE, has_weights, positions_of, write_outline
from palimpsest.models.tensors import read_settings
from palimpsest.quantizers import make_quantizer
from palimpsest.quantizers.calibration import GENERIC, Calibrated
from palimpsest.vocabulary import CHECKPOINT, PRETRAINED, RETRAIN, SPLITS, TARGET

Params = Mapping[str, Any]
SCRATCH = "models.scratch"
MOST_DOCUMENTS = 200
"""Of an embedded corpus that is written while planning, to check it and to count its tokens: a second's work."""


def check_formats(params: Params) -> None:
    """Raise PalimpsestError for a quantizer that does not fit the shapes or the positions of a model that is known."""
    quantizers = {name: make_quantizer(settings) for name, settings in params["quantizers"].items()}
    for key, source in _known_models(params).items():
        if source is not None:
            for name, quantizer in quantizers.items():
                with _as_key(name, key, source, source):
                    quantizer.check_family(source)
        with _outline(params, key, source) as folder:
            if folder is None:
                continue
            for name, quantizer in quantizers.items():
                with _as_key(name, key, source, folder):
                    quantizer.check_checkpoint(folder)


@contextmanager
def _as_key(quantizer: str, key: str, source: Path | None, folder: Path) -> Iterator[None]:
    """Errors within get the quantizer's key in front, and name the model by its key instead of `folder`."""
    try:
        yield
    except PalimpsestError as wrong:
        shown = key if source is None else f"{source} ({key})"
        raise PalimpsestError(f"quantizers.{quantizer}: {str(wrong).replace(str(folder), shown)}") from None


def check_positions(params: Params) -> None:
    """Raise PalimpsestError where a model that is known has too few positions for what it is trained on or asked.

    What is counted are the least tokens that there can be: one for each word.
    """
    corpus, inference = params["corpus"], params["inference"]
    embedded = corpus["settings"] if corpus["source"] == "embedded" else {}
    shown = embedded.get("prompt_words", 0)
    for key, source in _known_models(params).items():
        room = params["models"]["scratch"]["context"] if source is None else positions_of(source)
        if room is None:
            continue
        where = f"{key}.context" if source is None else f"{source} ({key})"
        start = 1 if source is None else 0  # of BOS
        for name, tokens, prompt in (
            ("inference.verbmem_tokens", inference["verbmem_tokens"], shown),
            ("inference.knowmem_tokens", inference["knowmem_tokens"], 1),
            *_battery_tokens(params),
        ):
            if start + prompt + tokens > room:
                raise PalimpsestError(
                    f"{name} is {tokens}, and {where} has {room} positions, of which a prompt takes {start + prompt} "
                    "or more: lower it, or take a model with more."
                )
        if key == "models.base" and params["training"]["max_length"] > room:
            raise PalimpsestError(
                f"training.max_length is {params['training']['max_length']}, more than the {room} positions of {where}:"
                " lower it."
            )


def _battery_tokens(params: Params) -> Iterator[tuple[str, int, int]]:
    """Of the tasks of the battery that generate: the key, the tokens, and a prompt's least."""
    for name, task in ((params.get("battery") or {}).get("tasks") or {}).items():
        if "max_new_tokens" in task:
            yield f"battery.tasks.{name}.max_new_tokens", task["max_new_tokens"], 1


def check_embedded(params: Params) -> None:
    """Raise PalimpsestError where the embedded corpus does not pass its own checks: its articles may be too short for
    what is cut from them."""
    corpus = params["corpus"]
    if _written_here(corpus):
        try:
            check_corpus(_embedded(tuple(sorted(corpus["settings"].items()))), **corpus["checks"])
        except PalimpsestError as wrong:
            raise PalimpsestError(f"corpus.settings: {wrong}") from None


def check_calibration(params: Params) -> None:
    """Raise PalimpsestError for a quantizer that wants more calibration text than there is, as far as that is known:
    of the embedded corpus, of Python's documentation and of a file."""
    known: dict[str, tuple[int, str] | None] = {}
    for name, settings in params["quantizers"].items():
        quantizer = make_quantizer(settings)
        if not isinstance(quantizer, Calibrated):
            continue
        if quantizer.calibration not in known:
            texts = _calibration_texts(params, quantizer.calibration)
            known[quantizer.calibration] = None if texts is None else _count_tokens(params, texts)
        counted = known[quantizer.calibration]
        if counted is None:
            continue
        tokens, most = counted
        if tokens // quantizer.sample_length < quantizer.samples:
            raise PalimpsestError(
                f"quantizers.{name}: the calibration text ({quantizer.calibration}) has {most}{tokens} tokens, too few "
                f"for {quantizer.samples} samples of {quantizer.sample_length}: lower samples or sample_length, or give"
                " more text."
            )


def _known_models(params: Params) -> dict[str, Path | None]:
    """The models whose shape is known, by their key of params.yaml: None for one from scratch, else its folder."""
    models = params["models"]
    known: dict[str, Path | None] = {}
    if "train" in (models[TARGET], models[RETRAIN]):
        known |= {SCRATCH: None} if models["base"] in ("scratch", PRETRAINED) else _local("models.base", models["base"])
    for kind in (TARGET, RETRAIN):
        if models[kind] not in (None, "train"):
            known |= _local(f"models.{kind}", models[kind])
    for name, method in params["methods"].items():
        if CHECKPOINT in method:
            known |= _local(f"methods.{name}.{CHECKPOINT}", method[CHECKPOINT])
    return known


def _local(key: str, source: str | Mapping[str, str]) -> dict[str, Path | None]:
    if isinstance(source, Mapping):
        key, source = f"{key}.checkpoint", source["checkpoint"]
    return {key: Path(source)} if (Path(source) / "config.json").is_file() else {}


@contextmanager
def _outline(params: Params, key: str, source: Path | None) -> Iterator[Path | None]:
    """A folder that has the shapes and the configuration of a model; None where they are not known."""
    if source is not None and has_weights(source):
        yield source
        return
    config = _scratch_config(params["models"]["scratch"]) if source is None else read_settings(source / "config.json")
    needed = ("hidden_size", "intermediate_size", "num_attention_heads")
    if config.get("model_type") not in LLAMA_LIKE or not all(type(config.get(each)) is int for each in needed):
        yield None
        return
    with TemporaryDirectory() as folder:
        write_outline(Path(folder), config)
        yield Path(folder)


def _scratch_config(shape: Mapping[str, int]) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": shape["hidden_size"],
        "intermediate_size": shape["mlp_size"],
        "num_attention_heads": shape["heads"],
        "max_position_embeddings": shape["context"],
    }


def _calibration_texts(params: Params, text: str) -> list[str] | None:
    """The calibration text; None where only its step can read it."""
    corpus, generic = params["corpus"], params["calibration"]["generic"]
    if text == GENERIC:
        return generic_texts(**generic) if generic["source"] != "hub" else None
    if not _written_here(corpus):
        return None
    return list(getattr(_embedded(tuple(sorted(corpus["settings"].items()))), text))


def _written_here(corpus: Mapping[str, Any]) -> bool:
    if corpus["source"] != "embedded" or corpus["subset"] is not None:
        return False
    return sum(corpus["settings"][f"{split}_documents"] for split in SPLITS) <= MOST_DOCUMENTS


@cache
def _embedded(settings: tuple[tuple[str, int], ...]) -> Corpus:
    return load_corpus("embedded", dict(settings))


def _count_tokens(params: Params, texts: list[str]) -> tuple[int, str]:
    """How many tokens the texts have, and "at most " where that is a bound: no tokenizer makes more of a text than it
    has bytes. Each text begins with BOS, as in palimpsest.quantizers.calibration."""
    models, corpus = params["models"], params["corpus"]
    if models["base"] != "scratch" or models[TARGET] != "train" or not _written_here(corpus):
        return sum(len(text.encode()) + 1 for text in texts), "at most "
    from palimpsest.models.bpe import train_bpe

    splits = _embedded(tuple(sorted(corpus["settings"].items())))
    tokenizer = train_bpe([*splits.forget, *splits.retain, *splits.holdout], models["scratch"]["vocabulary"])
    return sum(len(tokenizer.encode(text).ids) + 1 for text in texts), ""
