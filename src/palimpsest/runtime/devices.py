"""The GPUs of one host, shared out among the jobs that run on it:
every job takes those that the fewest other jobs hold.

A job holds a GPU by a lock on a file, which the system lets go when the job's process ends, however it ends. Nobody has
to know how many GPUs or jobs there are: with N jobs on N GPUs each job has its own, with more jobs they spread evenly.
"""

import glob
import itertools
import os
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from palimpsest.errors import PalimpsestError

if TYPE_CHECKING:  # the processes of most steps take no GPU
    from filelock import FileLock

VISIBLE = "CUDA_VISIBLE_DEVICES"
TAKEN = "PALIMPSEST_GPUS"
"""The variable that holds what a job took, for the processes it starts."""
NO_DEVICES = "No devices were found"
"""What nvidia-smi says, with an exit status other than 0, where there is a driver and no GPU."""
DEVICE_FILES = "/dev/nvidia[0-9]*"
"""The files that the driver makes for its GPUs."""
HELD: "list[FileLock]" = []
"""Locks of this process, kept until it ends."""


def take_gpus(count: int) -> list[str]:
    """Narrow CUDA_VISIBLE_DEVICES of this process, and of those it starts, to `count` GPUs; returns their names.

    With a count of 0 the process sees none. All there are if there are fewer; a CUDA_VISIBLE_DEVICES that is set
    already (by a user, or by Slurm) says which there are. Without an NVIDIA GPU nothing happens. To be called before
    anything asks CUDA for its devices.
    """
    if not count:
        os.environ[VISIBLE] = ""
        return []
    gpus = visible_gpus()
    if not gpus:
        return []
    from filelock import FileLock

    folder = _own_folder(Path(tempfile.gettempdir()) / f"palimpsest-gpus-{os.getuid()}")
    with FileLock(folder / "choice.lock"):
        order = sorted(gpus, key=lambda gpu: (_holders(folder, gpu), gpus.index(gpu)))
        taken = order[:count]
        HELD.extend(_hold(folder, gpu) for gpu in taken)
    os.environ[VISIBLE] = os.environ[TAKEN] = ",".join(taken)
    return taken


def _own_folder(folder: Path) -> Path:
    """The folder, which this user alone can enter; all of the user's processes on a host have to find the same one, so
    its name can be foreseen. Raises PalimpsestError where something else lies there, such as another user's folder."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        there = folder.lstat()
        if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.getuid():
            what = "no folder" if not stat.S_ISDIR(there.st_mode) else f"a folder of the user {there.st_uid}"
            raise PalimpsestError(
                f"{folder}, where this user's jobs agree on who has which GPU, is {what}: remove it (its owner can) "
                "or set TMPDIR to a folder of your own, the same for all of your runs on this host."
            ) from None
    folder.chmod(0o700)
    return folder


def check_gpus() -> None:
    """Raise PalimpsestError where the job took GPUs and torch can use none: everything would run on the CPU."""
    if not os.environ.get(TAKEN):
        return
    import torch

    if not torch.cuda.is_available():
        raise PalimpsestError(
            f"the job took {os.environ[TAKEN]}, and torch {torch.__version__} (torch.version.cuda: "
            f"{torch.version.cuda}) can use no GPU: install a build of torch for the CUDA of the driver, which "
            "nvidia-smi prints, or set CUDA_VISIBLE_DEVICES= (empty) to run on the CPU on purpose."
        )


def visible_gpus() -> list[str]:
    """UUIDs of the NVIDIA GPUs that this process may use, in CUDA_VISIBLE_DEVICES' order;
    parts of a GPU (MIG) by what it calls them."""
    wanted = os.environ.get(VISIBLE)
    names = None if wanted is None else _names(wanted)
    if names == []:
        return []
    models = _listed()
    if names is None or not models:
        return list(models)
    by_number = any(name.isdecimal() for name in names)
    if by_number and len(set(models.values())) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise PalimpsestError(
            f"CUDA_VISIBLE_DEVICES={wanted} gives numbers, and this host has GPUs of several models "
            f"({', '.join(models.values())}), which CUDA numbers otherwise than nvidia-smi: give UUIDs "
            "(nvidia-smi -L), or set CUDA_DEVICE_ORDER=PCI_BUS_ID."
        )
    return _named(names, list(models))


def _listed() -> dict[str, str]:
    """The model of each GPU that nvidia-smi lists, by UUID;
    none where there is neither an nvidia-smi nor a GPU's file."""
    query = ["nvidia-smi", "--query-gpu=uuid,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True)
    except OSError as error:
        files = " ".join(sorted(glob.glob(DEVICE_FILES)))
        if isinstance(error, FileNotFoundError) and not files:
            return {}
        raise PalimpsestError(
            f"nvidia-smi cannot be run ({error.strerror}), and only it says which GPUs there "
            f"are{files and f' ({files})'}: put one that runs on PATH (in a container: "
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility), or set CUDA_VISIBLE_DEVICES= (empty) to run "
            "on the CPU on purpose."
        ) from None
    said = " ".join((done.stdout + done.stderr).split())
    if NO_DEVICES in said:
        return {}
    if done.returncode:
        raise PalimpsestError(
            f"nvidia-smi failed (exit status {done.returncode}): {said or 'it said nothing'}. Mend the driver, or set "
            "CUDA_VISIBLE_DEVICES= (empty) to run on the CPU on purpose."
        )
    fields = (line.partition(",") for line in done.stdout.splitlines() if line.strip())
    return {uuid.strip(): model.strip() for uuid, _, model in fields}


def _names(wanted: str) -> list[str]:
    """What a value of CUDA_VISIBLE_DEVICES lists; it ends at -1, as CUDA has it."""
    return list(itertools.takewhile(lambda name: name not in ("", "-1"), map(str.strip, wanted.split(","))))


def _named(names: Sequence[str], listed: Sequence[str]) -> list[str]:
    """The GPUs that are named by numbers, or by UUIDs and beginnings of them."""
    gpus = []
    for name in names:
        if name.startswith("MIG"):
            gpus.append(name)
            continue
        found = listed[int(name) :][:1] if name.isdecimal() else [each for each in listed if each.startswith(name)]
        if not found:
            raise PalimpsestError(
                f"CUDA_VISIBLE_DEVICES names the GPU {name!r}, and nvidia-smi lists {len(listed)}, numbered from 0: "
                "correct or unset it."
            )
        gpus.append(found[0])
    if twice := [gpu for gpu in dict.fromkeys(gpus) if gpus.count(gpu) > 1]:
        raise PalimpsestError(
            f"CUDA_VISIBLE_DEVICES={','.join(names)} names {twice[0]} more than once: name each GPU once."
        )
    return gpus


def _holders(folder: Path, gpu: str) -> int:
    """How many processes hold the GPU; to be asked under the choice lock."""
    return sum(_try(file) is None for file in folder.glob(f"{_stem(gpu)}.*.lock"))


def _hold(folder: Path, gpu: str) -> "FileLock":
    for slot in itertools.count():
        lock = _try(folder / f"{_stem(gpu)}.{slot}.lock", keep=True)
        if lock:
            return lock
    raise AssertionError("unreachable")


def _stem(gpu: str) -> str:
    """The GPU's name in file names; older drivers call a part of a GPU MIG-GPU-UUID/1/0."""
    return gpu.replace("/", "_")


def _try(file: Path, keep: bool = False) -> "FileLock | None":
    """The lock on the file, or None where another holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    if not keep:
        lock.release()
    return lock
