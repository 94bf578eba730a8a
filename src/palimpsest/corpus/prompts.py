"""The prompts of the metrics: how a question and its answer are put. Training sequences and inference share them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from palimpsest.errors import PalimpsestError

STOP_STRINGS = ("\n\n", "\nQuestion", "Question:")
PLAIN, TOFU, CHAT, OWN = "plain", "tofu", "chat", "own"
TEXTS = {PLAIN: "Question: {question}\nAnswer: {answer}", TOFU: "Question: {question}\nAnswer: {answer}"}
"""MUSE's KnowMem prompt; and the question_start_tag, question_end_tag and answer_tag of TOFU (arXiv 2401.06121) for
models without a chat format, which OpenUnlearning has for base models too."""
DATE = "26 Jul 2024"
"""What Llama's chat templates print where they are told no date; others would print the day of the run."""


@dataclass(frozen=True)
class Template:
    """How a question and its answer are put.

    name: plain, tofu, chat or own. text: of all but chat, with {question} and {answer}. system, date: of chat, the
    message before the question (none: what the chat template itself puts) and the date that it may print.

    The two known texts are the same; they differ in their tokens. Plain has the prompt with its trailing space, and the
    answer, tokenized apart, as MUSE asks. All others have question and answer tokenized together, as TOFU trains: the
    space belongs to the answer's first token.
    """

    name: str = PLAIN
    text: str | None = TEXTS[PLAIN]
    system: str | None = None
    date: str | None = None

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end an answer, beside EOS and what the template itself puts behind one."""
        return STOP_STRINGS if self.name in TEXTS else ()

    def record(self) -> dict[str, str | None]:
        """What a record of inference or of scores says of it."""
        return asdict(self)

    def split(self) -> tuple[str, str, str]:
        """The text before the question, between question and answer, and behind the answer."""
        before, rest = str(self.text).split("{question}")
        between, behind = rest.split("{answer}")
        return before, between, behind


AS_MUSE = Template()
"""What holds where params.yaml has no block `prompt`."""


def make_template(settings: Mapping[str, Any] | None) -> Template:
    """The template of the block `prompt` of params.yaml; plain where there is no block.

    Raises PalimpsestError for a text that lacks {question} or {answer}, and for chat's keys with another template.
    """
    if settings is None:
        return AS_MUSE
    name, system, date = settings["template"], settings.get("system"), settings.get("date")
    if name == CHAT:
        return Template(CHAT, None, system, _day(date or DATE))
    for key, value in (("system", system), ("date", date)):
        if value is not None:
            raise PalimpsestError(f"prompt.{key} belongs to the template chat alone: set it to null, or remove it.")
    if name in TEXTS:
        return Template(name, TEXTS[name])
    counts = name.count("{question}"), name.count("{answer}")
    if counts != (1, 1) or name.index("{question}") > name.index("{answer}"):
        raise PalimpsestError(
            f"prompt.template is {name[:80]!r}: give {PLAIN}, {TOFU}, {CHAT}, or a text of your own in which "
            "{question} and then {answer} stand once each."
        )
    return Template(OWN, name)


def prompts_record(template: Template, prompts: Iterable[str]) -> dict[str, str]:
    """{"prompts": SHA-256 of all that is asked} where the model's own tokenizer puts it, so that models which were
    asked otherwise can be told; of the other templates, which say it themselves, nothing."""
    if template.name != CHAT:
        return {}
    return {"prompts": hashlib.sha256("\0".join(prompts).encode()).hexdigest()}


def _day(date: str) -> str:
    try:
        datetime.strptime(date, "%d %b %Y")
    except ValueError:
        raise PalimpsestError(f"prompt.date is {date[:80]!r}, which is no day: give one as in {DATE}.") from None
    return date


def question_prompt(question: str, examples: Sequence[tuple[str, str]] = ()) -> str:
    """MUSE's KnowMem prompt: the examples with their answers, then the question; the trailing space is MUSE's."""
    shots = "".join(f"Question: {asked}\nAnswer: {answer}\n\n" for asked, answer in examples)
    return f"{shots}Question: {question}\nAnswer: "
