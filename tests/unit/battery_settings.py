"""Tasks of the battery on the folders that `write_battery_data` of tests/conftest.py writes."""

from pathlib import Path

SETTINGS = {
    "gen": {"limit": 9, "shots": 2},
    "tru": {"limit": 6},
    "fac": {"limit": 5, "shots": 3, "max_new_tokens": 8},
    "flu": {"limit": 4, "max_new_tokens": 24},
}


def settings(folder: Path, **changes: dict) -> dict:
    return {task: {"data": str(folder / task)} | each | changes.get(task, {}) for task, each in SETTINGS.items()}
