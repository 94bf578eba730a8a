"""The same scores by the engine that ships a file and by its weights in transformers, beside what `agreement` finds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from palimpsest.corpus.files import cleaned, json_lines
from palimpsest.corpus.prompts import CHAT, make_template
from palimpsest.errors import PalimpsestError
from palimpsest.inference.agreement import DIFFERS, Agreement, Asked, Rounding, ask, compare, log_probs_behind
from palimpsest.inference.engines import Answer, Engine
from palimpsest.metrics.rouge import rouge_l

PROMPT_KEYS = ("prompt", "question", "text")
"""What a line of a file of prompts may call what is asked; `answer` is the true one."""


class Both(TypedDict):
    """A number by the engine, and by transformers."""

    engine: float
    transformers: float


class EngineRecord(TypedDict):
    """What `palimpsest engine` finds. engine: its facts. same_responses: of the prompts, those that both answer word
    for word, each going on from its own tokens, so that a near tie may part them. rouge: mean ROUGE-L recall of the
    answers in percent, None where no prompt has one. nats: mean nats per token of the true answers, None where there
    are none or the engine does not tell."""

    file: str
    format: str
    engine: dict[str, Any]
    verdict: str
    reasons: list[str]
    agreement: Agreement
    same_responses: int
    rouge: Both | None
    nats: Both | None


def read_prompts(path: Path) -> list[Asked]:
    """Lines of JSON with a prompt (or question, or text) and, where there is one, its true answer; raises
    PalimpsestError that names the line."""
    if not path.is_file():
        raise PalimpsestError(f"{path} does not exist: give a file of JSON lines, each with a prompt.")
    asked = []
    for place, row in json_lines(path, "mend it"):
        given = [row[key] for key in PROMPT_KEYS if key in row] if isinstance(row, dict) else []
        if not given or not isinstance(given[0], str) or not given[0].strip():
            raise PalimpsestError(f"{place} has no {', '.join(PROMPT_KEYS)}: give it one, as text.")
        answer = row.get("answer", "")
        if not isinstance(answer, str):
            raise PalimpsestError(f"{place} has an answer that is no text: write it as text.")
        asked.append(Asked(cleaned(given[0], place), cleaned(answer, place)))
    if not asked:
        raise PalimpsestError(f"{path} holds no prompt: give a file of JSON lines, each with a prompt.")
    return asked


def under_chat_template(
    asked: Sequence[Asked], tokenizer: Any, source: Path, system: str | None, date: str | None
) -> list[Asked]:
    """Each as the user's message of a chat, its answer as the assistant's.

    tokenizer: of `source`, which a message names; system: the message before it, None for the chat template's own;
    date: the day that a template may print. Raises PalimpsestError where the tokenizer has no chat template.
    """
    from palimpsest.models.asking import Asking

    asking = Asking(make_template({"template": CHAT, "system": system, "date": date}), tokenizer)
    asking.check(str(source))
    made = []
    for each in asked:
        prompt = asking.prompt(each.prompt)
        tokens = tuple(tokenizer(prompt.text, add_special_tokens=False)["input_ids"])
        truth = asking.answered(each.prompt, each.answer) if each.answer else None
        made.append(Asked(prompt.text, each.answer, tokens, prompt.ends, truth))
    return made


def examine(
    engine: Engine,
    load: Callable[[], tuple[Any, Any]],
    asked: Sequence[Asked],
    rounding: Rounding,
    tokens: int,
    advance: Callable[[], object] = lambda: None,
) -> EngineRecord:
    """load: gives the model in float32 and its tokenizer, once the engine has answered. file and format are the
    caller's to fill in."""
    from palimpsest.inference.generation import end_tokens

    answers = ask(engine, asked, tokens, advance)
    model, tokenizer = load()
    ends = end_tokens(model, tokenizer)
    agreement = compare(model, tokenizer, asked, answers, rounding, ends)
    ours = _responses(model, tokenizer, asked, tokens)
    reasons = list(agreement["reasons"])
    nats = _nats(engine, model, tokenizer, asked)
    bound = agreement["allowed"]["rms"]
    if nats and not abs(nats["engine"] - nats["transformers"]) <= bound:
        reasons.append(
            f"the true answers have {nats['engine']:.4g} nats per token in the engine and {nats['transformers']:.4g} "
            f"here, and {bound:.3g} apart are allowed"
        )
    verdict = DIFFERS if len(reasons) > len(agreement["reasons"]) else agreement["verdict"]
    texts = [answer.text.strip() for answer in answers]
    return EngineRecord(
        file="",
        format="",
        engine=engine.facts,
        verdict=verdict,
        reasons=reasons,
        agreement=agreement,
        same_responses=sum(one == other for one, other in zip(texts, ours, strict=True)),
        rouge=_rouge(asked, answers, ours),
        nats=nats,
    )


def _responses(model: Any, tokenizer: Any, asked: Sequence[Asked], tokens: int) -> list[str]:
    from palimpsest.inference.generation import generate
    from palimpsest.inference.requests import Request

    requests = [
        Request("engine", i, each.prompt, each.answer, tokens, (), each.tokens, each.ends)
        for i, each in enumerate(asked)
    ]
    return [response.response for response in generate(model, tokenizer, requests, 8)]


def _rouge(asked: Sequence[Asked], answers: Sequence[Answer], ours: Sequence[str]) -> Both | None:
    known = [i for i, each in enumerate(asked) if each.answer]
    if not known:
        return None
    theirs = [rouge_l(asked[i].answer, answers[i].text).recall for i in known]
    here = [rouge_l(asked[i].answer, ours[i]).recall for i in known]
    return Both(engine=100 * sum(theirs) / len(known), transformers=100 * sum(here) / len(known))


def _nats(engine: Engine, model: Any, tokenizer: Any, asked: Sequence[Asked]) -> Both | None:
    """Of the tokens of each prompt with its answer, those of the answer."""
    import torch

    theirs: list[float] = []
    here: list[float] = []
    for each in asked:
        if not each.answer:
            continue
        truth = each.answered(tokenizer)
        found = engine.log_probs(list(truth.tokens))
        if found is None:
            return None
        chosen = torch.tensor(truth.tokens[1:], device=model.device)
        ours = log_probs_behind(model, truth.tokens).gather(-1, chosen[:, None]).squeeze(-1).tolist()
        theirs += found[truth.start - 1 : truth.end - 1]
        here += ours[truth.start - 1 : truth.end - 1]
    if not theirs:
        return None
    return Both(engine=-sum(theirs) / len(theirs), transformers=-sum(here) / len(here))
