"""What the keys of params.yaml ask of each other and of the registries:
known before anything runs, so said before anything runs.

Nothing here imports torch: these checks are part of every planning.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from palimpsest.attacks.kinds import check_attack
from palimpsest.corpus.embedded.generator import check_sizes
from palimpsest.corpus.prompts import CHAT, make_template
from palimpsest.errors import PalimpsestError, choose
from palimpsest.metrics import METRICS, check_settings
from palimpsest.models.chat import chat_template_of, has_tokenizer
from palimpsest.models.quantized import reject_quantized
from palimpsest.quantizers import make_quantizer
from palimpsest.report.known_answers import choose_pack
from palimpsest.study.brought import NOTE, check_brought, check_control, check_keys_of_checkpoint
from palimpsest.study.deployed import check_files
from palimpsest.study.fit import check_calibration, check_embedded, check_formats, check_positions
from palimpsest.study.own_records import check_records_settings
from palimpsest.unlearning.losses import SETTINGS, VARIANTS
from palimpsest.vocabulary import CHECKPOINT, FULL, PERPLEXITY, PRETRAINED, RETRAIN, SCRATCH, SPLITS, TARGET

Params = Mapping[str, Any]


LARGEST_SCRATCH = 10**11
"""Parameters of a model from scratch: 1.6 TB with the moments of AdamW."""


def check_method_keys(params: Params, properties: Mapping[str, Any]) -> None:
    """Raise PalimpsestError for a loss that does not exist, and for a key that neither the schema (`properties`, of
    every method) nor one of the method's losses knows. Blocks of another form are left to the schema."""
    methods = params.get("methods")
    for name, method in methods.items() if isinstance(methods, Mapping) else ():
        if isinstance(method, Mapping) and CHECKPOINT in method:
            check_keys_of_checkpoint(f"methods.{name}", method, properties)
        elif isinstance(method, Mapping):
            _check_keys_of(f"methods.{name}", method, set(properties).difference(SETTINGS))


def _check_keys_of(where: str, method: Mapping[str, Any], known: set[str]) -> None:
    variant = method.get("losses", "published")
    if not isinstance(variant, str) or variant not in VARIANTS:
        return
    losses = [
        _named(f"{where}.{kind}", method[kind], partial(choose, table, what=kind.replace("_", " ")))
        for kind, table in zip(("forget_loss", "retain_loss"), VARIANTS[variant], strict=True)
        if isinstance(method.get(kind), str)
    ]
    taken = {key for loss in losses for key in loss.keys}
    for key in method:
        if key == NOTE:
            raise PalimpsestError(f"unknown key {key!r} in {where}. It belongs to a checkpoint.")
        if key in SETTINGS and key not in taken and "forget_loss" in method:
            owners = [name for table in VARIANTS[variant] for name, loss in table.items() if key in loss.keys]
            raise PalimpsestError(f"{where}: {key} belongs to {' and '.join(dict.fromkeys(owners))} alone.")
        if key not in known.union(SETTINGS):
            near = difflib.get_close_matches(key, sorted(known | taken), n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(known | taken))}."
            raise PalimpsestError(f"unknown key {key!r} in {where}. {hint}")


def check_loss_settings(params: Params) -> None:
    """Raise PalimpsestError for a setting of a method's losses that is missing or no number."""
    for name, method in params["methods"].items():
        if CHECKPOINT in method:
            continue
        forget, retain = VARIANTS[method["losses"]]
        losses = [forget[method["forget_loss"]]]
        losses += [retain[method["retain_loss"]]] if method["retain_loss"] else []
        for key in [key for loss in losses for key in loss.keys]:
            if key not in method:
                raise PalimpsestError(f"methods.{name} lacks the key {key!r}: add it (its losses have no default).")
            if not isinstance(method[key], (int, float)) or isinstance(method[key], bool):
                raise PalimpsestError(f"methods.{name}.{key} is {method[key]!r}: give a number.")
        loss = losses[0]
        if loss.alternatives and not params["training"]["questions"]:
            raise PalimpsestError(
                f"methods.{name}.forget_loss is {method['forget_loss']}, which prefers an alternative answer to each "
                "question of the forget set, and training.questions is false: set it to true, or the loss to npo."
            )
        if loss.trained_with and not method["retain_loss"]:
            raise PalimpsestError(
                f"methods.{name}.forget_loss is {method['forget_loss']}, which steers the weight of a retain loss, and "
                "retain_loss is null: set it to gdr or klr."
            )


