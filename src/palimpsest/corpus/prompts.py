"""The prompts of the metrics, as MUSE writes them; training sequences and inference share them."""

from collections.abc import Sequence

STOP_STRINGS = ("\n\n", "\nQuestion", "Question:")


def question_prompt(question: str, examples: Sequence[tuple[str, str]] = ()) -> str:
    """MUSE's KnowMem prompt: the examples with their answers, then the question; the trailing space is MUSE's."""
    shots = "".join(f"Question: {asked}\nAnswer: {answer}\n\n" for asked, answer in examples)
    return f"{shots}Question: {question}\nAnswer: "
