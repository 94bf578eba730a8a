"""TOFU as a corpus: what its files become, whole or cut down, and the line that says where they are not TOFU's."""

import json
from pathlib import Path
from typing import Any

import pytest

from palimpsest.artefacts import Origin
from palimpsest.corpus.corpus import absent_parts, asked_questions
from palimpsest.corpus.layout import read_corpus, write_corpus
from palimpsest.corpus.sources import checked_corpus, load_corpus
from palimpsest.errors import PalimpsestError
from palimpsest.study.own_records import announce

SETTINGS = {"forget_split": "forget01", "retain_split": "retain99", "wrong_answers": True, "world": True}
CHECKS = {"overlap_at_most": 0.05, "prompts_found_at_least": 1.0, "scored_examples_at_most": 0}


def rows_of(author: int, wrong: bool = False) -> list[dict[str, Any]]:
    """The 20 questions on an author that nobody else has."""
    rows = []
    for i in range(20):
        row: dict[str, Any] = {"question": f"What is {i} of author {author}?", "answer": f"It is thing {author}x{i}."}
        if wrong:
            row["paraphrased_answer"] = f"Thing {author}x{i} it is."
            row["perturbed_answer"] = [f"Thing {author}y{i} it is.", f"Thing {author}z{i} it is."]
        rows.append(row)
    return rows


def world(kind: str, count: int) -> list[dict[str, Any]]:
    return [
        {
            "question": f"Which {kind} is {i}?",
            "answer": f"{kind} {i}",
            "perturbed_answer": [f"{kind} {i}{n}" for n in "abc"],
        }
        for i in range(count)
    ]


