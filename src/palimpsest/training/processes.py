"""One piece of work done by several processes of one host together, each with a GPU of its own
(all on the CPU where there is none).

The processes run `python -m palimpsest.training.processes`. A fork would inherit the threads' locks but not the
threads, and multiprocessing's spawn would run the calling script again, which for a job of the workflow is Snakemake's
copy of it. On the CPU each is a fork of a warm process, which has no threads, where PALIMPSEST_WARM names one
(palimpsest.runtime.warm). Each process sees one GPU alone, so that whatever trains there takes itself for the only one;
what the processes exchange goes through the functions below.
"""

if __name__ == "__main__":  # before the imports, which the warm process has made
    from palimpsest.runtime.warm import hand_over

    hand_over()

import json
import logging
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from palimpsest.errors import PalimpsestError
from palimpsest.runtime.logs import FORMAT
from palimpsest.runtime.startup import import_transformers
from palimpsest.runtime.warm import VARIABLE

WORK, RESULT, FAILED, ERROR, MEETING = "work.pickle", "result.pickle", "failed", "error.json", "meeting"
KNOWN = {kind.__name__: kind for kind in (PalimpsestError, torch.OutOfMemoryError)}
"""Errors that are raised again as what they were; others come as a RuntimeError that names them."""


def rank_and_size() -> tuple[int, int]:
    """(rank, number) of this process among those that work together; (0, 1) in a process that works alone."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def gather_from_all(value: Any) -> list[Any]:
    """What each process gives, in order of rank."""
    values = [None] * rank_and_size()[1]
    dist.all_gather_object(values, value)
    return values


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum over all processes, added up in order of rank:
    the same to the last bit in each, so that all decide alike."""
    number = rank_and_size()[1]
    if number == 1:
        return value
    parts = [torch.empty_like(value) for _ in range(number)]
    dist.all_gather(parts, value.contiguous())
    return torch.stack(parts).sum(0)


def run_on_ranks(number: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments) in `number` processes at once; returns what rank 0's call gave.

    The first error in any of them is raised here, its own traceback in a note, once the others are ended. The processes
    end with this one, however it ends.
    """
    names = _gpus()
    if names and number > len(names):
        raise PalimpsestError(f"{number} processes need {number} GPUs, visible are {len(names)}: ask for fewer.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / WORK).write_bytes(pickle.dumps((function, arguments)))
        processes = [_start(folder, rank, number, names[rank : rank + 1]) for rank in range(number)]
        try:
            while None in (codes := [process.poll() for process in processes]) and not any(codes):
                time.sleep(0.05)
        finally:
            for process in processes:
                process.kill()
                process.communicate()
        if any(codes):
            raise _first_error(folder, codes)
        return pickle.loads((folder / RESULT).read_bytes())  # of rank 0, in a folder that only its own user can open


def processes_of(gpus: int) -> int:
    """How many processes a job works in that was given so many GPUs: one for each, one where the host has none."""
    visible = torch.cuda.device_count()
    if 0 < visible < gpus:
        raise PalimpsestError(
            f"the step was given {gpus} GPUs (gpu={gpus}), and torch sees {visible} on this host: ask for at most "
            f"{visible}; under Slurm they may lie on several nodes: set the resource nodes=1, as "
            "workflow/profiles/slurm does."
        )
    return max(1, gpus) if visible else 1


def _gpus() -> list[str]:
    """The visible GPUs by the names that CUDA_VISIBLE_DEVICES takes."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(i) for i in range(torch.cuda.device_count())] if visible is None else visible.split(",")
    return names[: torch.cuda.device_count()]


def _start(folder: Path, rank: int, number: int, gpu: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),  # one host; its name need not resolve
    }
    if gpu:
        environment["CUDA_VISIBLE_DEVICES"] = gpu[0]
    if gpu or torch.get_num_threads() > 1:  # neither outlives a fork
        environment[VARIABLE] = "off"
    command = [sys.executable, "-m", "palimpsest.training.processes", str(folder), str(rank), str(number)]
    quiet = None if rank == 0 else subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=quiet)


def _first_error(folder: Path, codes: Sequence[int | None]) -> Exception:
    for rank, code in enumerate(codes):
        signal = code - 128 if code and code > 128 else -(code or 0)  # of the process itself, or of its fork
        if signal > 0:  # it could say nothing; what the others say is that they lost it
            return PalimpsestError(f"process {rank} of {len(codes)} was ended by signal {signal}: was memory short?")
    if not (folder / FAILED).exists():
        return RuntimeError(f"the processes ended with {codes}: see what they said.")
    said = json.loads((folder / FAILED / ERROR).read_text())
    error = KNOWN.get(said["kind"], RuntimeError)(said["message"])
    error.add_note(said["story"])
    return error


def _end_with_the_caller() -> None:
    """The caller holds the other end of standard input, which closes when it ends."""
    os.read(0, 1)
    os._exit(1)


def main(folder: Path, rank: int, number: int) -> None:
    """One of the processes."""

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """The first to fail says why; what the others then say is that they lost it."""
        message = str(error) if kind.__name__ in KNOWN else f"{kind.__name__}: {error}"
        story = f"In process {rank} of {number}:\n" + "".join(traceback.format_exception(kind, error, trace))
        draft = folder / f"{FAILED}.{rank}"
        try:
            draft.mkdir()
            (draft / ERROR).write_text(json.dumps({"kind": kind.__name__, "message": message, "story": story}))
            draft.rename(folder / FAILED)  # which fails where another was first
        except OSError:
            if not (folder / FAILED).exists():
                print(story, file=sys.__stderr__, flush=True)  # torch.distributed holds sys.stderr back meanwhile
        finally:
            os._exit(1)  # not through destructors, which wait for the others

    sys.excepthook = report
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.ERROR, format=FORMAT)
    import_transformers(training=True)
    # who asks whether it is one of several is told no, on purpose
    logging.getLogger("transformers.training_args").setLevel(logging.ERROR)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder / MEETING}", rank=rank, world_size=number)
    # of run_on_ranks, in a folder that only its own user can open
    function, arguments = pickle.loads((folder / WORK).read_bytes())
    result = function(*arguments)
    if rank == 0:
        (folder / RESULT).write_bytes(pickle.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
