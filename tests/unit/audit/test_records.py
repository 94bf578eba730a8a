"""What is refused in an audit.json before anything is printed from it."""

import json
from pathlib import Path

import pytest

from palimpsest.cli import main


@pytest.fixture
def results_of_version_0_1(audit: dict, tmp_path: Path) -> Path:
    """The results of a study as version 0.1.0 wrote them: a method's storage is called `weights`."""
    old = json.loads(json.dumps(audit))
    for model in old["models"]:
        if model["kind"] == "unlearned":
            model["method"] = {"weights": model.pop("storage"), "learning_rate": 8e-6}
    for row in old["rows"]:
        row["weights"] = row.pop("storage")
    (tmp_path / "audit.json").write_text(json.dumps(old), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["methods", "{}"],
        ["formats", "{}"],
        ["metrics", "{}"],
        ["moved-weights", "{}"],
        ["audit", "{}/audit.json"],
        ["phase-diagram", "{}/figure.svg", "{}"],
        ["calibration", "{}/figure.svg", "{}"],
        ["prediction", "{}"],
    ],
    ids=lambda command: command[0],
)
def test_every_table_says_that_results_are_of_another_version(command: list[str], results_of_version_0_1, capsys):
    with pytest.raises(SystemExit) as end:
        main(["tables", *(part.format(results_of_version_0_1) for part in command)])
    told = capsys.readouterr()
    assert end.value.code == 1
    assert told.out == "" and len(told.err.splitlines()) == 1
    assert "audit.json was written by another version of palimpsest" in told.err and "Traceback" not in told.err
