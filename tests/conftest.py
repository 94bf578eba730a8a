"""Fixtures that every test may use."""

import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[1]
VENV = Path(sys.executable).parent

if "PYTEST_XDIST_WORKER" in os.environ:  # one worker a core: threads of torch would wait for each other's
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

LONGEST = ("tests/workflow/test_tiny_study.py", "tests/golden/test_altered_files.py", "tests/golden/test_archived.py")
"""Files that take minutes: a worker that began one of them last would work on alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """LONGEST first (`make test` hands the files to its workers in this order)."""
    order = {REPOSITORY / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


def pytest_collection_finish() -> None:
    """Every training ends in a full garbage collection (accelerate's): it need not look at what the imports made, which
    takes a third of a second."""
    gc.collect()
    gc.freeze()


SHARED_WARM = "PALIMPSEST_TESTS_WARM"
"""The folder of the warm process of all workers, in their environment."""


COMMANDS = {
    "snakemake": ("snakemake.cli", "snakemake.report.html_reporter", "palimpsest.study.run_checks"),
    "dvc": ("dvc.cli", "dvc.repo", "dvc.commands.repro", "dvc.repo.reproduce", "dvc_data.index"),
    "palimpsest": ("palimpsest.cli", "palimpsest.study.verify"),
}
"""Programs that tests start a hundred times, and what they import."""


def start_warm_process() -> tuple[Path, Any]:
    """One that has imported what the steps of every study and the programs of COMMANDS import: ten seconds that no
    test pays again."""
    from palimpsest.quantizers import QUANTIZERS
    from palimpsest.runtime import warm

    names = [name.replace("-", "_") for kind in QUANTIZERS.values() if not kind.environment for name in kind.packages]
    names += [name for names in COMMANDS.values() for name in names]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(warm.VARIABLE, "off")  # so that what `start` sets goes again: a test asks for it
        patch.setenv("HF_HUB_OFFLINE", "1")
        return warm.start(list(dict.fromkeys([*warm.LIBRARIES, *names])), Path(tempfile.mkdtemp()) / "warm.log")


def pytest_configure(config: pytest.Config) -> None:
    """With several workers: one warm process for all, which imports while they collect."""
    if getattr(config.option, "numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ:
        config.warm = start_warm_process()
        os.environ[SHARED_WARM] = str(config.warm[0])


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "warm"):
        from palimpsest.runtime import warm

        warm.stop(*config.warm)


@pytest.fixture(scope="session")
def warm_process() -> Iterator[Path]:
    """The folder of a warm process (palimpsest.runtime.warm) that is ready to fork."""
    from palimpsest.runtime import warm

    own = None if SHARED_WARM in os.environ else start_warm_process()
    folder = own[0] if own else Path(os.environ[SHARED_WARM])
    for _ in range(3000):
        if (folder / warm.SOCKET).exists():
            break
        time.sleep(0.1)
    else:
        raise AssertionError(f"the warm process of {folder} is not ready after five minutes")
    yield folder
    if own:
        warm.stop(*own)


FORKED = """#!{python}
import os, sys
from palimpsest.runtime.warm import VARIABLE, hand_over
sys.argv[0] = {program!r}
hand_over(inside=os.environ.get(VARIABLE, "off"))
os.execv({python!r}, [{python!r}, *sys.argv])
"""
FORKED_PYTHON = """#!{python}
import os, sys, tempfile
from palimpsest.runtime.warm import hand_over
given, arguments = sys.argv[1:], [each for each in sys.argv[1:] if each != "-I"]
if arguments[0] == "-c":
    with tempfile.NamedTemporaryFile("w", suffix=".py", dir={folder!r}, delete=False) as script:
        script.write(arguments[1])
    arguments = [script.name, *arguments[2:]]
sys.argv = arguments
hand_over()
os.execv({python!r}, [{python!r}, *given])
"""


@pytest.fixture(scope="session")
def forked_commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH: the programs of COMMANDS, each a fork of the warm process that PALIMPSEST_WARM names, from the
    first line of its own script, and `forked-python` for `-c CODE` or a file; without such a process, as ever."""
    folder = tmp_path_factory.mktemp("commands")
    programs = {name: FORKED.format(python=sys.executable, program=str(VENV / name)) for name in COMMANDS}
    programs["forked-python"] = FORKED_PYTHON.format(python=sys.executable, folder=str(folder))
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def commands(warm_process: Path, forked_commands: Path) -> dict[str, str]:
    """The environment in which programs and steps are forks of one warm process: what each would import for itself
    takes seconds."""
    from palimpsest.runtime.warm import VARIABLE

    path = [str(forked_commands), str(VENV), os.environ["PATH"]]
    return {"PATH": os.pathsep.join(path), VARIABLE: str(warm_process), "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def forks(commands: dict[str, str]) -> Iterator[None]:
    """What a module's tests start is a fork where it can be one."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in commands.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with independent reference values (oracle/) and real text (data/),
    which is not part of the project."""
    folder = Path(os.environ.get("PALIMPSEST_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "oracle").is_dir():
        pytest.skip(f"the reference values in {folder} are not here (set PALIMPSEST_SHARED to their folder)")
    return folder


@pytest.fixture(scope="session")
def tiny():
    """A small random Llama in float32 and the tokenizer it belongs to, trained on a few generated articles."""
    from palimpsest.corpus.embedded.generator import generate_corpus
    from palimpsest.models.scratch import build_llama, train_tokenizer

    corpus = generate_corpus(0, 2, 4, 2, 3, 2)
    tokenizer = train_tokenizer([*corpus.forget, *corpus.retain], 400)
    shape = {"hidden_size": 64, "layers": 2, "heads": 4, "mlp_size": 128, "context": 256}
    return build_llama(tokenizer, shape, seed=0), tokenizer, corpus


@pytest.fixture(scope="session")
def write_hub_layout() -> Callable[[Any, Path], Path]:
    """Writes a corpus as a folder that `datasets` loads with the configs and splits of muse-bench/MUSE-News."""

    def write(corpus: Any, folder: Path) -> Path:
        splits = {
            "raw": {
                "forget": corpus.forget,
                "retain1": corpus.retain,
                "retain2": corpus.retain,
                "holdout": corpus.holdout,
            },
            "privleak": {
                "forget": corpus.privleak_forget,
                "retain": corpus.privleak_retain,
                "holdout": corpus.privleak_holdout,
            },
            "verbmem": {"forget": [vars(prompt) for prompt in corpus.verbmem]},
            "knowmem": {
                "forget_qa": [vars(question) for question in corpus.forget_qa],
                "forget_qa_icl": [vars(question) for question in corpus.forget_icl],
                "retain_qa": [vars(question) for question in corpus.retain_qa],
                "retain_qa_icl": [vars(question) for question in corpus.retain_icl],
            },
        }
        card = ["---", "configs:"]
        for config, parts in splits.items():
            card += [f"- config_name: {config}", "  data_files:"]
            for split, rows in parts.items():
                file = folder / config / f"{split}.jsonl"
                file.parent.mkdir(parents=True, exist_ok=True)
                lines = [json.dumps(row if isinstance(row, dict) else {"text": row}) for row in rows]
                file.write_text("\n".join(lines), encoding="utf-8")
                card += [f"  - split: {split}", f"    path: {config}/{split}.jsonl"]
        (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")
        return folder

    return write


@pytest.fixture(scope="session")
def write_battery_data() -> Callable[[Path], Path]:
    """Writes gen/, tru/, fac/ and flu/ with invented rows, each as `datasets` loads the dataset that the task reads."""

    def multiple_choice(subject: str, i: int, kind: str) -> dict[str, Any]:
        question = f"In {subject.replace('_', ' ')}, which {kind} number is {i + 3}?"
        return {
            "question": question,
            "subject": subject,
            "choices": [f"{i + k}" for k in range(4)],
            "answer": 3 - i % 4,
        }

    def truth(i: int) -> dict[str, Any]:
        right, wrong = [f"It is {i}.", "Nobody knows."], [f"It is {i + 1}.", "The river is long.", "No"][: 2 + i % 2]
        return {
            "question": f"What is the number of house {i}?",
            "mc1_targets": {"choices": [right[0], *wrong], "labels": [1, *[0] * len(wrong)]},
            "mc2_targets": {"choices": [*right, *wrong], "labels": [1, 1, *[0] * len(wrong)]},
        }

    def fact(split: str, i: int) -> dict[str, Any]:
        answer = {"value": f"Bob {i}", "aliases": [f"Bob {i}", f"Bobby {i}"]}
        return {"question": f"Who is {split} {i}?", "question_id": f"{split}{i}", "answer": answer}

    subjects = ("anatomy", "tide_law", "ore_craft")
    splits: dict[str, tuple[str, dict[str, list[Any]]]] = {
        "gen": (
            "all",
            {
                "test": [multiple_choice(subject, i, "open") for subject in subjects for i in range(5)],
                "dev": [multiple_choice(subject, i, "solved") for subject in subjects for i in range(3)],
            },
        ),
        "tru": ("multiple_choice", {"validation": [truth(i) for i in range(8)]}),
        "fac": ("rc.nocontext", {split: [fact(split, i) for i in range(7)] for split in ("train", "validation")}),
        "flu": ("utility_fluency", {"test": [{"instruction": f"Write {i} lines.", "subject": "x"} for i in range(6)]}),
    }

    def write(folder: Path) -> Path:
        for task, (config, parts) in splits.items():
            card = ["---", "configs:", f"- config_name: {config}", "  data_files:"]
            for split, rows in parts.items():
                file = folder / task / config / f"{split}.jsonl"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
                card += [f"  - split: {split}", f"    path: {config}/{split}.jsonl"]
            (folder / task / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")
        return folder

    return write
