"""How long the sentences of the documents are, and how many numbers they hold.

`python docs/tools/prose.py [SITE]` prints a line for each page of the built site, and with `--sentences` those that are
too long or hold more than one number. It reads what a reader sees: running text and lists, folded notes too, without
headings, tables and pictures. So a number counts whether it was typed or a macro brought it, and code is a word. Pages
that are generated from code are left out.
"""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from lxml import html

WORDS, NUMBERS = 25.0, 1.0
"""Most words a sentence, and numbers a sentence, that a page may have on average."""
LONGEST = 40
"""Most words of any sentence."""
CROWDED = 0.05
"""Most sentences of a page, as a share of all, that may hold more than one number in figures."""
GENERATED = {"reference/params", "reference/command-line", "reference/api", "reference/audit-json", "reference/methods"}
SKIPPED = "table | .//pre | .//figure | .//script | .//svg | .//h1 | .//h2 | .//h3 | .//h4"
NAMES = re.compile(
    r"[248][- ]bits?\b|arXiv [\d.]+|(?:statement|section|equation|seed)s? \d+|Python 3[\d.]*|(?:Gemma|Llama) \d"
    r"|\d+ [MB]\b"
)
"""Words with a figure in them that measure nothing: a width, a place, a model's size."""
NUMBER = re.compile(r"(?<![\w.-])[-+±]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")
SPELLED = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:four|fif|six|seven|eigh|nine)teen"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundreds?|thousands?|hal(?:f|ves)|thirds?|quarters?|fifths?|tenths?)\b",
    re.IGNORECASE,
)
LOWER = "int[48]|rho|float32|bf16|bfloat16|llama|bitsandbytes|torchao|tinygemm|cuDNN|auto-gptq|lm-eval"
"""How a sentence begins that does not begin with a capital letter."""
END = re.compile(rf"(?<=[.!?])(?<!e\.g\.)[)\"”’]*\s+(?=[\"“(]?(?:[A-Z0-9]|(?:{LOWER})\b))")


@dataclass(frozen=True)
class Count:
    sentences: int
    mean_words: float
    median_words: float
    longest: int
    """words"""
    numbers: float
    """a sentence, in figures or in words"""
    crowded: int
    """sentences of more than one number in figures"""

    def far_off(self) -> list[str]:
        """What of a page's sentences is too much."""
        found = {
            f"{self.mean_words:.1f} words a sentence, at most {WORDS:g}": self.mean_words > WORDS,
            f"{self.longest} words in a sentence, at most {LONGEST}": self.longest > LONGEST,
            f"{self.numbers:.2f} numbers a sentence, at most {NUMBERS:g}": self.numbers > NUMBERS,
            f"{self.crowded} of {self.sentences} sentences hold more than one number, at most {CROWDED:.0%}": (
                self.crowded > CROWDED * self.sentences
            ),
        }
        return [said for said, far in found.items() if far]


def sentences(page: str) -> list[str]:
    """The sentences of a page of the site, in HTML."""
    article = html.fromstring(page).find_class("md-content__inner")[0]
    for element in article.xpath(f".//{SKIPPED}"):
        element.drop_tree() if element.getparent() is not None else None
    for element in article.xpath(".//code"):
        element.text = "Code"
        del element[:]
    texts = []
    for element in article.xpath(".//p | .//li[not(.//p)] | .//dd"):
        text = " ".join(element.text_content().split())
        texts += [sentence for sentence in END.split(text) if re.search(r"[a-z]", sentence)]
    return texts


def words(sentence: str) -> int:
    return len(re.findall(r"[^\W_][\w'’.-]*|%", sentence))


def figures(sentence: str) -> int:
    """Numbers in figures that measure something."""
    return len(NUMBER.findall(NAMES.sub("", sentence)))


def counted(found: list[str]) -> Count:
    lengths = [words(sentence) for sentence in found]
    numbers = [figures(sentence) for sentence in found]
    spelled = [len(SPELLED.findall(sentence)) for sentence in found]
    return Count(
        sentences=len(found),
        mean_words=mean(lengths),
        median_words=median(lengths),
        longest=max(lengths),
        numbers=mean(map(sum, zip(numbers, spelled, strict=True))),
        crowded=sum(number > 1 for number in numbers),
    )


def pages(site: Path) -> dict[str, list[str]]:
    """By the address of a page: its sentences; pages without running text are left out."""
    found = {}
    for file in sorted(site.rglob("index.html")):
        name = file.parent.relative_to(site).as_posix()
        said = sentences(file.read_text(encoding="utf-8"))
        if name not in GENERATED and said:
            found[name] = said
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Words and numbers a sentence, by page.")
    parser.add_argument("site", nargs="?", default="site", type=Path, help="the site that `make docs` built")
    parser.add_argument("--sentences", action="store_true", help="print what is too long or holds several numbers")
    options = parser.parse_args()
    print(f"{'page':32} {'sentences':>9} {'words':>6} {'median':>6} {'longest':>7} {'numbers':>7} {'crowded':>7}")
    for name, said in pages(options.site).items():
        count = counted(said)
        print(
            f"{name:32} {count.sentences:9} {count.mean_words:6.1f} {count.median_words:6g} {count.longest:7}"
            f" {count.numbers:7.2f} {count.crowded:7}" + " far off" * bool(count.far_off())
        )
        if options.sentences:
            for sentence in said:
                if words(sentence) > LONGEST or figures(sentence) > 1:
                    print(f"    {words(sentence)} words, {figures(sentence)} numbers: {sentence}")


if __name__ == "__main__":
    main()
