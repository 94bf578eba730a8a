"""One loader for every source of text:
the embedded corpus, a local folder in MUSE layout, the MUSE datasets of the hub, TOFU, records of the user's own."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from palimpsest.corpus.checks import check_answers, check_corpus, check_records
from palimpsest.corpus.corpus import Corpus
from palimpsest.corpus.embedded.generator import generate_corpus
from palimpsest.corpus.from_records import counts_of, load_records
from palimpsest.corpus.hub import cannot_load, opened
from palimpsest.corpus.layout import assemble, load_folder
from palimpsest.corpus.subset import choose_subset
from palimpsest.corpus.tofu import load_tofu
from palimpsest.errors import PalimpsestError, choose, first_line

FOLDER = "set corpus.source to folder and corpus.settings.path to a local copy in MUSE layout (data/README.md)"
"""What to do where a hub dataset cannot be had."""


def load_corpus(source: str, settings: Mapping[str, Any], subset: Mapping[str, int] | None = None) -> Corpus:
    """The corpus of a source: `embedded` (settings: arguments of generate_corpus),
    `folder` or `hub` (path, retain_split), `records` (arguments of load_records), `tofu` (of load_tofu).

    `subset` (arguments of choose_subset) picks a small study out of a big corpus. Raises PalimpsestError for an unknown
    source, settings that do not fit it, and missing or malformed data.
    """
    corpus = call("corpus source " + repr(source), choose(SOURCES, source, "corpus source"), settings)
    return corpus if subset is None else call("corpus subset", choose_subset, {"corpus": corpus, **subset})


def load_hub(path: str, retain_split: str) -> Corpus:
    """A MUSE dataset of the Hugging Face hub such as muse-bench/MUSE-News,
    or a local folder that `datasets` loads alike."""

    def read(part: str, split: str) -> list[Any]:
        try:
            return load(part, split).to_list()
        except OSError as error:
            raise cannot_load(f"dataset {path!r} (config {part!r})", path, error, FOLDER) from error
        except ValueError as error:
            raise PalimpsestError(
                f"dataset {path!r} has no split {split!r} in config {part!r} ({first_line(error)}): it is not in MUSE "
                f"layout, or retain_split ({retain_split!r}) should be another of its splits."
            ) from error

    with opened(path, "corpus.settings.path") as load:
        return assemble(read, retain_split, "raw", path)


def checked_corpus(block: Mapping[str, Any], tokenizers: Mapping[str, str]) -> tuple[Corpus, dict[str, Any]]:
    """The corpus of the block `corpus` of params.yaml, with what its manifest says of it: `counts` and, of records,
    `by_split` (counts_of).

    tokenizers: ROUGE's, by metric. Raises PalimpsestError for what the corpus' checks refuse.
    """
    corpus = load_corpus(block["source"], block["settings"], block["subset"])
    of_records = block["source"] in OF_QUESTIONS
    counts = (check_records if of_records else check_corpus)(corpus, **block["checks"])
    check_answers(corpus, tokenizers)
    return corpus, {"counts": counts, **({"by_split": counts_of(corpus)} if of_records else {})}


RECORDS, TOFU = OF_QUESTIONS = ("records", "tofu")
"""Sources of questions, which may lack documents, a retain and a holdout set."""
PATHS = ("path", "forget", "retain", "holdout")
"""Keys of corpus.settings that name files or folders."""

SOURCES: dict[str, Callable[..., Corpus]] = {
    "embedded": generate_corpus,
    "folder": load_folder,
    "hub": load_hub,
    RECORDS: load_records,
    TOFU: load_tofu,
}


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
