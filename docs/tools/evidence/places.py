"""Where the numbers of the documents lie."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
FOLDER = REPOSITORY / "docs/evidence"
