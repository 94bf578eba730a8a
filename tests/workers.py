"""What is made once for all workers of a test run (pytest-xdist)."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills, called by the first worker that asks for it. The others wait."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all workers
    with FileLock(root / f"{name}.lock"):
        made = root / f"{name}.made"
        if not made.exists():
            make(root / name)
            made.touch()
    return root / name
