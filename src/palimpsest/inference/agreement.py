"""Whether an engine computes what the weights in its file say: its greedy tokens and their log-probabilities beside
those of the same weights in transformers, in float32.

How far the two may be apart is not a number that somebody liked. Engines round what enters a matrix product: llama.cpp
to 8 bits in blocks, the kernels of other engines to bfloat16. The yardstick is the same rounding, done here to the same
weights on the same tokens. On the test models its root mean square is within a tenth of llama.cpp's own; another file,
another rotary base or a changed matrix is far above it (tests/golden/test_engines.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from palimpsest.errors import PalimpsestError
from palimpsest.inference.engines import Answer, Engine
from palimpsest.models.asking import Answered
from palimpsest.models.encoding import encode
from palimpsest.runtime.startup import Deferred

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
else:
    torch = Deferred("torch")

SAME, DIFFERS, UNDECIDED = "same", "differs", "undecided"
TIMES = 2.0
"""The root mean square gap may be this many times the yardstick's."""
TIMES_LARGEST = 3.0
"""The largest gap may be this many times the yardstick's largest, which is one draw of a tail."""
FLOOR = 1e-3
"""Nats that sums in another order and keys and values in float16 may cost, where the yardstick is smaller."""
LEAST = 48
"""Tokens below which nothing is decided."""
PROMPTS = (
    "The council met on Monday, and",
    "It was the first time that",
    "In the morning they",
    "He said that the new",
    "The name of the town is",
    "Two of the three people who",
    "When the train arrived,",
    "The report says",
)
"""What is asked where nobody gives prompts. The user's own, about what was to be forgotten, say more."""


@dataclass(frozen=True)
class Asked:
    """A prompt, and its true answer where there is one.

    Of a question under a chat template, whose control tokens are no text, also tokens: those of the prompt; ends: what
    ends its answer beside EOS; truth: question and answer. Else the tokenizer makes tokens of the text.
    """

    prompt: str
    answer: str = ""
    tokens: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    truth: Answered | None = None

    def encoded(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """The tokens of the prompt."""
        return list(self.tokens) or encode(tokenizer, self.prompt)

    def answered(self, tokenizer: PreTrainedTokenizerBase) -> Answered:
        """The tokens of the prompt with its true answer, if there is one."""
        if self.truth:
            return self.truth
        asked = self.encoded(tokenizer)
        whole = encode(tokenizer, f"{self.prompt} {self.answer}") if self.answer else asked
        return Answered(tuple(whole), len(asked), len(whole))


class Gaps(TypedDict):
    """Of log-probabilities of the same tokens, in nats: root mean square and largest."""

    rms: float
    largest: float


class Agreement(TypedDict):
    """What was found. prompts: asked, and cut into the same tokens by both. tokens: that the engine chose; same_tokens:
    of these, those that transformers finds likeliest behind the same tokens; near_ties: of the others, those whose two
    log-probabilities there are nearer than the tolerance allows. gaps: engine to exact; yardstick: the
    engine's rounding to exact; allowed: what gaps may be. reasons: for another verdict than "same".
    """

    verdict: str
    reasons: list[str]
    prompts: int
    same_prompts: int
    tokens: int
    same_tokens: int
    near_ties: int
    gaps: Gaps
    yardstick: Gaps
    rounding: str
    allowed: Gaps


@dataclass(frozen=True)
class Rounding:
    """How an engine rounds what enters a matrix product. blocks: the layers for which it does so to 8 bits, each with
    the number of inputs that share a scale; what enters others is rounded to bfloat16."""

    blocks: Mapping[str, int]

    def __str__(self) -> str:
        sizes = " and ".join(map(str, sorted(set(self.blocks.values()))))
        return f"activations in 8 bits, blocks of {sizes}" if sizes else "activations in bfloat16"

    def __call__(self, module: str, values: Tensor) -> Tensor:
        block = self.blocks.get(module)
        if block is None:
            return values.to(torch.bfloat16).to(values.dtype)
        size = block if values.shape[-1] % block == 0 else values.shape[-1]
        groups = values.unflatten(-1, (-1, size))
        steps = groups.abs().amax(-1, keepdim=True) / 127
        return torch.where(steps > 0, torch.round(groups / steps) * steps, 0).flatten(-2)


@contextmanager
def rounded(model: PreTrainedModel, rounding: Rounding) -> Iterator[None]:
    """Within it every linear layer gets its input as the engine's kernels do. A head that shares the weights of the
    embedding has the embedding's format."""
    from transformers.pytorch_utils import Conv1D

    hooks = []
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight  # type: ignore[union-attr]
    names = {module: name for name, module in model.named_modules()}
    for module, own in names.items():
        if isinstance(module, torch.nn.Linear | Conv1D):
            name = names[embedding] if tied and module is head else own  # type: ignore[index]

            def rounds(_: Any, inputs: tuple[Tensor, ...], name: str = name) -> tuple[Tensor, ...]:
                return (rounding(name, inputs[0]), *inputs[1:])

            hooks.append(module.register_forward_pre_hook(rounds))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def ask(
    engine: Engine, asked: Sequence[Asked], tokens: int, advance: Callable[[], object] = lambda: None
) -> list[Answer]:
    answers = []
    for each in asked:
        answers.append(engine.answer(each.prompt, tokens))
        advance()
    return answers


def compare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[Asked],
    answers: Sequence[Answer],
    rounding: Rounding,
    ends: Sequence[int] = (),
) -> Agreement:
    """Hold what an engine said to the model of the weights in its file, in float32.

    ends: tokens that end an answer, which some engines list with it. Raises PalimpsestError for tokens that the model
    does not have.
    """
    paths = []
    for each, answer in zip(asked, answers, strict=True):
        ours = each.encoded(tokenizer)
        if (list(answer.prompt) or ours) == ours and answer.prompt_tokens == len(ours):
            paths.append(_Path(ours, *_without_ends(answer, ends)))
    most = model.get_input_embeddings().weight.shape[0]  # type: ignore[union-attr, index]
    if any(not 0 <= token < most for path in paths for token in path.chosen):
        raise PalimpsestError(f"the engine gives tokens beyond the {most} of the model: does it run another model?")
    theirs = np.array([value for path in paths for value in path.log_probs])
    exact = _look(model, paths)
    with rounded(model, rounding):
        yardstick = _gaps(_look(model, paths).log_probs - exact.log_probs)
    allowed = Gaps(
        rms=max(FLOOR, TIMES * yardstick["rms"]), largest=max(3 * FLOOR, TIMES_LARGEST * yardstick["largest"])
    )
    ties = (exact.best - exact.log_probs <= 2 * allowed["largest"]) & ~exact.same
    found = Agreement(
        verdict=SAME,
        reasons=[],
        prompts=len(asked),
        same_prompts=len(paths),
        tokens=len(theirs),
        same_tokens=int(exact.same.sum()),
        near_ties=int(ties.sum()),
        gaps=_gaps(theirs - exact.log_probs),
        yardstick=yardstick,
        rounding=str(rounding),
        allowed=allowed,
    )
    _decide(found)
    return found


