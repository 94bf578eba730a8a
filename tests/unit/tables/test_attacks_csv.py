"""The rows of attacks as CSV: what the record says, every number of it."""

import csv
import io

import pytest

from palimpsest.artefacts import Origin, write_record
from palimpsest.attacks.table import compare
from palimpsest.cli import main
from palimpsest.errors import PalimpsestError
from palimpsest.tables.attacks import COLUMNS, lines

RULES = {"minimum_gap": 5.0, "resamples": 200, "confidence": 0.95, "seed": 0}
ABOUT = {"attack": "relearn_5", "family": "relearn", "kind": "relearn", "strength": 5, "when": "before"}
ABOUT |= {"precision": "bf16", "metric": "knowmem", "leak_at": None}


def scores(*values):
    return {0: (list(range(len(values))), list(values))}


SCORES = {"target": scores(1.0, 0.8), "retrain": scores(0.1, 0.3), "npo": scores(0.5, 0.6)}


@pytest.fixture
def results(tmp_path):
    rows = [compare(ABOUT | {"model": model}, SCORES, None, RULES) for model in SCORES]
    rows.append(compare(ABOUT | {"model": "npo"}, {name: SCORES[name] for name in ("npo", "target")}, None, RULES))
    write_record(tmp_path / "attacks" / "attacks.json", Origin(), {"rows": rows})
    return tmp_path, rows


def test_every_row_and_number_is_there(results, capsys):
    folder, rows = results
    assert main(["tables", "attacks", str(folder)]) == 0
    read = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["model"] for row in read] == ["target", "retrain", "npo", "npo"] and tuple(read[0]) == COLUMNS
    for line, row in zip(read, rows, strict=True):
        for name in ("attacked", "floor", "ceiling", "excess", "share", "plain"):
            assert line[name] == ("" if row[name] is None else str(row[name]))
    assert (read[2]["low"], read[2]["high"]) == tuple(map(str, rows[2]["ci"]))
    assert (read[3]["low"], read[3]["share"], read[3]["status"]) == ("", "", rows[3]["status"])
    assert lines([folder, folder]).count("\n") == 2 * len(rows)


@pytest.mark.parametrize("content", [{}, {"rows": []}, {"rows": [{"attack": "prune"}]}, {"rows": [3]}])
def test_what_is_no_table_of_attacks_is_refused(tmp_path, content):
    with pytest.raises(PalimpsestError, match=r"attacks\.json does not exist"):
        lines([tmp_path])
    write_record(tmp_path / "attacks" / "attacks.json", Origin(), content)
    with pytest.raises(PalimpsestError, match="is no table of attacks"):
        lines([tmp_path])
