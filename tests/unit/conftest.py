"""The made-up study and its audit, for all tests that read one."""

from typing import Any

import pytest
from made_study import make_study

from palimpsest.audit.table import collect


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def audit(study: dict[str, Any]) -> dict[str, Any]:
    return collect(**study["records"])
