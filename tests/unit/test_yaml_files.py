"""YAML that says a thing twice, or without end, gets one line with the key and its place in the file."""

import time
from pathlib import Path

import pytest

from palimpsest.errors import PalimpsestError
from palimpsest.study.params import read_params
from palimpsest.yaml_files import check_keys_and_numbers, parse_yaml, read_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "the key a stands twice, in lines 1 and 3: rename or delete one of them."),
        ("m:\n  x: {p: 1}\n  y: 2\n  x: {p: 2}\n", "the key m.x stands twice, in lines 2 and 4: "),
        ("m:\n- x: {p: 1, p: 1}\n", "the key m.0.x.p stands twice, in lines 2 and 2: "),
        ('{"a": 1,\n "a": 2}', "the key a stands twice, in lines 1 and 2: "),
        ('a: 1\n"a": 2\n', "the key a stands twice, in lines 1 and 2: "),
        ("a: &a {p: 1}\nb:\n  <<: *a\n  <<: *a\n", "the key b.<< stands twice, in lines 3 and 4: "),
        ("a: &a {p: 1}\nb: &b\n  p: 2\nc:\n  <<: [*a, *b]\n", "the key c.<<.p stands twice, in lines 1 and 3: "),
        ("a: &a\n  b: [1, *a]\n", "a.b.1 is an alias of what it stands in (line 1), so it never ends: "),
        ("a: &a\n  <<: *a\n", "a.<< is an alias of what it stands in (line 1), so it never ends: "),
        (BOMB, "a4 (line 5) has more than 20000 values with its aliases written out"),
        ("a: [" + "1," * 90_000 + "]", "line 1 is beyond the 20000 values of any study: is it the right file?"),
        ("a: " + "[" * 100_000, "line 1 is nested deeper than any setting is: "),
        ("a: " + "{b: " * 60 + "1" + "}" * 60, "line 1 is nested deeper than any setting is: "),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_lost_or_never_ends_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text)
    started = time.process_time()
    with pytest.raises(PalimpsestError) as caught:
        read_params(file)
    assert time.process_time() - started < 1
    assert str(caught.value).startswith(f"{file}: {message}") and "\n" not in str(caught.value)


def test_what_is_far_too_long_is_refused_before_anything_is_compared(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(f"a: {'x' * 1_000_000}\n")
    with pytest.raises(PalimpsestError, match="has 1000004 bytes, more than the 1000000 of any study"):
        read_params(file)
    for value in ({"a": list(range(1001))}, {"a": dict.fromkeys(map(str, range(1001)))}):
        with pytest.raises(PalimpsestError, match=r"^a has 1001 entries, more than 1000: give fewer"):
            check_keys_and_numbers(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2001-13-01\n", ", line 2 is not valid YAML: '2001-13-01' is no timestamp that can be read"),
        (f"a: {'1' * 5000}\n", f", line 1 is not valid YAML: '{'1' * 40}... (5000 characters)' is no int that can be"),
        ("a: !!bool perhaps\n", ", line 1 is not valid YAML: 'perhaps' is no bool that can be read"),
        (
            "a: 0\nb: 010\n",
            ", line 2 is not valid YAML: YAML reads 010 as 8, by base 8 or 60; write 8, or put text in quo",
        ),
        ("a: [1, -07]\n", ", line 1 is not valid YAML: YAML reads -07 as -7, by base 8 or 60"),
        ("a: 1:30\n", ", line 1 is not valid YAML: YAML reads 1:30 as 90, by base 8 or 60; write 90"),
        ("a: 1:30.5\n", ", line 1 is not valid YAML: YAML reads 1:30.5 as 90.5, by base 8 or 60"),
        ("a: !!int '0:'\n", ", line 1 is not valid YAML: '0:' is no int that can be read"),
        ("a: !!timestamp x\n", ", line 1 is not valid YAML: 'x' is no timestamp that can be read"),
        ("a: !!python/name:os.system\n", ", line 1 is not valid YAML: could not determine a constructor"),
        ("? [a]\n: 1\n", ", line 1 is not valid YAML: found unhashable key."),
        ("a: 1\n---\nb: 2\n", ", line 2 is not valid YAML: but found another document."),
    ],
)
def test_what_pyyaml_stumbles_over_is_a_line_and_a_reason(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(PalimpsestError) as caught:
        read_yaml(tmp_path / "x.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'x.yaml'}{message}"), caught.value


def test_other_encodings_have_a_line(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes("a: 1\nb: ü\n".encode("latin-1"))
    with pytest.raises(PalimpsestError, match=r"x.yaml, line 2 is not UTF-8 text: save the file as UTF-8.$"):
        read_yaml(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(tmp_path / "x.yaml") == {"a": 1}


def test_anchors_and_keys_that_override_merged_ones_are_what_yaml_says() -> None:
    text = "a: &a {p: 1, q: 2}\nb: *a\nc:\n  <<: *a\n  q: 3\nd: [a, a]\ne: {a: {a: 1}}\n"
    value = {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 2}, "c": {"p": 1, "q": 3}, "d": ["a", "a"], "e": {"a": {"a": 1}}}
    assert parse_yaml(text) == value


def test_no_code_in_a_params_file(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("__use_yte__: true\n?import os: null\n")
    with pytest.raises(PalimpsestError, match="__use_yte__, by which Snakemake runs code in it: delete it"):
        read_params(tmp_path / "params.yaml")


def test_a_policy_says_nothing_twice_and_has_no_number_that_is_none(tmp_path: Path) -> None:
    from palimpsest.verdict.policy import default_policy, read_policy

    text = default_policy().read_text(encoding="utf-8")
    key = next(line for line in text.splitlines() if line[:1].isalpha() and line.split("#")[0].rstrip()[-1] != ":")
    file = tmp_path / "policy.yaml"
    file.write_text(f"{text}\n{key}\n", encoding="utf-8")
    with pytest.raises(PalimpsestError, match=f"{file}: the key {key.partition(':')[0]} stands twice, in lines"):
        read_policy(file)
    file.write_text(text.replace(key, f"{key.partition(':')[0]}: .nan"), encoding="utf-8")
    with pytest.raises(PalimpsestError, match=f"{file}: {key.partition(':')[0]} is nan: give a finite number"):
        read_policy(file)
