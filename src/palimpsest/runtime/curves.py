"""Training curves, for whoever asks: PALIMPSEST_CURVES names an MLflow store, and every training becomes a run of it.

`sqlite:///curves.db` is a file, relative to the study's folder, and needs no network; `http://HOST:PORT` is a server.
Without the variable nothing here is imported, and training is told of nothing. With it the weights are the same bits:
the curve is read from what transformers' Trainer logs. So it belongs to no record, no hash and no key of params.yaml,
and no step has to run again because of it.

Of several processes that train one model together only the first writes.
"""

import atexit
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from palimpsest.errors import PalimpsestError

log = logging.getLogger(__name__)

VARIABLE, NAME = "PALIMPSEST_CURVES", "PALIMPSEST_CURVES_RUN"
"""Where curves go; what the run of this process and of its children is called, which `name_run` sets."""
EXPERIMENT = "palimpsest"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""What MLflow is told unless the user says otherwise: to send nobody a report, to print no
addresses, and not to wait long for a server."""
LOGGED = ("loss", "grad_norm", "learning_rate", "epoch")
"""Of what the Trainer logs: the loss of a step in nats, the norm of its gradient before it is cut, the rate, and how
many times the forget set (or the text, of a target) was seen."""


def name_run(rule: str, key: Mapping[str, Any]) -> None:
    """What a step's curve is called: its rule, and the model and seed that it makes."""
    if os.environ.get(VARIABLE):
        parts = [f"{part}{value}" if part == "seed" else value for part, value in key.items()]
        os.environ[NAME] = "/".join([rule, *parts])


def attach() -> None:
    """Let every Trainer that this process makes from now on write a curve, where the environment asks for one.

    Raises PalimpsestError where MLflow is not installed, or where the store cannot be opened.
    """
    if not (address := os.environ.get(VARIABLE)):
        return
    from transformers import trainer

    client, experiment = _open(address)
    others: list[Any] = [kind for kind in trainer.DEFAULT_CALLBACKS if kind.__name__ != "Curve"]
    trainer.DEFAULT_CALLBACKS[:] = [*others, _callback(client, experiment)]


def _open(address: str) -> tuple[Any, str]:
    """A client of the store, and the number of the experiment in it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow
        from filelock import FileLock
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise PalimpsestError(
            f"{VARIABLE} is set, and {error.name} is not installed: pip install -c constraints.txt -e '.[curves]', "
            f"or unset {VARIABLE}."
        ) from error
    # steps that start together would make the tables of a new file twice
    lock = Path(tempfile.gettempdir()) / f"palimpsest-curves-{os.getuid()}-{sha256(_place(address)).hexdigest()[:16]}"
    try:
        with FileLock(lock):
            client = mlflow.MlflowClient(tracking_uri=address)
            found = client.get_experiment_by_name(EXPERIMENT)
            return client, found.experiment_id if found else client.create_experiment(EXPERIMENT)
    except (MlflowException, OSError, SQLAlchemyError) as error:
        said = " ".join(str(error).split())[:200]
        raise PalimpsestError(
            f"{VARIABLE} is {address}, which MLflow cannot open ({said}): give sqlite:///FILE or the address of a "
            "server, or unset it."
        ) from error


def _first() -> bool:
    """Whether this process is the first, or the only one, of those that train a model."""
    from torch import distributed

    return not distributed.is_initialized() or distributed.get_rank() == 0


def _place(address: str) -> bytes:
    """The address, with the folder that a relative file counts from."""
    return f"{os.getcwd()} {address}".encode()


class Run:
    """One training's curve in the store. A store that fails later costs the curve and not the training."""

    def __init__(self, client: Any, experiment: str) -> None:
        self.client, self.experiment = client, experiment
        self.number: str | None = None  # None: nothing is written

    def begin(self) -> None:
        name = os.environ.get(NAME, "training")
        if made := self._send(self.client.create_run, self.experiment, run_name=name):
            self.number = made.info.run_id
            atexit.register(self.end, "FAILED")  # where an error ends the process
            log.info("the training curve is run %s of %s", name, os.environ[VARIABLE])

    def write(self, step: int, logs: dict[str, float]) -> None:
        from mlflow.entities import Metric

        if self.number and LOGGED[0] in logs:
            now = int(1000 * time.time())
            metrics = [Metric(name, float(logs[name]), now, step) for name in LOGGED if name in logs]
            self._send(self.client.log_batch, self.number, metrics=metrics)

    def end(self, status: str = "FINISHED") -> None:
        if self.number:
            self._send(self.client.set_terminated, self.number, status)
            self.number = None

    def _send(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return function(*arguments, **named)
        except MlflowException as error:
            log.warning("no more training curve: %s", " ".join(str(error).split())[:200])
            self.number = None
            return None


def _callback(client: Any, experiment: str) -> Any:
    """What transformers' Trainer makes for itself, one for each training."""
    from transformers import TrainerCallback

    class Curve(TrainerCallback):
        def __init__(self) -> None:
            self.run = Run(client, experiment)

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if _first():
                self.run.begin()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_log = control.should_log or self.run.number is not None

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            self.run.write(state.global_step, logs)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.run.end()

    return Curve
