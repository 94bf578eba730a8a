"""The published numbers as they were read, and the comparison with ours."""

import json
import re
from pathlib import Path

import pytest

from palimpsest.cli import main
from palimpsest.errors import PalimpsestError
from palimpsest.report import known_answers as known
from palimpsest.report.known_answers import choose_pack, compare, deviations, markdown, read_packs
from palimpsest.study.params import read_params

REPOSITORY = Path(__file__).parents[3]
METHODS = ("ga", "ga_gdr", "ga_klr", "npo", "npo_gdr", "npo_klr")
COLUMNS = ("verbmem", "knowmem", "privleak", "utility")


def study(kind: str) -> dict:
    return read_params(REPOSITORY / f"studies/paper-{kind}/params.yaml")


def audit(settings: dict, scores: dict) -> dict:
    """What the comparison reads of an audit; scores: of (model, precision)."""
    rows = [{"model": m, "precision": p, "metrics": metrics} for (m, p), metrics in scores.items()]
    return {"models": [], "settings": settings, "precisions": ["bf16", *settings["quantizers"]], "over_seeds": rows}


def lines(comparison: dict, **wanted: str) -> list[dict]:
    found = [line for table in comparison["tables"] for line in table["lines"]]
    return [line for line in found if all(line[key] == value for key, value in wanted.items())]


def told(comparison: dict, line: dict) -> str:
    return "\n".join(comparison["notes"][letter] for letter in line["notes"])


@pytest.mark.parametrize(
    ("pack", "table", "model", "precision", "numbers"),
    [
        ("muse-news", 0, "target", "full", [58.4, 63.9, -99.8, 55.2]),
        ("muse-news", 0, "retrain", "4-bit", [18.5, 36.0, -2.2, 46.5]),
        ("muse-news", 0, "ga", "4-bit", [0.0, 0.0, 24.5, 0.0]),
        ("muse-news", 0, "ga_gdr", "8-bit", [0.0, 26.9, 93.5, 33.6]),
        ("muse-news", 0, "ga_klr", "4-bit", [33.8, 50.9, -99.8, 45.8]),
        ("muse-news", 0, "npo", "8-bit", [0.0, 0.0, 15.0, 0.0]),
        ("muse-news", 0, "npo_gdr", "full", [0.3, 46.1, 107.2, 38.6]),
        ("muse-news", 0, "npo_klr", "full", [16.6, 36.6, -94.0, 33.3]),
        ("muse-news", 0, "npo_klr", "4-bit", [34.1, 53.7, -99.8, 48.8]),
        ("muse-books", 0, "target", "4-bit", [85.3, 36.8, -60.1, 50.5]),
        ("muse-books", 0, "retrain", "full", [14.3, 28.9, 0.0, 74.5]),
        ("muse-books", 0, "ga_gdr", "4-bit", [17.9, 33.7, -35.2, 51.9]),
        ("muse-books", 0, "ga_klr", "8-bit", [12.4, 10.1, -37.9, 35.1]),
        ("muse-books", 0, "npo", "4-bit", [7.0, 5.3, -46.9, 17.8]),
        ("muse-books", 0, "npo_gdr", "8-bit", [0.9, 14.0, -60.2, 50.5]),
        ("muse-books", 0, "npo_klr", "full", [12.4, 13.7, -40.7, 35.1]),
        ("muse-books", 1, "ga_gdr_sure", "4-bit", [0.0, 4.8, -6.3, 46.2, 30.4, 0.18, 0.0, 524.7]),
        ("muse-books", 1, "npo_klr", "full", [22.6, 22.7, -54.9, 50.9, 27.5, 35.0, 7.2, 565.9]),
        ("muse-books", 1, "npo_klr_sure", "full", [17.6, 37.8, -58.0, 49.4, 23.4, 30.2, 7.4, 588.8]),
        ("muse-books", 1, "npo_klr_sure", "4-bit", [16.1, 36.9, -58.9, 34.9, 23.4, 31.1, 8.0, 592.6]),
        ("tofu-1b", 0, "target", "full", [88.0, 82.0, 47.7, 59.6, -99.98, 70.8]),
        ("tofu-1b", 0, "ga_gdr", "4-bit", [35.9, 41.4, 53.4, 44.0, -89.2, 10.7]),
        ("tofu-1b", 0, "ga_gdr+prune_10", "full", [73.7, 58.9, 50.3, 56.6, -98.6, 31.5]),
        ("tofu-1b", 0, "npo_gdr", "4-bit", [32.5, 38.6, 58.6, 48.5, -83.6, 8.8]),
        ("tofu-8b", 0, "retrain", "full", [10.4, 39.5, 64.1, 64.8, None, 6.5]),
        ("tofu-8b", 0, "ga_gdr", "4-bit", [67.2, 58.8, 46.3, 58.9, -98.2, 36.1]),
        ("tofu-8b", 0, "ga_gdr+prune_30", "full", [93.8, 87.3, 50.6, 63.1, -99.5, 74.0]),
        ("tofu-phi-1.5", 1, "npo_gdr", "Q4_K_M", [32.1]),
        ("tofu-llama-2-7b", 0, "npo_gdr", "NF4", [15.3]),
    ],
)
def test_numbers_are_those_of_the_tables(pack, table, model, precision, numbers):
    assert choose_pack(pack)["tables"][table]["rows"][model][precision] == numbers


