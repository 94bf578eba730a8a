"""The README is short, its links lead somewhere, and its numbers are those of docs/evidence."""

import re
from pathlib import Path

from markdown import markdown

import evidence
import figures
from prose import NAMES, NUMBER, counted, sentences

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
TEXT = " ".join(README.split())


def running_text() -> list[str]:
    """The sentences that a reader sees, without code and tables."""
    page = markdown(README, extensions=["tables", "fenced_code"])
    return sentences(f'<html><article class="md-content__inner">{page}</article></html>')


def test_it_is_short():
    assert len(README.splitlines()) <= 120


def test_its_links_and_pictures_exist():
    targets = [*re.findall(r"\]\(([^)#]+)", README), *re.findall(r'(?:src|srcset)="([^"]+)"', README)]
    assert len(targets) > 20
    assert not [target for target in targets if not target.startswith("http") and not (REPOSITORY / target).exists()]


def test_its_numbers_are_those_of_the_evidence():
    answers = evidence.spread("pretrained-seeds", "knowmem", "npo_gdr", "rtn-int4")
    finer = "bits == 4 and finer and not broken"
    said = [
        f"Rounded to 4 bits it answers {answers} % of the questions on it again, in each of three seeds",
        f"nearly all of those, {evidence.moved('rtn-int4', finer=False)} % or more, into zero",
        f"in {evidence.share('kept', finer)} of the cases the text stays forgotten in 4 bits",
        f"the cure holds in {evidence.share('kept', finer + ' and base == @smollm2')} of the cases",
        f"Nothing above {evidence.SIZES[evidence.PRETRAINED] / 1e6:.0f} M parameters was tested",
    ]
    assert not [sentence for sentence in said if sentence not in TEXT]
    others = " ".join(running_text()).replace("ICLR 2025", "")
    for sentence in said:
        others = others.replace(sentence, "")
    assert NUMBER.findall(NAMES.sub("", others)) == []
    shown = [figures.message("answers"), figures.message("default-study"), figures.REPORT]
    assert [f'alt="{message}"' in README for message in shown] == [True, True, True]


def test_snakemakes_catalog_takes_the_repository():
    """What its page "Adding workflows" asks of a generic one."""
    assert {"snakemake", "workflow"} <= set(re.findall(r"[a-z]+", TEXT.lower()))
    assert (REPOSITORY / "Snakefile").is_file() and list((REPOSITORY / "workflow/rules").glob("*.smk"))


def test_its_sentences_are_short():
    count = counted(running_text())
    assert count.sentences > 20 and count.far_off() == []
