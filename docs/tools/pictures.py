"""Pictures of a report's first screen, light and dark: `make pictures`, or
`python docs/tools/pictures.py [REPORT] [FOLDER]`.

It needs a Chromium on PATH, or one that `playwright install chromium` brought.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from evidence import REPOSITORY

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ["--no-sandbox", "--disable-gpu"]
SIZE = {"width": 1100, "height": 1000}
FILES = {"light": "report.png", "dark": "report-dark.png"}


def main(report: Path, folder: Path) -> list[Path]:
    """Write FILES into the folder; returns their paths."""
    if not report.is_file():
        raise SystemExit(f"{report} does not exist: `make audit` makes it.")
    made = []
    with sync_playwright() as engines:
        program = next(filter(None, map(shutil.which, NAMES)), None)
        browser = engines.chromium.launch(executable_path=program, args=OPTIONS)
        for scheme, name in FILES.items():
            page = browser.new_page(viewport=SIZE, color_scheme=scheme)
            page.goto(report.absolute().as_uri())
            page.screenshot(path=folder / name)
            made.append(folder / name)
        browser.close()
    return made


if __name__ == "__main__":
    given = [Path(each) for each in sys.argv[1:]]
    places = [*given, *[REPOSITORY / "results/report.html", REPOSITORY / "docs/figures"][len(given) :]]
    print("\n".join(map(str, main(*places))))
