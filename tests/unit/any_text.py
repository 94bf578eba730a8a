"""Any text of Unicode, and text that programs trip over, for property tests."""

from hypothesis import Phase, settings
from hypothesis import strategies as st

AWKWARD = (
    "<s>",
    "</s>",
    "<pad>",
    "<b>&amp;",
    "{{ x }}",
    "\r\n",
    "\r",
    "\ufeff",
    "\u200b",
    "\u2028",
    "\0",
    "'’",
    "لا",
    "ﬁ",
    "👍🏽",
    "中文",
    "7",
)


def always(examples: int) -> settings:
    """The same examples each time."""
    phases = [Phase.explicit, Phase.generate]
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None, phases=phases)


def texts(least: int = 0) -> st.SearchStrategy[str]:
    """Of every character but halves of surrogate pairs, which are none."""
    characters = st.characters(exclude_categories=["Cs"])
    pieces = st.one_of(st.text(characters, max_size=12), st.sampled_from(AWKWARD))
    return st.lists(pieces, min_size=least, max_size=6).map("".join)
