"""One log per step: everything a step says, progress bars included, goes to its file;
the console gets the last word on an error."""

import atexit
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from palimpsest.errors import PalimpsestError, first_line

MEMORY = (
    "The GPU's memory is full, of this step's model or of what shares the GPU with it: let fewer steps run at a time "
    "(--resources gpu=N), lower the block's batch_size, or set its gradient_accumulation or gradient_checkpointing in "
    "params.yaml. What is done is kept; run it again."
)
LAST_WORD = "Error: "
"""How the last line of the log of a step that failed begins."""
MOST_ERRORS = 5
STARTED = time.time()
"""When this process did."""
FORMAT = "%(asctime)s %(name)s %(levelname)s: %(message)s"


def start_logging(path: Path | str) -> None:
    """Send standard output, standard error and logging of this process to `path`; uncaught errors go there whole and,
    as one line, to the console. Call it before heavy imports, so that what they say is caught too."""
    os.environ.setdefault("TQDM_MININTERVAL", "5")  # a bar redrawn ten times a second fills a log
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    console = os.dup(2)
    log = open(path, "w", encoding="utf-8", buffering=1)  # noqa: SIM115  open until the process ends
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    logging.basicConfig(level=logging.INFO, stream=log, format=FORMAT, force=True)
    for chatty in ("httpx", "matplotlib", "fontTools", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stdout.flush()
        traceback.print_exception(kind, error, trace, file=log)
        if issubclass(kind, PalimpsestError):
            what = str(error)
        elif kind.__name__ == "OutOfMemoryError":  # torch's, which is not imported here
            what = f"{first_line(error)}. {MEMORY}"
        else:
            what = f"{kind.__name__}: {error}"
        log.write(f"{LAST_WORD}{' '.join(what.split())}\n")
        os.write(console, f"\n{LAST_WORD}{what}\nThe whole story: {path}\n".encode())

    sys.excepthook = report


def repeat_errors(logs: Iterable[Path | str]) -> None:
    """Print, when this process ends, what the steps that failed said: a run's own report of them is a dozen lines each,
    and what a person sees last is to be what is wrong and what to do.

    logs: of steps of this run, some of which may have failed.
    """
    last = list(dict.fromkeys(filter(None, map(_last_word, logs))))
    if len(last) > MOST_ERRORS:
        last[MOST_ERRORS:] = [f"... and {len(last) - MOST_ERRORS} more"]
    if last:
        atexit.register(lambda: print("", *last, sep="\n", file=sys.stderr, flush=True))


def _last_word(path: Path | str) -> str:
    """The error in which a step of this run ended, with its log; empty where it did not."""
    try:
        if os.stat(path).st_mtime < STARTED:
            return ""
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return f"{lines[-1]} ({path})" if lines and lines[-1].startswith(LAST_WORD) else ""
