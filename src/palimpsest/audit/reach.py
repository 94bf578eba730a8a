"""Whether the study's own questions and passages reach the target: one that never gave the answers has none to forget.

A prompt of another form than the one trained under, or a text that was never learned, leaves the target without an
answer. What an unlearned model then does not say is no forgetting, and what a quantized one does not say no proof.
"""

from collections.abc import Mapping

from palimpsest.audit.records import Study
from palimpsest.audit.shapes import Reach
from palimpsest.vocabulary import FULL, KNOWMEM, OK, TARGET, VERBMEM

UNREACHED = "not reached"
"""The status of a metric whose questions do not reach the target."""

WHAT = {
    KNOWMEM: ("The questions do not reach the model", "questions", "answers", "prompt.template"),
    VERBMEM: ("The passages do not reach the model", "forget text", "the text", "corpus, training and verbmem_tokens"),
}


def reach(study: Study, floors: Mapping[str, float] | None) -> dict[str, Reach]:
    """By metric of the forget set, what the target scores in full precision at its worst seed, and whether that is
    enough; empty without floors. A metric that nobody was asked for is left out.

    floors: percent, by metric.
    """
    found: dict[str, Reach] = {}
    for metric, floor in (floors or {}).items():
        records = [study.scores[study.one(TARGET), seed, FULL][metric] for seed in study.seeds]
        if not any(record["n"] for record in records):
            continue
        scores = [record["score"] for record in records]
        known = [score for score in scores if score is not None]
        lowest = min(known) if len(known) == len(scores) else None
        status = OK if lowest is not None and lowest >= floor else UNREACHED
        found[metric] = {"score": lowest, "floor": floor, "status": status}
    return found


def sentences(found: dict[str, Reach]) -> list[str]:
    """One on each metric whose questions do not reach the target."""
    lines = []
    for metric, each in found.items():
        if each["status"] != OK:
            said, asked, missing, key = WHAT[metric]
            score = "no number" if each["score"] is None else f"{each['score']:.0f} %"
            lines.append(
                f"{said}: the target itself, before any unlearning, scores {score} on its own {asked} in {FULL}, under "
                f"the floor of {each['floor']:g} %, so no verdict on {missing} is possible (check {key})."
            )
    return lines
