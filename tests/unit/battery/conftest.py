"""The datasets of the battery, and the questions drawn from them."""

from pathlib import Path

import pytest
from battery_settings import settings

from palimpsest.battery.questions import prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_battery_data) -> Path:
    return write_battery_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def questions(folder):
    return prepare(settings(folder), 0)
