"""`palimpsest survive` on unquantized GGUF files: the numbers are those of the checkpoints that they were made from."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from families import save_family
from gguf_models import gguf
from safetensors.numpy import load_file, save_file

from palimpsest.cli import main
from palimpsest.quantizers import make_quantizer
from palimpsest.quantizers.gguf.backend import convert
from palimpsest.quantizers.gguf.model import write_unquantized
from palimpsest.survival.checkpoints import FORMATS, survive

QUANTIZERS = {name: make_quantizer(FORMATS[name]) for name in ("bnb-nf4", "rtn-int4")}


def unlearned(target: Path, folder: Path) -> Path:
    """Every weight moved by a little, some of them by more than their last place in bfloat16."""
    folder.mkdir()
    random = np.random.default_rng(0)
    weights = load_file(target / "model.safetensors")
    for name, weight in weights.items():
        moved = weight.astype(np.float32) + random.choice([-3e-4, 3e-4], weight.shape)
        weights[name] = moved.astype(ml_dtypes.bfloat16)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for path in target.iterdir():
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_the_numbers_are_those_of_the_checkpoints(family, tmp_path):
    target = save_family(family, tmp_path / "target", 256, 2 if family == "gemma2" else 1)
    pair = target, unlearned(target, tmp_path / "unlearned")
    files = tmp_path / "target.gguf", tmp_path / "unlearned.gguf"
    for folder, file in zip(pair, files, strict=True):
        write_unquantized(folder, file)
    wanted = survive(*pair, QUANTIZERS)
    for found in (survive(*files, QUANTIZERS), survive(files[0], pair[1], QUANTIZERS)):
        assert found["formats"] == wanted["formats"] and found["update"] == wanted["update"]
        assert found["training"] == wanted["training"]
    assert 0 < wanted["formats"]["rtn-int4"]["rho"] != wanted["formats"]["bnb-nf4"]["rho"]


def test_the_command_takes_a_file_in_float32_and_refuses_a_quantized_one(llamas, tmp_path, capsys):
    write_unquantized(llamas["plain"], tmp_path / "target.gguf")
    convert(tmp_path / "target.gguf", tmp_path / "float32.gguf", "f32")
    other = unlearned(llamas["plain"], tmp_path / "unlearned")
    outputs = []
    for target in ("target.gguf", "float32.gguf"):
        assert main(["survive", str(tmp_path / target), str(other)]) == 0
        outputs.append(capsys.readouterr().out.replace(target, "TARGET"))
    assert outputs[0] == outputs[1] and "What to do next" in outputs[0]
    gguf("q4_0").quantize(other, tmp_path / "shipped")
    with pytest.raises(SystemExit):
        main(["survive", str(tmp_path / "target.gguf"), str(tmp_path / "shipped" / "model.gguf")])
    assert "model.gguf is quantized already (Q4_0)" in capsys.readouterr().err
