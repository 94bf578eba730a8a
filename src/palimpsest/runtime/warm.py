"""One warm process for a whole run: it imports what steps import, once, and every step on the CPU is a fork of it.

Importing torch, transformers and a quantizer takes a process several seconds, and a small step computes for one.
`snakemake` starts `python -m palimpsest.runtime.warm` (workflow/rules/common.smk). A step's own process, which
Snakemake starts as ever, connects to it, hands over its command line, environment, folder and standard streams,
waits, and ends as the fork ends. The fork runs the same script from its first line, so a step computes the same
whether it is forked or not.

A run inside which another one starts shares its warm process, if that has imported what the run needs: PALIMPSEST_WARM
in the environment names its folder. A step whose library is another than the warm process's imports its own.

What trains models and asks them is imported first, and a step that needs it is forked while the rest is imported. Such
a step waits for that: by itself it would take as long.

Nothing depends on it: a step that finds no warm process (none was started, it is gone, or it still imports what the
step does not need) imports for itself, and a fork whose warm process is killed goes on. Steps that hold a GPU or
several threads import for themselves, too: neither CUDA nor a pool of threads outlives a fork.

What ends when: the warm process when the run ends, however that ends;
a fork when its step's process ends, however that ends.
"""

import atexit
import gc
import importlib
import importlib.util
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from palimpsest.runtime.curves import VARIABLE as CURVES
from palimpsest.runtime.kernels import REPRODUCIBLE

PACKAGE = Path(__file__).resolve().parents[1]
"""The library that this process imports; a clone may have another."""
VARIABLE = "PALIMPSEST_WARM"
"""The folder of the run's warm process, in the environment of its steps; `off` where a user wants none."""
SOCKET, EARLY, USAGE, IMPORTED = "socket", "early", "usage.{}", "imported.json"
"""In that folder: where steps connect; where those do that need torch and transformers, from the first moment on; what
the fork of a step used, by the number of the step's process and of its parent; and what the warm process imports, under
which settings of the environment."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""What Snakemake sets for a step with one thread; the libraries read it when they are imported."""
NO_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Otherwise the memory allocator of pyarrow starts one, which no fork would have."""
READ_BY_IMPORTS = (*REPRODUCIBLE, "BNB_", "HF_", "HOME", "HUGGINGFACE_", "TORCH_", "TRANSFORMERS_", "XDG_")
"""How the variables begin that the libraries read while they are imported."""
LIBRARIES = ("torch", "transformers", "scipy.stats", "pyarrow.parquet", "rouge_score.rouge_scorer", "safetensors")
"""What the steps of every study import, beside the packages of its quantizers."""


def start_for_run(modules: Collection[str], log: Path, worth: bool) -> list[tuple[Path, "subprocess.Popen[bytes]"]]:
    """A warm process for the steps of a run, as `start` gives it: none where the run has one around it that imports
    the same, where it is not `worth` one, or where the user wants none."""
    around = os.environ.get(VARIABLE, "")
    if around == "off" or (around and _fits(Path(around), modules)):
        return []
    os.environ.pop(VARIABLE, None)
    return [start(modules, log)] if worth else []


def _fits(folder: Path, modules: Collection[str]) -> bool:
    file = folder / IMPORTED
    if not (folder / SOCKET).exists() or not file.exists():
        return False
    imported = json.loads(file.read_text())
    return imported["environment"] == _read_by_imports() and set(modules) <= set(imported["modules"])


def _read_by_imports() -> dict[str, str]:
    """What the libraries read in the environment while they are imported."""
    return {name: value for name, value in os.environ.items() if name.startswith(READ_BY_IMPORTS)}


def start(modules: Collection[str], log: Path) -> tuple[Path, "subprocess.Popen[bytes]"]:
    """Start the warm process and tell it to this process's children, through the environment.
    It ends with this process.

    modules: what it imports, of that what is installed; log: the file for what it says.
    """
    folder = Path(tempfile.mkdtemp(prefix="palimpsest-warm-"))  # which only its user can enter
    environment = os.environ | ONE_THREAD | NO_THREAD | {"CUDA_VISIBLE_DEVICES": "", VARIABLE: "off"}
    environment.pop(CURVES, None)  # each step opens the store for itself
    imported = {"modules": list(modules), "environment": _read_by_imports()}
    (folder / IMPORTED).write_text(json.dumps(imported))
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as said, socket.socket(socket.AF_UNIX) as early:  # where the process ends, nobody waits there
        early.bind(str(folder / EARLY))
        early.listen(128)
        number = early.fileno()
        command = [sys.executable, "-m", "palimpsest.runtime.warm", str(folder), str(number), *modules]
        streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": said, "stderr": said}
        process = subprocess.Popen(command, env=environment, pass_fds=[number], **streams)
    os.environ[VARIABLE] = str(folder)
    return folder, process


def stop(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    """End the warm process; steps that are still at work go on."""
    os.environ.pop(VARIABLE, None)
    process.kill()
    process.communicate()
    shutil.rmtree(folder, ignore_errors=True)


def hand_over(inside: str = "off", early: bool = False) -> None:
    """Let a fork of the warm process run this process's script, and end as it ends; returns where there is no warm
    process. inside: what PALIMPSEST_WARM is for the fork and what it starts; early: whether the script needs torch and
    transformers, and a process that still imports is waited for."""
    folder = os.environ.get(VARIABLE, "off")
    if folder == "off":
        return
    place = EARLY if early and not (Path(folder) / SOCKET).exists() else SOCKET
    with socket.socket(socket.AF_UNIX) as connection:
        request: dict[str, Any] = {"argv": sys.argv, "folder": os.getcwd()}
        request["environment"] = os.environ | {VARIABLE: inside}
        request |= {"path": sys.path, "library": str(PACKAGE), "processes": [os.getpid(), os.getppid()]}
        try:
            connection.connect(str(Path(folder) / place))
            socket.send_fds(connection, [b"!"], [0, 1, 2])
            connection.sendall(json.dumps(request).encode() + b"\n")
            said = connection.makefile()
            worker = said.readline()
        except OSError:  # there is none, or it was killed with this request unread
            return
        with said:
            if not worker:  # the warm process ended before it forked
                return
            _forward_signals(int(worker))
            code = said.readline()
    # without a code the warm process was killed, and the fork, too: nobody knows how the step ended
    os._exit(int(code) if code else 1)


def _forward_signals(worker: int) -> None:
    def forward(number: int, frame: Any) -> None:
        os.kill(worker, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, forward)


def main(folder: Path, modules: Sequence[str], early: socket.socket) -> None:
    """The warm process: import, then fork for every connection. early: where steps may be forked before all is
    imported."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the run gets it too, and its end ends this process
    ahead = "transformers" in modules
    with _Server(folder) as server:
        if ahead:
            from palimpsest.runtime.startup import import_transformers

            import_transformers(needed=[name.partition(".")[0] for name in modules], training=True)
            _settle()
            server.listen(early)
        for name in modules:
            if importlib.util.find_spec(name.partition(".")[0]):
                importlib.import_module(name)
            if not server.serve(0):
                break
        else:
            _settle()
            if not ahead:
                server.listen(early)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(folder / SOCKET))
                listener.listen(128)
                server.listen(listener)
                while server.serve(None):
                    pass
    shutil.rmtree(folder, ignore_errors=True)  # which the run has done already, unless it was killed


