"""A step ends when its run ends, however that ends.

Snakemake, killed, leaves the steps at work behind. One of them would go on beside the next run's, and put what it made
by the settings of its own run in the place of what that one made, without a word. So a run holds a lock for as long as
it lives, which the system takes from it, and each of its steps waits for that lock in a thread.
"""

import fcntl
import logging
import os
import platform
import tempfile
import threading
from contextlib import suppress
from typing import IO

VARIABLE = "PALIMPSEST_RUN"
"""The file that the run holds, in the environment of its steps on this machine."""

MACHINE = "PALIMPSEST_RUN_ON"
"""The machine of the run: elsewhere the file is not in sight, here it is gone once a step has seen the run's end."""

log = logging.getLogger(__name__)


def hold_run() -> IO[bytes]:
    """Take the lock, and tell it to this process's children through the environment."""
    held = tempfile.NamedTemporaryFile(prefix="palimpsest-run-", delete=False)  # noqa: SIM115 - held while the run lives
    fcntl.flock(held, fcntl.LOCK_EX)
    os.environ[VARIABLE], os.environ[MACHINE] = held.name, platform.node()
    return held


def release_run(held: IO[bytes]) -> None:
    """No step is at work any more."""
    for name in (VARIABLE, MACHINE):
        os.environ.pop(name, None)
    os.unlink(held.name)
    held.close()


def end_with_run() -> None:
    """From now on this process ends, at once, when its run has; nothing happens where no run on this machine started
    it. To be called before it forks."""
    if VARIABLE not in os.environ:
        return
    try:
        held = open(os.environ[VARIABLE], "rb")  # noqa: SIM115 - as long as the thread waits
    except OSError:
        if os.environ.get(MACHINE) == platform.node():
            _end()
        return
    threading.Thread(target=_wait_for_end, args=(held,), daemon=True).start()


def _wait_for_end(held: IO[bytes]) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_SH)
    except OSError:  # a file system without locks
        return
    with suppress(OSError):
        os.unlink(held.name)
    _end()


def _end() -> None:
    log.error("the run that started this step was killed: the step ends, too, and the next run does it again.")
    logging.shutdown()
    os._exit(1)
