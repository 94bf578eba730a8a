"""A study folder for an audit of checkpoints that exist: a params.yaml with comments, checked before it is written."""

import json
import logging
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import yaml

from palimpsest.artefacts import REPOSITORY, atomic_file
from palimpsest.corpus.from_records import load_records
from palimpsest.corpus.prompts import CHAT, DATE, TOFU
from palimpsest.corpus.records import Record, read_records
from palimpsest.corpus.repeats import check_repeats
from palimpsest.corpus.words import PUBLISHED, UNICODE, normalised, reading
from palimpsest.errors import PalimpsestError, choose
from palimpsest.models.chat import chat_template_of
from palimpsest.models.likeness import is_hub_name
from palimpsest.models.lora import is_adapter
from palimpsest.models.outline import check_is_checkpoint, has_weights
from palimpsest.quantizers import make_quantizer
from palimpsest.quantizers.calibration import GENERIC
from palimpsest.quantizers.deployed import DEPLOYED, recognise
from palimpsest.study.dvc import SCHEMA
from palimpsest.study.formats import DEFAULTS
from palimpsest.study.own_records import announce
from palimpsest.study.params import check_params, expanded, read_params
from palimpsest.verdict.policy import default_policy
from palimpsest.vocabulary import FORGET, FULL, PROBABILITY, RETAIN, VERBMEM
from palimpsest.yaml_files import parse_yaml

log = logging.getLogger(__name__)

PARAMS, POLICY = "params.yaml", "policy.yaml"
SNAKEFILE = REPOSITORY / "Snakefile"
STUDIES = ("params.yaml", "studies/all-quantizers/params.yaml", "studies/all-quantizers-gpu/params.yaml")
"""Studies of the repository whose formats an audit may name; the first that has a name decides."""
RETAIN_RECORDS = 100
"""Of a larger retain set so many are asked: they show damage, and cost as much as those of the forget set."""
TOFU_RECORDS = 20
"""Of each author, in TOFU's forget files."""
CALIBRATION = {"calibration": GENERIC, "samples": 16, "sample_length": 256}
"""Of formats that calibrate: text that has nothing to do with the study, as whoever ships a file takes."""


@dataclass(frozen=True)
class Wanted:
    """What is audited. target, unlearned, retrain: folders, hub names or GGUF files; retrain, retain and holdout may be
    None. forget, retain, holdout: files or folders of records. formats: by name. template, system, date: of the block
    `prompt`; None: chat where the target's tokenizer has a chat template, else tofu (question and answer tokenized
    together). note: on the checkpoint. deployed: files that were quantized elsewhere, by the name of each."""

    target: str
    unlearned: str
    forget: str
    formats: Sequence[str]
    retrain: str | None = None
    retain: str | None = None
    holdout: str | None = None
    template: str | None = None
    system: str | None = None
    date: str | None = None
    note: str | None = None
    deployed: Mapping[str, str] = field(default_factory=dict)
    name: str = "unlearned"


def write_study(folder: Path, wanted: Wanted, command: str) -> Path:
    """Write folder/params.yaml for an audit, and folder/policy.yaml, where there is none, for its verdict; returns the
    path of the first.

    command: the subcommand, for the file's first line. Raises PalimpsestError, before anything is written, for records
    that cannot be used, formats that do not exist or do not fit the models, and a folder that has a params.yaml.
    """
    _check_folder(folder)
    _check_apart(folder, wanted)
    file = folder / PARAMS
    if file.exists():
        raise PalimpsestError(f"{file} exists: give another folder, or edit it.")
    text = study_text(folder, wanted, command)
    check_study(text)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / POLICY).exists():
        with atomic_file(folder / POLICY) as draft:
            draft.write_text(policy_text(), encoding="utf-8")
    with atomic_file(file) as draft:
        draft.write_text(text, encoding="utf-8")
    return file


def policy_text() -> str:
    """The default policy, but by the probability of true answers: records from elsewhere often have answers of one
    form, of which ROUGE counts the form for knowledge."""
    text = default_policy().read_text(encoding="utf-8")
    line = re.compile(r"^  study: \[.*$", re.MULTILINE)
    return line.sub(f"  study: [{VERBMEM}, {PROBABILITY}] # ROUGE of continuations; probability of true answers", text)


