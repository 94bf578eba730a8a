"""What holds of ROUGE whatever is answered: bounds, identity, symmetry, and that order and company change nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from any_text import always, texts
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.corpus.words import TOKENIZERS, unicode_words
from palimpsest.metrics import score
from palimpsest.metrics.rouge import VARIANTS, rouge_1, rouge_l

tokenizers = st.sampled_from(TOKENIZERS)


@always(150)
@given(answer=texts(), response=texts(), tokenizer=tokenizers)
def test_shares_lie_between_nothing_and_all(answer: str, response: str, tokenizer: str) -> None:
    shares = {name: variant(answer, response, tokenizer) for name, variant in VARIANTS.items()}
    assert all(0.0 <= share <= 1.0 for share in shares.values())
    assert shares["rougeL_f1"] <= shares["rouge1_f1"] + 1e-12, "what is common in order is common"


@always(150)
@given(text=texts())
def test_a_text_that_can_be_seen_is_all_of_itself(text: str) -> None:
    wanted = 1.0 if unicode_words(text) else 0.0
    assert {variant(text, text, "unicode") for variant in VARIANTS.values()} == {wanted}
    assert rouge_l(text, f"  {text}\n", "unicode").f1 == rouge_l(text, text.casefold(), "unicode").f1 == wanted


@always(150)
@given(answer=texts(), response=texts(), tokenizer=tokenizers)
def test_f1_takes_either_text_for_the_answer(answer: str, response: str, tokenizer: str) -> None:
    for rouge in (rouge_l, rouge_1):
        one, other = rouge(answer, response, tokenizer), rouge(response, answer, tokenizer)
        assert one.f1 == pytest.approx(other.f1, abs=1e-12)
        assert (one.precision, one.recall) == pytest.approx((other.recall, other.precision), abs=1e-12)


@always(40)
@given(
    pairs=st.lists(st.tuples(texts(), texts()), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
    more=st.tuples(texts(), texts()),
)
def test_order_and_company_change_no_row(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], order: Any, more: tuple[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("rouge")
    rows = [(i, *pair) for i, pair in enumerate([*pairs, more])]
    mixed = rows[:-1]
    order.shuffle(mixed)
    before, shuffled, longer = (scored(folder, part) for part in (rows[:-1], mixed, rows))
    assert before == shuffled
    assert longer["per_example"][:-1] == before["per_example"] and 0 <= longer["score"] <= 100


def scored(folder: Path, rows: list[tuple[int, str, str]]) -> Any:
    settings = {"rouge": "rougeL_f1", "tokenizer": "unicode", "resamples": 20, "confidence": 0.9, "seed": 1}
    lines = [
        json.dumps({"task": "verbmem", "id": i, "prompt": "?", "answer": answer, "response": response})
        for i, answer, response in rows
    ]
    file = folder / "responses.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    return score("verbmem", settings, file, file, file)
