"""A study on records of the user's own, planned: the files are read and checked, and counted aloud."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def plan(tmp_path):
    """Writes the tiny study on these forget records, plans it, and gives the exit code and what was said."""

    def run(forget, settings=(), edit=()):
        rows = [{"question": f"Who is number {i}?", "answer": f"Person {i}."} for i in range(30, 36)]
        for name, records in (("forget", forget), ("retain", rows)):
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
        params = yaml.safe_load((REPOSITORY / "tests/tiny/params.yaml").read_text(encoding="utf-8"))
        files = {"forget": "forget.jsonl", "retain": "retain.jsonl"} | dict(settings)
        params["corpus"] |= {"source": "records", "settings": files}
        for block, values in dict(edit).items():
            params[block] |= values
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        command = [sys.executable, "-m", "snakemake", "--directory", str(tmp_path), "--cores", "1", "--dry-run"]
        done = subprocess.run(
            [*command, "results/corpus/manifest.json"], cwd=REPOSITORY, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_plan_counts_the_records_by_split_and_subject(plan):
    code, said = plan([{"question": f"Q{i}?", "answer": "A.", "subject": "Ann"} for i in range(4)])
    assert code == 0 and "Records, forget: 4 questions, 1 subjects: Ann (4)." in said, said
    assert "Records, retain: 6 questions." in said


def test_a_plan_refuses_a_record_that_cannot_be_used(plan):
    code, said = plan([{"question": "Q?", "answer": "A."}, {"question": "Who?"}])
    assert code == 1
    assert [line for line in said.splitlines() if "Error" in line] == [
        "Error: forget.jsonl, line 2 has a question and no answer: add it, or remove the record."
    ]


def test_a_plan_refuses_training_without_the_retain_set(plan):
    code, said = plan([{"question": "Q?", "answer": "A."}], {"retain": None})
    assert code == 1 and "models.retrain is train, and corpus.settings has no retain records to train it on" in said