def write_default(folder: Path) -> Path:
    """Write folder/params.yaml as the default study has it (generated news, a small Llama trained here), and
    folder/policy.yaml, where there is none, for its verdict."""
    _check_folder(folder)
    file = folder / PARAMS
    if file.exists():
        raise PalimpsestError(f"{file} exists: give another folder, or edit it.")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (POLICY, PARAMS):
        if not (folder / name).exists():
            with atomic_file(folder / name) as draft:
                draft.write_bytes((repository() / name).read_bytes())
    return file


def repository() -> Path:
    """The checkout that holds the workflow. Raises PalimpsestError where there is none."""
    if not SNAKEFILE.is_file():
        raise PalimpsestError(
            f"{SNAKEFILE} does not exist: the workflow is in the repository, not in the package. Clone it, and install "
            "palimpsest from there (make setup)."
        )
    return REPOSITORY


def check_study(text: str) -> None:
    """Raise PalimpsestError for params.yaml text that planning would refuse."""
    params = parse_yaml(text)
    check_params(params, SCHEMA, PARAMS)
    announce(expanded(params), log)


def study_text(folder: Path, wanted: Wanted, command: str) -> str:
    """The params.yaml of an audit."""
    models = {f"--{option}": getattr(wanted, option) for option in ("target", "unlearned", "retrain")}
    for option, model in models.items():
        _check_there(option, model)
    _check_different(models)
    if not wanted.formats and not wanted.deployed:
        raise PalimpsestError(
            "--formats names no format: name one, as in --formats bnb-nf4, or give a file (--deployed)."
        )
    records = read_records(Path(wanted.forget), "--forget")
    kept = read_records(Path(wanted.retain), "--retain") if wanted.retain else []
    cut, most = _cut([*records, *kept]), RETAIN_RECORDS if len(kept) > RETAIN_RECORDS else None
    template = wanted.template or (CHAT if has_chat_template(wanted.target) else TOFU)
    tofu = any(record.of_tofu for record in records) and len(records) % TOFU_RECORDS == 0
    environment = jinja2.Environment(
        autoescape=False, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("palimpsest.study").joinpath("audit.yaml.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        command=command,
        snakefile=repository() / "Snakefile",
        folder=folder.resolve(),
        **{split: _quoted(_path(getattr(wanted, split))) for split in (FORGET, RETAIN, "holdout")},
        **{model: _quoted(_path(getattr(wanted, model))) for model in ("target", "unlearned", "retrain")},
        retain_records=most,
        records_per_subject=TOFU_RECORDS if tofu else None,
        cut=cut,
        repeats=_retain_repeats(wanted, most, cut),
        template=_quoted(template),
        system=_quoted(wanted.system),
        date=_quoted(wanted.date or (DATE if template == CHAT else None)),
        name=wanted.name,
        note=wanted.note and _quoted(wanted.note),
        formats="".join(map(format_text, wanted.formats)),
        deployed=deployed_text(wanted.deployed, wanted.formats, wanted.name),
        first_format=[*wanted.formats, *wanted.deployed][0],
        verbmem_tokens=2 * cut["answer_words"] if cut else 1,
        knowmem_tokens=_answer_tokens([*records, *kept]),
        tokenizer=_tokenizer([*records, *kept]),
    )


def format_text(name: str) -> str:
    """The block of a format in params.yaml, two blanks deep. Raises PalimpsestError for a name of no format."""
    return _indented({name: _settings(name)})


def deployed_text(files: Mapping[str, str], formats: Iterable[str], model: str) -> str:
    """The entries of `deployed` in params.yaml, two blanks deep. formats: those of the study, among which one is looked
    for that the other models are quantized by, where the file's own format calibrates. model: whose files they are.

    Raises PalimpsestError for a file that is not there, or is no quantized model.
    """
    text = ""
    for name, path in files.items():
        entry = {"of": model, "path": str(Path(path).resolve())}
        found = recognise(Path(path))
        if found.quantizer is None and found.is_loadable:
            kinds = [each for each in formats if found.is_gguf == (_settings(each)["backend"] == "gguf")]
            if not kinds:
                raise PalimpsestError(
                    f"--deployed: {path} ({found.format}) has codes that no reader here knows ({found.why_not}): name "
                    f"a format to hold the other models to, as in --formats {'gguf-q4_0' if found.is_gguf else 'awq'}."
                )
            entry["like"] = kinds[0]
        if found.quantizer is not None and found.quantizer.calibration_text is not None:
            backend = found.settings["backend"]
            like = next((each for each in formats if _settings(each)["backend"] == backend), None)
            if like is None:
                raise PalimpsestError(
                    f"--deployed: {path} ({found.format}) is in a format that calibrates: name one to quantize the "
                    f"other models by, as in --formats {backend}."
                )
            entry["like"] = like
        text += _indented({name: entry})
    return text


def _settings(name: str) -> dict[str, Any]:
    settings = dict(choose(known_formats(), name, "format"))
    return settings | CALIBRATION if "calibration" in settings else settings


@cache
def known_formats() -> Mapping[str, Mapping[str, Any]]:
    """The formats that an audit may name: those of the repository's studies."""
    found: dict[str, Mapping[str, Any]] = {}
    for study in reversed(STUDIES):
        found |= read_params(repository() / study)["quantizers"]
    return {name: settings for name, settings in found.items() if name != FULL}


def default_formats(target: str) -> list[str]:
    """One of each row of DEFAULTS: the first that the target's family and widths allow, where they are known before it
    is loaded. Where none is, the row's first, which planning refuses with the reason."""
    folder = Path(target)
    if not target or not has_weights(folder):
        return [row[0] for row in DEFAULTS]
    return [next((name for name in row if _fits(name, folder)), row[0]) for row in DEFAULTS]


def _fits(name: str, folder: Path) -> bool:
    quantizer = make_quantizer(_settings(name))
    try:
        quantizer.check_family(folder)
        quantizer.check_checkpoint(folder)
    except PalimpsestError:
        return False
    return True


def add_formats(file: Path, wanted: Wanted) -> list[str]:
    """Add the formats and the deployed files that a params.yaml lacks behind those it has; returns their names. What
    stands in the file, comments included, stays as it is.

    Raises PalimpsestError, before anything is written, where the file would not be right with them.
    """
    params = read_params(file)
    there, deployed = params.get("quantizers", {}), params.get(DEPLOYED) or {}
    formats = [name for name in wanted.formats if name not in there]
    files = {name: path for name, path in wanted.deployed.items() if name not in deployed}
    text = file.read_text(encoding="utf-8")
    if formats:
        text = with_entries(text, "quantizers", "".join(map(format_text, formats)), str(file))
    if files:
        known = [name for name in (*there, *formats) if name in known_formats()]
        text = with_entries(text, DEPLOYED, deployed_text(files, known, wanted.name), str(file))
    if formats or files:
        check_study(text)
        with atomic_file(file) as draft:
            draft.write_text(text, encoding="utf-8")
    return [*formats, *files]


def with_entries(text: str, block: str, entries: str, file: str) -> str:
    """The text of a params.yaml with more entries at the end of a block; without the block one is made at the end.

    file: its name, for the message.
    """
    lines = text.splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if re.match(rf"{block}:\s*(#.*)?$", line)), None)
    if start is None:
        if any(line.startswith(f"{block}:") for line in lines):
            raise PalimpsestError(f"{file}: the block {block} is not written line by line: add what it lacks there.")
        return f"{text.rstrip()}\n\n{block}:\n{entries}"
    end = next((i for i in range(start + 1, len(lines)) if lines[i][:1] not in (" ", "#", "\n")), len(lines))
    last = max((i for i in range(start, end) if lines[i].startswith(" ")), default=start)
    return "".join([*lines[: last + 1], entries, *lines[last + 1 :]])


