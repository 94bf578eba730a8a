"""What a step that fails leaves: the whole story in its log, what to do on the console."""

import os
import subprocess
import sys
import time

import pytest

STEP = """
import torch
from palimpsest.errors import PalimpsestError
from palimpsest.runtime.logs import start_logging
start_logging({log!r})
print("so far")
raise {error}
"""


@pytest.mark.parametrize(
    "error, said",
    [
        (
            "PalimpsestError('params.yaml: seeds is empty: give one.')",
            "Error: params.yaml: seeds is empty: give one.\n",
        ),
        ("ValueError('odd')", "Error: ValueError: odd\n"),
        (
            "torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 1.89 GiB. GPU 0 has 1.06 GiB "
            "free.\\nSee the manual')",
            "Error: CUDA out of memory. Tried to allocate 1.89 GiB. GPU 0 has 1.06 GiB free. The GPU's memory is "
            "full, of this step's model or of what shares the GPU with it: let fewer steps run at a time "
            "(--resources gpu=N), lower",
        ),
    ],
)
def test_an_error_is_one_line_on_the_console_and_whole_in_the_log(all_forks, forked_commands, tmp_path, error, said):
    log = tmp_path / "logs/step.log"
    command = [forked_commands / "forked-python", "-c", STEP.format(log=str(log), error=error)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"\n{said}") and done.stderr.endswith(f"\nThe whole story: {log}\n")
    assert "Traceback" not in done.stderr
    assert log.read_text().startswith("so far\nTraceback") and log.read_text().splitlines()[-1].startswith(said.strip())


def test_the_errors_of_a_run_are_what_it_ends_with(tmp_path):
    later = time.time() + 3600  # than the start of the process that prints
    failed = [tmp_path / f"{i}.log" for i in range(7)]
    for i, file in enumerate(failed):
        file.write_text(f"Traceback\nError: number {i}\n")
        os.utime(file, (later, later))
    fine, old = tmp_path / "fine.log", tmp_path / "old.log"
    fine.write_text("Error: not the last word\ndone\n")
    old.write_text("Error: of another run\n")
    os.utime(old, (1, 1))
    code = (
        "import sys; from palimpsest.runtime.logs import repeat_errors; "
        "repeat_errors(sys.argv[1:]); print('Exiting because a job failed', file=sys.stderr)"
    )

    def ends(*logs):
        return subprocess.run([sys.executable, "-c", code, *map(str, logs)], capture_output=True, text=True).stderr

    assert ends(fine, old, tmp_path / "none.log") == "Exiting because a job failed\n"
    assert ends(fine, failed[3], old).endswith(f"\n\nError: number 3 ({failed[3]})\n")
    said = ends(*failed).splitlines()
    assert said[-2:] == [f"Error: number 4 ({failed[4]})", "... and 2 more"] and len(said) == 8
