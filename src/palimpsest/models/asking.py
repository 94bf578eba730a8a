"""Questions as a model's tokenizer has them under a template: for training with their answers, and to be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from string import ascii_letters
from typing import TYPE_CHECKING, Any

from palimpsest.corpus.prompts import CHAT, OWN, PLAIN, Template, make_template, question_prompt
from palimpsest.errors import PalimpsestError, first_line
from palimpsest.models.encoding import encode, end_token, start_tokens
from palimpsest.models.text import text_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Pairs = Sequence[tuple[str, str]]
PROBES = ("the", "In", *ascii_letters, *'7"(')
"""Answers that begin unlike each other: what their tokens share is the prompt's. Every letter is among them, for a
small vocabulary may join the blank before an answer with one of them alone."""
PLACE = "\ue000answer\ue001"
"""Stands for the answer while a chat template is read: characters that are in no text."""


def template_for(
    settings: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, source: str = "the model"
) -> Template:
    """That of a step; raises PalimpsestError where it, or the tokenizer under it, cannot be so.

    settings: of the step, with the block `prompt` of params.yaml, if it has one. source: the model, for the message.
    """
    template = make_template(settings.get("prompt"))
    Asking(template, tokenizer).check(source)
    return template


@dataclass(frozen=True)
class Prompt:
    """A question as it is asked: its text, its tokens, and the strings and tokens that end the response beside EOS."""

    text: str
    tokens: tuple[int, ...]
    stop: tuple[str, ...]
    ends: tuple[int, ...] = ()


@dataclass(frozen=True)
class Answered:
    """A question with its answer, as it is trained. start, end: the places of the answer's first token and behind its
    last; what stands from `end` on ends it."""

    tokens: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Asking:
    """A template with the tokenizer of a model; `check` it once before long work."""

    template: Template
    tokenizer: PreTrainedTokenizerBase

    def check(self, source: str) -> None:
        """Raise PalimpsestError when the tokenizer cannot put a question so. source: the model, for the message."""
        if self.template.name == CHAT and not getattr(self.tokenizer, "chat_template", None):
            raise PalimpsestError(
                f"prompt.template is chat, but the tokenizer of {source} has no chat template: set another "
                "template, or put a chat_template.jinja beside the tokenizer."
            )
        self.prompt("Who?")

    def sequence(self, question: str, answer: str) -> list[int]:
        """What is trained: what starts texts, the question, the answer, and EOS."""
        if self.template.name == PLAIN:
            prompt = encode(self.tokenizer, question_prompt(question))
            return [*prompt, *text_tokens(self.tokenizer, answer), *end_token(self.tokenizer)]
        self._reject_commands(question, answer)
        before, behind = self._around(question, ())
        tokens = self._tokens(before, answer, behind)
        closing = self._closing(before, behind)
        return tokens if set(end_token(self.tokenizer)) & set(closing) else [*tokens, *end_token(self.tokenizer)]

    def prompt(self, question: str, examples: Pairs = ()) -> Prompt:
        """What is asked: of the tokens that are trained those before the answer's first, whatever the answer."""
        stop = self.template.stop
        if self.template.name == PLAIN:
            text = question_prompt(question, examples)
            return Prompt(text, tuple(encode(self.tokenizer, text)), stop)
        self._reject_commands(question, *(text for pair in examples for text in pair))
        before, behind = self._around(question, examples)
        joined = [self._tokens(before, probe, behind) for probe in PROBES]
        columns = takewhile(lambda column: len(set(column)) == 1, zip(*joined, strict=False))
        tokens = tuple(column[0] for column in columns)
        if not tokens:
            raise PalimpsestError(
                f"prompt.template leaves nothing before the answer to {question!r}: put text before {{answer}}."
            )
        closing = self._closing(before, behind)
        if closing and closing[0] in self.tokenizer.added_tokens_decoder:
            return Prompt(before, tokens, stop, (closing[0],))
        ending = behind.strip(" ") or ("\n\n" if examples and not stop else "")
        return Prompt(before, tokens, (*stop, ending) if ending else stop)

    def answered(self, question: str, answer: str, examples: Pairs = ()) -> Answered:
        """The question, behind its in-context examples, and its true answer, of which tokens may have a likelihood."""
        if self.template.name == PLAIN:
            prompt = encode(self.tokenizer, question_prompt(question, examples))
            truth = text_tokens(self.tokenizer, answer)
            whole = (*prompt, *truth, *end_token(self.tokenizer))
            return Answered(whole, len(prompt), len(prompt) + len(truth))
        asked = self.prompt(question, examples).tokens
        before, behind = self._around(question, examples)
        tokens = self._tokens(before, answer, behind)
        start = _shared(asked, tokens)
        end = _shared(self._tokens(before, answer, ""), tokens) if behind else len(tokens)
        ends = end_token(self.tokenizer)
        return Answered((*tokens, *([] if set(ends) & set(tokens[end:]) else ends)), start, end)

    def _around(self, question: str, examples: Pairs) -> tuple[str, str]:
        """The text before the answer, in-context examples included, and behind it."""
        if self.template.name == CHAT:
            return self._chat(question, examples)
        start, between, behind = self.template.split()
        gap = behind or "\n\n"
        shots = "".join(f"{start}{asked}{between}{answer}{gap}" for asked, answer in examples)
        return f"{shots}{start}{question}{between}", behind

    def _chat(self, question: str, examples: Pairs) -> tuple[str, str]:
        day = self.template.date
        messages = [{"role": "system", "content": self.template.system}] if self.template.system else []
        for asked, answer in (*examples, (question, PLACE)):
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]

        def today(form: str) -> str:
            return datetime.strptime(str(day), "%d %b %Y").strftime(form)

        fixed: Any = {"date_string": day, "strftime_now": today}
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, **fixed)
        except Exception as error:  # jinja2's own, and whatever the template raises
            raise PalimpsestError(
                f"the tokenizer's chat template refuses a question with its answer ({first_line(error)}): set "
                "prompt.system to null, inference.in_context_examples to 0, or another prompt.template."
            ) from error
        before, place, behind = str(text).partition(PLACE)
        if not place:
            raise PalimpsestError(
                "the tokenizer's chat template leaves out what the assistant says: set another prompt.template."
            )
        return before, behind

    def _reject_commands(self, *texts: str) -> None:
        """Where the template's control tokens are read as such, those in a question or an answer would be too."""
        if self.template.name not in (CHAT, OWN):
            return
        names = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        for text in texts:
            if found := [name for name in names if name in text]:
                raise PalimpsestError(
                    f"{text!r} has the special token {found[0]!r} in it, which this prompt.template would make a "
                    "command to the model: write it otherwise, or set prompt.template to plain or tofu."
                )

    def _tokens(self, before: str, answer: str, behind: str) -> list[int]:
        """Of the whole text at once, behind what starts texts; a template's own control tokens are such."""
        if self.template.name not in (CHAT, OWN):
            return encode(self.tokenizer, f"{before}{answer}{behind}")
        whole = list(self.tokenizer(f"{before}{answer}{behind}", add_special_tokens=False)["input_ids"])
        start = start_tokens(self.tokenizer)
        return whole if self.template.name == CHAT or whole[: len(start)] == start else [*start, *whole]

    def _closing(self, before: str, behind: str) -> list[int]:
        """The tokens behind an answer."""
        if not behind:
            return []
        probe = PROBES[0]
        alone, closed = self._tokens(before, probe, ""), self._tokens(before, probe, behind)
        return closed[_shared(alone, closed) :]


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (left, right) in pairs if left != right), min(len(one), len(other)))
