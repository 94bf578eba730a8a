"""The report shows the verdict on every file that was judged, and nothing of it where none was."""

from pathlib import Path

from made_study import draw

from palimpsest.report.page import render

ASKED = "May these files ship?"


def record(**words: tuple[str, str]) -> dict:
    """A verdict.json with two metrics in each format."""
    formats = [
        {"format": name, "metric": metric, "verdict": word, "reason": f"<b>{word}</b>", "rise": {"value": 1.0}}
        for name, pair in words.items()
        for metric, word in zip(("verbmem", "knowmem"), pair, strict=True)
    ]
    return {"formats": formats, "policy": {"hash": "ab" * 32}}


def test_the_worst_metric_of_each_format_is_shown_with_a_link(audit: dict, tmp_path: Path) -> None:
    verdicts = {
        "ga_gdr": record(**{"bnb-nf4": ("FORGETS", "FORGETS"), "rtn-int4": ("FORGETS", "RELAPSES")}),
        "npo_klr": record(**{"bnb-nf4": ("NO VERDICT", "FORGETS")}),
    }
    render(audit, draw(audit, tmp_path), [], tmp_path / "page.html", verdicts=verdicts)
    page = (tmp_path / "page.html").read_text()
    table = page[page.index(ASKED) : page.index("What was done")]
    ga_gdr, npo_klr = table.split("<tr>")[2:]
    assert '<a href="verdict/ga_gdr/verdict.html">ga_gdr</a>' in ga_gdr and "ab" * 6 in table
    formats = [name for name in audit["precisions"] if name != "bf16"]
    cells = dict(zip(formats, ga_gdr.split("<td ")[1:], strict=True))
    assert "✔</span> FORGETS" in cells["bnb-nf4"] and "pass" in cells["bnb-nf4"]
    assert "✖</span> RELAPSES" in cells["rtn-int4"] and "fail" in cells["rtn-int4"]
    assert "not asked" in cells["bnb-fp4"] and "? </span>" not in cells["bnb-fp4"]
    assert "NO VERDICT" in npo_klr and "<b>" not in table
    assert "RELAPSES: it had forgotten at full precision" in table and "COLLAPSED:" not in table


def test_a_study_without_a_policy_has_no_such_table(audit: dict, tmp_path: Path) -> None:
    render(audit, draw(audit, tmp_path), [], tmp_path / "page.html")
    assert ASKED not in (tmp_path / "page.html").read_text()