def differences(file: Path, wanted: Wanted) -> list[str]:
    """What the params.yaml of an audit says otherwise than is wanted now, a line each; formats aside, and what is not
    said now stays as the file has it."""
    params = read_params(file)
    settings, prompt = params["corpus"].get("settings", {}), params.get("prompt") or {}
    method = params["methods"].get(wanted.name, {})
    said = [
        ("models.target", params["models"].get("target"), _path(wanted.target), "--target"),
        (f"methods.{wanted.name}.checkpoint", method.get("checkpoint"), _path(wanted.unlearned), "--unlearned"),
        ("models.retrain", params["models"].get("retrain"), _path(wanted.retrain), "--retrain"),
        ("corpus.settings.forget", settings.get("forget"), _path(wanted.forget), "--forget"),
        ("corpus.settings.retain", settings.get("retain"), _path(wanted.retain), "--retain"),
        ("corpus.settings.holdout", settings.get("holdout"), _path(wanted.holdout), "--holdout"),
        ("prompt.template", prompt.get("template"), wanted.template, "--prompt"),
        ("prompt.system", prompt.get("system"), wanted.system, "--system"),
        ("prompt.date", prompt.get("date"), wanted.date, "--date"),
        (f"methods.{wanted.name}.note", method.get("note"), wanted.note, "--note"),
    ]
    deployed = params.get(DEPLOYED) or {}
    said += [
        (f"{DEPLOYED}.{name}.path", deployed[name].get("path"), _path(path), f"--deployed {name}")
        for name, path in wanted.deployed.items()
        if name in deployed
    ]
    return [
        f"{file}: {key} is {there!r}, and {option} is {now!r}"
        for key, there, now, option in said
        if now and there != now
    ]


