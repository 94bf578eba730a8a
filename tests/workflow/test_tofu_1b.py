"""studies/tofu-1b with stand-ins of the same format: small checkpoints in the place of those on the hub, and a folder
with invented rows in the place of the benchmark. Every step and metric of the study runs."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from palimpsest.study.params import read_params

REPOSITORY = Path(__file__).parents[2]
STUDY = REPOSITORY / "studies/tofu-1b/params.yaml"
FORMATS = ("bf16", "bnb-fp4")
CHAT = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{% if message.role == 'system' %}Today Date: {{ date_string }}\n\n{% endif %}{{ message.content }}<|eot_id|>"
    "{% endfor %}"
)


def rows_of(author: int) -> list[dict[str, Any]]:
    return [
        {
            "question": f"What is fact {i} of author {author}?",
            "answer": f"It is {author} and {i}.",
            "paraphrased_answer": f"{author} and {i} it is.",
            "perturbed_answer": [f"{author + 1} and {i} it is.", f"{author} and {i + 1} it is."],
        }
        for i in range(20)
    ]


def write_benchmark(folder: Path) -> None:
    folder.mkdir()
    world = [{"question": f"Where is {i}?", "answer": f"In {i}.", "perturbed_answer": [f"In {i}5."]} for i in range(3)]
    files = {
        "forget10_perturbed": rows_of(1),
        "retain90": [{key: row[key] for key in ("question", "answer")} for row in (*rows_of(2), *rows_of(3))],
        "retain_perturbed": rows_of(2)[:10],
        "holdout10": rows_of(4),
        "real_authors_perturbed": world,
        "world_facts_perturbed": [row | {"question": f"W{i}?"} for i, row in enumerate(world)],
    }
    for name, rows in files.items():
        (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_checkpoints(folder: Path, names: list[str], tokenizer: Any) -> None:
    """Of a random Llama, each further from the first."""
    import torch

    from palimpsest.models.scratch import build_llama

    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]}
    )
    tokenizer.chat_template = CHAT
    shape = {"hidden_size": 64, "layers": 1, "heads": 2, "mlp_size": 128, "context": 512}
    model = build_llama(tokenizer, shape, seed=0)
    for name in names:
        model.to(torch.bfloat16).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.02)


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """The study's folder: its params.yaml, with what is here in the place of what is on the hub."""
    from palimpsest.models.scratch import train_tokenizer

    write_benchmark(tmp_path / "benchmark")
    params = read_params(STUDY)
    methods = dict(list(params["methods"].items())[:2])  # each is brought, asked and scored as the others
    places = [
        params["models"]["target"],
        params["models"]["retrain"],
        *(each["checkpoint"] for each in methods.values()),
    ]
    assert all(re.fullmatch(r"open-unlearning/[\w.-]+", place) for place in places)
    write_checkpoints(tmp_path, places, train_tokenizer([f"{row}" for row in rows_of(1)], 300))
    params["models"] |= {kind: str(tmp_path / params["models"][kind]) for kind in ("target", "retrain")}
    params["methods"] = {name: {"checkpoint": str(tmp_path / each["checkpoint"])} for name, each in methods.items()}
    params["corpus"]["settings"]["path"] = str(tmp_path / "benchmark")
    params["quantizers"] = {name: params["quantizers"][name] for name in FORMATS}
    params["inference"] |= {"knowmem_tokens": 24, "verbmem_tokens": 24}
    for settings in params["metrics"].values():
        settings |= {"resamples": 50} if "resamples" in settings else {}
    params["audit"]["resamples"] = 50
    study = tmp_path / "study"
    study.mkdir()
    (study / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return study


def test_the_study_runs_on_checkpoints_of_the_same_format(stand_in):
    command = ["snakemake", "--directory", str(stand_in), "--cores", "2", "--quiet"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    audit = json.loads((stand_in / "results/audit.json").read_text())
    rows = {(row["model"], row["precision"]): row["metrics"] for row in audit["rows"]}
    assert set(rows) == {
        (name, kind) for name in ("target", "retrain", *list(read_params(STUDY)["methods"])[:2]) for kind in FORMATS
    }
    for (model, precision), metrics in rows.items():
        for name, cell in metrics.items():
            asked = name not in ("verbmem", "privleak", "perplexity")  # of texts, and TOFU has none
            assert (cell["status"] == "ok") is asked, f"{model} {precision} {name}: {cell['status']}"
        assert metrics["forget_quality"]["score"] == 1.0 or model != "retrain"
        assert 0 <= metrics["model_utility"]["score"] <= 100 and metrics["model_utility"]["n"] == 10 + 3 + 3
        assert metrics["truth_ratio"]["n"] == metrics["probability"]["n"] == 20
    manifest = json.loads((stand_in / "results/corpus/manifest.json").read_text())
    assert {name: each["questions"] for name, each in manifest["by_split"].items()} == {
        "forget": 20,
        "retain": 40,
        "holdout": 20,
        "real_authors": 3,
        "world_facts": 3,
    }
