from pathlib import Path

import pytest
import torch
from checkpoints import save_checkpoint


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