def has_chat_template(source: str) -> bool:
    """Whether the tokenizer of a checkpoint folder has a chat template; of a hub name or a GGUF file it is not known
    before the run."""
    return Path(source).is_dir() and chat_template_of(Path(source)) is not None


def _check_there(option: str, model: str | None) -> None:
    """Raise PalimpsestError for what can only be a path and where nothing lies, or no model does."""
    if model is None:
        return
    if Path(model).is_file() and Path(model).suffix != ".gguf":
        raise PalimpsestError(f"{option}: {model} is a file and no GGUF file: give the folder of the checkpoint.")
    if Path(model).exists():
        if not is_adapter(model):
            check_is_checkpoint(model, option)
        return
    if not is_hub_name(model):
        raise PalimpsestError(f"{option}: {model} does not exist: give a folder, a GGUF file or a hub name.")


def _check_different(models: Mapping[str, str | None]) -> None:
    """Raise PalimpsestError where two of the models are one."""
    seen: dict[str, str] = {}
    for option, model in models.items():
        if model is not None and (other := seen.setdefault(str(_path(model)), option)) != option:
            raise PalimpsestError(f"{other} and {option} are both {model}: give the two models that are compared.")


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise PalimpsestError(f"{folder} is a file: give a folder for the study.")


def _check_apart(folder: Path, wanted: Wanted) -> None:
    """Raise PalimpsestError for a study in a folder that it is made from: what the run writes would change that."""
    for option in ("target", "unlearned", "retrain", FORGET, RETAIN, "holdout"):
        source = getattr(wanted, option)
        if source and Path(source).is_dir() and folder.resolve().is_relative_to(Path(source).resolve()):
            raise PalimpsestError(
                f"{folder} is, or lies in, the folder of --{option}, and what the study writes would change that: give "
                "another folder for the study."
            )


def _path(name: str | None) -> str | None:
    """Of what lies here the whole path, so that it is found from the study's folder."""
    return str(Path(name).resolve()) if name and Path(name).exists() else name


def _quoted(text: str | None) -> str:
    """As YAML has a value on one line."""
    if text is None:
        return "null"
    plain = re.fullmatch(r"[A-Za-z/][\w./-]*", text) and yaml.safe_load(text) == text
    return text if plain else json.dumps(text, ensure_ascii=False)


def _indented(block: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(dict(block), sort_keys=False)
    return "".join(f"  {line}\n" for line in text.splitlines())


def _cut(records: Sequence[Record]) -> dict[str, int]:
    """What is cut from texts, so that the shortest has a prompt and an answer; nothing where there are none."""
    lengths = [len(record.text.split()) for record in records if record.text is not None]
    if not lengths:
        return {}
    prompt = max(1, min(32, min(lengths) // 2))
    answer = max(1, min(24, min(lengths) - prompt))
    return {
        "prompt_words": prompt,
        "answer_words": answer,
        "prompts_per_document": 2,
        "passage_words": 64,
        "passages_per_document": 2,
    }


def _retain_repeats(wanted: Wanted, most: int | None, cut: Mapping[str, int]) -> int:
    """How many questions of the retain set stand twice, as in TOFU's: they cost little there. None where a question of
    the forget set does, which the checks of the corpus then refuse."""
    settings: dict[str, Any] = {"retain_records": most, **cut}
    corpus = load_records(wanted.forget, wanted.retain, wanted.holdout, **settings)
    twice = len(corpus.retain_qa) - len({normalised(row.question) for row in corpus.retain_qa})
    return twice if check_repeats(corpus, sys.maxsize) == twice else 0


def _answer_tokens(records: Sequence[Record]) -> int:
    """Room for all but the longest twentieth of the answers: a word of names and numbers is two tokens."""
    lengths = sorted(len(record.answer.split()) for record in records if record.answer is not None)
    return 8 + 2 * min(128, lengths[len(lengths) * 19 // 20]) if lengths else 1


def _tokenizer(records: Sequence[Record]) -> str:
    """ROUGE's: the published one where it reads every answer whole."""
    texts = [text for record in records for text in (record.answer, record.text) if text is not None]
    return UNICODE if reading(texts, PUBLISHED).share > 0.01 else PUBLISHED
