"""Attacks in the workflow: only where they are asked for; at strength zero the same bits; all of it verified."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from palimpsest.study.verify import problems

REPOSITORY = Path(__file__).parents[2]
RELEARN = {"kind": "relearn", "when": "before", "text": "forget", "steps": [0], "learning_rate": 1.0e-3}
ATTACKS = {
    "relearn": RELEARN | {"batch_size": None, "storage": "bfloat16"},
    "prune": {"kind": "prune", "when": "after", "share": [0.0]},
    "greedy": {"kind": "sample", "samples": 2, "temperature": 0.0, "leaks_at": 50.0, "seed": 0},
}

pytestmark = pytest.mark.slow


def snakemake(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = ["snakemake", "--directory", folder, *arguments]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def write_study(folder: Path, attacks: dict[str, Any] | None) -> dict[str, Any]:
    folder.mkdir()
    params = yaml.safe_load((REPOSITORY / "tests/tiny/params.yaml").read_text())
    params["methods"] = {"npo_klr": params["methods"]["npo_klr"]}
    params["quantizers"] = {name: params["quantizers"][name] for name in ("bf16", "rtn-int4")}
    asked = {"models": None, "precisions": ["rtn-int4"], "recovered_at": 50.0, "each": attacks}
    params["attacks"] = asked if attacks else None
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return params


def test_without_attacks_nothing_is_planned(tmp_path):
    write_study(tmp_path / "off", None)
    plan = snakemake(tmp_path / "off", "--dry-run")
    assert not re.search(r"^attack|_attacked ", plan, re.MULTILINE)


def test_at_strength_zero_an_attacked_model_gives_the_same_bits(tmp_path):
    study = tmp_path / "study"
    params = write_study(study, ATTACKS)
    snakemake(study, "--cores", "2", "results/attacks/attacks.json")
    results = study / "results"
    for model in ("target", "retrain", "npo_klr"):
        plain = results / f"infer/{model}/seed0/rtn-int4"
        for attacked in (f"{model}+relearn_0/seed0/rtn-int4", f"{model}+rtn-int4+prune_0/seed0/bf16"):
            for file in ("responses.jsonl", "logprobs.parquet"):
                assert (plain / file).read_bytes() == (results / "attacked-infer" / attacked / file).read_bytes()
        said = (results / f"attacked-asked/{model}/seed0/rtn-int4/greedy/responses.jsonl").read_text().splitlines()
        assert said == [
            line for line in (plain / "responses.jsonl").read_text().splitlines() if "knowmem_forget" in line
        ]
    rows = json.loads((results / "attacks/attacks.json").read_text())["rows"]
    assert len(rows) == 3 * (2 + 2 + 1)  # VerMem and KnowMem of the attacks on weights, KnowMem of the other
    assert all(row["attacked"] == row["plain"] for row in rows)
    assert all(row["excess"] == 0 for row in rows if row["model"] == "retrain")
    parts = ["attacked-asked", "attacked-infer", "attacked-models", "attacked-quantized", "attacks"]
    assert problems(results, params, parts) == []
