"""Fixtures that every test may use."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with independent reference values (oracle/) and real text (data/), which is not part of the project."""
    folder = Path(os.environ.get("PALIMPSEST_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "oracle").is_dir():
        pytest.skip(f"the reference values in {folder} are not here (set PALIMPSEST_SHARED to their folder)")
    return folder


@pytest.fixture(scope="session")
def tiny():
    """A small random Llama in float32 and the tokenizer it belongs to, trained on a few generated articles."""
    from palimpsest.corpus.generator import generate_corpus
    from palimpsest.models import build_llama, train_tokenizer

    corpus = generate_corpus(0, 2, 4, 2, 3, 2)
    tokenizer = train_tokenizer([*corpus.forget, *corpus.retain], 400)
    shape = {"hidden_size": 64, "layers": 2, "heads": 4, "mlp_size": 128, "context": 256}
    return build_llama(tokenizer, shape, seed=0), tokenizer, corpus


@pytest.fixture(scope="session")
def write_hub_layout() -> Callable[[Any, Path], Path]:
    """Writes a corpus as a folder that `datasets` loads with the configs and splits of muse-bench/MUSE-News."""

    def write(corpus: Any, folder: Path) -> Path:
        splits = {
            "raw": {
                "forget": corpus.forget,
                "retain1": corpus.retain,
                "retain2": corpus.retain,
                "holdout": corpus.holdout,
            },
            "privleak": {
                "forget": corpus.privleak_forget,
                "retain": corpus.privleak_retain,
                "holdout": corpus.privleak_holdout,
            },
            "verbmem": {"forget": [vars(prompt) for prompt in corpus.verbmem]},
            "knowmem": {
                "forget_qa": [vars(question) for question in corpus.forget_qa],
                "forget_qa_icl": [vars(question) for question in corpus.forget_icl],
                "retain_qa": [vars(question) for question in corpus.retain_qa],
                "retain_qa_icl": [vars(question) for question in corpus.retain_icl],
            },
        }
        card = ["---", "configs:"]
        for config, parts in splits.items():
            card += [f"- config_name: {config}", "  data_files:"]
            for split, rows in parts.items():
                file = folder / config / f"{split}.jsonl"
                file.parent.mkdir(parents=True, exist_ok=True)
                lines = [json.dumps(row if isinstance(row, dict) else {"text": row}) for row in rows]
                file.write_text("\n".join(lines), encoding="utf-8")
                card += [f"  - split: {split}", f"    path: {config}/{split}.jsonl"]
        (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")
        return folder

    return write
