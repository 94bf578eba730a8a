"""The CI files in docs/how-to/gate-in-ci.md: their commands run as they stand, and end as the document says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
BLOCKS = re.findall(
    r"```yaml\n(.*?)```", (REPOSITORY / "docs/how-to/gate-in-ci.md").read_text(encoding="utf-8"), re.DOTALL
)
[SIGNING] = re.findall(
    r"```\n(openssl .*?)```", (REPOSITORY / "docs/how-to/gate-in-ci.md").read_text(encoding="utf-8"), re.DOTALL
)
INSTALL = "pip install ."


def commands() -> dict[str, list[str]]:
    """What each of the two jobs runs, by the name of the service."""
    github, gitlab = (yaml.safe_load(block)["forget" if "script" in block else "jobs"] for block in BLOCKS[:2])
    steps = github["forget"]["steps"]
    assert [step["uses"].split("@")[0] for step in steps if "uses" in step] == [
        "actions/checkout",
        "actions/upload-artifact",
    ]
    assert steps[-1]["if"] == "always()" and steps[-1]["with"]["path"] == gitlab["artifacts"]["paths"][0]
    return {"github": [step["run"] for step in steps if "run" in step], "gitlab": gitlab["script"]}


def evaluation(path: Path, probability: float) -> None:
    rows = {str(i): {"prob": probability + 0.002 * (i % 7 - 3)} for i in range(60)}
    path.write_text(json.dumps({"forget_Q_A_Prob": {"agg_value": probability, "value_by_index": rows}}))


def run(folder: Path, *lines: str) -> "subprocess.CompletedProcess[str]":
    """As a runner does: the job ends with the first command that fails."""
    binary = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{binary}{os.pathsep}{os.environ['PATH']}"}
    script = "\n".join(["set -eo pipefail", *lines])
    return subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("service", "after", "code"), [("github", 0.12, 0), ("gitlab", 0.8, 2)])
def test_the_commands_of_both_services_gate_a_file(service, after, code, tmp_path):
    for name, probability in (("before", 0.12), ("after", after), ("retain", 0.1)):
        evaluation(tmp_path / f"{name}.json", probability)
    first, *rest = commands()[service]
    assert first == INSTALL and len(rest) == 1 and rest[0].startswith("palimpsest verdict ")
    done = run(tmp_path, "palimpsest policy > policy.yaml", *rest)
    assert done.returncode == code, done.stdout + done.stderr
    assert sorted(path.name for path in (tmp_path / "verdict").iterdir()) == [
        "records.csv",
        "verdict.html",
        "verdict.json",
    ]


@pytest.mark.parametrize(
    ("after", "altered", "passes"), [(0.12, False, True), (0.12, True, False), (0.8, False, False)]
)
def test_a_signed_verdict_gates_the_file_that_it_is_about(after, altered, passes, tmp_path):
    for name, probability in (("before", 0.12), ("after", after), ("retain", 0.1)):
        evaluation(tmp_path / f"{name}.json", probability)
    (tmp_path / "model-nf4.gguf").write_bytes(b"GGUF" + bytes(100))
    judged = commands()["gitlab"][1].replace(" --policy policy.yaml", "")
    made = run(tmp_path, f"{judged} || test $? = 2", *SIGNING.strip().splitlines())
    assert made.returncode == 0, made.stdout + made.stderr
    if altered:
        (tmp_path / "model-nf4.gguf").write_bytes(b"GGUF" + bytes(101))
    first, *rest = yaml.safe_load(BLOCKS[2])["release"]["script"]
    assert first == "pip install '.[sign]'" and len(rest) == 1
    checked = run(tmp_path, *rest)
    assert (checked.returncode == 0) == passes, checked.stdout + checked.stderr
    assert passes == checked.stdout.startswith("FORGETS: ")
