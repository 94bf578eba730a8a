"""Words in any script: what ROUGE's two tokenizers and the overlap check see of a text."""

import pytest
from rouge_score.tokenizers import DefaultTokenizer

from palimpsest.corpus.checks import check_answers
from palimpsest.corpus.corpus import Corpus, Prompt, Question
from palimpsest.corpus.words import PUBLISHED, UNICODE, is_blank, reading, tokenizers_of, unicode_words, units
from palimpsest.errors import PalimpsestError

SENTENCES = {
    "English": "The library's 3 ships left Oslo, didn't they?",
    "German": "Für die Fähre zahlte Jürgen 40 Euro.",
    "Russian": "Библиотека закрыта с 2019 года.",
    "Greek": "Ο ΔΡΌΜΟΣ και ο δρόμος",
    "Chinese": "他于2019年在北京出生。",
    "Japanese": "コンピュータを3台買った。",
    "Korean": "도서관은 월요일에 닫혀 있다",
    "Arabic": "وُلِدَ في القاهرة عام ٢٠١٩",
    "Hebrew": "הספרייה סגורה",
    "Persian": "می\u200cخواهم به خانه بروم",
    "Hindi": "पुस्तकालय बंद है",
    "Tamil": "நூலகம் மூடப்பட்டுள்ளது",
    "Thai": "ห้องสมุดปิดวันจันทร์",
    "Khmer": "បណ្ណាល័យបិទ",
    "Burmese": "စာကြည့်တိုက်ပိတ်သည်",
    "Tibetan": "དཔེ་མཛོད་ཁང",
    "Amharic": "ቤተ መጻሕፍቱ ተዘግቷል",
    "emoji": "👍🏽 🇩🇪🇫🇷 ❤️ 🙂",
}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The library’s 3.5 ships, didn't they?", ["the", "library's", "3.5", "ships", "didn't", "they"]),
        ("Für FÜHR Straße STRASSE", ["für", "führ", "strasse", "strasse"]),
        ("ﬁne ＡＢ café cafe\u0301", ["fine", "ab", "café", "café"]),
        ("他于2019年生。", ["他", "于", "2019", "年", "生"]),
        ("カメラを", ["カ", "メ", "ラ", "を"]),
        ("กินข้าว", ["กิ", "น", "ข้", "า", "ว"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("می\u200cخواهم", ["میخواهم"]),
        ("👍🏽🇩🇪🇫🇷 ❤️", ["👍🏽", "🇩🇪", "🇫🇷", "❤"]),
        ("\ufeffso\u00adft", ["soft"]),
        ("$5 + 3 %", ["$", "5", "+", "3"]),
        ("...", [".", ".", "."]),
        ("北\ufffd \ufffd", ["北"]),
        (" \u200b\n", []),
    ],
)
def test_unicode_words(text, words):
    assert unicode_words(text) == words


def test_units_are_words_between_white_space_and_characters_elsewhere():
    assert units("Ann sold 12 Goats, in\u00a0Padua.") == ["ann", "sold", "12", "goats,", "in", "padua."]
    assert units("他于2019年，abc") == ["他", "于", "2019", "年", ",abc"]
    assert units("กิน\u200bข้าว") == ["กิ", "น", "ข้", "า", "ว"]
    assert units("x" * 65) == ["x"] * 65 and units("x" * 64) == ["x" * 64]
    assert units(" \u200b\ufeff ") == []


@pytest.mark.parametrize("language", SENTENCES)
def test_what_the_published_tokenizer_reads(language):
    """Counted apart from it: a script without Latin letters is lost but for its numbers."""
    text = SENTENCES[language]
    read, kept = reading([text], PUBLISHED), "".join(DefaultTokenizer().tokenize(text))
    assert read.letters - read.dropped == len(kept)
    assert (read.share > 0.05) is (language not in ("English",))
    assert reading([text], UNICODE).dropped == 0


def test_texts_of_which_nothing_is_read_are_named():
    assert reading(["Oslo", "Осло", "...", "🙂", "Осло 3", ""], PUBLISHED).unread == [1, 2, 3]
    assert reading(["Oslo", "Осло", "...", "🙂", "", "\u200b"], UNICODE).unread == []


def test_a_metric_without_the_setting_has_the_published_tokenizer():
    metrics = {"verbmem": {"rouge": "rougeL_f1", "tokenizer": "unicode"}, "knowmem": {"rouge": "x"}, "privleak": {}}
    assert tokenizers_of(metrics) == {"verbmem": "unicode", "knowmem": "published"}


def test_blank_texts():
    assert all(map(is_blank, ["", " \n", "\u200b", "\ufeff", "\u00ad \u3164"]))
    assert not any(map(is_blank, ["a", ".", "🙂", "\u0301"]))


def answered(answers: list[str]) -> Corpus:
    """A corpus with these answers to retain questions, and English ones elsewhere."""
    english, asked = [Question("Who?", "Ann Lee")], [Question("Who?", answer) for answer in answers]
    return Corpus(["a"], ["a"], ["a"], english, asked, english, english, [Prompt("a", "b c")], ["a"], ["a"], ["a"])


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            ["Анна Ли", "Ann Lee"],
            r"50% of the letters of the true answers of knowmem/retain_qa are none to .* 'published'",
        ),
        ([*["Ann Lee of Oslo"] * 40, "李安"], r"row 40 of knowmem/retain_qa has an answer of which .* \(1 such rows\)"),
        (
            ["Ann Lee", "…"],
            r"row 1 of knowmem/retain_qa has an answer of which ROUGE's tokenizer 'published' reads nothing",
        ),
    ],
)
def test_answers_that_rouge_would_not_see_are_refused(answers, message):
    tokenizers = dict.fromkeys(("verbmem", "knowmem", "utility"), PUBLISHED)
    with pytest.raises(PalimpsestError, match=message + ".*set metrics.utility.tokenizer to unicode"):
        check_answers(answered(answers), tokenizers)
    check_answers(answered(answers), tokenizers | {"utility": UNICODE})


def test_a_foreign_name_among_many_letters_is_no_reason_to_refuse():
    names = ["The author is Jaime Vásquez, who was born in Santiago"]
    check_answers(answered(names), dict.fromkeys(("verbmem", "knowmem", "utility"), PUBLISHED))
