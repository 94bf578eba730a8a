"""The page, its samples and the Markdown tables, from the audit of a made-up study."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from made_study import (
    RULES,
    find,
    pages,
    scores_of,
)

from palimpsest.audit.table import collect
from palimpsest.errors import PalimpsestError
from palimpsest.report.figures import draw_retained, draw_survival
from palimpsest.report.known_answers import compare
from palimpsest.report.page import render
from palimpsest.report.samples import select_samples
from palimpsest.tables.markdown import tables
from palimpsest.vocabulary import HEADLINE


def test_undefined_is_a_status_and_never_a_number(study: dict, tmp_path: Path) -> None:
    records = study["records"] | {"rules": RULES | {"minimum_gap": 99.0}}
    audit = collect(**records)
    json.dumps(audit, allow_nan=False)
    cell = find(audit["rows"], model="ga", precision="bf16")["retained"]["same_precision"]["mean"]
    assert cell["value"] is None and "below 99" in cell["status"] and "verbmem target - retrain" in cell["status"]
    assert audit["survival_against_recovery"]["status"].startswith("undefined")
    draw_retained(audit, tmp_path / "r.svg")
    draw_survival(audit, tmp_path / "s.svg")
    render(audit, {"retained": tmp_path / "r.svg", "survival": tmp_path / "s.svg"}, [], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).lower().split()
    assert "no point has both numbers" in page and "undefined" in page


def test_page_is_self_contained_escaped_and_complete(study: dict, audit: dict, tmp_path: Path) -> None:
    page = pages(study, audit, tmp_path).read_text()
    assert "<script" not in page and "&lt;b&gt;" in page and "<b>" not in page
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page), "nothing may be fetched"
    assert not re.findall(r"url\((?!#)", page) and "@import" not in page
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers)) > 20
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(identifiers)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(identifiers)
    for text in (
        audit["answer"]["contrast"].replace(" %", "\u00a0%"),
        "ga_gdr_fp32",
        "8e-06",
        "ab" * 32,
        "Glossary",
        "torch 2.13.0",
    ):
        assert text in page
    assert page.count('class="sample"') == 2


def test_the_page_says_how_much_it_rests_on(study: dict, audit: dict, tmp_path: Path) -> None:
    page = pages(study, audit, tmp_path).read_text()
    assert "24 prompts, 40 questions on the forget set and 40 on the retain set, 1 seed, a model of 22,500,000" in page
    assert "a checkpoint that was not trained here." in page and "of one run (seed 1)" in page
    assert "until it no longer reproduced" not in page and "The mean hides something" not in page
    row = find(audit["rows"], model="npo_gdr", precision="rtn-int4")["retained"][HEADLINE]
    verbmem, knowmem = (f"{row[metric]['value']:.0f}" for metric in ("verbmem", "knowmem"))
    assert f"{row['mean']['value']:.0f}<small>V {verbmem} · K {knowmem}</small></td>" in page
    terms = "target|retrained model|GA|NPO|retain loss|GDR|KLR|perplexity|bootstrap interval|Spearman|RTN|GPTQ"
    for term in terms.split("|"):
        assert f"<dt>{term}" in page, term


def test_the_page_says_what_a_mean_hides_and_how_the_target_ended(study: dict, audit: dict, tmp_path: Path) -> None:
    changed = copy.deepcopy(audit)
    changed["settings"] |= {"models": {"target": "train", "base": "scratch"}, "training": {"stop_at_loss": 0.3}}
    ended = {"steps": 57, "final_loss": 0.2951, "reached_stop_loss": True}
    target = find(changed["models"], model="target")
    target["training"] = [ended]
    cells = find(changed["rows"], model="ga_gdr", precision="bf16")["retained"][HEADLINE]
    cells["verbmem"]["value"], cells["knowmem"]["value"] = 1.4, 99.8
    page = pages(study, changed, tmp_path).read_text()
    assert "ga_gdr keeps 1\u00a0% of VerMem and 100\u00a0% of KnowMem." in page and "a Llama of 22,500,000" in page
    assert "reached stop_at_loss, 0.3 nats per token (57 steps, loss of the last one 0.30 nats per token)." in page
    changed["seeds"], target["training"] = (
        [1, 2],
        [ended | {"reached_stop_loss": False}, ended | {"reached_stop_loss": None}],
    )
    page = pages(study, changed, tmp_path).read_text()
    assert "seed 1, did not reach stop_at_loss" in page and "seed 2, trained for 57 steps" in page
    assert "means over 2 seeds" in page


def test_two_renders_are_byte_identical(study: dict, audit: dict, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        pages(study, audit, folder)
    names = sorted(path.name for path in first.iterdir())
    assert names == ["report.html", "retained.svg", "survival.svg"]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_published_numbers_stand_on_the_page_where_they_are_asked_for(study: dict, audit: dict, tmp_path: Path) -> None:
    plain = pages(study, audit, tmp_path).read_text()
    assert "Beside the published numbers" not in plain
    figures = {name: tmp_path / f"{name}.svg" for name in ("retained", "survival")}
    render(audit, figures, [], tmp_path / "known.html", compare(audit, "muse-news"))
    page = (tmp_path / "known.html").read_text()
    ours = find(audit["over_seeds"], model="target", precision="bf16")["metrics"]["verbmem"]
    beside = f"<td>58.4 / {ours:.1f} / {ours - 58.4:+.1f}</td>".replace("-", "−")
    assert "table 1, NEWS" in page and beside in page
    assert '<td class="left">both</td>' in page and "v1, version 1 of the paper; v3, version 3" in page
    assert "corpus.settings.path: none (paper: muse-bench/MUSE-News)" in page


def test_samples_are_chosen_by_the_target_alone(study: dict) -> None:
    files = {label: study["files"][label, 1, "bf16"]["responses"] for label in ("target", "ga_gdr")}
    samples = select_samples(files, "target", "knowmem_forget", 3)
    perfect = scores_of(study, "target", "bf16", "knowmem")["per_example"]
    assert [sample["id"] for sample in samples] == sorted(range(40), key=lambda i: (-perfect[i], i))[:3]
    with pytest.raises(PalimpsestError, match="Did you mean 'target'"):
        select_samples(files, "targt", "knowmem_forget", 1)


def test_markdown_tables_show_the_numbers_of_the_audit(audit: dict) -> None:
    text = tables(audit)
    row = next(
        row for row in audit["rows"] if row["kind"] == "unlearned" and row["retained"][HEADLINE]["mean"]["value"]
    )
    assert f"{row['retained'][HEADLINE]['mean']['value']:.0f}" in next(
        line for line in text.splitlines() if line.startswith(f"| {row['model']} |")
    )
    for line in text.splitlines():
        assert not line.startswith("|") or line.count("|") in (
            len(audit["precisions"]) + 2,
            len(audit["precisions"]) + 1,
        )


def test_what_rounds_to_nothing_has_no_sign(study: dict, audit: dict, tmp_path: Path) -> None:
    audit = copy.deepcopy(audit)
    row = find(audit["rows"], model="ga_gdr", precision="bf16")
    for cell in row["retained"][HEADLINE].values():
        cell["value"] = -0.3
    page, markdown = pages(study, audit, tmp_path).read_text(), tables(audit)
    assert not re.search(r"[−-]0(?![.\d])", re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page, flags=re.DOTALL))
    assert "| 0" in markdown and not re.search(r"-0(?![.\d])", markdown)


def test_report_imports_no_heavy_library() -> None:
    modules = "palimpsest.audit.table, palimpsest.report.figures, palimpsest.report.page, palimpsest.report.samples"
    code = (
        f"import sys, {modules}; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'snakemake')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
