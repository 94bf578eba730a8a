"""The questions of the battery: rows of published datasets, drawn by seed, as the prompts that every model gets."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from palimpsest.battery import require_lm_eval
from palimpsest.corpus.hub import Load, cannot_load, opened
from palimpsest.errors import PalimpsestError

LETTERS = ["A", "B", "C", "D"]
Question = dict[str, Any]
"""JSON: "id" (row of the dataset), "prompt", and what scoring needs:
"choices" and the places of right ones, or "answers"."""


@dataclass(frozen=True)
class Source:
    """Where the rows of a task are: a name of the hub, or a local folder that `datasets` loads alike."""

    task: str
    data: str
    config: str
    load: Load

    def rows(self, split: str, columns: Sequence[str]) -> Any:
        """A `datasets.Dataset` with these columns. Raises PalimpsestError that names the key when it cannot be had."""
        where = f"battery.tasks.{self.task}.data: dataset {self.data!r} (config {self.config!r}, split {split!r})"
        try:
            rows = self.load(self.config, split)
        except (OSError, ValueError) as error:
            otherwise = (
                "give a local folder with the same files as on the hub (`hf download --repo-type dataset NAME "
                f"--local-dir FOLDER`, docs/how-to/battery.md), or delete battery.tasks.{self.task}"
            )
            raise cannot_load(where, self.data, error, otherwise) from error
        lacking = [column for column in columns if column not in rows.column_names]
        if lacking:
            raise PalimpsestError(f"{where} has no column {lacking[0]!r}; it has {', '.join(rows.column_names)}.")
        return rows.select_columns(list(columns))

    def need(self, split: str, row: int, fits: bool, what: str) -> None:
        """Raise PalimpsestError that names the row and what it needs, unless it fits."""
        if not fits:
            raise PalimpsestError(
                f"battery.tasks.{self.task}.data: row {row} of the {split} split of {self.data!r} needs {what}: "
                "correct the row, or get the dataset anew."
            )

    def count(self, rows: Any, split: str, number: int | None, key: str = "limit") -> int:
        """How many rows to draw, all for None;
        raises PalimpsestError when there are fewer than wanted, or too few for an error."""
        wanted = len(rows) if number is None else number
        if wanted > len(rows) or len(rows) < 2:
            raise PalimpsestError(
                f"battery.tasks.{self.task}.{key} is {number}, the {split} split of {self.data!r} has {len(rows)} "
                "rows: lower it, or give the whole dataset (a standard error needs 2 rows)."
            )
        return wanted


def prepare(tasks: Mapping[str, Mapping[str, Any]], seed: int) -> dict[str, list[Question]]:
    """The questions of every task. tasks: settings by key, as in params.yaml; seed: which rows are drawn.

    Raises PalimpsestError when lm-eval or a dataset cannot be had,
    or a dataset has too few rows or one that does not fit.
    """
    require_lm_eval()
    made = {}
    for task, settings in tasks.items():
        config, build = TASKS[task]
        shots = {"shots": settings["shots"]} if "shots" in settings else {}
        draw = random.Random(f"{seed} {task}")
        with opened(settings["data"], f"battery.tasks.{task}.data") as load:
            made[task] = build(Source(task, settings["data"], config, load), draw, settings["limit"], **shots)
    return made


def mmlu(source: Source, draw: random.Random, limit: int | None, shots: int) -> list[Question]:
    """MMLU (arXiv 2009.03300) with the prompt of lm-eval's `mmlu`: the first `shots` questions of the subject's dev
    split, then the question. The same number from each subject, as far as that goes (171 is 3 from each of 57)."""
    columns = ("question", "subject", "choices", "answer")
    examples: dict[str, list[tuple[int, Question]]] = {}
    for i, row in enumerate(source.rows("dev", columns)):
        examples.setdefault(row["subject"], []).append((i, row))
    asked = source.rows("test", columns)
    by_subject: dict[str, list[int]] = {}
    for i, subject in enumerate(asked["subject"]):
        source.need("test", i, isinstance(subject, str), "a text as subject")
        by_subject.setdefault(subject, []).append(i)
    for subject, places in by_subject.items():
        draw.shuffle(places)
        if len(examples.get(subject, [])) < shots:
            raise PalimpsestError(
                f"battery.tasks.gen.shots is {shots}, the dev split of {source.data!r} has "
                f"{len(examples.get(subject, []))} questions about {subject!r}: lower shots."
            )
    rounds = sorted((turn, draw.random(), i) for places in by_subject.values() for turn, i in enumerate(places))
    chosen = sorted(i for _, _, i in rounds[: source.count(asked, "test", limit)])
    questions = []
    for i, row in zip(chosen, asked.select(chosen), strict=True):
        subject = row["subject"].replace("_", " ")
        head = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
        solved = "".join(
            f"{_mmlu_text(source, 'dev', place, each)} {LETTERS[each['answer']]}\n\n"
            for place, each in examples.get(row["subject"], [])[:shots]
        )
        prompt = head + solved + _mmlu_text(source, "test", i, row)
        questions.append({"id": i, "prompt": prompt, "choices": LETTERS, "right": row["answer"]})
    return questions


def _mmlu_text(source: Source, split: str, i: int, row: Mapping[str, Any]) -> str:
    question, choices, answer = row["question"], row["choices"], row["answer"]
    source.need(split, i, isinstance(question, str), "a text as question")
    four = _texts(choices) and len(choices) == len(LETTERS)
    source.need(split, i, four, f"four texts as choices, not {choices!r}")
    labelled = type(answer) is int and answer in range(len(LETTERS))
    source.need(split, i, labelled, f"the place of the right choice, 0 to 3, as answer, not {answer!r}")
    options = "".join(f"{letter}. {text}\n" for letter, text in zip(LETTERS, choices, strict=True))
    return f"{question.strip()}\n{options}Answer:"


def truthful_qa(source: Source, draw: random.Random, limit: int | None) -> list[Question]:
    """TruthfulQA (arXiv 2109.07958), multiple choice, with the prompt of lm-eval's `truthfulqa_mc1`:
    its six fixed examples."""
    from lm_eval.utils import apply_template

    task = files("lm_eval").joinpath("tasks/truthfulqa/truthfulqa_mc1.yaml").read_text(encoding="utf-8")
    template = yaml.safe_load(task)["doc_to_text"]
    questions = []
    for i, row in _drawn(source, draw, limit, "validation", ("question", "mc1_targets", "mc2_targets")):
        source.need("validation", i, isinstance(row["question"], str), "a text as question")
        for name in ("mc1_targets", "mc2_targets"):
            target = row[name]
            fits = isinstance(target, dict) and _texts(target.get("choices"))
            fits = fits and len(target["choices"]) == len(target.get("labels") or [])
            source.need("validation", i, fits, f"texts as choices of {name}, and a label for each")
        mc1, mc2 = (dict(zip(t["choices"], t["labels"], strict=True)) for t in (row["mc1_targets"], row["mc2_targets"]))
        choices = list(mc1 | mc2)
        best, mc1_false, mc2_true, mc2_false = (
            [choices.index(choice) for choice, label in labels.items() if label == wanted]
            for labels, wanted in ((mc1, 1), (mc1, 0), (mc2, 1), (mc2, 0))
        )
        fits = len(best) == 1 and bool(mc1_false and mc2_true and mc2_false)
        source.need("validation", i, fits, "one right answer in mc1_targets, and right and wrong ones in mc2_targets")
        places = {"best": best[0], "mc1_false": mc1_false, "mc2_true": mc2_true, "mc2_false": mc2_false}
        prompt = apply_template(template, {"question": row["question"]})
        questions.append({"id": i, "prompt": prompt, "choices": choices} | places)
    return questions


def trivia_qa(source: Source, draw: random.Random, limit: int | None, shots: int) -> list[Question]:
    """TriviaQA (arXiv 1705.03551) without context:
    the same `shots` questions of the training split before each question."""
    solved = ""
    if shots:
        for i, row in _drawn(source, draw, shots, "train", ("question", "answer"), "shots"):
            question, answer = row["question"], row["answer"]
            fits = isinstance(answer, dict) and _texts([question, answer.get("value")])
            source.need("train", i, fits, "texts as question and answer.value")
            solved += f"Question: {question}\nAnswer: {answer['value']}\n\n"
    questions = []
    for i, row in _drawn(source, draw, limit, "validation", ("question", "answer")):
        question, answer = row["question"], row["answer"]
        source.need("validation", i, isinstance(question, str), "a text as question")
        aliases = answer.get("aliases") if isinstance(answer, dict) else None
        source.need("validation", i, bool(aliases) and _texts(aliases), f"texts as answer.aliases, not {aliases!r}")
        questions.append({"id": i, "prompt": f"{solved}Question: {question}\nAnswer:", "answers": aliases})
    return questions


def instructions(source: Source, draw: random.Random, limit: int | None) -> list[Question]:
    """Instructions of AlpacaEval as RWKU (arXiv 2406.10890) has them;
    what is written for them is not judged, only its variety is."""
    drawn = _drawn(source, draw, limit, "test", ("instruction",))
    for i, row in drawn:
        source.need("test", i, isinstance(row["instruction"], str), "a text as instruction")
    return [{"id": i, "prompt": f"Instruction: {row['instruction']}\n"} for i, row in drawn]


TASKS: dict[str, tuple[str, Callable[..., list[Question]]]] = {
    "gen": ("all", mmlu),
    "tru": ("multiple_choice", truthful_qa),
    "fac": ("rc.nocontext", trivia_qa),
    "flu": ("utility_fluency", instructions),
}
"""The config of each task's dataset, and what makes its questions."""


def _texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _drawn(
    source: Source, draw: random.Random, number: int | None, split: str, columns: Sequence[str], key: str = "limit"
) -> list[tuple[int, Any]]:
    """(place, row) of that many rows of a split, all for None, in the order of the split."""
    rows = source.rows(split, columns)
    places = sorted(draw.sample(range(len(rows)), source.count(rows, split, number, key)))
    return list(zip(places, rows.select(places), strict=True))
