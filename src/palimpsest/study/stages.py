"""A stage of dvc.yaml, run: Snakemake makes what it puts out, by the rules that are its own,
and every artefact is held to its record.

dvc.yaml says all there is to say of a stage: its rule files are among its `deps`, and what it makes is in its `outs`.
"""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palimpsest.errors import PalimpsestError, choose
from palimpsest.study.params import read_params
from palimpsest.study.verify import parts_of, problems

RULES = "workflow/rules/"


def read_stages(file: Path) -> dict[str, dict[str, Any]]:
    """The stages of a dvc.yaml."""
    stages = read_params(file).get("stages")
    if not isinstance(stages, dict):
        raise PalimpsestError(f"{file} has no stages: run this in the folder that holds the project's dvc.yaml.")
    return stages


def outputs_of(stage: dict[str, Any]) -> list[Path]:
    """What a stage puts out."""
    return [Path(path) for each in [*stage.get("outs", []), *stage.get("metrics", [])] for path in each]


def rules_of(stage: dict[str, Any], folder: Path) -> list[str]:
    """The rules of the rule files that a stage depends on. folder: of the repository."""
    files = [folder / path for path in stage["deps"] if str(path).startswith(RULES)]
    return [name for file in files for name in re.findall(r"^(?:rule|use rule \w+ as) (\w+)", file.read_text(), re.M)]


def run_stage(name: str, target: str, again: Sequence[str] = (), file: Path = Path("dvc.yaml")) -> list[str]:
    """Run a stage; returns what is wrong with the artefacts afterwards, a line each.

    target: the Snakemake rule that asks for all that the stage makes; again: rules that run in any case.
    The rules of other stages may not run: what an earlier stage put out is not made anew. Raises
    PalimpsestError when Snakemake fails.
    """
    stage = choose(read_stages(file), name, "stage of dvc.yaml")
    command = ["snakemake", "--cores", "all"]
    command += ["--forcerun", *again] if again else []
    command += ["--allowed-rules", target, *rules_of(stage, file.parent), "--", target]
    if subprocess.run(command).returncode:
        raise PalimpsestError(f"stage {name}: Snakemake failed, see above; what is done is kept.")
    outputs = outputs_of(stage)
    for path in outputs:
        if not path.suffix:  # DVC wants a folder even where the study has nothing for it
            path.mkdir(parents=True, exist_ok=True)
    results = Path(outputs[0].parts[0])
    with_records = parts_of(results)
    parts = [path.name for path in outputs if path.name in with_records]
    return problems(results, read_params("params.yaml"), parts)
