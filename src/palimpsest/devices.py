"""The GPUs of one host, shared out among the jobs that run on it: every job takes those that the fewest other jobs hold.

A job holds a GPU by a lock on a file, which the system lets go when the job's process ends, however it ends. Nobody has to know how
many GPUs or jobs there are: with N jobs on N GPUs each job has its own, with more jobs they spread evenly.
"""

import itertools
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from palimpsest.errors import PalimpsestError

VISIBLE = "CUDA_VISIBLE_DEVICES"
HELD: list[FileLock] = []
"""Locks of this process, kept until it ends."""


def take_gpus(count: int) -> list[str]:
    """Narrow CUDA_VISIBLE_DEVICES of this process, and of those it starts, to `count` GPUs; returns their names.

    With a count of 0 the process sees none. All there are if there are fewer; a CUDA_VISIBLE_DEVICES that is set already (by a user, or by Slurm) says which there are. Without
    an NVIDIA GPU nothing happens. To be called before anything asks CUDA for its devices.
    """
    if not count:
        os.environ[VISIBLE] = ""
        return []
    gpus = visible_gpus()
    if not gpus:
        return []
    folder = Path(tempfile.gettempdir()) / f"palimpsest-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "choice.lock"):
        order = sorted(gpus, key=lambda gpu: (_holders(folder, gpu), gpus.index(gpu)))
        taken = order[:count]
        HELD.extend(_hold(folder, gpu) for gpu in taken)
    os.environ[VISIBLE] = ",".join(taken)
    return taken


def visible_gpus() -> list[str]:
    """UUIDs of the NVIDIA GPUs that this process may use, in CUDA_VISIBLE_DEVICES' order; parts of a GPU (MIG) by what it calls them."""
    try:
        query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
        listed = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    except (FileNotFoundError, subprocess.CalledProcessError):  # no driver, or a driver without a GPU
        return []
    wanted = os.environ.get(VISIBLE)
    return listed if wanted is None else _named(wanted, listed)


def _named(wanted: str, listed: Sequence[str]) -> list[str]:
    """The GPUs that a value of CUDA_VISIBLE_DEVICES names: numbers, or UUIDs and beginnings of them; it ends at -1, as CUDA has it."""
    gpus = []
    for name in itertools.takewhile(lambda name: name not in ("", "-1"), map(str.strip, wanted.split(","))):
        if name.startswith("MIG"):
            gpus.append(name)
            continue
        found = listed[int(name) :][:1] if name.isdigit() else [each for each in listed if each.startswith(name)]
        if not found:
            raise PalimpsestError(
                f"CUDA_VISIBLE_DEVICES names the GPU {name!r}, and nvidia-smi lists {len(listed)}, numbered from 0: correct or unset it."
            )
        gpus.append(found[0])
    return gpus


def _holders(folder: Path, gpu: str) -> int:
    """How many processes hold the GPU; to be asked under the choice lock."""
    return sum(_try(file) is None for file in folder.glob(f"{gpu}.*.lock"))


def _hold(folder: Path, gpu: str) -> FileLock:
    for slot in itertools.count():
        lock = _try(folder / f"{gpu}.{slot}.lock", keep=True)
        if lock:
            return lock
    raise AssertionError("unreachable")


def _try(file: Path, keep: bool = False) -> FileLock | None:
    """The lock on the file, or None where another holds it."""
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    if not keep:
        lock.release()
    return lock
