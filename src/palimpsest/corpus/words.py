"""The words of a text in any script: what ROUGE and the checks of a corpus compare."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import regex

PUBLISHED, UNICODE, STEMMED = TOKENIZERS = ("published", "unicode", "stemmed")
"""How ROUGE finds words: runs of a-z and 0-9, as rouge_score does and every published number of MUSE has it;
`unicode_words`; or as published and then Porter's stems of words longer than three letters, as TOFU and OpenUnlearning
have it."""

INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")
CUT = "\ufffd"
"""What a decoder writes for part of a character, where a text is cut between its tokens: two such parts have nothing
in common."""

SEPARATORS = re.compile(r"[\s\u200b]+")  # of re, whose white space is that of str.split; that of regex is less
"""White space, and the zero-width space that divides words in Thai, Khmer and Burmese."""

UNSPACED = regex.compile(
    r"[[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Tai_Le}"
    r"\p{New_Tai_Lue}\p{Tai_Tham}\p{Tai_Viet}\p{Javanese}\p{Balinese}\p{Extended_Pictographic}\p{Regional_Indicator}]--[0-9#*]]",
    regex.VERSION1,
)
"""Scripts that put no space between words, and pictures."""

BOUNDARY = regex.compile(r"\b", regex.WORD | regex.VERSION1)
"""Of words, by the rules of Unicode (UAX #29)."""

GRAPHEME = regex.compile(r"\X")
"""What a reader takes for one character: a letter with its marks, a flag, a picture with its skin colour."""

MEANT = regex.compile(r"[\p{L}\p{M}\p{N}\p{S}\p{Co}]")
"""Letters, marks, digits and symbols, pictures among them; not punctuation."""

COUNTED = regex.compile(r"[\p{L}\p{M}\p{N}\p{So}]")
"""What a tokenizer must not drop: letters, marks, digits and pictures."""

LONGEST_WORD = 64
"""Characters; a longer run without white space is no word of any language."""

DROPPED_AT_MOST = 0.05
"""Share of the letters of true answers that a tokenizer may drop. English with a few foreign names is far below."""


def folded(text: str) -> str:
    """The text without what is not seen or not said: NFKC_Casefold of the Unicode standard (section 3.13).

    Case and compatibility forms (full-width letters, ligatures, either way to write an accent) are made alike, marks
    stay, invisible characters such as joiners and byte order marks go, and so does what is left of a cut character. The
    curly apostrophe becomes the straight one.
    """
    for _ in range(2):  # folding undoes the normal form of a few letters, whose folding is then another
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", text).casefold())
        text = INVISIBLE.sub("", text)
    return text.replace("\u2019", "'").replace(CUT, " ")


def normalised(text: str) -> str:
    """What two texts have alike that say the same: `folded`, with a blank for white space of any kind."""
    return " ".join(folded(SEPARATORS.sub(" ", text)).split())


def unicode_words(text: str) -> list[str]:
    """The words of a text, `folded`, in order: by the rules of Unicode (UAX #29), and by character (grapheme cluster)
    where a script puts no space between words; a picture and a symbol are words, punctuation is not.

    Of a text that is nothing but punctuation, each character is a word: two that are the same have the same words, and
    only a text in which nothing can be seen has none.
    """
    pieces = (piece.strip() for piece in BOUNDARY.split(folded(text)))  # a mark keeps a blank before it
    parts = [piece for piece in pieces if piece]
    kept = [part for part in parts if MEANT.search(part)] or parts
    return [word for part in kept for word in by_character_if_unspaced(part)]


def units(text: str) -> list[str]:
    """What overlap is counted in: `normalised` words with their punctuation, and characters where a
    script puts no space between words or a run is longer than LONGEST_WORD."""
    return [
        unit
        for word in normalised(text).split()
        for unit in (GRAPHEME.findall(word) if len(word) > LONGEST_WORD else by_character_if_unspaced(word))
    ]


def word_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of every word: of what stands between white space, and there of every character
    of a script that puts no space between words."""
    spans = []
    for found in re.finditer(r"\S+", text):
        start = found.start()
        for part in by_character_if_unspaced(found.group()):
            spans.append((start, start + len(part)))
            start += len(part)
    return spans


def by_character_if_unspaced(word: str) -> list[str]:
    """The word, or its parts where it has letters of a script that puts no space between words: those one by one, and
    what is between them."""
    if word.isascii() or not UNSPACED.search(word):
        return [word]
    parts: list[str] = []
    for character in GRAPHEME.findall(word):
        if UNSPACED.search(character) or not parts or UNSPACED.search(parts[-1]):
            parts.append(character)
        else:
            parts[-1] += character
    return parts


def tokenizers_of(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """ROUGE's tokenizer by metric, from the block `metrics` of params.yaml: of those metrics that have a ROUGE."""
    return {name: settings.get("tokenizer", PUBLISHED) for name, settings in metrics.items() if "rouge" in settings}


class Reading(NamedTuple):
    """What a tokenizer makes of texts: how many letters, marks, digits and pictures they have, how many of these it
    drops, and the places of texts of which it reads nothing."""

    letters: int
    dropped: int
    unread: list[int]

    @property
    def share(self) -> float:
        """Of the letters, those that are dropped."""
        return self.dropped / self.letters if self.letters else 0.0


def reading(texts: Iterable[str], tokenizer: str) -> Reading:
    """How much of the texts a tokenizer of TOKENIZERS reads. An empty text is neither read nor unread."""
    letters = dropped = 0
    unread = []
    for place, text in enumerate(texts):
        there = COUNTED.findall(INVISIBLE.sub("", text.lower().replace(CUT, "")))
        lost = 0 if tokenizer == UNICODE else sum(not (each.isascii() and each.isalnum()) for each in there)
        letters, dropped = letters + len(there), dropped + lost
        if lost == len(there) and tokenizer != UNICODE and not is_blank(text):
            unread.append(place)
    return Reading(letters, dropped, unread)


def is_blank(text: str) -> bool:
    """Whether nothing of the text can be seen."""
    return not SEPARATORS.sub("", INVISIBLE.sub("", text))
