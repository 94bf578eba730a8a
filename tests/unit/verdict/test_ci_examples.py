"""The CI files in docs/how-to/verdict.md: their commands run as they stand, and end as the document says."""

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
    r"```yaml\n(.*?)```", (REPOSITORY / "docs/how-to/verdict.md").read_text(encoding="utf-8"), re.DOTALL
)
INSTALL = "pip install ."


def commands() -> dict[str, list[str]]:
    """What each of the two jobs runs, by the name of the service."""
    github, gitlab = (yaml.safe_load(block)["forget" if "script" in block else "jobs"] for block in BLOCKS)
    steps = github["forget"]["steps"]
    assert [step["uses"].split("@")[0] for step in steps if "uses" in step] == [
        "actions/checkout",
        "actions/upload-artifact",
    ]
    assert steps[-1]["if"] == "always()" and steps[-1]["with"]["path"] == gitlab["artifacts"]["paths"][0]
    return {"github": [step["run"] for step in steps if "run" in step], "gitlab": gitlab["script"]}


def evaluation(path: Path, probability: float) -> None:
    rows = {str(i): {"prob": probability + 0.002 * (i % 7 - 3)} for i in range(40)}
    path.write_text(json.dumps({"forget_Q_A_Prob": {"agg_value": probability, "value_by_index": rows}}))


@pytest.mark.parametrize(("service", "after", "code"), [("github", 0.12, 0), ("gitlab", 0.8, 2)])
def test_the_commands_of_both_services_gate_a_file(service, after, code, tmp_path):
    for name, probability in (("before", 0.12), ("after", after), ("retain", 0.1)):
        evaluation(tmp_path / f"{name}.json", probability)
    first, *rest = commands()[service]
    assert first == INSTALL and len(rest) == 1 and rest[0].startswith("palimpsest verdict ")
    binary = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{binary}{os.pathsep}{os.environ['PATH']}"}
    script = "\n".join(["set -e", "palimpsest policy > policy.yaml", *rest])
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert sorted(path.name for path in (tmp_path / "verdict").iterdir()) == [
        "records.csv",
        "verdict.html",
        "verdict.json",
    ]
