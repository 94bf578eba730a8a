"""What a step that fails leaves: the whole story in its log, what to do on the console."""

import subprocess
import sys

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
def test_an_error_is_one_line_on_the_console_and_whole_in_the_log(tmp_path, error, said):
    log = tmp_path / "logs/step.log"
    done = subprocess.run(
        [sys.executable, "-c", STEP.format(log=str(log), error=error)], capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"\n{said}") and done.stderr.endswith(f"\nThe whole story: {log}\n")
    assert "Traceback" not in done.stderr
    assert log.read_text().startswith("so far\nTraceback")
