"""Attacks in asking: several samples of an answer, other words for a question, and the first words of an answer."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from math import comb
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palimpsest.attacks.kinds import PARAPHRASE, PLACE, PREFIX, SAMPLE
from palimpsest.corpus.corpus import Corpus
from palimpsest.corpus.files import read_text
from palimpsest.corpus.prompts import PLAIN, Template
from palimpsest.errors import PalimpsestError, choose
from palimpsest.inference.files import Response
from palimpsest.inference.generation import generate, greedy, sampling
from palimpsest.inference.requests import Request, corpus_requests
from palimpsest.metrics.rouge import VARIANTS
from palimpsest.models.asking import Asking
from palimpsest.models.text import text_tokens
from palimpsest.vocabulary import KNOWMEM_FORGET

PARAPHRASED = ("paraphrase", "paraphrased_question")
"""What a line of a file of paraphrases may call one; TOFU's files have the second."""

Decoding = Callable[[PreTrainedModel, PreTrainedTokenizerBase], AbstractContextManager[None]]


def questions_of(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, inference: Mapping[str, Any], template: Template
) -> list[Request]:
    """The questions on the forget set as inference asks them; raises PalimpsestError where there is none."""
    lengths = inference["verbmem_tokens"], inference["knowmem_tokens"], inference["in_context_examples"]
    requests = corpus_requests(corpus, tokenizer, *lengths, template)
    found = [request for request in requests if request.task == KNOWMEM_FORGET]
    if not found:
        raise PalimpsestError(
            "this attack asks the questions of the forget set, and the corpus has none: add questions, or take an "
            "attack on the weights (relearn, prune)."
        )
    return found


def prefixed(
    requests: Sequence[Request], corpus: Corpus, tokenizer: PreTrainedTokenizerBase, words: int, template: Template
) -> list[Request]:
    """Each question with the first words of its answer, in the tokens that training has; what is left of the answer is
    asked for. Answers of no more words are left out; without words the requests are those given."""
    if words == 0:
        return list(requests)
    asking, found = Asking(template, tokenizer), []
    for request in requests:
        parts = request.answer.split()
        if len(parts) <= words:
            continue
        tokens = _answer_tokens(asking, corpus.forget_qa[request.id].question, request.answer)
        ends = next(
            (i for i in range(1, len(tokens)) if len(str(tokenizer.decode(tokens[: i + 1])).split()) > words),
            len(tokens),
        )
        asked = f"{request.prompt.rstrip()} {' '.join(parts[:words])}"
        rest = " ".join(parts[words:])
        found.append(replace(request, prompt=asked, answer=rest, tokens=(*request.tokens, *tokens[:ends])))
    if not found:
        raise PalimpsestError(f"prefix: no answer has more than {words} words: lower words.")
    return found


def _answer_tokens(asking: Asking, question: str, answer: str) -> list[int]:
    """Of the answer as training has it, what follows the question."""
    if asking.template.name == PLAIN:
        return text_tokens(asking.tokenizer, answer)
    return asking.sequence(question, answer)[len(asking.prompt(question).tokens) :]


def paraphrased(
    requests: Sequence[Request],
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    inference: Mapping[str, Any],
    template: Template,
    attack: Mapping[str, Any],
) -> list[list[Request]]:
    """The requests once for each way of putting their questions. attack: templates or file."""
    given = read_paraphrases(Path(attack["file"])) if attack["file"] else {}
    ways = attack["templates"] or [None]
    found = []
    for way in ways:
        rows = list(corpus.forget_qa)
        for request in requests:
            asked = rows[request.id].question
            if way is None and asked not in given:
                raise PalimpsestError(f"{attack['file']} has no paraphrase of the question {asked!r}: add one.")
            rows[request.id] = replace(
                rows[request.id], question=given[asked] if way is None else way.replace(PLACE, asked)
            )
        found.append(questions_of(replace(corpus, forget_qa=rows), tokenizer, inference, template))
    return found


def read_paraphrases(file: Path) -> dict[str, str]:
    """By question another way to put it, from JSON lines or a JSON list of objects with `question` and one of
    PARAPHRASED; raises PalimpsestError that names the row."""
    if not file.is_file():
        raise PalimpsestError(f"paraphrase: {file} does not exist: give a file of paraphrased questions.")
    text = read_text(file)
    try:
        rows = (
            json.loads(text)
            if text.lstrip().startswith("[")
            else [json.loads(x) for x in text.splitlines() if x.strip()]
        )
    except (ValueError, RecursionError) as error:
        raise PalimpsestError(f"{file} is neither JSON lines nor a JSON list ({error}): correct it.") from None
    found = {}
    for number, row in enumerate(rows, start=1):
        other = next((row[key] for key in PARAPHRASED if key in row), None) if isinstance(row, dict) else None
        if not (isinstance(other, str) and other.strip() and isinstance(row.get("question"), str)):
            raise PalimpsestError(f"{file}, record {number} needs the texts question and {' or '.join(PARAPHRASED)}.")
        found[row["question"]] = other
    return found


def leak_at(leaks: Sequence[int], samples: int, most: int) -> dict[str, float]:
    """leak@k (arXiv 2511.04934, equation 1) in percent for k = 1, 2, 4, ... `most`: mean over the prompts of
    1 - C(n - c, k) / C(n, k). leaks: c, of the n samples of each prompt those that leak."""
    ks = [2**i for i in range(most.bit_length()) if 2**i <= most]
    return {str(k): 100 * sum(1 - comb(samples - c, k) / comb(samples, k) for c in leaks) / len(leaks) for k in ks}


def ask_attacked(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    settings: Mapping[str, Any],
    template: Template,
) -> tuple[list[Response], dict[str, Any]]:
    """The best response to each question under the attack, and what is known of it: ids and per_example (ROUGE, shares
    of 1), and leak@k for samples.

    settings: attack, inference and metric (KnowMem's block: rouge, and tokenizer). Of several responses to a question
    the best counts, as the worst case for who wants it forgotten; of equal ones the first.
    """
    attack, inference = settings["attack"], settings["inference"]
    base = questions_of(corpus, tokenizer, inference, template)
    runs = [base]
    decodings: list[Decoding] = [greedy]
    if attack["kind"] == PREFIX:
        runs = [prefixed(base, corpus, tokenizer, attack["words"], template)]
    elif attack["kind"] == PARAPHRASE:
        runs = paraphrased(base, corpus, tokenizer, inference, template, attack)
    elif attack["kind"] == SAMPLE and attack["temperature"] > 0:
        decodings = [partial(sampling, temperature=attack["temperature"])] * attack["samples"]
    score = choose(VARIANTS, settings["metric"]["rouge"], "setting rouge")
    words = settings["metric"].get("tokenizer", "published")
    found: list[list[tuple[float, Response]]] = [[] for _ in runs[0]]
    for number, decoding in enumerate(decodings):
        torch.manual_seed(attack.get("seed", 0) + number)
        for requests in runs:
            for place, said in enumerate(generate(model, tokenizer, requests, inference["batch_size"], decoding)):
                found[place].append((score(said.answer, said.response, words), said))
    best = [max(each, key=lambda pair: pair[0]) for each in found]
    facts: dict[str, Any] = {"ids": [said.id for _, said in best], "per_example": [value for value, _ in best]}
    if attack["kind"] == SAMPLE:
        leaks = [sum(100 * value >= attack["leaks_at"] for value, _ in each) for each in found]
        facts |= {"samples": len(decodings), "leak_at": leak_at(leaks, len(decodings), len(decodings))}
    return [said for _, said in best], facts
