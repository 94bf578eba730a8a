"""Fixtures that every test may use."""

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forks
import pytest

REPOSITORY = Path(__file__).parents[1]

os.environ.pop(
    "PYTHONDONTWRITEBYTECODE", None
)  # without bytecode each process that is started compiles the library anew

if "PYTEST_XDIST_WORKER" in os.environ:  # one worker a core: threads of torch would wait for each other's
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

ORDER = (
    *("tests/workflow/test_tiny_study.py", "tests/golden/test_archived.py", "tests/unit/training/test_sharding.py"),
    *("tests/workflow/", "tests/golden/", "tests/documents/", "tests/fuzz/"),
)
"""What takes long comes first: a worker that began one of these files last would work on alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In that ORDER, which is that in which `make test` hands the files to its workers."""

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(REPOSITORY).as_posix()
        return next((number for number, start in enumerate(ORDER) if name.startswith(start)), len(ORDER))

    items.sort(key=place)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Trainings and HQQ end in full garbage collections, which need not look at what imports and earlier files made:
    that takes half a second each time."""
    global _frozen
    now = item.path, len(sys.modules) // 50
    if now != _frozen:
        gc.collect()
        gc.freeze()
        _frozen = now


_frozen: tuple[Path, int] | None = None
"""The file of the test, and about how many modules there were, when objects were last left to themselves."""


SHARED_WARM = "PALIMPSEST_TESTS_WARM"
"""The folder of the warm process of all workers, in their environment."""


def pytest_configure(config: pytest.Config) -> None:
    """With several workers: one warm process for all, which imports while they collect."""
    if getattr(config.option, "numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ:
        config.warm = forks.start_warm_process()
        os.environ[SHARED_WARM] = str(config.warm[0])


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "warm"):
        forks.stop(*config.warm)


@pytest.fixture(scope="session")
def warm_process() -> Iterator[Path]:
    """The folder of a warm process (palimpsest.runtime.warm)."""
    if SHARED_WARM in os.environ:
        folder = Path(os.environ[SHARED_WARM])
        forks.wait_for(folder, None)
        yield folder
        return
    folder, process = forks.start_warm_process()
    forks.wait_for(folder, process)
    yield folder
    forks.stop(folder, process)


@pytest.fixture(scope="session")
def forked_commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH with programs whose processes are forks (forks.py)."""
    folder = tmp_path_factory.mktemp("commands")
    forks.write_programs(folder)
    return folder


@pytest.fixture(scope="session")
def commands(warm_process: Path, forked_commands: Path) -> dict[str, str]:
    """The environment in which programs and steps are forks of one warm process: what each would import for itself
    takes seconds."""
    path = [str(forked_commands), str(forks.VENV), os.environ["PATH"]]
    return {"PATH": os.pathsep.join(path)} | forks.settings_of(warm_process)


@pytest.fixture(scope="module")
def all_forks(commands: dict[str, str]) -> Iterator[None]:
    """What a module's tests start is a fork where it can be one."""
    wanted = forks.environment_with(commands)
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - wanted.keys():
            patch.delenv(name)
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
