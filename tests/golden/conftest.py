import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from checkpoints import save_checkpoint
from forks import wait_for, write_python

from palimpsest.errors import PalimpsestError
from palimpsest.quantizers.environments import RECORD, build, check_python
from palimpsest.runtime import warm

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


PACKAGES = ("torch", "transformers.models.auto.modeling_auto", "auto_gptq.modeling.auto", "awq.quantize.quantizer")
WARM = """
import sys
sys.path.append({source!r})
from pathlib import Path
from palimpsest.runtime.warm import main
main(Path(sys.argv[1]), sys.argv[2:])
"""


@pytest.fixture(scope="session")
def forked_environment(archived_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The isolated environment with another `python -I`: a fork of one process of the environment's own interpreter,
    which has imported the packages. That takes each of two dozen processes four seconds otherwise."""
    root = tmp_path_factory.mktemp("isolated")
    environment, python = root / "archived", archived_environment / "bin/python"
    source = str(REPOSITORY / "src")
    setting = os.environ | warm.ONE_THREAD | warm.NO_THREAD | {warm.VARIABLE: "off"}
    command = [python, "-I", "-c", WARM.format(source=source), root, *PACKAGES]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=setting, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)
    path = json.loads(subprocess.check_output([python, "-I", "-c", "import json, sys; print(json.dumps(sys.path))"]))
    (environment / "bin").mkdir(parents=True)
    write_python(environment / "bin/python", python, root, path)
    record = json.loads((archived_environment / RECORD).read_text())
    record["requirements"] = os.path.relpath(REQUIREMENTS, environment)
    (environment / RECORD).write_text(json.dumps(record))
    wait_for(root, process)
    yield environment
    process.kill()
    process.communicate()


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
