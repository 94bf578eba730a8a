"""Whatever is done to params.yaml: it is accepted and can be planned, or one line says which key is wrong."""

import copy
import datetime
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from palimpsest.errors import PalimpsestError
from palimpsest.study.params import check_params, expanded, leaves, read_params, with_current_names
from palimpsest.study.run_checks import one_of
from palimpsest.unlearning.unlearn import settings_of
from palimpsest.yaml_files import parse_yaml

REPOSITORY = Path(__file__).parents[3]
SCHEMA = REPOSITORY / "workflow/schemas/params.schema.yaml"
TEXT = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
DEFAULT = read_params(REPOSITORY / "params.yaml")
LONGEST = 2000
ALWAYS = settings(
    max_examples=150,
    phases=[Phase.explicit, Phase.generate],  # a failing example is small enough to read, and shrinking takes minutes
    deadline=None,
    derandomize=True,  # the same examples for everyone
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

numbers = st.one_of(
    st.integers(-3, 300),
    st.integers(),
    st.sampled_from([2**31, 2**32, 2**63, 2**64, 10**12, 10**400, -1, 0]),
    st.floats(),
    st.sampled_from([1e30, 1e-300, 5e-324, 1.7e308, 0.0, -0.0]),
)
words = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["train", "scratch", "ga", "rtn", "a\n", "../x", "", "x" * 300, "no", "1e-5", "\ud800", "\x00"]),
)
scalars = st.one_of(numbers, words, st.booleans(), st.none(), st.just(datetime.date(2001, 1, 1)), st.just(b"x"))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(scalars, inner, max_size=3)),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all keys."""
    found = []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += [(*path, key), *places(inner, (*path, key))]
    return found


PLACES = places(DEFAULT)


def outcome(params: Any) -> str:
    """Empty where params are accepted and can be planned, else the one message."""
    try:
        current, _ = with_current_names(params)
        check_params(current, SCHEMA, "params.yaml")
    except PalimpsestError as wrong:
        message = str(wrong)
        assert message.startswith("params.yaml: ") and "\n" not in message and len(message) < LONGEST, message[:3000]
        return message
    whole = expanded(current)
    assert leaves(whole)
    for names in (whole["methods"], whole["quantizers"], whole["seeds"]):
        re.compile(one_of(names))
    for method in whole["methods"].values():
        settings_of(method, 0)
    return ""


def block_of(params: dict, path: tuple[Any, ...]) -> dict:
    for key in path[:-1]:
        params = params[key]
    return params


@ALWAYS
@given(path=st.sampled_from(PLACES), value=values)
def test_another_value(path: tuple[Any, ...], value: Any) -> None:
    params = copy.deepcopy(DEFAULT)
    block_of(params, path)[path[-1]] = value
    outcome(params)


@ALWAYS
@given(path=st.sampled_from(PLACES), key=st.one_of(words, st.integers(), st.none(), st.booleans()), value=values)
def test_another_key(path: tuple[Any, ...], key: Any, value: Any) -> None:
    params = copy.deepcopy(DEFAULT)
    block_of(params, path)[key] = value
    outcome(params)


@ALWAYS
@given(path=st.sampled_from(PLACES))
def test_a_key_less(path: tuple[Any, ...]) -> None:
    params = copy.deepcopy(DEFAULT)
    del block_of(params, path)[path[-1]]
    outcome(params)


@ALWAYS
@given(first=st.sampled_from(PLACES), second=st.sampled_from(PLACES))
def test_the_value_of_another_key(first: tuple[Any, ...], second: tuple[Any, ...]) -> None:
    params = copy.deepcopy(DEFAULT)
    value = copy.deepcopy(block_of(DEFAULT, second)[second[-1]])
    block_of(params, first)[first[-1]] = value
    outcome(params)


@ALWAYS
@given(st.data())
def test_another_text(tmp_path: Path, data: st.DataObject) -> None:
    """Letters, lines and pieces of YAML put in, lines left out and doubled."""
    lines = TEXT.splitlines()
    place = data.draw(st.integers(0, len(lines) - 1))
    at = data.draw(st.integers(0, len(lines[place])))
    piece = data.draw(st.one_of(st.sampled_from(list("&*:-?[]{}#!|>%@`'\",\t\\")), st.text(max_size=5)))
    change = data.draw(st.sampled_from(["put in", "leave out", "double", "replace"]))
    if change in ("put in", "replace"):
        lines[place] = lines[place][:at] + piece + lines[place][at + (change == "replace") :]
    else:
        lines[place : place + 1] = [] if change == "leave out" else [lines[place]] * 2
    file = tmp_path / "params.yaml"
    file.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    try:
        params = read_params(file)
    except PalimpsestError as wrong:
        assert str(wrong).startswith(str(file)) and "\n" not in str(wrong) and len(str(wrong)) < LONGEST, wrong
        return
    said = outcome(params)
    if change == "double" and re.match(r" *[\w-]+:", lines[place]):
        pytest.fail(f"a doubled line was accepted: {lines[place]} ({said})")


@ALWAYS
@given(st.binary(max_size=200))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    try:
        params = read_params(tmp_path / "params.yaml")
    except PalimpsestError as wrong:
        assert "\n" not in str(wrong)
    else:
        assert outcome(params), "no handful of bytes is a study"


plain = st.recursive(
    st.one_of(st.integers(-(2**40), 2**40), st.floats(allow_nan=False), st.text(max_size=8), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=12,
)


@ALWAYS
@given(plain)
def test_what_yaml_writes_is_read_as_pyyaml_reads_it(value: Any) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    assert parse_yaml(text) == yaml.safe_load(text)
