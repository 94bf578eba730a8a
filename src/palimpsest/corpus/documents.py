"""Plain text out of a folder of documentation, such as Debian's packages unpack to: HTML, Markdown, reST, POD."""

import gzip
import logging
import zlib
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path

from palimpsest.errors import PalimpsestError

log = logging.getLogger(__name__)

COMPRESSED = (".gz", ".dz")
"""Endings of files that gzip reads; dictzip's are gzip with an index in the header."""

UNSEEN = {"head", "script", "style", "nav", "svg"}
"""Elements of HTML whose content is not read as text."""

INLINE = {"a", "abbr", "b", "code", "em", "i", "kbd", "samp", "small", "span", "strong", "sub", "sup", "tt", "u", "var"}
"""Elements of HTML that do not end a line."""


def matching_files(folder: Path | str, patterns: Sequence[str]) -> list[Path]:
    """The files below `folder` that a pattern names (`usr/share/**/*.html`), pattern by pattern, each sorted by path,
    none twice.

    Raises PalimpsestError for a folder that is not there and a pattern that names no file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PalimpsestError(
            f"the folder of text {folder} does not exist: correct models.pretraining.text.path, or put the text there."
        )
    found: dict[Path, None] = {}
    for pattern in patterns:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise PalimpsestError(
                f"models.pretraining.text.files has {pattern!r}: give patterns below models.pretraining.text.path."
            )
        files = sorted(path for path in folder.glob(pattern) if path.is_file())
        if not files:
            raise PalimpsestError(
                f"no file below {folder} matches {pattern!r} of models.pretraining.text.files: correct the pattern, or "
                "add what it should find."
            )
        found |= dict.fromkeys(files)
    return list(found)


def read_documents(files: Sequence[Path]) -> Iterator[str]:
    """The text of each file that has any, HTML without its tags. Bytes that are not UTF-8 are read as Latin-1, which
    older manuals are in, and counted in the log.

    Raises PalimpsestError for a file that cannot be read or unpacked.
    """
    other = 0
    for file in files:
        raw = _content(file)
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text, other = raw.decode("latin-1"), other + 1
        suffixes = [suffix.lower() for suffix in file.suffixes]
        if {".html", ".htm", ".xhtml"}.intersection(suffixes[-2:]):
            text = text_of_html(text)
        if text.strip():
            yield text.strip()
    if other:
        log.info("%d of %d files are not UTF-8 and were read as Latin-1", other, len(files))


def text_of_html(page: str) -> str:
    """What a page says: the text of its body, runs of white space as one blank but in <pre>, a line for each block."""
    reader = _Page()
    reader.feed(page)
    reader.close()
    lines = (line.rstrip() for line in "".join(reader.parts).split("\n"))
    text: list[str] = []
    for line in lines:
        if line or (text and text[-1]):
            text.append(line)
    return "\n".join(text).strip()


class _Page(HTMLParser):
    """Collects the text of a page in `parts`."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.unseen = self.verbatim = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in UNSEEN:
            self.unseen += 1
        self.verbatim += tag == "pre"
        self._end_line(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in UNSEEN:
            self.unseen = max(0, self.unseen - 1)
        self.verbatim = max(0, self.verbatim - (tag == "pre"))
        self._end_line(tag)
        if tag in ("p", "pre", "ul", "ol", "dl", "table"):
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self.unseen:
            return
        if not self.verbatim:
            starts = not self.parts or self.parts[-1].endswith(("\n", " "))
            words = " ".join(data.split())
            head = " " if data[:1].isspace() and not starts else ""
            tail = " " if words and data[-1:].isspace() else ""
            data = f"{head}{words}{tail}"
        if data:
            self.parts.append(data)

    def _end_line(self, tag: str) -> None:
        if tag not in INLINE and not self.unseen and self.parts and not self.parts[-1].endswith("\n"):
            self.parts.append("\n")


def _content(file: Path) -> bytes:
    try:
        raw = file.read_bytes()
        return gzip.decompress(raw) if file.suffix in COMPRESSED else raw
    except (OSError, EOFError, zlib.error) as error:
        raise PalimpsestError(
            f"cannot read {file} ({error}): fetch it again, or leave it out of the patterns."
        ) from None
