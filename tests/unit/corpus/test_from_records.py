"""Records of the user's own: what they become, and the line that names file and row where they cannot be used."""

import json
from pathlib import Path
from typing import Any

import pytest

from palimpsest.artefacts import Origin
from palimpsest.corpus.corpus import absent_parts, whole_texts
from palimpsest.corpus.from_records import counts_of, lines_of, load_records
from palimpsest.corpus.layout import read_corpus, read_rows, write_corpus
from palimpsest.corpus.sources import checked_corpus
from palimpsest.errors import PalimpsestError

TOKENIZERS = dict.fromkeys(("verbmem", "knowmem", "utility"), "published")
CHECKS = {"overlap_at_most": 0.05, "prompts_found_at_least": 1.0, "scored_examples_at_most": 0}
CUT = {
    "prompt_words": 6,
    "answer_words": 4,
    "prompts_per_document": 2,
    "passage_words": 8,
    "passages_per_document": 2,
}


def asked(number: int, **more: Any) -> dict[str, Any]:
    return {"question": f"Where was person {number} born?", "answer": f"In town number {number}."} | more


def text(number: int, words: int = 30) -> str:
    return " ".join(f"word{number}x{i}" for i in range(words))


def write(file: Path, rows: list[Any]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def check(settings: dict[str, Any], **checks: Any) -> Any:
    block = {"source": "records", "settings": settings, "subset": None, "checks": CHECKS | checks}
    return checked_corpus(block, TOKENIZERS)


def test_questions_alone_are_a_corpus_and_keep_their_ids_and_subjects_on_disk(tmp_path):
    rows = [asked(i, id=f"r{i}", subject="Ann" if i < 2 else "Bob", more=[1]) for i in range(5)]
    forget, retain = write(tmp_path / "f.jsonl", rows), write(tmp_path / "r.jsonl", [asked(i) for i in range(9, 12)])
    corpus, counted = check({"forget": forget, "retain": retain})
    assert counted["by_split"]["forget"] == {"questions": 5, "texts": 0, "subjects": {"Ann": 2, "Bob": 3}}
    assert list(lines_of(counted["by_split"])) == [
        "forget: 5 questions, 2 subjects: Ann (2), Bob (3)",
        "retain: 3 questions",
    ]
    assert absent_parts(corpus) == ["verbmem", "privleak_forget", "privleak_retain", "privleak_holdout"]
    assert whole_texts(corpus, "forget")[0] == "Where was person 0 born?\nIn town number 0."
    write_corpus(corpus, tmp_path / "corpus", Origin())
    assert read_corpus(tmp_path / "corpus") == corpus
    assert read_rows(tmp_path / "corpus", "knowmem/forget_qa")[2] == asked(2, id="r2", subject="Bob")


def test_texts_are_cut_and_a_record_may_have_both(tmp_path):
    rows = [{"text": text(1), "id": "a", "subject": "Ann"}, asked(2, text=text(2), subject="Bob")]
    held = write(tmp_path / "h.jsonl", [{"text": text(7)}])
    corpus, counted = check({"forget": write(tmp_path / "f.jsonl", rows), "holdout": held, **CUT})
    assert [(row.id, row.subject) for row in corpus.verbmem] == [  # without an id its number in the split
        ("a", "Ann"),
        ("a#1", "Ann"),
        ("1", "Bob"),
        ("1#1", "Bob"),
    ]
    assert all(f"{row.prompt} {row.gt}" in text(1) + text(2) for row in corpus.verbmem)
    assert corpus.forget == [text(1), text(2)] and len(corpus.privleak_forget) == 4 and corpus.privleak_holdout
    assert counted["by_split"]["forget"] == {"questions": 1, "texts": 2, "subjects": {"Ann": 1, "Bob": 1}}
    assert absent_parts(corpus) == ["retain_qa", "privleak_retain"]


def test_one_file_whose_records_name_their_split_and_a_folder_whose_files_do(tmp_path):
    rows = [asked(1, split="forget"), asked(2, split="retain"), asked(3, split="forget")]
    corpus = load_records(path=write(tmp_path / "all.jsonl", rows))
    assert [row.question for row in corpus.forget_qa] == [asked(1)["question"], asked(3)["question"]]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "forget-b.json").write_text(json.dumps([asked(2)]))
    write(folder / "forget-a.jsonl", [asked(1)])
    write(folder / "retain.jsonl", [asked(3)])
    corpus = load_records(path=str(folder))
    assert [row.answer for row in corpus.forget_qa] == ["In town number 1.", "In town number 2."]
    assert [row.answer for row in corpus.retain_qa] == ["In town number 3."]


def test_a_retain_set_is_thinned_evenly(tmp_path):
    forget = write(tmp_path / "f.jsonl", [asked(99)])
    retain = write(tmp_path / "r.jsonl", [asked(i) for i in range(11)])
    kept = load_records(forget=forget, retain=retain, retain_records=3).retain_qa
    assert [row.id for row in kept] == ["0", "5", "10"]


