"""What the metrics are called where other tools read them."""

from dataclasses import dataclass

from palimpsest.vocabulary import (
    FORGET,
    KNOWMEM,
    KNOWMEM_FORGET,
    KNOWMEM_RETAIN,
    PERPLEXITY,
    PRIVLEAK,
    RETAIN,
    UTILITY,
    VERBMEM,
)


@dataclass(frozen=True)
class Reported:
    """said: with the unit; metric_type: of the hub's, or our own name; split: whose text is asked; task: ours."""

    name: str
    said: str
    metric_type: str
    split: str
    task: str


REPORTED = {
    VERBMEM: Reported("VerMem", "VerMem: recites the forget set", "rouge", FORGET, VERBMEM),
    KNOWMEM: Reported("KnowMem", "KnowMem: answers questions on it", "rouge", FORGET, KNOWMEM_FORGET),
    PRIVLEAK: Reported("PrivLeak", "PrivLeak: membership shows (0: it does not)", "privleak", FORGET, PRIVLEAK),
    UTILITY: Reported("Utility", "Utility: answers questions on the retain set", "rouge", RETAIN, KNOWMEM_RETAIN),
    PERPLEXITY: Reported("Perplexity", "Perplexity", "perplexity", RETAIN, PERPLEXITY),
}
