"""The table of what came back by storage and format, on made-up audit.csv files with known answers."""

import csv

import pytest

from palimpsest.errors import PalimpsestError
from palimpsest.tables.recovery import ALL, read_rows, recovery, recovery_table

HEAD = [
    "model",
    "kind",
    "weights",
    "seed",
    "precision",
    "retained_same_precision_verbmem",
    "retained_same_precision_knowmem",
]


@pytest.fixture
def write(tmp_path):
    """write(name, rows...): an audit.csv of rows model, weights, seed, precision, VerMem, KnowMem (None: undefined)."""

    def make(name, *rows, kind="unlearned"):
        with (tmp_path / name).open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(HEAD)
            for model, weights, *rest in rows:
                out.writerow([model, kind, weights, *("" if cell is None else cell for cell in rest)])
        return tmp_path / name

    return make


def test_points_are_of_what_had_been_forgotten(write):
    file = write(
        "audit.csv",
        ("a", "bfloat16", 0, "bf16", 10.0, 90.0),  # the answers were never forgotten
        ("a", "bfloat16", 0, "int4", 60.0, 95.0),
        ("b", "bfloat16", 0, "bf16", 20.0, 30.0),
        ("b", "bfloat16", 0, "int4", 40.0, 90.0),
        ("c", "float32", 0, "bf16", 80.0, 90.0),  # nothing was
        ("c", "float32", 0, "int4", 99.0, 99.0),
    )
    found = recovery(read_rows([file]), 50.0)
    assert found["bfloat16", "int4"] == {ALL: [50.0, 40.0], "verbmem": [50.0, 20.0], "knowmem": [60.0]}
    assert found["float32", "int4"] == {}
    lines = recovery_table([file], [], 50.0, 20.0).splitlines()
    assert "| bfloat16 | int4 | 45 (40 to 50) | 2 of 2 | 35 (20 to 50) | 1 of 2 | 60 (60 to 60) | 1 of 1 |" in lines
    assert "| float32 | int4 | – | – | – | – | – | – |" in lines


def test_an_undefined_metric_counts_for_the_other_alone(write):
    rows = ("a", "bfloat16", 0, "bf16", 10.0, 10.0), ("a", "bfloat16", 0, "int4", None, 70.0)
    found = recovery(read_rows([write("audit.csv", *rows)]), 50.0)
    assert found["bfloat16", "int4"] == {"knowmem": [60.0]}


@pytest.mark.parametrize("cell", ["nan", "inf", "-inf", "ok", "1,5", "\x1b[2J", "1e999"])
def test_a_cell_that_is_no_number_is_named(write, cell):
    file = write("audit.csv", ("a", "bfloat16", 0, "bf16", 10.0, 10.0), ("a", "bfloat16", 0, "int4", cell, 70.0))
    with pytest.raises(
        PalimpsestError, match=r"audit.csv, line 3 has .* as retained_same_precision_verbmem: give"
    ) as no:
        read_rows([file])
    assert str(no.value).isprintable()


def test_a_line_with_other_columns_is_named_and_a_byte_order_mark_left_out(write):
    file = write("audit.csv", ("a", "bfloat16", 0, "bf16", 10.0, 10.0))
    text = file.read_text()
    file.write_text("\ufeff" + text.replace("\n", "\r\n"), encoding="utf-8")
    assert list(read_rows([file])) == [("a", "0", "bf16")]
    for wrong in (text.rstrip() + ",5\n", text.rstrip().rpartition(",")[0] + "\n"):
        file.write_text(wrong)
        with pytest.raises(PalimpsestError, match=r"audit.csv, line 2 has other columns than the first line"):
            read_rows([file])


def test_seeds_of_several_files_come_together_and_models_can_be_chosen(write):
    files = [
        write(
            f"{seed}.csv",
            *((model, "bfloat16", seed, name, value, value) for name, value in (("bf16", 10), ("int4", 10 + seed))),
        )
        for seed, model in ((0, "a"), (30, "a"), (50, "b"))
    ]
    assert recovery(read_rows(files), 50.0)["bfloat16", "int4"][ALL] == [0.0, 30.0, 50.0]
    assert "15 (0 to 30) | 1 of 2" in recovery_table(files, ["a"], 50.0, 10.0)
    with pytest.raises(PalimpsestError, match=r"nobody: not among the unlearned models of .*0\.csv"):
        recovery_table(files, ["a", "nobody"], 50.0, 10.0)


def test_target_and_retrain_do_not_count(write):
    file = write("audit.csv", ("t", "float32", 0, "bf16", 100.0, 100.0), kind="target")
    assert read_rows([file]) == {}


def test_other_scores_of_one_cell_are_refused_and_equal_ones_count_once(write):
    first, second = (write(name, ("a", "bfloat16", 0, "bf16", 10.0, 10.0)) for name in ("1.csv", "2.csv"))
    assert len(read_rows([first, second])) == 1
    third = write("3.csv", ("a", "bfloat16", 0, "bf16", 11.0, 10.0))
    with pytest.raises(PalimpsestError, match=r"3\.csv and a file before it have other scores of a, 0, bf16"):
        read_rows([first, third])


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", None])
def test_what_is_no_audit_is_one_clear_message(tmp_path, content):
    file = tmp_path / "other.csv"
    if content is not None:
        file.write_text(content)
    with pytest.raises(PalimpsestError, match=r"other\.csv (is no audit\.csv|cannot be read)"):
        read_rows([file])
