"""`snakemake verdict` passes where every verdict is a pass, and ends with the verdict's exit code where one is not."""

import os
import subprocess
from pathlib import Path

import pytest

from palimpsest.artefacts import Origin, write_json, write_manifest
from palimpsest.errors import PalimpsestError
from palimpsest.verdict.gate import ASK, leave, pass_or_fail
from palimpsest.verdict.records import EXIT_CODES

pytestmark = pytest.mark.usefixtures("all_forks")

REPOSITORY = Path(__file__).parents[3]
SNAKEFILE = """
from pathlib import Path
from palimpsest.study import run_checks

rule judge:
    output: "results/verdict/{model}/manifest.json"
    shell: "exit 1"

rule verdict:
    input: verdicts=VERDICTS
    log: "results/logs/verdict.log"
    script: SCRIPT

onerror:
    run_checks.leave(
        [job.rule.name for job in workflow.dag.needrun_jobs()], [Path(manifest).parent for manifest in VERDICTS]
    )
"""


def judged(folder: Path, **verdicts: str) -> list[Path]:
    """Folders such as the step `judge` leaves."""
    made = []
    for model, word in verdicts.items():
        place = folder / "results/verdict" / model
        place.mkdir(parents=True)
        record = {"verdict": word, "reason": "so it is", "worst": {"format": "int4", "metric": "verbmem"}}
        write_json(place / "verdict.json", record)
        write_manifest(place, Origin({"model": model}), packages=())
        made.append(place)
    return made


def snakemake(folder: Path, *models: str) -> subprocess.CompletedProcess[str]:
    manifests = [f"results/verdict/{model}/manifest.json" for model in models]
    text = f"VERDICTS, SCRIPT = {manifests!r}, {str(REPOSITORY / 'workflow/scripts/gate.py')!r}\n{SNAKEFILE}"
    (folder / "Snakefile").write_text(text)
    command = ["snakemake", "--cores", "1", "--workflow-profile", "none", "verdict"]
    return subprocess.run(
        command, cwd=folder, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ({"ga": "FORGETS", "npo": "FORGETS"}, 0),
        ({"ga": "INCONCLUSIVE", "npo": "RELAPSES"}, 2),
    ],
)
def test_the_run_ends_with_the_exit_code_of_the_worst_verdict(words, code, tmp_path):
    judged(tmp_path, **words)
    done = snakemake(tmp_path, *words)
    assert done.returncode == code, done.stdout
    if code:
        model, word = next((name, word) for name, word in words.items() if EXIT_CODES[word] == code)
        assert f"Error: {word}, by {model} in int4 (verbmem): so it is." in done.stdout


def test_a_step_that_fails_is_no_verdict_on_the_model(tmp_path):
    """Nor is a verdict that was edited: Snakemake's own exit code stays."""
    judged(tmp_path, ga="RELAPSES")
    (tmp_path / "results/verdict/ga/verdict.json").write_text('{"verdict": "FORGETS"}')
    done = snakemake(tmp_path, "ga")
    assert done.returncode == 1 and "is not the file its manifest names" in done.stdout


def test_without_a_policy_the_gate_says_what_to_write():
    with pytest.raises(PalimpsestError, match="add `verdict: "):
        pass_or_fail([])
    assert "palimpsest policy > policy.yaml" in ASK


@pytest.mark.parametrize(("word", "code"), [(word, code) for word, code in EXIT_CODES.items() if code])
def test_only_the_gate_itself_decides_the_exit_code(word, code, tmp_path):
    folders = judged(tmp_path, ga=word)
    leave(["judge", "verdict"], folders)
    leave(["verdict"], [])
    leave([], folders)
    leave(["verdict"], [tmp_path / "nowhere"])
    with pytest.raises(SystemExit) as end:
        leave(["verdict"], folders)
    assert end.value.code == code
