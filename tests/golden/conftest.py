from pathlib import Path

import pytest
import torch
from checkpoints import save_checkpoint

from palimpsest.errors import PalimpsestError
from palimpsest.quantizers.environments import build, check_python

REPOSITORY = Path(__file__).parents[2]
REQUIREMENTS = REPOSITORY / "workflow/envs/archived.txt"


@pytest.fixture(scope="session")
def archived_environment() -> Path:
    """The isolated environment of the repository, built if need be (a minute)."""
    try:
        check_python(REQUIREMENTS)
    except PalimpsestError as error:
        pytest.skip(str(error))
    folder = REPOSITORY / ".environments/archived"
    build(REQUIREMENTS, folder)
    return folder


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """aligned: whole blocks and words. ragged: short last blocks and words, tied head, grouped keys and values."""
    root = tmp_path_factory.mktemp("checkpoints")
    aligned = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_key_value_heads": 4}
    ragged = {"hidden_size": 40, "intermediate_size": 36, "num_hidden_layers": 1, "num_key_value_heads": 1}
    return {
        "aligned": save_checkpoint(root / "aligned", **aligned),
        "ragged": save_checkpoint(root / "ragged", tie_word_embeddings=True, **ragged),
        "float32": save_checkpoint(root / "float32", torch.float32, tie_word_embeddings=True, **ragged),
    }


@pytest.fixture(scope="session")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """plain: two layers, grouped keys. full: wide heads, biases, tied head, Llama 3.1's rotary scaling."""
    from gguf_models import BYTE_LEVEL, FULL, byte_level, save  # where llama.cpp is installed

    root, tokenizer = tmp_path_factory.mktemp("llamas"), byte_level(BYTE_LEVEL)
    return {"plain": save(root / "plain", tokenizer), "full": save(root / "full", tokenizer, **FULL)}
