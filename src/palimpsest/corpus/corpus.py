"""What every source of text becomes: the splits of MUSE, in memory and on disk."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """A question on one document and the short answer that stands in it."""

    question: str
    answer: str


@dataclass(frozen=True)
class Prompt:
    """A passage of a forget document and `gt`, the words right after it."""

    prompt: str
    gt: str


@dataclass(frozen=True)
class Corpus:
    """Documents to forget, to retain and never seen (holdout), with the evaluation texts of MUSE (arXiv:2407.06460).

    forget_icl and retain_icl are in-context examples, never scored. The privleak lists are the texts whose likelihoods
    the membership attack compares.
    """

    forget: list[str]
    retain: list[str]
    holdout: list[str]
    forget_qa: list[Question]
    retain_qa: list[Question]
    forget_icl: list[Question]
    retain_icl: list[Question]
    verbmem: list[Prompt]
    privleak_forget: list[str]
    privleak_retain: list[str]
    privleak_holdout: list[str]
