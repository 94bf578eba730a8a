"""Pictures in a real Chromium: `make pictures`, or `python docs/tools/pictures.py [REPORT] [FOLDER]`, makes those of a
report's first screen, light and dark. `python docs/tools/pictures.py --site SITE FOLDER` makes those of every page of
the site that `make docs` built: light and dark, on a screen and on a phone.

It needs a Chromium on PATH, or one that `playwright install chromium` brought.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from evidence import REPOSITORY

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ["--no-sandbox", "--disable-gpu"]
SIZE = {"width": 1100, "height": 1000}
FILES = {"light": "report.png", "dark": "report-dark.png"}
SCHEMES = {"light": "default", "dark": "slate"}
"""What the site's theme calls its colours."""
WIDTHS = {"screen": 1280, "phone": 390}


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as engines:
        program = next(filter(None, map(shutil.which, NAMES)), None)
        browser = engines.chromium.launch(executable_path=program, args=OPTIONS)
        yield browser
        browser.close()


def main(report: Path, folder: Path) -> list[Path]:
    """Write FILES into the folder; returns their paths."""
    if not report.is_file():
        raise SystemExit(f"{report} does not exist: `make audit` makes it.")
    made = []
    with chromium() as browser:
        for scheme, name in FILES.items():
            page = browser.new_page(viewport=SIZE, color_scheme=scheme)
            page.goto(report.absolute().as_uri())
            page.screenshot(path=folder / name)
            made.append(folder / name)
    return made


def of_site(site: Path, folder: Path) -> list[Path]:
    """Write PAGE-light-screen.png and its like, of the whole length of each page, into the folder; returns their
    paths."""
    files = sorted(site.rglob("index.html"))
    if not files:
        raise SystemExit(f"{site} has no pages: `make docs` makes them.")
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with chromium() as browser:
        for scheme, theme in SCHEMES.items():
            for kind, width in WIDTHS.items():
                page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                for file in files:
                    name = "-".join(file.parent.relative_to(site).parts) or "index"
                    page.goto(file.absolute().as_uri())
                    page.wait_for_function(f"document.body.dataset.mdColorScheme === '{theme}'")
                    made.append(folder / f"{name}-{scheme}-{kind}.png")
                    page.screenshot(path=made[-1], full_page=True)
                page.close()
    return made


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[:1] == ["--site"]:
        print("\n".join(map(str, of_site(*map(Path, given[1:3])))))
    else:
        places = [*map(Path, given), *[REPOSITORY / "results/report.html", REPOSITORY / "docs/figures"][len(given) :]]
        print("\n".join(map(str, main(*places))))
