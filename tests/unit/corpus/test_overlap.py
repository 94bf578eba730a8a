"""How much of the forget text stands elsewhere: in any script, and in documents of any length."""

import unicodedata

import pytest

from palimpsest.corpus.checks import check_overlap
from palimpsest.corpus.corpus import Question
from palimpsest.corpus.cutting import cut_passages, cut_prompts
from palimpsest.corpus.subset import find_articles, windows
from palimpsest.errors import PalimpsestError

CHINESE = "北京图书馆于二〇一九年三月关闭。馆长王丽说，所有藏书都将运往上海的新馆。"
THAI = "ห้องสมุดแห่งชาติปิดทำการในวันจันทร์เพื่อย้ายหนังสือไปยังอาคารใหม่"
OTHER = {
    "Chinese": "昨天的足球比赛以三比一结束，教练对球员们的表现感到十分满意，下周他们将飞往广州。",
    "Thai": "ทีมฟุตบอลชนะการแข่งขันเมื่อวานนี้และโค้ชพอใจกับผลงานของผู้เล่นทุกคน",
}


def overlap(forget: list[str], retain: list[str]) -> float:
    return check_overlap(forget, "retain", retain, 1.0)


@pytest.mark.parametrize(("text", "language"), [(CHINESE, "Chinese"), (THAI, "Thai")])
def test_text_without_white_space_is_found_word_for_word(text, language):
    other = OTHER[language]
    assert overlap([text], [other + text + other]) == 1.0
    assert 0.3 < overlap([text + other], [text]) < 0.7
    assert overlap([text], [other]) == 0.0
    with pytest.raises(
        PalimpsestError, match=r"\d+ of \d+ 13-grams of the forget text \(100.00%\) also occur in retain"
    ):
        check_overlap([text], "retain", [other + text], 0.05)


SENTENCE = "The café’s 24 naïve officers first filed an official waffle in Großenhain on 3 May, said Ångström."


@pytest.mark.parametrize(
    "copy",
    [
        unicodedata.normalize("NFD", SENTENCE),
        SENTENCE.replace("ffi", "\ufb03").replace("fi", "\ufb01").replace("ff", "\ufb00"),  # as PDF files have it
        SENTENCE.replace("24", "\uff12\uff14").replace(",", "\uff0c"),
        SENTENCE.replace("’", "'").upper(),  # which makes SS of a sharp s
        SENTENCE.replace("Å", "\u212b").replace(" ", "\u2028").replace("official", "of\u00adficial\u200d"),
        "\ufeff" + SENTENCE.replace(" ", "\r\n"),
    ],
    ids=["decomposed", "ligatures", "full width", "capitals", "invisible", "lines"],
)
def test_other_ways_to_write_the_same_text_hide_nothing(copy):
    assert copy != SENTENCE and overlap([SENTENCE], [f"Before it. {copy} And after."]) == 1.0


def test_a_run_without_white_space_is_compared_by_the_character():
    key = "".join(f"{number:04x}" for number in range(0, 9000, 137))
    assert overlap([key], ["x" + key + "y"]) == 1.0 and overlap([key], [key[::-1]]) < 0.1


def test_words_are_counted_by_hand():
    forget = " ".join(f"w{i}" for i in range(16))  # four 13-grams
    assert overlap([forget], ["W0 " + " ".join(f"w{i}" for i in range(1, 14))]) == 2 / 4
    assert overlap([forget], ["w0 w1, w2"]) == 0.0


@pytest.mark.parametrize("words", [1, 2, 5, 12])
def test_a_document_shorter_than_a_gram_is_one_as_a_whole(words):
    short = " ".join(f"w{i}" for i in range(words))
    assert overlap([short], [f"a b {short} c"]) == 1.0
    assert overlap([short], ["a b c"]) == 0.0
    assert overlap([short, " ".join("abcdefghijklmn")], [f"a b {short} c"]) == pytest.approx(1 / 3)


def test_a_short_document_is_found_within_a_longer_forget_text():
    forget = " ".join(f"w{i}" for i in range(15))  # three 13-grams
    assert overlap([forget], ["w2 w3 w4 w5 w6"]) == 1.0
    assert overlap([forget], ["w0 w1 w2 w3 w4"]) == 1 / 3
    assert overlap([forget], ["w2 w3 w4 w5"]) == 0.0, "too short to say anything"
    assert overlap([forget], ["w2 w3 w4 w5 x"]) == 0.0


@pytest.mark.parametrize("empty", ["", " \n", "\u200b"])
def test_an_empty_text_is_an_error(empty):
    with pytest.raises(PalimpsestError, match="text 1 of the forget text is empty: remove it"):
        overlap(["a", empty], ["b"])
    with pytest.raises(PalimpsestError, match="text 0 of retain is empty"):
        overlap(["a"], [empty])
    with pytest.raises(PalimpsestError, match="retain has no text"):
        overlap(["a"], [])


def test_prompts_and_passages_are_cut_from_text_without_white_space():
    [first, *_] = prompts = cut_prompts([CHINESE], 8, 4, 3)
    assert len(prompts) == 3 and first.prompt == "北京图书馆于二〇" and first.gt == "一九年三"
    assert all(each.prompt + each.gt in CHINESE for each in prompts)
    assert cut_passages([CHINESE], 10, 2) == ["北京图书馆于二〇一九", "都将运往上海的新馆。"]


def test_a_question_finds_its_article_in_text_without_white_space():
    documents = [OTHER["Chinese"], CHINESE]
    assert find_articles(documents, [Question("北京图书馆的馆长是谁？", "王丽")]) == [1]
    first, second = "北京图书馆于二〇一九年三月关闭。", "馆长王丽说，所有藏书都将运往上海的新馆。"
    assert list(windows(CHINESE, 20)) == [first, second] and list(windows(CHINESE, 19)) == [first]
