"""The made-up study and its audit, for all tests that read one, and one thread, as a step has it."""

from collections.abc import Iterator
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


@pytest.fixture
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
