"""A corpus on disk in MUSE layout: what the pipeline writes once and every later step reads.

Layout: raw/{forget,<retain>,holdout}, verbmem/forget, knowmem/{forget_qa,forget_qa_icl,retain_qa,retain_qa_icl} and
privleak/{forget,retain,holdout}; in a folder these are .json files (raw may be one text, .txt),
on the hub configs and splits.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from palimpsest.artefacts import Origin, atomic_directory, write_json, write_manifest
from palimpsest.corpus.corpus import Corpus, Prompt, Question, RecordPrompt, RecordQuestion, stored
from palimpsest.corpus.files import cleaned, read_list, read_text
from palimpsest.corpus.words import is_blank
from palimpsest.errors import PalimpsestError
from palimpsest.vocabulary import FORGET, RETAIN

Reader = Callable[[str, str], list[Any]]
"""Maps (part, split), as in ("raw", "forget"), to rows: strings, or objects with the columns of the part."""


LABELS = ("id", "subject", "paraphrased", "wrong", "asked")
QUESTIONS = "_qa"
"""Behind the name of a set of questions, in the names of files."""
OF_RECORDS: dict[type, type] = {Question: RecordQuestion, Prompt: RecordPrompt}
"""Rows of the user's own records, which have labels."""


def load_folder(path: str, retain_split: str) -> Corpus:
    """A local folder in MUSE layout; `retain_split` names the retain file in raw/ (`retain`, `retain1`, `other`)."""
    return _read_folder(path, retain_split, labelled=False)


def _read_folder(path: str, retain_split: str, labelled: bool) -> Corpus:
    folder = Path(path)
    if not folder.is_dir():
        raise PalimpsestError(f"corpus folder {path} does not exist: give the path of a folder in MUSE layout.")

    def read(part: str, split: str) -> list[Any]:
        file, text = folder / part / f"{split}.json", folder / part / f"{split}.txt"
        if part == "raw" and text.exists() and not file.exists():
            return [read_text(text)]
        if not file.exists():
            raise PalimpsestError(
                f"{file} is missing: a MUSE folder needs it "
                f"(for another retain file set retain_split, now {retain_split!r})."
            )
        return read_list(file)

    held = any((folder / "raw" / f"holdout.{kind}").exists() for kind in ("json", "txt"))
    others = [file.stem.removesuffix(QUESTIONS) for file in sorted(folder.glob(f"knowmem/*{QUESTIONS}.json"))]
    further = [name for name in others if labelled and name not in (FORGET, RETAIN)]
    return assemble(read, retain_split, "raw" if held else "privleak", path, labelled, further)


def assemble(
    read: Reader, retain_split: str, holdout_part: str, origin: str, labelled: bool = False, others: Sequence[str] = ()
) -> Corpus:
    """Put the parts of a MUSE corpus together.

    labelled: whether rows may have the labels that `write_corpus` gives those of the user's own records; others: names
    of further sets of questions.

    The holdout documents come from `holdout_part` (privleak where raw has no holdout).
    Blank texts are left out (MUSE-News has one). Line ends become \\n, and a byte order mark at the start of a text is
    left out, in documents, prompts and questions alike.
    """

    def table(kind: type, part: str, split: str, *columns: str) -> list[Any]:
        rows = read(part, split)
        for number, row in enumerate(rows):
            if not (isinstance(row, dict) and all(isinstance(row.get(column), str) for column in columns)):
                raise PalimpsestError(
                    f"{origin}: row {number} of {part}/{split} needs the texts {' and '.join(columns)}."
                )
        made = []
        for number, row in enumerate(rows):
            cells = [
                cleaned(row[column], f"{origin}: {column} of row {number} of {part}/{split}") for column in columns
            ]
            labels = {name: row[name] for name in LABELS if name in row} if labelled else {}
            labels |= {"wrong": tuple(labels["wrong"])} if "wrong" in labels else {}
            made.append((OF_RECORDS[kind] if labels else kind)(*cells, **labels))
        return made

    def texts(part: str, split: str) -> list[str]:
        rows: list[Any] = [row.get("text") if isinstance(row, dict) else row for row in read(part, split)]
        for number, row in enumerate(rows):
            if not isinstance(row, str):
                raise PalimpsestError(f"{origin}: row {number} of {part}/{split} is not a text.")
        clean = [cleaned(row, f"{origin}: row {number} of {part}/{split}") for number, row in enumerate(rows)]
        return [row for row in clean if not is_blank(row)]

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
        others={name: table(Question, "knowmem", f"{name}{QUESTIONS}", "question", "answer") for name in others},
    )


def write_corpus(corpus: Corpus, folder: Path, origin: Origin, **fields: Any) -> None:
    """Write `corpus` in MUSE layout with a manifest that holds `fields`; the folder appears whole or not at all."""
    parts: dict[str, list[Any]] = {
        "raw/forget": corpus.forget,
        "raw/retain": corpus.retain,
        "raw/holdout": corpus.holdout,
        "verbmem/forget": [stored(prompt) for prompt in corpus.verbmem],
        "knowmem/forget_qa": [stored(question) for question in corpus.forget_qa],
        "knowmem/forget_qa_icl": [stored(question) for question in corpus.forget_icl],
        "knowmem/retain_qa": [stored(question) for question in corpus.retain_qa],
        "knowmem/retain_qa_icl": [stored(question) for question in corpus.retain_icl],
        "privleak/forget": corpus.privleak_forget,
        "privleak/retain": corpus.privleak_retain,
        "privleak/holdout": corpus.privleak_holdout,
        **{f"knowmem/{name}{QUESTIONS}": [stored(each) for each in rows] for name, rows in corpus.others.items()},
    }
    with atomic_directory(folder) as draft:
        for name, rows in parts.items():
            write_json(draft / f"{name}.json", rows)
        write_manifest(draft, origin, packages=(), **fields)


def read_corpus(folder: Path | str) -> Corpus:
    """What write_corpus wrote."""
    return _read_folder(str(folder), RETAIN, labelled=True)


def read_rows(folder: Path | str, part: str) -> list[dict[str, Any]]:
    """Of what write_corpus wrote, the rows of a part such as `knowmem/forget_qa`, with the labels they have."""
    return read_list(Path(folder) / f"{part}.json")