@pytest.mark.parametrize("pack", ["muse-news", "muse-books"])
def test_table_1_is_complete_or_says_what_is_absent(pack):
    rows = choose_pack(pack)["tables"][0]["rows"]
    assert tuple(rows) == ("target", "retrain", *METHODS)
    absent = {(model, precision) for model, row in rows.items() for precision, cell in row.items() if cell is None}
    assert absent == {("retrain", "8-bit"), ("npo_klr", "8-bit")}
    assert all(list(row) == ["full", "8-bit", "4-bit"] for row in rows.values())


def test_every_row_has_a_number_per_column_and_every_table_its_source():
    for pack in read_packs()["packs"].values():
        for table in pack["tables"]:
            assert table["source"].startswith(("arXiv 2410.16454, table ", "github.com/"))
            width = len(table["columns"])
            assert all(cell is None or len(cell) == width for row in table["rows"].values() for cell in row.values())


COPIES = {
    "muse-news": {
        ("target", "full"): "both",
        ("ga_gdr", "full"): "both",
        ("ga_gdr", "4-bit"): "both",
        ("npo_klr", "full"): "both",
        ("npo_klr", "4-bit"): "v3",
    },
    "muse-books": {
        ("target", "full"): "both",
        ("ga_gdr", "full"): "both",
        ("ga_gdr", "4-bit"): "both",
        ("npo_klr", "full"): "v3",
        ("npo_klr", "4-bit"): "v3",
    },
}
"""Rows of table 1 that are not, or not only, from version 1."""


@pytest.mark.parametrize("pack", COPIES)
def test_every_number_says_which_copy_it_was_read_from(pack):
    first, *others = choose_pack(pack)["tables"]
    cells = {(model, precision) for model, row in first["rows"].items() for precision in row}
    assert {cell: known.copy_of(first, *cell) for cell in cells} == {
        cell: COPIES[pack].get(cell, "v1") for cell in cells
    }
    for table in others:
        assert all(
            known.copy_of(table, model, precision) == "v3" for model, row in table["rows"].items() for precision in row
        )
    for table in (first, *others):
        assert set(table.get("other_copies", {})) <= set(table["rows"])
    comparison = compare(audit(study(pack.removeprefix("muse-")), {}), pack)
    assert set(comparison["copies"]) == {"v1", "v3", "both"} == set(read_packs()["copies"]) - {"repository"}
    (nothing,) = lines(comparison, model="retrain", precision="8-bit")
    assert nothing["copy"] is None
    text = markdown(comparison)
    assert re.search(r"^\| npo_klr \| 4-bit \| – \|.*\| v3 \|  \|$", text, re.MULTILINE)
    assert "- v3: version 3 of the paper, as an independent reproduction of it typed the numbers" in text


def test_the_rows_of_sure_say_what_its_released_code_does():
    """Losses as in palimpsest.unlearning.losses' variant released-sure, which is where the note no longer counts."""
    settings, battery = study("books"), {"tru": {"score": 30.0}, "fac": {"score": 5.0}}
    content = audit(settings, {(m, "bf16"): dict.fromkeys(COLUMNS, 1.0) for m in ("ga_gdr_sure", "npo_klr_sure")})
    for row in content["over_seeds"]:
        row["battery"] = battery
    comparison = compare(content, "muse-books")
    notes = {
        model: told(comparison, lines(comparison, model=model, format="bf16")[0])
        for model in ("ga_gdr_sure", "npo_klr_sure")
    }
    tokens, sequences, alpha = 2048, 1, settings["methods"]["npo_klr_sure"]["alpha"]
    weight = f"its alpha of {alpha:.0f} weighs as {alpha * tokens / sequences:,.0f} on the mean per token here"
    assert "NPO of raw logits" in notes["npo_klr_sure"] and weight in notes["npo_klr_sure"]
    assert "raw logits" not in notes["ga_gdr_sure"]
    assert "printed as 0.2 and 0.0 (full), 0.18 and 0.0 (4-bit)" in notes["ga_gdr_sure"]
    assert "printed as" not in notes["npo_klr_sure"]
    settings["methods"]["npo_klr_sure"]["losses"] = "released-sure"
    comparison = compare(content, "muse-books")
    assert "raw logits" not in told(comparison, lines(comparison, model="npo_klr_sure", format="bf16")[0])