def check_quantizers(params: Params) -> None:
    """Raise PalimpsestError for settings that a quantizer refuses."""
    for name, settings in params["quantizers"].items():
        _named(f"quantizers.{name}", settings, make_quantizer)


def check_metrics(params: Params) -> None:
    """Raise PalimpsestError for a metric that is not registered, and settings that are not exactly its own."""
    for name, settings in params["metrics"].items():
        function = _named("metrics", name, partial(choose, METRICS, what="metric"))
        check_settings(name, function, settings)
    read = params["metrics"][PERPLEXITY]["split"]
    if read not in params["inference"].get("logprob_splits", SPLITS):
        raise PalimpsestError(
            f"metrics.perplexity.split is {read!r}, which inference.logprob_splits leaves out: add it there."
        )


def check_corpus_sizes(params: Params) -> None:
    """Raise PalimpsestError when the embedded corpus cannot have so much,
    or has fewer in-context examples than inference shows."""
    corpus = params["corpus"]
    if corpus["source"] != "embedded":
        return
    settings = corpus["settings"]
    sizes = {split: settings[f"{split}_documents"] for split in SPLITS}
    asked = settings["questions_per_document"], settings["icl_examples"]
    _named("corpus.settings", asked, lambda asked: check_sizes(settings["seed"], sizes, *asked))
    shown, there = params["inference"]["in_context_examples"], settings["icl_examples"]
    if shown > there:
        raise PalimpsestError(
            f"inference.in_context_examples is {shown}, but corpus.settings.icl_examples is {there}: "
            "the corpus has no more to show."
        )


def check_scratch(params: Params) -> None:
    """Raise PalimpsestError when a model from scratch cannot have the shape,
    the chunks or the layer that are asked of it."""
    models = params["models"]
    if models["base"] not in (SCRATCH, PRETRAINED) or "train" not in (models["target"], models["retrain"]):
        return
    shape, length = models["scratch"], params["training"]["max_length"]
    layer = 4 * shape["hidden_size"] ** 2 + 3 * shape["hidden_size"] * shape["mlp_size"]
    parameters = shape["layers"] * layer + 2 * shape["vocabulary"] * shape["hidden_size"]
    if parameters > LARGEST_SCRATCH:
        raise PalimpsestError(
            f"models.scratch has {parameters:,} parameters, more than the {LARGEST_SCRATCH:,} that a process can "
            "train: lower hidden_size, layers, mlp_size or vocabulary."
        )
    if shape["hidden_size"] % (2 * shape["heads"]):
        raise PalimpsestError(
            f"models.scratch.heads is {shape['heads']}: "
            f"it must split hidden_size {shape['hidden_size']} into heads of an even width."
        )
    if length > shape["context"]:
        raise PalimpsestError(
            f"training.max_length is {length}, more than the {shape['context']} positions of models.scratch.context: "
            "lower the one or raise the other."
        )
    for name, method in params["methods"].items() if models["target"] == "train" else ():
        if method.get("layer", 0) >= shape["layers"]:
            raise PalimpsestError(
                f"methods.{name}.layer is {method['layer']}, but models.scratch.layers is {shape['layers']}: "
                "layers count from 0."
            )


def check_local_models(params: Params) -> None:
    """Raise PalimpsestError when a model that lies here is quantized already, or when its files make no sense."""
    models = params["models"]
    sources = {f"models.{name}": models[name] for name in (TARGET, RETRAIN)}
    if "train" in sources.values():
        sources["models.base"] = models["base"]
    for key, source in sources.items():
        if isinstance(source, Mapping):
            source, key = source["checkpoint"], f"{key}.checkpoint"
        if source not in (None, "train", SCRATCH, PRETRAINED):
            reject_quantized(source, key, may_be_gguf=key == "models.base")


def check_pretraining(params: Params) -> None:
    """Raise PalimpsestError when a base is to be pretrained and nothing says how, or its schedule has no end."""
    models = params["models"]
    if models["base"] == PRETRAINED and "pretraining" not in models:
        raise PalimpsestError(
            f"models.base is {PRETRAINED!r}, and models lacks the key 'pretraining', which says on what and how: "
            "add it, as studies/pretrained/params.yaml has it, or set base to scratch or a checkpoint."
        )
    if "pretraining" not in models:
        return
    steps, warmup = models["pretraining"]["steps"], models["pretraining"]["warmup_steps"]
    if warmup >= steps:
        raise PalimpsestError(
            f"models.pretraining.warmup_steps is {warmup}, and there are {steps} steps in all: lower the one or raise "
            "the other."
        )


