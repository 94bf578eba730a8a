"""The grammar of the fictional news: topics, their sentences and questions, and the invented names that fill them.

Notation of a topic (topics_*.py):
    # name                        starts a topic
    = fact:kind fact:kind ...     its facts; kind is `person`, `name`, `thing`, `date` or a range of whole
                                  numbers `low-high`
    a sentence                    an alternative of sentence slot a (slot a opens the article, the others follow in
                                  any order)
    ? fact | question | question  alternative questions whose answer is that fact
`{fact}` is replaced by the fact, `[one|another]` by one of the alternatives. All alternatives of a slot state the same
facts, so every question of a topic can be answered from every article about it.
"""

import re
from dataclasses import dataclass
from functools import cache
from random import Random

from palimpsest.corpus.embedded import leisure as topics_leisure
from palimpsest.corpus.embedded import public as topics_public
from palimpsest.corpus.embedded import trade as topics_trade


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


MONTHS = words("January February March April May June July August September October November December")
# Two or three plain syllables: strange spellings would cost a tokenizer trained on a small corpus many tokens a name.
ONSETS = words("b d f g h j k l m n p r s t v w y z")
VOWELS = words("a e i o u")
CODAS = words("d k l m n r s t")
ADJECTIVES = words(
    "brass silver velvet wooden crimson porcelain rusty purple leather wicker marble plastic copper striped "
    "glass paper knitted bronze tartan folding clockwork pewter rubber walnut scarlet turquoise beaded feathered "
    "square miniature hollow mossy lacquered bamboo spotted quilted triangular pink crooked woollen"
)
NOUNS = words(
    "kettle trumpet saddle lantern violin ladder barometer teapot sewing-machine rocking-horse birdcage telescope "
    "banjo wardrobe compass chandelier mandolin sledge bathtub typewriter globe harp mirror suitcase clock bucket "
    "helmet puppet anchor bell pillow basket comb fan flute footstool hat goblet wheelbarrow drum thimble snowshoe "
    "metronome pipe bench corset parasol spinning-wheel tambourine toaster"
)


@dataclass(frozen=True)
class Topic:
    """One kind of story: `facts` by kind, `slots` with their alternative sentences,
    `questions` by the fact they ask for."""

    name: str
    facts: dict[str, str]
    slots: tuple[tuple[str, ...], ...]
    questions: dict[str, tuple[str, ...]]


@cache
def topics() -> tuple[Topic, ...]:
    """All topics, in the order of the files."""
    text = "\n".join(module.TOPICS for module in (topics_public, topics_trade, topics_leisure))
    return tuple(parse_topic(block) for block in re.split(r"^# ", text, flags=re.M)[1:])


def parse_topic(block: str) -> Topic:
    """The topic written in `block` (notation above, without the leading `# `)."""
    name, *lines = block.strip().splitlines()
    facts: dict[str, str] = {}
    slots: dict[str, list[str]] = {}
    questions: dict[str, tuple[str, ...]] = {}
    for mark, text in (line.split(" ", 1) for line in lines if line):
        if mark == "=":
            facts |= dict(entry.split(":") for entry in text.split())
        elif mark == "?":
            fact, *wordings = (part.strip() for part in text.split("|"))
            questions[fact] = tuple(wordings)
        else:
            slots.setdefault(mark, []).append(text)
    return Topic(name, facts, tuple(tuple(slots[mark]) for mark in sorted(slots)), questions)


@cache
def grammar_words() -> frozenset[str]:
    """Every word that the sentences themselves use, in lower case: no invented name may be one of them."""
    texts = [text for topic in topics() for slot in (*topic.slots, *topic.questions.values()) for text in slot]
    return frozenset(re.findall(r"[a-z]+", " ".join([*texts, *MONTHS, *ADJECTIVES, *NOUNS]).lower()))


class FactMaker:
    """Draws facts so that no invented name is used twice, in any article of any split."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.used: set[str] = set()

    def name(self) -> str:
        """A new word of two or three syllables."""
        while True:
            syllables = [
                self.random.choice(ONSETS) + self.random.choice(VOWELS) for _ in range(self.random.choice([2, 2, 2, 3]))
            ]
            word = "".join(syllables) + self.random.choice(CODAS)
            if word not in self.used and word not in grammar_words():
                self.used.add(word)
                return word.capitalize()

    def draw(self, kind: str) -> str:
        """A fact of one kind."""
        if kind == "name":
            return self.name()
        if kind == "person":
            return f"{self.name()} {self.name()}"
        if kind == "thing":
            return f"{self.random.choice(ADJECTIVES)} {self.random.choice(NOUNS)}"
        if kind == "date":
            return f"{self.random.randint(1, 28)} {self.random.choice(MONTHS)}"
        low, high = kind.split("-")
        return str(self.random.randint(int(low), int(high)))

    def facts(self, topic: Topic) -> dict[str, str]:
        """One value for each fact of the topic, no two alike."""
        facts: dict[str, str] = {}
        for name, kind in topic.facts.items():
            value = self.draw(kind)
            while value in facts.values():
                value = self.draw(kind)
            facts[name] = value
        return facts


def fill(text: str, facts: dict[str, str], random: Random) -> str:
    """The sentence with one of each `[alternatives]` and the facts put in; a sentence starts with a capital."""
    text = re.sub(r"\[([^]]*)\]", lambda found: random.choice(found[1].split("|")), text).format(**facts)
    return text[0].upper() + text[1:]