def _settle() -> None:
    """After imports: what a collection in a fork would touch, and so copy, is no longer looked at."""
    gc.collect()
    gc.freeze()
    _check_threads()


def _check_threads() -> None:
    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit("an import started a thread, which no fork would have: steps import for themselves.")


class _Server:
    """Forks for each connection and reports to it how its fork ended, until standard input closes: the run has
    ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[int, tuple[socket.socket, list[int]]] = {}
        self.listeners: list[socket.socket] = []
        self.wake, self.woken = socket.socketpair()
        self.woken.setblocking(False)
        signal.set_wakeup_fd(self.woken.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.ready = selectors.DefaultSelector()
        for source in (self.wake, sys.stdin):
            self.ready.register(source, selectors.EVENT_READ)

    def __enter__(self) -> "_Server":
        return self

    def __exit__(self, *_: Any) -> None:
        self.ready.close()

    def listen(self, listener: socket.socket) -> None:
        listener.set_inheritable(False)  # whoever kept it open would keep steps waiting after this process's end
        self.listeners.append(listener)
        self.ready.register(listener, selectors.EVENT_READ)

    def serve(self, seconds: float | None) -> bool:
        """What has come, or comes within so many seconds; None: wait for it. Whether the run goes on."""
        for event, _ in self.ready.select(seconds):
            if event.fileobj is sys.stdin:
                return False
            if event.fileobj is self.wake:
                self.wake.recv(4096)
            else:
                _check_threads()
                gc.freeze()
                connection, _ = event.fileobj.accept()  # type: ignore[union-attr]
                self._fork_for(connection)
        _report_ended(self.running, self.folder)
        return True

    def _fork_for(self, connection: socket.socket) -> None:
        _, streams, _, _ = socket.recv_fds(connection, 1, 3)
        with connection.makefile() as said:
            line = said.readline()
        if not line:  # the step's process was ended meanwhile
            connection.close()
            return
        request = json.loads(line)
        warm, worker = os.getpid(), os.fork()
        if worker == 0:
            for other in (*self.listeners, *(other for other, _ in self.running.values())):
                other.close()
            _work(connection, streams, request, warm)
        for stream in streams:
            os.close(stream)
        self.running[worker] = (connection, request["processes"])
        connection.sendall(f"{worker}\n".encode())


def _report_ended(running: dict[int, tuple[socket.socket, list[int]]], folder: Path) -> None:
    while running:
        worker, status, used = os.wait4(-1, os.WNOHANG)
        if not worker:
            return
        connection, processes = running.pop(worker)
        usage = json.dumps({"seconds": used.ru_utime + used.ru_stime, "peak_kib": used.ru_maxrss})
        for process in processes:
            (folder / USAGE.format(process)).write_text(usage)
        code = os.waitstatus_to_exitcode(status)
        with suppress(OSError):  # where the step's process was ended
            connection.sendall(f"{code if code >= 0 else 128 - code}\n".encode())  # as a shell has it for a signal
        connection.close()


def _work(connection: socket.socket, streams: Sequence[int], request: dict[str, Any], warm: int) -> None:
    """The fork: become the step's process. warm: the process that says how it ended, unless that was killed."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv, sys.path[:] = request["argv"], request["path"]
    if request["library"] != str(PACKAGE):
        _leave_library()
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - the end of the process: what Python does with an error that nobody caught
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    finally:  # the end of a process, but for the memory, which nobody has to clear
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        if os.getppid() != warm:
            with suppress(OSError):
                connection.sendall(f"{code}\n".encode())
        os._exit(code)


def _leave_library() -> None:
    """Let this process import the library anew, from its own path."""
    importlib.invalidate_caches()
    names = [name for name in sys.modules if name.partition(".")[0] == PACKAGE.name]
    _left.extend(sys.modules.pop(name) for name in names)


_left: list[ModuleType] = []
"""What was imported before may have handed functions to torch (palimpsest.runtime.kernels), and so has to stay."""


def _end_with(connection: socket.socket) -> None:
    """The step's process says no more; its end closes the connection."""
    connection.recv(1)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[3:], socket.socket(fileno=int(sys.argv[2])))