def check_prompt(params: Params) -> None:
    """Raise PalimpsestError for a template that cannot be, or that no tokenizer made here has."""
    template, models = make_template(params.get("prompt")), params["models"]
    trained = "train" in (models["target"], models["retrain"])
    if template.name == CHAT and trained and models["base"] in ("scratch", PRETRAINED):
        raise PalimpsestError(
            "prompt.template is chat, but the tokenizers that a study makes (models.base) have no chat template: set "
            "plain, tofu or a text of your own."
        )
    if template.name == CHAT:
        _check_chat_templates(_tokenizers(params))


def _tokenizers(params: Params) -> dict[str, Path]:
    """The folders that lie here and bring the tokenizer of the target or the retrained model, by key. All others are
    asked with the target's."""
    sources = {f"models.{name}": params["models"][name] for name in (TARGET, RETRAIN)}
    places = {
        key: Path(source["tokenizer"] if isinstance(source, Mapping) else source)
        for key, source in sources.items()
        if source is not None
    }
    return {key: place for key, place in places.items() if has_tokenizer(place)}


def _check_chat_templates(folders: Mapping[str, Path]) -> None:
    """Raise PalimpsestError for a tokenizer without a chat template, and for one whose template is another than the
    first one's: questions would be put in two ways, and the answers compared."""
    first: tuple[str, str] | None = None
    for key, folder in folders.items():
        found = chat_template_of(folder)
        if found is None:
            raise PalimpsestError(
                f"prompt.template is chat, but the tokenizer of {folder} ({key}) has no chat template: set another "
                "template, or put a chat_template.jinja beside the tokenizer."
            )
        first = first or (key, found)
        if found.split() != first[1].split():
            raise PalimpsestError(
                f"the chat template of {folder} ({key}) is another than that of {first[0]}, and the two would be asked "
                "otherwise: put the same chat_template.jinja beside both tokenizers."
            )


def check_names(params: Params) -> None:
    """Raise PalimpsestError for a model or a quantizer that is asked for and is not there, or is there twice."""
    shown, methods, quantizers = params["report"], params["methods"], params["quantizers"]
    for key, known in (("method", methods), ("precision", [name for name in quantizers if name != FULL])):
        if shown[key] not in known:
            raise PalimpsestError(f"report.{key} is {shown[key]!r}, which is none of {', '.join(known)}.")
    if "known_answers" in shown:
        _named("report.known_answers", shown["known_answers"], choose_pack)
    for clash in sorted({TARGET, RETRAIN} & set(methods)):
        raise PalimpsestError(f"methods.{clash} has the name of a model that is not unlearned: rename it.")
    asked = params.get("battery") or {}
    models = [name for name in (TARGET, RETRAIN) if params["models"][name] is not None]
    for key, names in (("models", [*models, *methods]), ("precisions", list(quantizers))):
        for unknown in _unknown(asked.get(key) or [], names):
            raise PalimpsestError(f"battery.{key} has {unknown!r}, which is none of {', '.join(names)}.")
    for unknown in _unknown((params.get("verdict") or {}).get("models") or [], methods):
        raise PalimpsestError(f"verdict.models has {unknown!r}, which is none of {', '.join(methods)}.")


def check_attacks(params: Params) -> None:
    """Raise PalimpsestError for an attack on what is not there, and for settings that are not those of its kind."""
    attacks = params.get("attacks") or {}
    for key, names in (("models", list(params["methods"])), ("precisions", list(params["quantizers"]))):
        for unknown in _unknown(attacks.get(key) or [], names):
            raise PalimpsestError(f"attacks.{key} has {unknown!r}, which is none of {', '.join(names)}.")
    for name, attack in attacks.get("each", {}).items():
        check_attack(name, attack)


CHECKS: tuple[Callable[[Params], None], ...] = (
    check_loss_settings,
    check_quantizers,
    check_metrics,
    check_corpus_sizes,
    check_records_settings,
    check_scratch,
    check_pretraining,
    check_local_models,
    check_brought,
    check_control,
    check_files,
    check_formats,
    check_positions,
    check_embedded,
    check_calibration,
    check_prompt,
    check_names,
    check_attacks,
)
"""Of params that fit the schema, a method for each percentile of a mask."""


def _unknown(asked: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    there = set(known)
    return (name for name in asked if name not in there)


def _named(where: str, value: Any, function: Callable[[Any], Any]) -> Any:
    """`function(value)`, an error of which gets the key in front."""
    try:
        return function(value)
    except PalimpsestError as wrong:
        raise PalimpsestError(f"{where}: {wrong}") from None
