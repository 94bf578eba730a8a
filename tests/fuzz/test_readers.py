"""Every broken file is read or refused in one line: never another exception, a hang or a large allocation.

`python tests/fuzz/fuzz.py --minutes 60 --folder FOLDER` goes on with the same mutations for as long as one likes.
"""

import random
import tracemalloc

import pytest
from fuzz import small_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutate import FORMATS, KINDS, Case, build, mutated

from palimpsest.quantizers.deployed import recognise

MOST_BYTES = 64 << 20
"""The files have a tenth of a MiB: readers widen, unpack and copy, but not to this."""


@pytest.fixture(scope="session")
def valid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "valid"
    build(folder, *small_model())
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_the_valid_files_are_read(kind, valid, tmp_path):
    assert Case.of(kind, valid, tmp_path).read() == "read"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_of_every_format_is_told_by_what_it_states(kind, valid):
    """Whoever made it, `deployed` in params.yaml finds the settings with which it is read."""
    assert recognise(valid / kind).settings == FORMATS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_file_is_read_or_refused(kind, valid, tmp_path):
    case = Case.of(kind, valid, tmp_path)

    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(seed=st.integers(0, 2**32 - 1), mutations=st.integers(1, 3), file=st.integers(0, 99))
    def check(seed, mutations, file):
        choice = random.Random(seed)
        names = sorted(case.originals)
        case.mend()
        for _ in range(mutations):
            name = names[file % len(names)]
            case.write(name, mutated((case.folder / name).read_bytes(), name, choice))
        tracemalloc.start()
        try:
            assert case.read() in ("read", "refused")
            assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
        finally:
            tracemalloc.stop()

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_file_that_ends_early_is_refused(kind, valid, tmp_path):
    """As after a full disk or a broken download."""
    case = Case.of(kind, valid, tmp_path)
    for name, content in case.originals.items():
        if name.endswith(".json"):  # not every reader needs it
            continue
        for size in {0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1}:
            case.mend()
            case.write(name, content[:size])
            assert case.read() == "refused", (name, size)
