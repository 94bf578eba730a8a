"""The site builds without a broken link; what its pages generate is whole, and its tables can be read."""

import re
from pathlib import Path

import yaml
from lxml import html

import evidence
from palimpsest.cli import main
from palimpsest.metrics import METRICS
from palimpsest.quantizers import QUANTIZERS
from palimpsest.unlearning.losses import FORGET_LOSSES, RETAIN_LOSSES

REPOSITORY = Path(__file__).parents[2]
COLUMNS, ROWS = 7, 12


def text_of(site: Path, page: str) -> str:
    return html.fromstring((site / page / "index.html").read_text(encoding="utf-8")).text_content()


def test_the_site_builds_and_every_page_has_its_place(site):
    """Built strictly by the fixture. A page without a place in the menu cannot be found."""
    menu = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    named = {page for part in menu for pages in part.values() for entry in pages for page in entry.values()}
    folder = REPOSITORY / "docs"
    written = {str(file.relative_to(folder)) for file in folder.rglob("*.md") if "tools" not in file.parts}
    assert written == named
    assert all((site / page.removesuffix(".md").removesuffix("index") / "index.html").is_file() for page in named)


def test_generated_pages_know_every_key_loss_metric_and_command(site):
    schema = yaml.safe_load((REPOSITORY / "workflow/schemas/params.schema.yaml").read_text(encoding="utf-8"))
    params = text_of(site, "reference/params")
    assert all(block in params for block in schema["properties"])
    assert "methods.NAME.forget_loss" in params and "methods.NAME.learning_rate" in params
    methods = text_of(site, "reference/methods")
    assert all(f"{name}:" in methods for name in [*FORGET_LOSSES, *RETAIN_LOSSES])
    assert all(f"{name}:" in text_of(site, "reference/glossary") for name in METRICS)
    assert all(name in text_of(site, "reference/quantizers") for name in QUANTIZERS if name != "none")
    command_line = text_of(site, "reference/command-line")
    assert all(f"palimpsest {name}" in command_line for name in ("audit", "survive", "verdict", "tables recovery"))
    assert "--unlearned" in command_line
    assert "forgotten_and_returned" in text_of(site, "reference/api")
    assert "relative_update_norm" in text_of(site, "reference/audit-json")


def test_tables_of_pages_can_be_read(site):
    """A larger one is a figure with a CSV file behind it."""
    large = set()
    for file in site.rglob("index.html"):
        page = file.parent.relative_to(site).as_posix()
        for table in html.fromstring(file.read_text(encoding="utf-8")).xpath("//article//table"):
            rows = table.xpath(".//tbody/tr")
            if len(rows) > ROWS or max(len(row.xpath("td|th")) for row in table.xpath(".//tr")) > COLUMNS:
                large.add(page)
    assert large - {"reference/api", "reference/audit-json"} == set()  # those are mkdocstrings' own


def test_the_spread_of_seeds_is_what_its_command_prints(site, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    page = (REPOSITORY / "docs/explanation/promises.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"`palimpsest (tables recovery [^`]*--between-seeds)`", page)
    assert main(command.split()) == 0
    assert capsys.readouterr().out.strip() == evidence.between_seeds_table()
    assert "standard deviation of a seed" in text_of(site, "explanation/promises")


def test_every_picture_says_what_it_shows(site):
    for file in site.rglob("index.html"):
        for picture in html.fromstring(file.read_text(encoding="utf-8")).xpath("//article//img"):
            assert len(picture.get("alt", "")) > 20, f"{file}: {picture.get('src')}"
