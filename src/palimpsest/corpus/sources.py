"""One loader for every source of text: the embedded corpus, a local folder in MUSE layout, the MUSE datasets of the hub.

Layout: raw/{forget,<retain>,holdout}, verbmem/forget, knowmem/{forget_qa,forget_qa_icl,retain_qa,retain_qa_icl} and
privleak/{forget,retain,holdout}; in a folder these are .json files (raw may be one text, .txt), on the hub configs and splits.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from palimpsest.artefacts import atomic_directory, read_json, write_json, write_manifest
from palimpsest.corpus.corpus import Corpus, Prompt, Question
from palimpsest.corpus.generator import generate_corpus
from palimpsest.corpus.subset import choose_subset
from palimpsest.errors import PalimpsestError, choose

FOLDER = "set corpus.source to folder and corpus.settings.path to a local copy in MUSE layout (data/README.md)"
"""What to do where a hub dataset cannot be had."""

Reader = Callable[[str, str], list[Any]]
"""Maps (part, split), as in ("raw", "forget"), to rows: strings, or objects with the columns of the part."""


def load_corpus(source: str, settings: Mapping[str, Any], subset: Mapping[str, int] | None = None) -> Corpus:
    """The corpus of a source: `embedded` (settings: arguments of generate_corpus), `folder` or `hub` (path, retain_split).

    `subset` (arguments of choose_subset) picks a small study out of a big corpus. Raises PalimpsestError for an unknown
    source, settings that do not fit it, and missing or malformed data.
    """
    corpus = call("corpus source " + repr(source), choose(SOURCES, source, "corpus source"), settings)
    return corpus if subset is None else call("corpus subset", choose_subset, {"corpus": corpus, **subset})


def load_folder(path: str, retain_split: str) -> Corpus:
    """A local folder in MUSE layout; `retain_split` names the retain file in raw/ (`retain`, `retain1`, `other`)."""
    folder = Path(path)
    if not folder.is_dir():
        raise PalimpsestError(f"corpus folder {path} does not exist: give the path of a folder in MUSE layout.")

    def read(part: str, split: str) -> list[Any]:
        file, text = folder / part / f"{split}.json", folder / part / f"{split}.txt"
        if part == "raw" and text.exists() and not file.exists():
            return [text.read_text(encoding="utf-8")]
        if not file.exists():
            raise PalimpsestError(
                f"{file} is missing: a MUSE folder needs it (for another retain file set retain_split, now {retain_split!r})."
            )
        rows = read_json(file)
        if not isinstance(rows, list):
            raise PalimpsestError(f"{file} holds a {type(rows).__name__}: it must be a list.")
        return rows

    held = any((folder / "raw" / f"holdout.{kind}").exists() for kind in ("json", "txt"))
    return assemble(read, retain_split, "raw" if held else "privleak", path)


def load_hub(path: str, retain_split: str) -> Corpus:
    """A MUSE dataset of the Hugging Face hub such as muse-bench/MUSE-News, or a local folder that `datasets` loads alike."""
    import datasets  # slow to import, and the other sources do not need it

    def read(part: str, split: str) -> list[Any]:
        try:
            return datasets.load_dataset(path, part, split=split).to_list()
        except OSError as error:  # no such dataset, no network, offline mode: datasets raises all of them as OSError
            raise cannot_load(path, f"config {part!r}", error, FOLDER) from error
        except ValueError as error:  # unknown config or split
            raise PalimpsestError(
                f"dataset {path!r} has no split {split!r} in config {part!r} ({first_line(error)}): it is not in MUSE layout, "
                f"or retain_split ({retain_split!r}) should be another of its splits."
            ) from error

    return assemble(read, retain_split, "raw", path)


SOURCES: dict[str, Callable[..., Corpus]] = {"embedded": generate_corpus, "folder": load_folder, "hub": load_hub}


def assemble(read: Reader, retain_split: str, holdout_part: str, origin: str) -> Corpus:
    """Put the parts of a MUSE corpus together.

    The holdout documents come from `holdout_part` (privleak where raw has no holdout). Blank texts are left out (MUSE-News has one).
    """

    def table(kind: type, part: str, split: str, *columns: str) -> list[Any]:
        rows = read(part, split)
        for number, row in enumerate(rows):
            if not (isinstance(row, dict) and all(isinstance(row.get(column), str) for column in columns)):
                raise PalimpsestError(
                    f"{origin}: row {number} of {part}/{split} needs the texts {' and '.join(columns)}."
                )
        return [kind(*(row[column] for column in columns)) for row in rows]

    def texts(part: str, split: str) -> list[str]:
        rows: list[Any] = [row.get("text") if isinstance(row, dict) else row for row in read(part, split)]
        for number, row in enumerate(rows):
            if not isinstance(row, str):
                raise PalimpsestError(f"{origin}: row {number} of {part}/{split} is not a text.")
        return [row for row in rows if row.strip()]

    return Corpus(
        forget=texts("raw", "forget"),
        retain=texts("raw", retain_split),
        holdout=texts(holdout_part, "holdout"),
        forget_qa=table(Question, "knowmem", "forget_qa", "question", "answer"),
        retain_qa=table(Question, "knowmem", "retain_qa", "question", "answer"),
        forget_icl=table(Question, "knowmem", "forget_qa_icl", "question", "answer"),
        retain_icl=table(Question, "knowmem", "retain_qa_icl", "question", "answer"),
        verbmem=table(Prompt, "verbmem", "forget", "prompt", "gt"),
        privleak_forget=texts("privleak", "forget"),
        privleak_retain=texts("privleak", "retain"),
        privleak_holdout=texts("privleak", "holdout"),
    )


def write_corpus(corpus: Corpus, folder: Path | str, **provenance: Any) -> None:
    """Write `corpus` in MUSE layout with a manifest that holds `provenance`; the folder appears whole or not at all."""
    parts: dict[str, list[Any]] = {
        "raw/forget": corpus.forget,
        "raw/retain": corpus.retain,
        "raw/holdout": corpus.holdout,
        "verbmem/forget": [vars(prompt) for prompt in corpus.verbmem],
        "knowmem/forget_qa": [vars(question) for question in corpus.forget_qa],
        "knowmem/forget_qa_icl": [vars(question) for question in corpus.forget_icl],
        "knowmem/retain_qa": [vars(question) for question in corpus.retain_qa],
        "knowmem/retain_qa_icl": [vars(question) for question in corpus.retain_icl],
        "privleak/forget": corpus.privleak_forget,
        "privleak/retain": corpus.privleak_retain,
        "privleak/holdout": corpus.privleak_holdout,
    }
    with atomic_directory(folder) as draft:
        for name, rows in parts.items():
            write_json(draft / f"{name}.json", rows)
        write_manifest(draft, packages=(), **provenance)


def read_corpus(folder: Path | str) -> Corpus:
    """What write_corpus wrote."""
    return load_folder(str(folder), retain_split="retain")


def call(what: str, function: Callable[..., Corpus], settings: Mapping[str, Any]) -> Corpus:
    """`function(**settings)`; raises PalimpsestError that names a missing or unknown setting."""
    bind(what, function, settings)
    return function(**settings)


def bind(what: str, function: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Raise PalimpsestError that names a missing or unknown setting, if `function(**settings)` cannot be called."""
    try:
        inspect.signature(function).bind(**settings)
    except TypeError as error:
        known = ", ".join(name for name in inspect.signature(function).parameters if name != "corpus")
        raise PalimpsestError(f"{what}: {error}. Its settings: {known}.") from None


def cannot_load(path: str, what: str, error: Exception, otherwise: str) -> PalimpsestError:
    """No such dataset, no network, offline mode: where to ask for it, and what to do otherwise."""
    return PalimpsestError(
        f"dataset {path!r} ({what}) cannot be loaded from the hub: {first_line(error)}. Request {path!r} at "
        f"https://huggingface.co/datasets/{path} and log in with `hf auth login`, or {otherwise}."
    )


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
