"""The version stands in three files, which agree."""

import re
import tomllib
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]


def test_the_version_is_the_same_wherever_it_stands():
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == version
    newest = re.search(r"^## \[(\d.+)\] - (.+)$", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and newest[1] == version and newest[2] == citation["date-released"]
