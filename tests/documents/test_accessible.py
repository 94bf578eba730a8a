"""Pages of the site in a real Chromium: axe finds nothing that bars a reader, and none is wider than a phone."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe is not installed: pip install -e '.[dev]'"
)

import pictures  # noqa: E402

PAGES = ("index.html", "results/findings/index.html", "results/formats/index.html", "reference/params/index.html")
OF_THE_THEME = {"aria-dialog-name"}
"""What Material's own search box lacks, and a page cannot give it."""


@contextmanager
def chromium() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as engines:
        program = next(filter(None, map(shutil.which, pictures.NAMES)), None)
        if program is None and not os.path.exists(engines.chromium.executable_path):
            pytest.skip("no Chromium is installed: `playwright install chromium`")
        browser = engines.chromium.launch(executable_path=program, args=pictures.OPTIONS)
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_bar_no_reader(site, scheme):
    found = {}
    with chromium() as browser:
        for name in PAGES:
            page = browser.new_page(color_scheme=scheme)
            page.goto((site / name).as_uri())
            page.wait_for_function("document.body.dataset.mdColorScheme !== undefined")
            violations = axe.Axe().run(page).response["violations"]
            assert page.evaluate("document.body.dataset.mdColorScheme") == {"light": "default", "dark": "slate"}[scheme]
            found |= {(name, each["id"]): each["nodes"][0]["html"] for each in violations}
    assert {place: html for place, html in found.items() if place[1] not in OF_THE_THEME} == {}


def test_no_page_is_wider_than_a_phone(site):
    """Tables, code and figures scroll by themselves; their page does not."""
    width, wide = 390, {}
    names = [file.relative_to(site).as_posix() for file in site.rglob("index.html")]
    with chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": 900})
        for name in names:
            page.goto((site / name).as_uri(), wait_until="load")
            wide[name] = page.evaluate("document.documentElement.scrollWidth")
    assert len(names) > 40 and {name: found for name, found in wide.items() if found > width} == {}
