"""`snakemake -n` ends in one line about a params.yaml that is wrong in a way that Snakemake itself takes in silence."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
TINY = (REPOSITORY / "tests/tiny/params.yaml").read_text()


def plan(folder: Path, *arguments: str) -> tuple[int, str]:
    command = ["snakemake", "-n", "--snakefile", str(REPOSITORY / "Snakefile"), *arguments]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [(), ("--configfile", "mine.yaml")])
def test_a_key_that_stands_twice(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    twice = TINY.replace("  npo_klr:\n", "  ga_gdr:\n")
    (tmp_path / "params.yaml").write_text(TINY if arguments else twice)
    (tmp_path / "mine.yaml").write_text(twice)
    code, said = plan(tmp_path, *arguments)
    assert code == 1 and said.splitlines()[-1].startswith("Error: "), said
    assert "the key methods.ga_gdr stands twice, in lines 47 and 57: rename or delete one of them." in said


def test_a_format_of_gpus_alone_where_there_is_none(tmp_path: Path) -> None:
    params = yaml.safe_load(TINY)
    params["quantizers"]["hqq-cuda"] = {"backend": "hqq", "bits": 4, "group_size": 64, "device": "cuda"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    message = "quantizers.hqq-cuda is made on a CUDA GPU alone, and there is none in sight here"
    code, said = plan(tmp_path)
    assert code == 0 and said.count(f"Warning: {message}") == 1, "a dry run may be a look at another machine's work"
    command = ["snakemake", "--cores", "1", "--snakefile", str(REPOSITORY / "Snakefile")]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and message in done.stderr and not (tmp_path / "results").exists()
    code, said = plan(tmp_path, "models")
    assert code == 0 and message not in said, "what needs no GPU can be made here"


def test_the_error_of_a_step_is_what_a_person_sees_last(tmp_path: Path) -> None:
    params = yaml.safe_load(TINY)
    params["corpus"] |= {"source": "folder", "settings": {"path": str(tmp_path / "none"), "retain_split": "retain"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    command = ["snakemake", "--cores", "1", "--snakefile", str(REPOSITORY / "Snakefile")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    message = f"Error: corpus folder {tmp_path / 'none'} does not exist: give the path of a folder in MUSE layout."
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"{message} (results/logs/corpus.log)"