@pytest.mark.parametrize("kind", ["news", "books"])
def test_the_studies_measure_every_cell_of_their_pack(kind):
    params, pack = study(kind), choose_pack(f"muse-{kind}")
    assert params["report"]["known_answers"] == f"muse-{kind}"
    models, formats = {"target", "retrain", *params["methods"]}, {"bf16", *params["quantizers"]}
    for table in pack["tables"]:
        assert set(table["rows"]) <= models
        measured = {*params["metrics"], *params["battery"]["tasks"]}
        assert {column["metric"] for column in table["columns"]} <= measured
    assert params["battery"]["models"] is None and {"bf16", "bnb-fp4", "rtn-int4"} == set(
        params["battery"]["precisions"]
    )
    named = {precision for table in pack["tables"] for row in table["rows"].values() for precision in row}
    assert {form for precision in named for form in read_packs()["precisions"][precision]} <= formats


def test_differences_are_ours_minus_the_papers():
    scores = dict(zip(COLUMNS, (34.6, 50.1, -99.8, 47.7), strict=True))
    comparison = compare(audit(study("news"), {("npo_klr", "rtn-int4"): scores}), "muse-news")
    (line,) = lines(comparison, model="npo_klr", format="rtn-int4")
    assert [cell["paper"] for cell in line["cells"]] == [34.1, 53.7, -99.8, 48.8]
    assert [cell["difference"] for cell in line["cells"]] == pytest.approx([0.5, -3.6, 0.0, -1.1])
    text = markdown(comparison)
    assert "34.1 / 34.6 / +0.5 | 53.7 / 50.1 / -3.6 | -99.8 / -99.8 / +0.0 | 48.8 / 47.7 / -1.1" in text
    assert "table 2 (GPTQ and AWQ, NEWS): no copy" in text


def test_the_battery_fills_its_columns_and_says_what_differs():
    settings = study("books")
    settings["battery"]["tasks"]["tru"]["limit"] = 817
    content = audit(settings, {("npo_klr", "bnb-fp4"): dict(zip(COLUMNS, (1.0, 2.0, 3.0, 4.0), strict=True))})
    without = compare(content, "muse-books")
    content["over_seeds"][0]["battery"] = {
        "gen": {"score": 28.0, "stderr": 3.4, "n": 171},
        "tru": {"score": 35.3, "stderr": 1.6, "n": 817},
        "fac": None,
    }
    (line,) = [
        line
        for line in lines(compare(content, "muse-books"), model="npo_klr", format="bnb-fp4")
        if len(line["cells"]) == 8
    ]
    assert [cell["ours"] for cell in line["cells"]] == [1.0, 2.0, 3.0, 4.0, 28.0, 35.3, None, None]
    assert [cell["difference"] for cell in line["cells"][4:]] == [pytest.approx(1.0), pytest.approx(1.0), None, None]
    notes = told(compare(content, "muse-books"), line)
    assert (
        "battery.tasks.tru.limit: 817 (paper: 50)" in notes
        and "Tru is MC2" in notes
        and "questions drawn by seed" in notes
    )
    assert "battery.tasks.gen" not in notes and "Fac is" not in notes
    assert "MC2" not in markdown(without)


def test_what_either_side_lacks_has_no_difference():
    scores = dict(zip(COLUMNS, (1.0, 2.0, 3.0, 4.0), strict=True))
    comparison = compare(audit(study("books"), {("retrain", "bnb-int8"): scores}), "muse-books")
    (line,) = lines(comparison, model="retrain", format="bnb-int8")
    assert [cell["paper"] for cell in line["cells"]] == [None] * 4
    assert [cell["ours"] for cell in line["cells"]] == [1.0, 2.0, 3.0, 4.0]
    assert len(lines(comparison, model="ga")) == 3, (
        "a model that the study lacks has one line for each precision of the table"
    )
    others = [line for line in lines(comparison) if line["format"] is None]
    assert others and all(cell["ours"] is None and not line["notes"] for line in others for cell in line["cells"])
    assert all(cell["difference"] is None for line in lines(comparison) for cell in line["cells"])


