"""Fixtures that every test may use."""

import os
from pathlib import Path

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
