"""Engines that ship a model, as they are asked here: greedily, with the log-probability of each token they choose."""

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Answer:
    """What an engine said to a prompt.

    prompt: the tokens it made of the prompt; empty where it only tells their number, prompt_tokens. tokens, log_probs:
    what it chose and how likely it found each (nats, of its whole distribution), what ended the answer left out.
    """

    prompt: tuple[int, ...]
    prompt_tokens: int
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    text: str


class Engine(Protocol):
    """facts: what a record says of it: its name, version and place, never a key."""

    @property
    def facts(self) -> dict[str, Any]: ...

    def answer(self, prompt: str, tokens: int) -> Answer:
        """Greedily, at most so many tokens. The engine cuts the prompt into tokens itself, as it does for its users."""
        ...

    def log_probs(self, tokens: list[int]) -> list[float] | None:
        """Of each token but the first, given those before it; None where the engine does not tell."""
        ...
