"""The page of a verdict in a real Chromium: it works alone, for everybody, and runs no script but its own."""

import csv
import json
import os
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from palimpsest.cli import main
from palimpsest.verdict.text import share

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SCRIPT = "<script>window.taken = 1</script>"
IMAGE = "<img src=x onerror='window.taken = 2'>"
FORMULA = "=HYPERLINK(1)"
LIMIT = 5_000_000
BOTH_THEMES = pytest.mark.parametrize("page", ["light", "dark"], indirect=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    with playwright.sync_playwright() as engines:
        if found is None and not os.path.exists(engines.chromium.executable_path):
            pytest.skip(
                f"no Chromium is installed: one of {', '.join(NAMES)} on PATH, or `playwright install chromium`"
            )
        engine = engines.chromium.launch(executable_path=found, args=OPTIONS)
        yield engine
        engine.close()


def evaluation(path: Path, probabilities: list[float], answers: list[str]) -> Path:
    """A file such as OpenUnlearning writes; two records have names that a spreadsheet would run."""
    ids = [FORMULA, "@SUM(A1)", *map(str, range(2, len(probabilities)))]
    metrics = {
        "forget_Q_A_Prob": {name: {"prob": p} for name, p in zip(ids, probabilities, strict=True)},
        "forget_Q_A_ROUGE": {
            name: {"rougeL_recall": 0.5, "generation": said} for name, said in zip(ids, answers, strict=True)
        },
    }
    path.write_text(json.dumps({name: {"agg_value": 0, "value_by_index": rows} for name, rows in metrics.items()}))
    return path


def judge(folder: Path, records: int, answer: str) -> Path:
    """A verdict on two formats, in one of which every tenth record comes back; what the model says is hostile."""
    low = [0.1 + 0.001 * (i % 9) for i in range(records)]
    back = [p + 0.5 if i % 10 == 0 else p for i, p in enumerate(low)]
    said = [f"{answer} {SCRIPT}", f"{answer} {IMAGE}", *[f"{answer} {i}" for i in range(2, records)]]
    files = [
        str(evaluation(folder / "before.json", low, said)),
        f"int4={evaluation(folder / 'int4.json', back, said)}",
        f"int8={evaluation(folder / 'int8.json', low, said)}",
    ]
    command = [
        "verdict",
        "--from",
        "openunlearning",
        *files,
        "--records-per-subject",
        "2",
        "--out",
        str(folder / "out"),
    ]
    assert main(command) == 2
    return folder / "out"


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judge(tmp_path_factory.mktemp("small"), 40, "They live in Kin.")


@pytest.fixture
def page(browser: Any, verdict: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, light unless a test asks for both themes; `said` holds what it logs and the errors it throws, `asked`
    what it fetches."""
    shown = browser.new_page(color_scheme=getattr(request, "param", "light"))
    shown.said, shown.asked = [], []
    shown.on("console", lambda message: shown.said.append(message.text))
    shown.on("pageerror", lambda error: shown.said.append(str(error)))
    shown.on("request", lambda asked: shown.asked.append(asked.url))
    shown.goto((verdict / "verdict.html").as_uri())
    yield shown
    shown.close()


def lines(page: Any) -> Any:
    return page.locator("#records tbody tr:visible")


@BOTH_THEMES
def test_it_works_alone_and_without_an_error(page, verdict):
    assert page.said == [] and page.asked == [(verdict / "verdict.html").as_uri()]
    assert page.locator("h1").inner_text() == "✖ RELAPSES"
    header = page.locator("header")
    for text in ("before.json", "sha256", "What to do next: Do not ship", "What is not claimed"):
        assert text in header.inner_text()
    box = header.bounding_box()
    assert box["y"] + box["height"] <= page.viewport_size["height"], "the answer is on the first screen"


def test_what_a_model_says_is_text(page, verdict):
    for name, said in ((FORMULA, SCRIPT), ("@SUM(A1)", IMAGE)):
        row = page.locator("#records tbody tr", has_text=name).first
        row.locator("summary").click()
        assert row.inner_text().count(said) == 2
    assert page.evaluate("window.taken") is None
    assert page.locator("#records img, #records script").count() == 0
    with pytest.raises(playwright.Error):
        page.add_script_tag(content="window.taken = 3")
    assert page.evaluate("window.taken") is None, "no script but the page's own may run"
    with open(verdict / "records.csv", newline="") as file:
        names = {row["id"] for row in csv.DictReader(file)}
    assert f"'{FORMULA}" in names and "'@SUM(A1)" in names and FORMULA not in names


def test_the_table_filters_and_sorts(page):
    assert lines(page).count() == 80 and page.locator("#count").inner_text() == "80 of 80 lines shown"
    page.get_by_label("came back only").check()
    assert lines(page).count() == 4
    page.locator("#format").select_option("int8")
    assert lines(page).count() == 0
    page.get_by_label("came back only").uncheck()
    page.get_by_label("Find").fill(FORMULA.lower())
    assert lines(page).count() == 1 and page.locator("#count").inner_text() == "1 of 80 lines shown"
    page.get_by_label("Find").fill("")
    page.locator("#format").select_option("")
    before = page.locator("#records thead button", has_text="before")
    before.focus()
    page.keyboard.press("Enter")
    first, last = (lines(page).nth(at).locator("td").nth(4).get_attribute("data-value") for at in (0, 79))
    assert float(first) == pytest.approx(0.108) and float(last) == pytest.approx(0.1)
    assert page.locator("#records th[aria-sort=descending]").inner_text().strip().startswith("before")


def test_its_numbers_are_those_of_the_record(page, verdict):
    record = json.loads((verdict / "verdict.json").read_text())
    shown = [
        [cell.inner_text() for cell in row.locator("td").all()]
        for row in page.locator("table").first.locator("tbody tr").all()
    ]
    for cells, one in zip(shown, record["formats"], strict=True):
        assert cells[:2] == [one["format"], one["metric"]] and cells[2].endswith(one["verdict"])
        assert cells[3:6] == [share(one[key]) for key in ("retained_full", "retained", "rise")]
        assert cells[7] == f"{len(one['relapsed'])} of {one['records']}"
    back = {each["id"]: each for one in record["formats"] for each in one["relapsed"]}
    page.get_by_label("came back only").check()
    rows = lines(page).all()
    assert len(rows) == len(back) == 4
    for row in rows:
        cells = row.locator("td")
        values = [float(cells.nth(at).get_attribute("data-value")) for at in (4, 5, 6)]
        each = back[cells.nth(0).inner_text()]
        assert values == [each["before"], each["after"], each["rise"]]


def test_it_is_printed_whole(page):
    page.emulate_media(media="print")
    assert page.locator("main > details dl").first.evaluate("one => one.checkVisibility({contentVisibilityAuto: true})")
    assert not page.locator("#controls").is_visible()
    assert page.pdf()[:5] == b"%PDF-"


@BOTH_THEMES
def test_axe_finds_nothing_serious(page):
    """https://github.com/dequelabs/axe-core, as the package axe-playwright-python brings it."""
    try:
        files = metadata.files("axe-playwright-python") or []
    except metadata.PackageNotFoundError:
        pytest.skip("axe-core is not installed: pip install -e '.[dev]'")
    page.evaluate(next(file for file in files if file.name == "axe.min.js").read_text())
    found = page.evaluate("axe.run().then(result => result.violations)")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []


def test_two_thousand_records_stay_under_five_megabytes(browser, tmp_path):
    """Whose answers are as long as they come, of characters that take most bytes."""
    out = judge(tmp_path, 2000, "<&>" * 200)
    assert (out / "verdict.html").stat().st_size < LIMIT
    shown = browser.new_page()
    shown.goto((out / "verdict.html").as_uri())
    assert shown.locator("#count").inner_text() == "4000 of 4000 lines shown"
    assert len(shown.pdf()) < LIMIT
    shown.close()
