"""How files reach the disk, whole or not at all, and what they hold, as a hash."""

import errno
import glob
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

DRAFT = re.compile(r"\.(.+)\.[0-9a-f]{32}")
"""The name of a file or folder that is being written, whose own name is the group."""


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it replaces `path`, on any error it is removed.

    A reader sees the old file or the new one. Drafts of killed runs go: one step at a time writes `path`.
    """
    draft = _new_draft(Path(path))
    try:
        with _naming(path):
            yield draft
            os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it replaces `path`, on any error it is removed."""
    path = Path(path)
    draft = _new_draft(path)
    try:
        with _naming(path):
            draft.mkdir()
            yield draft
            if path.exists():
                shutil.rmtree(path)
            os.replace(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _new_draft(path: Path) -> Path:
    """A new name beside `path`, whose folder is made and cleared of the drafts of `path` that killed runs left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drafts = f".{glob.escape(path.name)}.{32 * '[0-9a-f]'}"  # none of NAME.g32: another step may be writing it
    for abandoned in path.parent.glob(drafts):
        if abandoned.is_dir() and not abandoned.is_symlink():
            shutil.rmtree(abandoned)
        else:
            abandoned.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
SAID_OF_IT = re.compile(r"(?i:os error|errno)\W*(\d+)|\d+ requested and \d+ written|unexpected pos \d+ vs \d+")
"""How libraries that write by themselves say it: Rust's and Arrow's with the number, NumPy's, torch's."""


@contextmanager
def _naming(path: Path | str) -> Iterator[None]:
    """Within it the error of a full disk names what could not be written: the system's says nothing of the file."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (said := SAID_OF_IT.search(str(error))):
            number = int(said[1]) if said[1] else errno.ENOSPC
        if number not in FULL_DISK:
            raise
        reason = f"{os.strerror(number)}; make room and run it again: what is done is kept"
        raise OSError(number, reason, str(path)) from error


def final_path(path: Path) -> Path:
    """The path as it is when all is written."""
    return Path(*(named[1] if (named := DRAFT.fullmatch(part)) else part for part in path.parts))


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(hashes: Mapping[str, str]) -> str:
    """Of files by their names below a source, one hash; a single file's name, which is ".", counts as little as its
    place."""
    lines = [f"{hashes[name]} {name}\n" for name in sorted(hashes)]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def files_below(source: Path) -> list[Path]:
    """The file itself, or all files of a folder, links to folders followed, hidden ones left out; none where nothing
    is there."""
    if source.is_file():
        return [source]
    files: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(source, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real not in seen:
            files += [Path(place, name) for name in names if not name.startswith(".")]
        seen.add(real)
    return sorted(path for path in files if path.is_file())
