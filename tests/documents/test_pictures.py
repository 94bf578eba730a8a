"""Pictures of a report: light and dark, in a real Chromium."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageStat

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")

import pictures  # noqa: E402

DARK = "@media (prefers-color-scheme: dark) {body {background: black}}"
PAGE = f"<style>body {{background: white}} {DARK}</style><h1>x</h1>"


def test_a_report_is_pictured_light_and_dark(tmp_path: Path):
    with playwright.sync_playwright() as engines:
        if not any(map(shutil.which, pictures.NAMES)) and not os.path.exists(engines.chromium.executable_path):
            pytest.skip("no Chromium is installed: `playwright install chromium`")
    report = tmp_path / "report.html"
    report.write_text(PAGE, encoding="utf-8")
    light, dark = pictures.main(report, tmp_path)
    bright = [ImageStat.Stat(Image.open(file).convert("L")).mean[0] for file in (light, dark)]
    assert bright[0] > 200 and bright[1] < 60
    assert Image.open(light).size == (pictures.SIZE["width"], pictures.SIZE["height"])


def test_a_report_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(SystemExit, match="make audit"):
        pictures.main(tmp_path / "none.html", tmp_path)


def test_pages_of_a_site_are_pictured_light_and_dark_wide_and_narrow(site: Path, tmp_path: Path):
    with playwright.sync_playwright() as engines:
        if not any(map(shutil.which, pictures.NAMES)) and not os.path.exists(engines.chromium.executable_path):
            pytest.skip("no Chromium is installed: `playwright install chromium`")
    for name in ("index.html", "start/survive/index.html"):
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_bytes((site / name).read_bytes())
    shutil.copytree(site / "assets", tmp_path / "site/assets")
    made = {file.stem: Image.open(file).convert("L") for file in pictures.of_site(tmp_path / "site", tmp_path / "made")}
    assert made.keys() == {
        f"{name}-{scheme}-{kind}"
        for name in ("index", "start-survive")
        for scheme in ("light", "dark")
        for kind in ("screen", "phone")
    }
    bright = {name: ImageStat.Stat(picture).mean[0] for name, picture in made.items()}
    assert bright["start-survive-light-screen"] > 200 > 90 > bright["start-survive-dark-screen"]
    assert {picture.width for picture in made.values()} == set(pictures.WIDTHS.values())
    with pytest.raises(SystemExit, match="make docs"):
        pictures.of_site(tmp_path / "none", tmp_path / "made")
