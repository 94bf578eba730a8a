"""How long the sentences of the documents are, and how many numbers they hold.

`python docs/tools/prose.py [SITE]` prints a line for each page of the built site. It reads what a reader sees: running
text and lists, folded notes too, without headings, tables, code and pictures. Pages that are generated from code are
left out.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from lxml import html

WORDS, NUMBERS = 25.0, 1.0
"""Most words a sentence, and numbers a sentence, that a page may have on average."""
GENERATED = {"reference/params", "reference/command-line", "reference/api", "reference/audit-json", "reference/methods"}
SKIPPED = "table | .//pre | .//code | .//figure | .//script | .//svg | .//h1 | .//h2 | .//h3 | .//h4"
NAMES = re.compile(r"[248][- ]bits?\b|arXiv [\d.]+|(?:statement|section|equation|seed)s? \d+|Python 3[\d.]*|\d+ [MB]\b")
"""Words with a figure in them that measure nothing: a width, a place, a model's size."""
NUMBER = re.compile(r"(?<![\w.-])[-+±]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")
END = re.compile(r"(?<=[.!?])[)\"”’]*\s+(?=[\"“(]?[A-Z0-9])")


@dataclass(frozen=True)
class Count:
    sentences: int
    mean_words: float
    median_words: float
    numbers: float
    """a sentence"""


def sentences(page: str) -> list[str]:
    """The sentences of a page of the site, in HTML."""
    article = html.fromstring(page).find_class("md-content__inner")[0]
    for element in article.xpath(f".//{SKIPPED}"):
        element.drop_tree() if element.getparent() is not None else None
    texts = []
    for element in article.xpath(".//p | .//li[not(.//p)] | .//dd"):
        text = " ".join(element.text_content().split())
        texts += [sentence for sentence in END.split(text) if re.search(r"[a-z]", sentence)]
    return texts


def counted(found: list[str]) -> Count:
    words = [len(re.findall(r"[^\W_][\w'’.-]*|%", sentence)) for sentence in found]
    numbers = [len(NUMBER.findall(NAMES.sub("", sentence))) for sentence in found]
    return Count(len(found), mean(words), median(words), mean(numbers))


def pages(site: Path) -> dict[str, Count]:
    """By the address of a page: its counts; pages without running text are left out."""
    counts = {}
    for file in sorted(site.rglob("index.html")):
        name = file.parent.relative_to(site).as_posix()
        found = sentences(file.read_text(encoding="utf-8"))
        if name not in GENERATED and found:
            counts[name] = counted(found)
    return counts


def main(arguments: list[str]) -> int:
    print(f"{'page':36} {'sentences':>9} {'words':>6} {'median':>6} {'numbers':>7}")
    for name, count in pages(Path(arguments[0] if arguments else "site")).items():
        far = " far off" if count.mean_words > WORDS or count.numbers > NUMBERS else ""
        print(
            f"{name:36} {count.sentences:9} {count.mean_words:6.1f} {count.median_words:6g} {count.numbers:7.2f}{far}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
