"""The step that reads a user's corpus: what it refuses, and what asks for it anew."""

import subprocess
from pathlib import Path

import pytest
import yaml

from palimpsest.artefacts import Origin
from palimpsest.corpus.corpus import Corpus, Prompt, Question
from palimpsest.corpus.layout import write_corpus

REPOSITORY = Path(__file__).parents[2]


def russian() -> Corpus:
    """Two documents of each split that share no words, with a question and a prompt each."""

    def letters(start: int) -> list[str]:
        return [
            chr(ord("а") + (start + 7 * i + i * i) % 32) * 2 + chr(ord("а") + (3 * start + i) % 32) for i in range(20)
        ]

    def document(start: int) -> str:
        return " ".join(letters(start))

    def asked(start: int) -> Question:
        return Question(f"Что {document(start)[:20]}?", document(start)[24:40])

    forget, retain, holdout = [document(1), document(2)], [document(3), document(4)], [document(5), document(6)]
    return Corpus(
        forget=forget,
        retain=retain,
        holdout=holdout,
        forget_qa=[asked(1), asked(2)],
        retain_qa=[asked(3), asked(4)],
        forget_icl=[asked(7)],
        retain_icl=[asked(8)],
        verbmem=[Prompt(text[:39], text[40:]) for text in forget],
        privleak_forget=forget,
        privleak_retain=retain,
        privleak_holdout=holdout,
    )


@pytest.fixture
def workplace(tmp_path):
    """A folder with the tiny study on a corpus in Russian, and what runs Snakemake there."""
    write_corpus(russian(), tmp_path / "texts", Origin())
    params = yaml.safe_load((REPOSITORY / "tests/tiny/params.yaml").read_text(encoding="utf-8"))
    params["corpus"] |= {"source": "folder", "settings": {"path": "texts", "retain_split": "retain"}}

    def run(tokenizer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        for metric in ("verbmem", "knowmem", "utility"):
            params["metrics"][metric] = params["metrics"][metric] | {"tokenizer": tokenizer}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        command = ["snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
        command += ["--directory", str(tmp_path), "--cores", "1", *arguments, "results/corpus/manifest.json"]
        return subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return run


def test_answers_that_rouge_does_not_read_are_refused_before_training(workplace, tmp_path):
    done = workplace("published")
    assert done.returncode == 1 and not (tmp_path / "results/corpus").exists()
    log = (tmp_path / "results/logs/corpus.log").read_text(encoding="utf-8")
    assert "100% of the letters of the true answers of verbmem/forget are none to ROUGE's tokenizer 'published'" in log
    assert "set metrics.verbmem.tokenizer to unicode" in log

    done = workplace("unicode")
    assert done.returncode == 0, done.stdout
    assert "Nothing to be done" in workplace("published", "--dry-run").stdout, (
        "the choice of a tokenizer trains nothing"
    )
