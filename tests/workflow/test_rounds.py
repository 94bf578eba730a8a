"""How often a run looks for steps that are ready: when one has ended, and no clock asks for more."""

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
COUNTED = """
import sys, threading

class Counted(threading.Timer):
    started = []

    def start(self):
        Counted.started.append((self.interval, self.function))
        super().start()

threading.Timer = Counted
from snakemake.cli import main
try:
    main(sys.argv[1:])
finally:
    print("timers:", Counted.started)
"""


@pytest.mark.usefixtures("all_forks")
def test_no_timer_asks_for_another_round(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "tests/tiny/params.yaml", tmp_path)
    options = ["--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(tmp_path), "--cores", "1"]
    command = ["forked-python", "-c", COUNTED, *options, "results/corpus/manifest.json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "results/corpus/manifest.json").is_file()
    assert "timers: []" in done.stdout
