"""What the utility battery asks: drawn from small folders in the formats of the datasets,
and what is told of those that do not fit.

All questions are invented.
"""

import importlib.util
import json
from pathlib import Path

import pytest
from battery_settings import SETTINGS, settings

from palimpsest.battery.questions import TASKS, prepare
from palimpsest.errors import PalimpsestError

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install -c constraints.txt -e '.[battery]'")


def test_limits_draw_by_seed_and_evenly_over_subjects(folder, questions):
    assert {task: len(asked) for task, asked in questions.items()} == {
        task: each["limit"] for task, each in SETTINGS.items()
    }
    subjects = [question["prompt"].split(" about ")[1].split(".")[0] for question in questions["gen"]]
    assert {subject: subjects.count(subject) for subject in subjects} == {"anatomy": 3, "tide law": 3, "ore craft": 3}
    assert prepare(settings(folder), 0) == questions
    other = prepare(settings(folder), 1)
    assert any(other[task] != questions[task] for task in TASKS)
    everything = prepare(settings(folder, gen={"limit": None}, tru={"limit": None}), 0)
    assert len(everything["gen"]) == 15 and [each["id"] for each in everything["tru"]] == list(range(8))


def test_examples_are_of_the_same_subject_and_never_of_the_asked_split(questions):
    for question in questions["gen"]:
        subject = question["prompt"].split(" about ")[1].split(".")[0]
        asked = [line for line in question["prompt"].splitlines() if line.startswith("In ")]
        assert len(asked) == 3 and all(subject in line for line in asked)
        assert ["solved" in line for line in asked] == [True, True, False]
        assert question["prompt"].endswith("\nAnswer:")
    for question in questions["fac"]:
        asked = [line for line in question["prompt"].splitlines() if line.startswith("Question: ")]
        assert ["train" in line for line in asked] == [True, True, True, False]


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        (
            "gen",
            {"data": "nobody/no-such-data"},
            "battery.tasks.gen.data: dataset 'nobody/no-such-data' (config 'all', split 'dev') cannot be loaded: ",
        ),
        (
            "tru",
            {"data": "../no/such/folder"},
            "battery.tasks.tru.data: dataset '../no/such/folder' (config 'multiple_choice'",
        ),
        ("flu", {"data": "FAC"}, "(config 'utility_fluency', split 'test') cannot be loaded: "),
        ("gen", {"limit": 16}, "battery.tasks.gen.limit is 16, the test split of "),
        ("gen", {"shots": 4}, "battery.tasks.gen.shots is 4, the dev split of "),
        ("fac", {"shots": 99}, "battery.tasks.fac.shots is 99, the train split of "),
        ("flu", {"limit": 99}, "battery.tasks.flu.limit is 99, the test split of "),
    ],
)
def test_what_is_missing_is_one_message_that_names_the_key(folder, monkeypatch, task, change, message):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    change = {key: str(folder / "fac") if value == "FAC" else value for key, value in change.items()}
    with pytest.raises(PalimpsestError) as caught:
        prepare({task: settings(folder)[task] | change}, 0)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    if "data" in change:
        assert "local folder with the same files" in str(caught.value)
        assert f"delete battery.tasks.{task}." in str(caught.value)
        page = "at https://huggingface.co/datasets/nobody/no-such-data and log in"
        assert (page in str(caught.value)) == (change["data"] == "nobody/no-such-data")