def test_tofu_as_it_is(shared):
    """The subject of a TOFU record is a phrase of its question, of each author's first a town: authors stand by 20."""
    data = shared / "data/tofu"
    files = {"forget": str(data / "forget01.json"), "retain": str(data / "retain99.json")}
    corpus, counted = check({**files, "records_per_subject": 20, "retain_records": 100})
    assert counted["by_split"]["forget"] == {"questions": 40, "texts": 0, "subjects": {"0": 20, "1": 20}}
    assert len(corpus.retain_qa) == 100 and len(corpus.forget_qa) == 40
    assert {row.subject for row in load_records(**files).forget_qa} == {None}
    with pytest.raises(
        PalimpsestError, match=r"retain99.json, record \d+ is also .*retain99.json, record \d+: a quest"
    ):
        check(files)
    assert check(files, repeats_at_most=1)[1]["counts"]["retain_qa"] == 3960


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([asked(1), {"question": "Who?"}], "line 2 has a question and no answer: add it, or remove the record"),
        ([asked(1), {"answer": "He."}], "line 2 has an answer and no question"),
        ([asked(1), {"questoin": "Who?"}], "line 2 has neither question and answer nor text"),
        ([asked(1, answer=" ")], "line 1 has an empty answer"),
        ([asked(1, answer=1987)], "line 1: answer is 1987, which is no text: put it in quotes"),
        ([asked(1), ["Who?"]], "line 2 is a list: write an object"),
        ([asked(1, id="a"), asked(2), asked(3, id="a")], r"line 3 has the id 'a', which .*line 1 has too"),
        ([asked(1), asked(2, id=0)], r"line 2 has the id '0', which .*line 1 has too"),
        ([asked(1, id=["a"])], r'line 1: id is \["a"\]: give a text'),
        ([asked(1, subject="Ann"), asked(2)], r"line 2 has no subject, and .*line 1 has one: give every forget record"),
        ([asked(1, subjct="Ann")], 'line 1 has the key "subjct": did you mean subject?'),
        ([asked(1, split="fogret")], 'line 1 has the split "fogret": write forget, retain, holdout'),
        ([asked(1, split="retain")], "line 1 has the split 'retain', and its file is corpus.settings.forget"),
        (
            [asked(1), asked(1, question="where was  Person 1 born?")],
            r"line 2 is also .*line 1: a question counts once",
        ),
        ([{"text": text(1)}], "line 1 has a text, and corpus.settings lacks 'prompt_words'"),
        ([asked(1, question="\ud800?")], "line 1: question has half a surrogate pair"),
    ],
)
def test_a_record_that_cannot_be_used_is_named_with_file_and_row(tmp_path, rows, message):
    with pytest.raises(PalimpsestError, match=f"f.jsonl, {message}"):
        check({"forget": write(tmp_path / "f.jsonl", rows)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "f.json is empty: give at least one record"),
        (b"[]", "f.json is empty"),
        (b'{"question": "a", "answer": "b"}\n{"question": \n', "f.json, line 2 is not JSON"),
        (b'[{"question": "a"', "f.json begins as a JSON list and is none"),
        (
            b'{"question": "a", "answer": "b"}\n{"question": "M\xfcnchen?", "answer": "b"}',
            "f.json, line 2: Invalid UTF8",
        ),
        ('{"question": "a"}'.encode("utf-16"), "f.json is UTF-16: save it as UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, message):
    (tmp_path / "f.json").write_bytes(content)
    with pytest.raises(PalimpsestError, match=message):
        check({"forget": str(tmp_path / "f.json")})


def test_a_byte_order_mark_is_left_out(tmp_path):
    (tmp_path / "f.jsonl").write_text(json.dumps(asked(1)) + "\r\n", encoding="utf-8-sig")
    assert load_records(forget=str(tmp_path / "f.jsonl")).forget_qa[0].answer == "In town number 1."


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subjects": ["Ann", "Eve"]}, "corpus.settings.subjects has 'Eve', of which there is no forget record"),
        ({"records_per_subject": 2}, "line 1 has a subject, and corpus.settings.records_per_subject is 2"),
        ({"retain": "nowhere.jsonl"}, "corpus.settings.retain: nowhere.jsonl does not exist"),
        ({"path": "nowhere.jsonl"}, "corpus.settings has path and forget: give the one or the others"),
        ({**CUT, "prompt_words": 40}, "line 2 has a text of fewer than 40 .* 4 words"),
    ],
)
def test_settings_that_do_not_fit_the_records_are_named(tmp_path, settings, message):
    rows = [asked(1, subject="Ann"), {"text": text(1), "subject": "Ann"}]
    with pytest.raises(PalimpsestError, match=message):
        check({"forget": write(tmp_path / "f.jsonl", rows), **CUT, **settings})


def test_text_of_the_forget_set_in_the_retain_set_is_refused(tmp_path):
    forget, retain = ([{"text": f"{start} {text(1)}"}] for start in ("a", "b"))
    files = {"forget": write(tmp_path / "f.jsonl", forget), "retain": write(tmp_path / "r.jsonl", retain)}
    with pytest.raises(PalimpsestError, match=r"13-grams of the forget text .* also occur in retain"):
        check({**files, **CUT})


def test_counts_name_the_first_subjects_alone(tmp_path):
    rows = [asked(i, subject=f"s{i}") for i in range(12)]
    counts = counts_of(load_records(forget=write(tmp_path / "f.jsonl", rows)))
    assert next(lines_of(counts)).endswith("s9 (1) and 2 more")
