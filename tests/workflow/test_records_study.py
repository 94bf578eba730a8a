"""A study on records of the user's own, planned: the files are read and checked, and counted aloud."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from palimpsest.cli import main

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
        command = ["snakemake", "--directory", str(tmp_path), "--cores", "1", "--dry-run"]
        done = subprocess.run(
            [*command, "results/corpus/manifest.json"], cwd=REPOSITORY, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_plan_counts_the_records_by_split_and_subject(plan):
    code, said = plan([{"question": f"Q{i}?", "answer": "A.", "subject": "Ann"} for i in range(4)])
    assert code == 0 and "Records, forget: 4 questions, 1 subject: Ann (4)." in said, said
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


def test_an_audit_of_checkpoints_is_planned_with_its_price(tmp_path, capfd):
    for name in ("target", "unlearned", "retrain"):
        (tmp_path / name).mkdir()
        save_file({"model.embed_tokens.weight": np.zeros((300, 64), "f2")}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text('{"model_type": "llama", "vocab_size": 300, "hidden_size": 64}')
    (tmp_path / "f.jsonl").write_text('{"question": "Who?", "answer": "She.", "subject": "Ann"}')
    models = [word for name in ("target", "unlearned", "retrain") for word in (f"--{name}", str(tmp_path / name))]
    out = tmp_path / "study"
    files = ["--forget", str(tmp_path / "f.jsonl"), "--formats", "rtn-int4", "--out", str(out)]
    assert main(["audit", *models, *files, "--dry-run"]) == 0
    said = capfd.readouterr().out
    assert "Records, forget: 1 question, 1 subject: Ann (1)." in said
    assert "1 bring" in said and "3 quantize" in said and "6 infer" in said
    assert "Disk: about " in said and "Time: " in said and not (out / "results/models").exists()
    with pytest.raises(SystemExit):
        main(["audit", "--out", str(out), "--unlearned", str(tmp_path / "retrain"), "--dry-run"])
    assert "and --unlearned is" in capfd.readouterr().err