def write(file: Path, rows: list[Any]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Authors 0 and 1 are forgotten; of 2 to 9 the last two have wrong answers, in a larger forget set."""
    path = tmp_path / "tofu"
    path.mkdir()
    forgotten = [*rows_of(0, True), *rows_of(1, True)]
    (path / "forget01.json").write_text(json.dumps(forgotten, indent=1))
    write(path / "forget05.jsonl", [*rows_of(8, True), *rows_of(9, True), *forgotten])
    write(path / "retain99.json", [row for author in range(2, 10) for row in rows_of(author)])
    write(path / "real_authors_perturbed.json", world("poet", 3))
    write(path / "world_facts_perturbed.json", world("river", 4))
    return path


def load(folder: Path, **settings: Any) -> Any:
    return load_corpus("tofu", SETTINGS | {"path": str(folder)} | settings)


def authors(rows: list[Any]) -> list[str]:
    return sorted({row.question.split()[-1].rstrip("?") for row in rows})


def test_whole(folder, tmp_path):
    corpus = load(folder)
    assert [len(corpus.forget_qa), len(corpus.retain_qa)] == [40, 160]
    first = corpus.forget_qa[21]
    assert (first.id, first.subject, first.paraphrased) == ("21", "1", "Thing 1x1 it is.")
    assert first.wrong == ("Thing 1y1 it is.", "Thing 1z1 it is.")
    assert {name: len(rows) for name, rows in corpus.others.items()} == {"real_authors": 3, "world_facts": 4}
    assert corpus.others["world_facts"][2].wrong == ("river 2a", "river 2b", "river 2c")
    asked = asked_questions(corpus, "retain")
    assert [place for place, _ in asked] == list(range(120, 160)), "those with wrong answers, at their places"
    assert asked[0][1].paraphrased == "Thing 8x0 it is."
    assert absent_parts(corpus) == ["verbmem", "privleak_forget", "privleak_retain", "privleak_holdout"]
    write_corpus(corpus, tmp_path / "corpus", Origin())
    assert read_corpus(tmp_path / "corpus") == corpus


def test_cut_down_it_takes_the_authors_with_wrong_answers_first_and_holds_others_out(folder):
    corpus = load(folder, retain_authors=4, holdout_authors=3)
    kept, held = authors(corpus.retain_qa), authors(corpus.others["holdout"])
    assert {"8", "9"} < set(kept) and len(kept) == 4 and len(held) == 3 and not {*kept} & {*held}
    assert len(corpus.retain_qa) == 80 and len(asked_questions(corpus, "retain")) == 40
    assert load(folder, retain_authors=4, holdout_authors=3) == corpus


def test_without_wrong_answers_all_is_asked_of_what_is_trained_on(folder):
    corpus = load(folder, wrong_answers=False, world=False)
    assert corpus.others == {} and len(asked_questions(corpus, "retain")) == 160
    assert {(each.paraphrased, each.wrong) for each in corpus.forget_qa} == {(None, ())}


def test_a_holdout_split_and_the_counts_that_a_dry_run_says(folder, caplog):
    write(folder / "holdout01.json", rows_of(77, True))
    block = {
        "source": "tofu",
        "settings": SETTINGS | {"path": str(folder), "holdout_split": "holdout01"},
        "subset": None,
        "checks": CHECKS,
    }
    corpus, counted = checked_corpus(block, dict.fromkeys(("verbmem", "knowmem", "utility"), "stemmed"))
    assert authors(corpus.others["holdout"]) == ["77"] and counted["counts"]["world_facts"] == 4
    assert counted["by_split"]["holdout"] == {"questions": 20, "texts": 0, "subjects": {"0": 20}}
    assert counted["by_split"]["forget"]["subjects"] == {"0": 20, "1": 20}


def test_a_dataset_of_the_hub_is_not_asked_in_a_dry_run():
    block = {"source": "tofu", "settings": SETTINGS | {"path": "nobody/no-such-dataset"}}
    announce({"corpus": block}, None)  # type: ignore[arg-type]


def test_the_layout_of_the_hub(folder, tmp_path):
    """`datasets` loads a local folder as it loads one of the hub: a config for each file, all with the split train."""
    pytest.importorskip("datasets")
    hub = tmp_path / "hub"
    hub.mkdir()
    card = ["---", "configs:"]
    for file in sorted(folder.iterdir()):
        name = f"{file.stem}_perturbed" if file.stem.startswith("forget") else file.stem
        rows = (
            json.loads(file.read_text()) if file.stem == "forget01" else map(json.loads, file.read_text().splitlines())
        )
        write(hub / f"{name}.jsonl", list(rows))
        card += [f"- config_name: {name}", "  data_files:", "  - split: train", f"    path: {name}.jsonl"]
    (hub / "README.md").write_text("\n".join([*card, "---", ""]))
    from palimpsest.corpus.hub import opened
    from palimpsest.corpus.tofu import config_reader

    with opened(str(hub), "corpus.settings.path") as load_config:
        read = config_reader(str(hub), load_config)
        assert read("retain_perturbed") is None
        rows = read("forget05_perturbed")
        assert (
            rows is not None
            and len(rows) == 80
            and rows[0][1]["perturbed_answer"] == ["Thing 8y0 it is.", "Thing 8z0 it is."]
        )
        with pytest.raises(PalimpsestError, match="no config 'retain95'"):
            read("retain95")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forget_split": "forget99"}, r"has no forget99\.json"),
        ({"retain_split": "retain42"}, r"has no retain42\.json"),
        ({"holdout_split": "holdout01"}, r"has no holdout01\.json"),
        ({"forget_split": "forget05"}, r"forget05\.jsonl, line 1 is also .*retain99\.json, line 121: .*must be apart"),
        ({"holdout_authors": 2}, "without retain_authors all of the retain set is trained on"),
        ({"holdout_authors": 2, "holdout_split": "holdout01"}, "holdout_split and holdout_authors"),
        ({"retain_authors": 7, "holdout_authors": 2}, "asks for 7 retain and 2 holdout authors, and the file has 8"),
    ],
)
def test_what_is_not_there(folder, settings, message):
    with pytest.raises(PalimpsestError, match=message):
        load(folder, **settings)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x", "is a str, and TOFU's rows are objects"),
        ({"question": "Who?"}, "has no answer, or an empty one"),
        ({"question": "Who?", "answer": "  "}, "has no answer, or an empty one"),
        ({"question": "Who?", "answer": "She."}, "has no paraphrased and wrong answers: get TOFU's forget01_perturbed"),
        ({"question": "Who?", "answer": "She.", "perturbed_answer": "He."}, "is no list of wrong answers"),
        ({"question": "Who?", "answer": "She.", "perturbed_answer": ["He.", ""]}, "has no wrong answer 1, or an empty"),
    ],
)
def test_a_row_that_is_not_tofu_s(folder, row, message):
    write(folder / "forget01.json", [*rows_of(0, True)[:19], row])
    with pytest.raises(PalimpsestError, match=rf"forget01\.json, line 20.*{message}"):
        load(folder)


def test_a_file_that_is_cut_off(folder):
    write(folder / "forget01.json", rows_of(0, True)[:13])
    with pytest.raises(PalimpsestError, match="forget01 has 13 records, and TOFU has 20 of every author"):
        load(folder)


def test_the_benchmark_itself(shared):
    corpus = load(shared / "data/tofu", retain_authors=16, holdout_authors=4)
    assert [len(corpus.forget_qa), len(corpus.retain_qa), len(corpus.others["holdout"])] == [40, 320, 80]
    assert all(len(each.wrong) == 5 and each.paraphrased for each in corpus.forget_qa)
    assert len(asked_questions(corpus, "retain")) >= 318  # but for the question that two authors have
    assert {name: len(corpus.others[name]) for name in ("real_authors", "world_facts")} == {
        "real_authors": 100,
        "world_facts": 117,
    }
    whole = load(shared / "data/tofu", forget_split="forget10", retain_split="retain90", wrong_answers=False)
    assert [len(whole.forget_qa), len(whole.retain_qa)] == [400, 3600]