def test_a_changed_setting_is_a_protocol_difference_where_it_counts():
    settings = study("books")
    everywhere = {(m, p): dict.fromkeys(COLUMNS, 1.0) for m in ("target", "ga_gdr") for p in ("bf16", "bnb-int8")}
    before = compare(audit(settings, everywhere), "muse-books")
    settings["methods"]["ga_gdr"]["alpha"] = 7.0
    settings["metrics"]["verbmem"]["rouge"] = "rougeL_recall"
    settings["models"]["target"] = "../target"
    after = compare(audit(settings, everywhere), "muse-books")
    alpha, rouge = "methods.ga_gdr.alpha: 7.0 (paper: 100.0)", "metrics.verbmem.rouge: rougeL_recall (paper: rougeL_f1)"
    assert alpha not in markdown(before) and rouge not in markdown(before)
    (tuned,) = [line for line in lines(after, model="ga_gdr", format="bnb-int8")]
    assert alpha in told(after, tuned) and rouge in told(after, tuned)
    (target, _) = lines(after, model="target", format="bf16")
    assert "models.target.checkpoint: ../target (paper: muse-bench/MUSE-Books_target)" in told(after, target)
    assert alpha not in told(after, target) and rouge in told(after, target)


def test_words_of_unicode_are_a_protocol_difference_and_a_study_without_the_key_has_the_published_ones():
    settings = study("books")
    everywhere = {("target", "bf16"): dict.fromkeys(COLUMNS, 1.0)}
    assert "tokenizer" not in settings["metrics"]["verbmem"]
    assert "tokenizer" not in markdown(compare(audit(settings, everywhere), "muse-books"))
    settings["metrics"]["verbmem"]["tokenizer"] = "unicode"
    told_now = markdown(compare(audit(settings, everywhere), "muse-books"))
    assert "metrics.verbmem.tokenizer: unicode (paper: published)" in told_now and "utility.tokenizer" not in told_now


@pytest.mark.parametrize("kind", ["news", "books"])
def test_the_settings_of_the_studies_are_the_papers_but_for_the_stated_ones(kind):
    """Every setting that differs does so on purpose; docs/how-to/paper.md says why."""
    settings, pack = study(kind), choose_pack(f"muse-{kind}")
    differing = set()
    for table in pack["tables"]:
        for model, row in table["rows"].items():
            for precision in row:
                for form in read_packs()["precisions"][precision]:
                    notes = deviations(pack["protocol"], settings, model, precision, form, set(COLUMNS))
                    differing |= {note.split(":")[0] for note in notes if "(paper: " in note}
    losses = {f"methods.{model}.losses" for model in ("ga_klr", "npo", "npo_gdr", "npo_klr")}
    losses |= {"methods.ga_gdr_sure.losses", "methods.npo_klr_sure.losses"} if kind == "books" else set()
    assert differing == losses | {"inference.compute"}


def test_an_unknown_pack_is_named():
    with pytest.raises(PalimpsestError, match=r"unknown pack of known answers 'muse-book'. Did you mean 'muse-books'"):
        compare({}, "muse-book")


def test_the_command_prints_markdown_and_one_line_on_mistakes(tmp_path, capsys):
    content = audit(study("news"), {("target", "bf16"): dict.fromkeys(COLUMNS, 50.0)})
    (tmp_path / "audit.json").write_text(json.dumps(content))
    assert main(["tables", "known-answers", str(tmp_path)]) == 0
    assert "| target | full | bf16 | 58.4 / 50.0 / -8.4 |" in capsys.readouterr().out
    del content["settings"]["report"]["known_answers"]
    (tmp_path / "audit.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=r"^1$"):
        main(["tables", "known-answers", str(tmp_path)])
    assert "without report.known_answers: name a pack, one of muse-books, muse" in capsys.readouterr().err


def test_a_study_of_tofu_prints_published_ours_and_difference():
    settings = {"prompt": {"template": "chat"}, "quantizers": {"bnb-fp4": {}}, "inference": {"compute": "float32"}}
    settings |= {"methods": {"ga_gdr": {"checkpoint": "mine"}}, "models": {"target": "train"}}
    names = ("probability", "knowmem", "truth_ratio", "model_utility", "mia_min_k", "extraction_strength")
    scores = {(m, p): dict.fromkeys(names, 50.0) for m in ("target", "ga_gdr") for p in ("bf16", "bnb-fp4")}
    found = compare(audit(settings, scores), "tofu-1b")
    (line,) = lines(found, model="ga_gdr", precision="4-bit")
    assert line["format"] == "bnb-fp4" and line["copy"] == "repository"
    assert line["cells"][0] == {"paper": 35.9, "ours": 50.0, "difference": pytest.approx(14.1)}
    said = told(found, line)
    assert "inference.compute: float32 (paper: float16)" in said and "which means FP4" in said
    assert "GradDiff_lr1e-05_alpha1_epoch10" in said and "prompt.template" not in said
    (attacked,) = lines(found, model="ga_gdr+prune_30")
    assert attacked["format"] is None and attacked["cells"][0]["ours"] is None
    assert "35.9 / 50.0 / +14.1" in markdown(found)
