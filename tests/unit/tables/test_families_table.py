"""The table of families and backends is what the backends declare, and the one in docs/ is what the command prints."""

from pathlib import Path

import pytest

from palimpsest.cli import main
from palimpsest.models.families import FAMILIES
from palimpsest.quantizers import QUANTIZERS
from palimpsest.tables.families import REFUSED, TAKEN, lines

DOCS = Path(__file__).parents[3] / "docs/reference/families.md"


def cells() -> dict[tuple[str, str], str]:
    """By (model type, backend)."""
    head, _, *rows = lines().partition("\n\n")[0].splitlines()
    backends = [cell.strip().split(", ") for cell in head.strip("|").split("|")[2:]]
    parts = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {
        (kind, name): cell
        for row in parts
        for kind in row[1].split(", ")
        for names, cell in zip(backends, row[2:], strict=True)
        for name in names
    }


def test_every_cell_is_what_the_backend_declares():
    found = cells()
    assert found.keys() == {(kind, name) for kind in FAMILIES for name in QUANTIZERS if name != "none"}
    for (kind, name), cell in found.items():
        assert cell == (REFUSED if kind in QUANTIZERS[name].refuses else TAKEN)
    for kind in FAMILIES:
        assert found[kind, "rtn"] == TAKEN and QUANTIZERS["rtn"].refuses == {}


def test_every_refusal_has_its_reason_below_the_table():
    reasons = lines().partition("\n\n")[2]
    for name, quantizer in QUANTIZERS.items():
        for kind, reason in quantizer.refuses.items():
            assert any(
                FAMILIES[kind].title in line and name in line and reason in line for line in reasons.splitlines()
            )


def test_the_document_has_what_the_command_prints(capsys):
    assert main(["families"]) == 0
    assert capsys.readouterr().out.strip() in DOCS.read_text(encoding="utf-8")


@pytest.mark.parametrize("by_folder", [True, False])
def test_one_family_alone(tmp_path, capsys, by_folder):
    (tmp_path / "config.json").write_text('{"model_type": "falcon"}')
    assert main(["families", str(tmp_path) if by_folder else "falcon"]) == 0
    said = capsys.readouterr().out
    assert "| Falcon | falcon |" in said and "| Llama |" not in said and "Falcon in bnb-int8, bnb-4bit: " in said


def test_a_family_that_nobody_tried(capsys):
    with pytest.raises(SystemExit):
        main(["families", "mamba"])
    assert "mamba is of none of the families llama, mistral, " in capsys.readouterr().err
