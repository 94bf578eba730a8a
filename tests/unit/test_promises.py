"""docs/explanation/promises.md names tests that exist; the spread of seeds that it prints."""

import ast
import re
from pathlib import Path

import pytest

from palimpsest.errors import PalimpsestError
from palimpsest.tables.seeds import seeds_table, spread_over_seeds

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/explanation/promises.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def test_every_promise_names_its_test() -> None:
    rows = [line for line in PAGE.split("## The same numbers again")[0].splitlines() if re.match(r"\| [A-Z`]", line)]
    assert len(rows) > 35 and all(re.search(r"\.py::test_\w+` \|$", row) for row in rows)
    commands = r"pytest tests/unit/metrics|(python |`)tests/fuzz/\w+\.py"
    assert "tests/" not in re.sub(commands, "", re.sub(r"`tests/[\w/]+\.py::\w+`", "", PAGE))
    assert "(docs/explanation/promises.md)" in (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_test_that_is_named_exists(file: str, name: str) -> None:
    tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_spread_of_seeds_by_hand(tmp_path: Path) -> None:
    head = "model,seed,precision,kind,weights,retained_same_precision_verbmem,retained_same_precision_knowmem,"
    head += "retained_same_precision_mean,recovery,verbmem,knowmem,privleak,utility"
    rows = ["a,0,bf16,unlearned,x,1,1,10,,1,1,1,1", "a,1,bf16,unlearned,x,1,1,20,,1,1,1,1"]
    rows += [
        "b,0,bf16,unlearned,x,1,1,30,,1,1,1,1",
        "b,1,bf16,unlearned,x,1,1,36,,1,1,,1",
        "c,0,bf16,unlearned,x,1,1,9,,1,1,1,1",
    ]
    (tmp_path / "audit.csv").write_text("\n".join([head, *rows]))
    text = seeds_table([tmp_path / "audit.csv"])
    # variances 50 and 18, mean 34, root 5.83; the model with one seed says nothing
    assert "| retained | 2 | 5.8 | 10 |" in text and "recovery" not in text and "| privleak | 1 | 0.0 | 0 |" in text
    (tmp_path / "one.csv").write_text("\n".join([head, rows[0]]))
    with pytest.raises(PalimpsestError, match="no model has two seeds"):
        seeds_table([tmp_path / "one.csv"])
    assert spread_over_seeds({})["retained"] == []
