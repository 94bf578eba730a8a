"""A copy of the working tree, and the tiny study run in it once, through DVC, with a local remote."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
import yaml
from forks import environment_with
from moto.server import ThreadedMotoServer
from workers import made_once

from palimpsest.runtime.warm import VARIABLE

REPOSITORY = Path(__file__).parents[2]
VENV = Path(sys.prefix)


class Tree:
    """A working tree of the project somewhere else: commands run in it, with its own copy of the library."""

    def __init__(self, folder: Path, commands: dict[str, str]) -> None:
        """commands: what the environment says of the programs that are started there."""
        self.folder = folder
        self.results = folder / "results"
        self.commands = commands
        self.environment = environment_with(commands) | {
            "PYTHONPATH": str(folder / "src"),
            "OMP_NUM_THREADS": "1",
            "DVC_SITE_CACHE_DIR": str(folder.parent / "dvc-site"),
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@example.org",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@example.org",
        }

    def run(self, *command: str, code: int | None = 0) -> str:
        """Standard output and error of a command that must end with `code` (None: with any but 0)."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        as_wanted = done.returncode == code if code is not None else done.returncode != 0
        assert as_wanted, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def make(self, target: str, code: int | None = 0) -> str:
        """A target of the Makefile, in the environment that is there."""
        return self.run("make", "-o", "setup", target, f"VENV={VENV}", code=code)

    def with_programs_of_its_own(self) -> "Tree":
        """The same as users have it: programs are no forks, and a run has a warm process of its own."""
        tree = Tree(self.folder, self.commands)
        tree.environment["PATH"] = tree.environment["PATH"].partition(os.pathsep)[2]
        del tree.environment[VARIABLE]
        return tree

    def edit(self, *path: str, value: object) -> None:
        """Set one key of params.yaml."""
        file = self.folder / "params.yaml"
        params = yaml.safe_load(file.read_text())
        block = params
        for key in path[:-1]:
            block = block[key]
        block[path[-1]] = value
        file.write_text(yaml.safe_dump(params, sort_keys=False))

    def copy(self, folder: Path, results: bool = True) -> "Tree":
        """Another tree with this one's state: time stamps, Snakemake's and DVC's records."""
        leave_out = () if results else ("results", ".snakemake")
        shutil.copytree(self.folder, folder, symlinks=True, ignore=shutil.ignore_patterns(*leave_out))
        return Tree(folder, self.commands)

    def clone(self, folder: Path) -> "Tree":
        """A git clone: the committed files alone."""
        self.run("git", "clone", "--quiet", str(self.folder), str(folder))
        return Tree(folder, self.commands)


def steps(output: str) -> set[str]:
    """What Snakemake did (or would do): the messages of its jobs."""
    return set(re.findall(r"^Job \d+: (.*)$", output, re.MULTILINE))


@pytest.fixture(scope="module", autouse=True)
def programs_and_steps_are_forks(all_forks: None) -> None:
    """Of all tests here."""


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory, commands: dict[str, str]) -> Tree:
    """The tiny study after `dvc repro`, committed and pushed to a DVC remote in a folder. One worker makes it, and each
    has a copy, as tests that change it have."""
    made = made_once(tmp_path_factory, "study", lambda home: make_study(home, commands))
    return Tree(made / "tree", commands).copy(tmp_path_factory.mktemp("study") / "tree")


def make_study(home: Path, commands: dict[str, str]) -> None:
    tree = Tree(home / "tree", commands)
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=REPOSITORY, text=True)
    for name in filter(None, listed.split("\0")):
        source, place = REPOSITORY / name, tree.folder / name
        if source.is_file():  # a file that git lists may be deleted in the working tree
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)
    (tree.folder / "dvc.lock").unlink(missing_ok=True)
    shutil.copy2(REPOSITORY / "tests/tiny/params.yaml", tree.folder / "params.yaml")
    tree.make("dvc-params")
    tree.run("git", "init", "--quiet")
    tree.run("dvc", "remote", "add", "--default", "store", str(home / "store"))
    tree.make("repro")
    tree.run("git", "add", "--all")
    tree.run("git", "commit", "--quiet", "--message", "the tiny study")
    tree.run("dvc", "push")


@pytest.fixture
def copy(study: Tree, tmp_path: Path) -> Tree:
    return study.copy(tmp_path / "tree")


@pytest.fixture
def fresh(study: Tree, tmp_path: Path) -> Tree:
    """The same tree before any step ran."""
    return study.copy(tmp_path / "tree", results=False)


@pytest.fixture
def clone(study: Tree, tmp_path: Path) -> Tree:
    return study.clone(tmp_path / "tree")


@dataclass(frozen=True)
class S3:
    """A server that speaks S3, with an empty bucket, and what a client's environment needs."""

    address: str
    bucket: str
    environment: dict[str, str]


@pytest.fixture
def s3() -> Iterator[S3]:
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=address, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    )
    client.create_bucket(Bucket="outputs")
    yield S3(address, "outputs", keys)
    server.stop()


@pytest.fixture
def read_steps() -> Callable[[str], set[str]]:
    return steps