@dataclass(frozen=True)
class _Path:
    """The tokens of a prompt, those that the engine chose behind it, and how likely it found them."""

    prompt: list[int]
    chosen: list[int]
    log_probs: list[float]


def _without_ends(answer: Answer, ends: Sequence[int]) -> tuple[list[int], list[float]]:
    tokens, values = list(answer.tokens), list(answer.log_probs)
    while tokens and tokens[-1] in ends:
        tokens.pop()
        values.pop()
    return tokens, values


class _Look(NamedTuple):
    """[tokens] what the model makes of the chosen tokens, one path after another: how likely it finds them, and the
    likeliest at their places, and whether they are these."""

    log_probs: NDArray[np.float64]
    best: NDArray[np.float64]
    same: NDArray[np.bool_]


def _look(model: PreTrainedModel, paths: Sequence[_Path]) -> _Look:
    found: list[tuple[float, float, bool]] = []
    for path in paths:
        rows = log_probs_behind(model, [*path.prompt, *path.chosen], len(path.prompt))
        chosen = torch.tensor(path.chosen, dtype=torch.long, device=model.device)
        best, places = rows.max(-1)
        values = rows.gather(-1, chosen[:, None]).squeeze(-1)
        found += zip(values.tolist(), best.tolist(), (places == chosen).tolist(), strict=True)
    columns = list(zip(*found, strict=True)) or [(), (), ()]
    return _Look(np.array(columns[0], float), np.array(columns[1], float), np.array(columns[2], bool))


def log_probs_behind(model: PreTrainedModel, tokens: Sequence[int], start: int = 1) -> Tensor:
    """[tokens - start, vocabulary] log-probabilities, in float64, of what may stand at each place from `start` on."""
    with torch.inference_mode():
        given = torch.tensor([list(tokens)], device=model.device)
        logits = model(input_ids=given, use_cache=False).logits[0, start - 1 : -1]
        return torch.log_softmax(logits.double(), -1)


def _gaps(differences: NDArray[np.float64]) -> Gaps:
    if not len(differences):
        return Gaps(rms=0.0, largest=0.0)
    return Gaps(rms=float(np.sqrt(np.square(differences).mean())), largest=float(np.abs(differences).max()))


def _decide(found: Agreement) -> None:
    reasons = found["reasons"]
    if found["same_prompts"] < found["prompts"]:
        reasons.append(
            f"it cuts {found['prompts'] - found['same_prompts']} of {found['prompts']} prompts into other tokens"
        )
    for key, name in (("rms", "root mean square"), ("largest", "largest")):
        gap, bound = found["gaps"][key], found["allowed"][key]  # type: ignore[literal-required]
        if not gap <= bound:
            reasons.append(f"the {name} gap of log-probabilities is {gap:.3g} nats, and {bound:.3g} are allowed")
    if others := found["tokens"] - found["same_tokens"] - found["near_ties"]:
        reasons.append(f"{others} of {found['tokens']} tokens are others, and no near ties")
    if reasons:
        found["verdict"] = DIFFERS
    elif found["tokens"] < LEAST:
        found["verdict"] = UNDECIDED
        reasons.append(f"{found['tokens']} tokens are too few: ask more prompts, or for more --tokens")