def test_a_local_folder_is_read_as_it_is_now(tmp_path, monkeypatch, write_battery_data):
    """Neither another folder of its name nor its own rows before an edit come from the cache of `datasets`."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    one, two = (write_battery_data(tmp_path / name) for name in ("one", "two"))

    def edit(folder: Path, mark: str) -> None:
        for file in folder.rglob("*.jsonl"):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            key = "instruction" if "instruction" in rows[0] else "question"
            file.write_text("\n".join(json.dumps(row | {key: row[key] + mark}) for row in rows))

    def last_lines(folder: Path) -> dict[str, set[str]]:
        asked = prepare(settings(folder), 0)
        return {task: {mark for mark in "!;" if all(mark in each["prompt"] for each in asked[task])} for task in asked}

    edit(two, "!")
    assert last_lines(one) == {task: set() for task in SETTINGS}
    assert last_lines(two) == {task: {"!"} for task in SETTINGS}
    edit(one, ";")
    assert last_lines(one) == {task: {";"} for task in SETTINGS}


@pytest.mark.parametrize(
    ("task", "split", "change", "message"),
    [
        ("gen", "test", {"answer": "B"}, "0 to 3, as answer, not 'B'"),
        ("gen", "test", {"answer": 4}, "0 to 3, as answer, not 4"),
        ("gen", "test", {"answer": -1}, "0 to 3, as answer, not -1"),
        ("gen", "dev", {"answer": -1}, "0 to 3, as answer, not -1"),
        ("gen", "test", {"choices": ["a", "b", "c"]}, "four texts as choices, not ['a', 'b', 'c']"),
        ("gen", "test", {"choices": list("abcde")}, "four texts as choices, not ['a', 'b', 'c', 'd', 'e']"),
        ("gen", "dev", {"choices": ["a", "b", "c", None]}, "four texts as choices, not ['a', 'b', 'c', None]"),
        ("gen", "test", {"question": None}, "a text as question"),
        ("gen", "test", {"subject": None}, "a text as subject"),
        ("tru", "validation", {"question": None}, "a text as question"),
        ("tru", "validation", {"mc1_targets": None}, "texts as choices of mc1_targets, and a label for each"),
        (
            "tru",
            "validation",
            {"mc2_targets": {"choices": ["a", "b"], "labels": [1]}},
            "texts as choices of mc2_targets",
        ),
        ("tru", "validation", {"mc1_targets": {"choices": ["a"], "labels": [0]}}, "one right answer in mc1_targets"),
        ("fac", "validation", {"question": None}, "a text as question"),
        ("fac", "validation", {"answer": {"value": "a", "aliases": []}}, "texts as answer.aliases, not []"),
        ("fac", "validation", {"answer": None}, "texts as answer.aliases, not None"),
        ("fac", "train", {"answer": {"value": None, "aliases": ["a"]}}, "texts as question and answer.value"),
        ("flu", "test", {"instruction": None}, "a text as instruction"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path, write_battery_data, task, split, change, message):
    data = write_battery_data(tmp_path) / task
    file = data / TASKS[task][0] / f"{split}.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for each in file.parent.glob("*.jsonl"):  # all with the odd value: a column has one type in all splits
        odd = [row | (change if i == 1 and each == file else {}) for i, row in enumerate(rows)]
        each.write_text("\n".join(map(json.dumps, odd)))
    everything = {"data": str(data), "limit": None} | (
        {"shots": 2 if task == "gen" else 7} if task in ("gen", "fac") else {}
    )
    with pytest.raises(PalimpsestError) as caught:
        prepare({task: everything}, 0)
    assert f"battery.tasks.{task}.data: row 1 of the {split} split of '{data}' needs " in str(caught.value)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_one_message(tmp_path, write_battery_data):
    data = write_battery_data(tmp_path) / "flu"
    (data / "utility_fluency/test.jsonl").write_text('{"instruction": "a"}\n{"instruction": oops')
    start = (
        rf"^battery.tasks.flu.data: the files of dataset '{data}' \(config 'utility_fluency'\) cannot be read: JSON "
    )
    with pytest.raises(PalimpsestError, match=start):
        prepare({"flu": {"data": str(data), "limit": 2}}, 0)


def test_a_dataset_of_other_columns_is_named(folder, tmp_path):
    (tmp_path / "test.jsonl").write_text("\n".join(json.dumps({"prompt": f"{i}"}) for i in range(3)))
    card = "---\nconfigs:\n- config_name: utility_fluency\n  data_files:\n  - split: test\n    path: test.jsonl\n---\n"
    (tmp_path / "README.md").write_text(card)
    with pytest.raises(PalimpsestError, match=r"has no column 'instruction'; it has prompt."):
        prepare({"flu": {"data": str(tmp_path), "limit": 2}}, 0)


def test_without_lm_eval_the_message_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PalimpsestError, match=r"pip install 'palimpsest\[battery\]'"):
        prepare(settings(folder), 0)
