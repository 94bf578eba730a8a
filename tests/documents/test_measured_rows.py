"""What benchmarks and the fuzzer write with `--csv` is what the pages read; a row takes the place of its like."""

import importlib
import sys
from pathlib import Path

import pandas as pd
import pytest

import evidence
from rows import replace_rows

REPOSITORY = Path(__file__).parents[2]
DONE = """\
#1861\tDONE   cov: 116 ft: 178 corp: 7/299Kb lim: 117052 exec/s: 143 rss: 629Mb
Done 1861 runs in 13 second(s)
stat::number_of_executed_units: 1861
stat::average_exec_per_sec:     143
stat::slowest_unit_time_sec:    0
"""
FOUND = """\
 === Uncaught Python exception: ===
ValueError: a finding, tried
==11073== ERROR: libFuzzer: fuzz target exited
SUMMARY: libFuzzer: fuzz target exited
artifact_prefix='./'; Test unit written to ./crash-4293a5f751c520b6063d1deb33ab2531be543c5b
stat::number_of_executed_units: 301
"""
"""What atheris 3.0.0 printed at the end of guided.py, without and with a finding."""


@pytest.fixture
def load(monkeypatch):
    """A module of a folder of programs, which find their neighbours beside them."""

    def run(folder, name):
        monkeypatch.setattr(sys, "path", [str(REPOSITORY / folder), *sys.path])
        return importlib.import_module(name)

    return run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence.places, "FOLDER", tmp_path)
    return tmp_path


def test_a_row_takes_the_place_of_its_like_and_of_no_other(tmp_path):
    table = tmp_path / "table.csv"
    for kind, count in (("a", "1"), ("b", "2"), ("c", "3"), ("b", "4")):
        replace_rows(table, [{"kind": kind, "count": count}], "kind")
    assert table.read_text() == "kind,count\na,1\nb,4\nc,3\n"
    replace_rows(table, [{"kind": "b", "count": "5"}], "kind", "count")
    assert table.read_text() == "kind,count\na,1\nb,4\nc,3\nb,5\n"
    with pytest.raises(ValueError, match=r"name another file"):
        replace_rows(table, [{"kind": "b", "seconds": "5"}], "kind")
    assert table.read_text().startswith("kind,count\n")


def test_rows_of_one_kind_take_the_place_of_all_that_were_of_it(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("kind,count\na,1\nb,2\nb,3\nc,4\n")
    replace_rows(table, [{"kind": "b", "count": count} for count in "567"], "kind")
    assert table.read_text() == "kind,count\na,1\nb,5\nb,6\nb,7\nc,4\n"
    replace_rows(table, [{"kind": "d", "count": count} for count in "89"], "kind")
    assert table.read_text() == "kind,count\na,1\nb,5\nb,6\nb,7\nc,4\nd,8\nd,9\n"


def test_what_survive_costs_is_measured_written_and_read(load, folder, monkeypatch):
    survive = load("benchmarks", "survive")
    shape = {"hidden": 128, "mlp": 256, "layers": 2, "heads": 2, "kv_heads": 2, "vocabulary": 500}
    monkeypatch.setitem(survive.PRESETS, "tiny", shape)
    table = folder / "survive-cost.csv"
    monkeypatch.setattr(
        sys, "argv", ["survive", "tiny", "--layers", "1", "--csv", str(table), "--", "--quantizer", "bnb-nf4"]
    )
    survive.main()
    monkeypatch.setattr(sys, "argv", ["survive", "tiny", "--csv", str(table)])
    survive.main()
    survive.main()
    slice_, whole = pd.read_csv(table).to_dict("records")
    assert slice_["command"] == "python benchmarks/survive.py tiny --layers 1 -- --quantizer bnb-nf4"
    assert whole["command"] == "python benchmarks/survive.py tiny"
    assert 0.2 < whole["processor_seconds"] < 600 and 10 < whole["anonymous_mib"] < 4000
    said = evidence.survive_costs_table().splitlines()
    assert len(said) == 4 and {line.count("|") for line in said} == {6}
    assert said[3].startswith(f"| `{whole['command']}` | 0 | {whole['processor_seconds']} | {whole['anonymous_mib']} |")


def test_what_the_fuzzer_printed_is_written_and_read(load, folder):
    row_of = load("tests/fuzz", "measured").row_of
    for seconds, kind in ((20, "hqq"), (156, "hqq"), (150, "nvfp4")):
        replace_rows(folder / "fuzz.csv", [row_of(kind, seconds, DONE)], "kind")
    assert (folder / "fuzz.csv").read_text() == "kind,minutes,executions,findings\nhqq,2.6,1861,0\nnvfp4,2.5,1861,0\n"
    assert [evidence.fuzzed(column) for column in ("kind", "executions", "minutes")] == ["2", "3,722", "5"]
    found = row_of("mxfp4", 5, FOUND)
    assert found == {"kind": "mxfp4", "minutes": "0.1", "executions": "301", "findings": "1"}
    replace_rows(folder / "fuzz.csv", [found], "kind")
    with pytest.raises(ValueError, match="has findings"):
        evidence.fuzzed("executions")
    with pytest.raises(LookupError, match="nvfp4 ended without its statistics"):
        row_of("nvfp4", 5, "KeyError: 'nvfp4'")


def test_the_fuzzer_itself_ends_in_a_row(load, tmp_path, monkeypatch):
    pytest.importorskip("atheris", reason="the fuzzer is not installed: pip install -c constraints.txt -e '.[fuzz]'")
    measured = load("tests/fuzz", "measured")
    asked = [
        "measured",
        "rtn-int8",
        "--folder",
        str(tmp_path),
        "--minutes",
        "0.05",
        "--csv",
        str(tmp_path / "fuzz.csv"),
    ]
    monkeypatch.setattr(sys, "argv", asked)
    assert measured.main() == 0
    (row,) = pd.read_csv(tmp_path / "fuzz.csv").to_dict("records")
    assert row["kind"] == "rtn-int8" and row["executions"] > 10 and row["findings"] == 0
