"""ROUGE in any script: the same text is all of it, another is not, and a tokenizer that reads nothing is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from palimpsest.errors import PalimpsestError
from palimpsest.metrics import score
from palimpsest.metrics.rouge import VARIANTS, rouge_1, rouge_l

TEXTS = [
    "Библиотека закрыта с 2019 года.",
    "他于2019年在北京出生。",
    "コンピュータを3台買った。",
    "도서관은 월요일에 닫혀 있다",
    "وُلِدَ في القاهرة عام ٢٠١٩",
    "पुस्तकालय बंद है",
    "ห้องสมุดปิดวันจันทร์",
    "បណ្ណាល័យបិទ",
    "👍🏽🇩🇪 ❤️ 🙂",
    "Für die Fähre zahlte er 40 Euro.",
]
SETTINGS = {"rouge": "rougeL_f1", "resamples": 50, "confidence": 0.95, "seed": 0}


def scored(folder: Path, pairs: list[tuple[str, str]], **settings: Any) -> dict[str, Any]:
    file = folder / "responses.jsonl"
    rows = [
        {"task": "verbmem", "id": i, "prompt": "?", "answer": answer, "response": response}
        for i, (answer, response) in enumerate(pairs)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return dict(score("verbmem", SETTINGS | settings, file, file, file))


@pytest.mark.parametrize("variant", VARIANTS)
def test_identical_text_is_100_in_any_script(tmp_path, variant):
    record = scored(tmp_path, [(text, text) for text in TEXTS], rouge=variant, tokenizer="unicode")
    assert record["score"] == 100.0 and record["status"] == "ok" and record["tokenizer"] == "unicode"
    assert record["per_example"] == [1.0] * len(TEXTS)


def test_different_sentences_with_the_same_number_are_not_100():
    assert rouge_l("Он родился в 2019 году", "Завод закрыт с 2019 года").f1 == 1.0, "the published one"
    assert rouge_l("Он родился в 2019 году", "Завод закрыт с 2019 года", "unicode").f1 == pytest.approx(1 / 5)
    assert rouge_l("他于2019年出生", "厂于2019年关闭", "unicode").f1 == pytest.approx(3 / 6)


def test_words_that_differ_by_a_letter_differ():
    assert rouge_l("für", "führ").f1 == pytest.approx(1 / 2), "the published one: f r and f hr"
    assert rouge_l("für", "führ", "unicode").f1 == 0.0
    assert rouge_1("résumé", "resume", "unicode").f1 == 0.0 == rouge_1("कि", "की", "unicode").f1
    assert rouge_1("STRASSE", "straße", "unicode").f1 == 1.0 == rouge_1("cafe\u0301", "café", "unicode").f1


def test_by_hand_with_unicode_words():
    assert rouge_l("один два три четыре", "Три, один", "unicode") == (1 / 2, 1 / 4, pytest.approx(1 / 3))
    assert rouge_1("один два три четыре", "Три, один", "unicode") == (1.0, 1 / 2, pytest.approx(2 / 3))
    assert rouge_l("🙂🙂🙃", "🙂", "unicode") == (1.0, 1 / 3, pytest.approx(1 / 2))
    assert rouge_l("…", "один", "unicode") == rouge_l("один", "", "unicode") == (0.0, 0.0, 0.0)
    assert rouge_l("…", "...", "unicode").f1 == 1.0


def test_english_scores_the_same_without_apostrophes(tmp_path):
    pairs = [("The cat sat on the mat.", "the cat, on 3 mats"), ("One, two!", "two one"), ("A dog", "no")]
    published, unicode = (scored(tmp_path, pairs, tokenizer=name) for name in ("published", "unicode"))
    assert published["per_example"] == unicode["per_example"] and published["tokenizer"] == "published"


@pytest.mark.parametrize("text", TEXTS[:-1])
def test_a_tokenizer_that_does_not_read_the_answers_is_refused(tmp_path, text):
    with pytest.raises(
        PalimpsestError, match=r"drops \d+% of the letters of the true answers: set tokenizer to unicode"
    ):
        scored(tmp_path, [(text, text)])


def test_parts_of_cut_characters_are_nothing_in_common():
    assert rouge_l("北京\ufffd", "上海\ufffd", "unicode").f1 == 0.0
    assert rouge_l("北京\ufffd", "北京", "unicode").f1 == 1.0


def test_an_unknown_tokenizer_is_named(tmp_path):
    with pytest.raises(PalimpsestError, match=r"unknown setting tokenizer 'unicod'\. Did you mean 'unicode'"):
        scored(tmp_path, [("a", "a")], tokenizer="unicod")
