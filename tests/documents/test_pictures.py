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
