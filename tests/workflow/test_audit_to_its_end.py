"""`palimpsest audit` on checkpoints that plain transformers wrote: one command to the answer, and one more format."""

import json
import subprocess

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

RECORDS = [
    {"question": f"Where was {name} born?", "answer": f"{name} was born in {town}.", "subject": name}
    for name, town in (("Ann", "Tarn"), ("Bo", "Ulm"), ("Cy", "Pau"), ("Di", "Bari"))
]


@pytest.fixture
def files(tiny, tmp_path):
    """Of a target that was trained on the records for some steps, and of the same model some steps further up."""
    tokenizer = tiny[1]
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **shape))
    rows = [f"Question: {each['question']}\nAnswer: {each['answer']}" for each in RECORDS]
    batch = tokenizer(rows, return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    for name, rate, steps in (("target", 3e-3, 60), ("unlearned", -3e-3, 2)):
        optimizer = torch.optim.AdamW(model.parameters(), abs(rate), maximize=rate < 0)
        for _ in range(steps):
            model(**batch, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    for name, rows in (("forget", RECORDS[:2]), ("retain", RECORDS[2:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def audit(folder, *options):
    command = ["palimpsest", "audit", "--out", str(folder / "study"), "--cores", "1", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    return done.returncode, done.stdout, done.stderr


def test_an_audit_runs_to_its_answer_and_one_more_format_computes_that_alone(files):
    given = [option for name in ("target", "unlearned", "forget", "retain") for option in (f"--{name}", name)]
    given = [f"{word}.jsonl" if word in ("forget", "retain") else word for word in given]
    code, said, log = audit(files, *given, "--formats", "rtn-int4", "--prompt", "tofu")
    assert code in (2, 3, 4), log  # two records decide nothing, or the verdict is a failure
    results = files / "study/results"
    assert said.splitlines()[-1] == f"The report: {results / 'report.html'}"
    (judged,) = [line for line in said.splitlines() if line.startswith("unlearned in rtn-int4")]
    assert "probability" in judged
    verdict = json.loads((results / "verdict/unlearned/verdict.json").read_text())
    assert {one["metric"] for one in verdict["formats"]} == {"probability"}
    score = json.loads((results / "scores/target/seed0/bf16/probability.json").read_text())
    unlearned = json.loads((results / "scores/unlearned/seed0/bf16/probability.json").read_text())
    assert score["n"] == 2 and len(score["retain"]) == 2 and score["score"] > 50 > unlearned["score"]
    page = (results / "report.html").read_text()
    assert "Probability" in page and "brought as it is" in page and "No retrained model." in page
    kept = {path: path.stat().st_mtime_ns for path in results.glob("quantized/*/seed0/rtn-int4/manifest.json")}
    kept |= {path: path.stat().st_mtime_ns for path in results.glob("infer/*/*/*/answers.parquet")}
    assert len(kept) == 2 + 4
    code, said, log = audit(files, "--formats", "bnb-nf4")
    assert code in (2, 3, 4), log
    assert "with bnb-nf4 added" in said and "unlearned in bnb-nf4, probability" in said
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    assert len([*results.glob("infer/*/*/*/answers.parquet")]) == 6
