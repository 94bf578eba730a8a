"""A study on a machine that has a GPU and no Snakemake: planned here, its steps run there by a few warm processes.

    python benchmarks/study_in_one_process.py plan studies/pretrained plan.json   # needs Snakemake
    python benchmarks/study_in_one_process.py run plan.json --training 2 --gpu 4 --cpu 10  # needs the library alone
    python benchmarks/study_in_one_process.py audit plan.json --seeds 0 1  # of a run that was stopped

`plan` writes what Snakemake hands each script: input, output, settings, wildcards, log, threads. `run`, in the clone to
which the plan's folder was copied, gives each script just that, so every artefact and its manifest are those of
`snakemake`. Steps whose outputs are there are skipped, so a run that was stopped goes on.

`--training` and `--gpu` processes share the GPU; `--cpu` processes see none, as steps without the resource `gpu`. A
small model leaves a GPU idle while its process imports, loads and hashes: of several at a time one has work for it.
Each process takes one GPU as a job of Snakemake's does, that which the fewest others hold, and sees that one alone.
`--drop-weights` deletes quantized weights once nothing is to read them (not the target's), where the disk cannot hold a
study; `palimpsest verify` then misses them.

`audit` makes the audit.json and audit.csv of a run that was stopped, of the seeds whose scores are complete. Survival
records may be missing: it names them, and their cells are empty. A study that has run to its end has its audit already.
"""

import argparse
import gc
import json
import multiprocessing
import os
import runpy
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ("*.safetensors", "*.gguf")


class Named(list[str]):
    """Files with names for some of them, as Snakemake's input and output are; a name may stand for several."""

    def __init__(self, files: Sequence[str], names: Mapping[str, Any]) -> None:
        super().__init__(files)
        self.names = dict(names)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["names"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, key: Any) -> Any:
        return self.names[key] if isinstance(key, str) else super().__getitem__(key)

    def items(self) -> Any:
        return self.names.items()

    def get(self, name: str, default: Any = None) -> Any:
        return self.names.get(name, default)


SOURCE = "local source"


def written(value: Any) -> Any:
    """A setting as JSON keeps it: a path of the user's own with the hash of what lies there."""
    if hasattr(value, "digest"):
        return {SOURCE: [str(value), value.digest]}
    if isinstance(value, Mapping):
        return {key: written(inner) for key, inner in value.items()}
    return [written(inner) for inner in value] if isinstance(value, list | tuple) else value


def read(value: Any) -> Any:
    """What was `written`."""
    from palimpsest.artefacts import LocalSource

    if isinstance(value, Mapping):
        return LocalSource(*value[SOURCE]) if SOURCE in value else {key: read(inner) for key, inner in value.items()}
    return [read(inner) for inner in value] if isinstance(value, list) else value


class Handed:
    """What a script knows as `snakemake`."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        for part in ("input", "output", "log", "wildcards", "resources"):
            setattr(self, part, Named(*job[part]))
        self.params = Named([], read(job["params"][1]))
        self.threads, self.rule = job["threads"], job["rule"]


def named(parts: Any) -> list[Any]:
    """A list of Snakemake's with names, as JSON: [its entries, {name: entry or entries}]."""
    pairs = {name: list(value) if isinstance(value, list) else value for name, value in parts.items()}
    plain = [str(value) for value in parts] if all(isinstance(value, str) for value in parts) else []
    return [plain, {name: str(value) if isinstance(value, str) else value for name, value in pairs.items()}]


def plan(study: Path, file: Path) -> None:
    """Write the steps of a study, model by model in the order of params.yaml, which is that in which they begin."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import DAGSettings, OutputSettings, ResourceSettings

    from palimpsest.study.params import expanded, read_params
    from palimpsest.vocabulary import RETRAIN, TARGET

    with SnakemakeApi(OutputSettings(dryrun=True)) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1), snakefile=ROOT / "Snakefile", workdir=study.resolve()
        )
        dag = workflow.dag(DAGSettings(forceall=True))
        dag.execute_workflow(executor="dryrun")
        jobs = [job for job in workflow._workflow.dag.jobs if job.rule.script]
    params = expanded(read_params(study / "params.yaml"))
    order = [TARGET, RETRAIN, *params["methods"], *params["quantizers"], *map(str, params["seeds"])]
    ranks = {name: rank for rank, name in enumerate(order)}
    steps = []
    for job in sorted(jobs, key=lambda job: [ranks.get(value, -1) for _, value in job.wildcards.items()]):
        steps.append(
            {
                "rule": job.rule.name,
                "script": f"workflow/scripts/{Path(str(job.rule.script)).name}",
                "input": named(job.input),
                "output": named(job.output),
                "log": named(job.log),
                "wildcards": [[], dict(job.wildcards.items())],
                "params": [[], written(dict(job.params.items()))],
                "resources": [[], {"gpu": job.resources.get("gpu")}],
                "threads": 1,
            }
        )
    file.write_text(json.dumps({"study": os.path.relpath(study.resolve(), ROOT), "steps": steps}, indent=0))
    print(f"{len(steps)} steps in {file}")


def prepare(gpus: int, folder: str) -> None:
    """What a worker does before its first step: it takes so many GPUs, 0 or 1, for all of its steps."""
    os.environ["PALIMPSEST_WARM"] = "off"
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.path.insert(0, str(ROOT / "src"))
    os.chdir(folder)
    import palimpsest.runtime.jobs as jobs

    jobs.take_gpus(gpus)
    jobs.take_gpus = lambda count: []  # the worker has what it has


def run_step(job: Mapping[str, Any]) -> float:
    """Run a step in this process; returns its seconds. What it raises goes to its log too."""
    started, tries = time.monotonic(), 5
    while True:
        try:
            runpy.run_path(str(ROOT / job["script"]), {"snakemake": Handed(job)}, "__main__")
            return time.monotonic() - started
        except Exception as error:  # noqa: BLE001  it is handed on, as one that can be pickled
            with open(job["log"][0][0], "a") as log:
                traceback.print_exc(file=log)
            tries -= 1
            full = type(error).__name__ == "OutOfMemoryError"  # what shares the GPU may be done soon
            if not full or not tries:
                raise RuntimeError(f"{type(error).__name__}: {error}") from None  # some cannot be pickled
        finally:
            gc.collect()
            if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
                sys.modules["torch"].cuda.empty_cache()
        time.sleep(5)


def of_seeds(files: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Those of a step's files that are of some seeds."""
    return [file for file in files if any(f"seed{seed}" in Path(file).parts for seed in seeds)]


def audit(step: Mapping[str, Any], seeds: Sequence[int], json_file: Path, csv_file: Path) -> str:
    """Audit some seeds as the plan's audit step would, in the study's folder; returns which survival records it lacks.

    Raises PalimpsestError where a score or a model is missing, or the study has no such seed."""
    from palimpsest.artefacts import Origin
    from palimpsest.audit.records import KINDS
    from palimpsest.errors import PalimpsestError
    from palimpsest.runtime.jobs import records_of

    settings = dict(read(step["params"][1])["settings"].values())
    if strangers := set(seeds).difference(settings["seeds"]):
        raise PalimpsestError(
            f"--seeds: the plan has no seed {min(strangers)}, but {settings['seeds']}: give of those."
        )
    if json_file.parent != csv_file.parent:
        raise PalimpsestError(f"{json_file} holds the hash of {csv_file}: give --json and --csv in one folder.")
    records = {name: of_seeds(step["input"][1].get(name, []), seeds) for name in KINDS}
    gone = [file for file in records["survival"] if not Path(file).exists()]
    records["survival"] = [file for file in records["survival"] if file not in gone]
    inputs = records_of([file for files in records.values() for file in files])
    origin = Origin({}, settings | {"seeds": list(seeds)}, inputs, step["input"][1]["code"])
    script = runpy.run_path(str(ROOT / step["script"]))
    script["audit"](origin, records, str(json_file), str(csv_file), survival_gaps=True)
    lacks = [" ".join((*Path(file).parts[-3:-1], Path(file).stem)) for file in gone]
    return f"survival records missing: {len(lacks)}" + (f" ({', '.join(lacks)})" if lacks else "")


class Run:
    """Steps of a plan, each begun when those that it needs are done."""

    def __init__(self, steps: Sequence[Mapping[str, Any]], folder: Path, drop_weights: bool) -> None:
        self.folder, self.drop_weights = folder, drop_weights
        self.waiting = [step for step in steps if not all((folder / file).exists() for file in step["output"][0])]
        self.made = {file for step in steps for file in step["output"][0]}
        self.failed: set[str] = set()
        self.readers: dict[str, int] = {}
        for step in self.waiting:
            for file in step["input"][0]:
                self.readers[file] = self.readers.get(file, 0) + 1

    def ready(self) -> list[Mapping[str, Any]]:
        """Steps whose inputs are there, taken from those that wait; those that need what failed are given up."""
        now, later = [], []
        for step in self.waiting:
            needed = [file for file in step["input"][0] if file in self.made]
            if self.failed.intersection(needed):
                self.failed.update(step["output"][0])
            elif all((self.folder / file).exists() for file in needed):
                now.append(step)
            else:
                later.append(step)
        self.waiting = later
        return now

    def finish(self, step: Mapping[str, Any], future: Future[float]) -> str:
        """Note how a step ended; returns a line that says so."""
        key = " ".join(step["wildcards"][1].values())
        if error := future.exception():
            self.failed.update(step["output"][0])
            return f"FAILED {step['rule']} {key}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        for file in step["input"][0]:
            self.readers[file] = self.readers.get(file, 1) - 1
            place = Path(file).parts
            unread = self.drop_weights and not self.readers[file]
            if unread and place[1:2] == ("quantized",) and place[2] != "target":
                for pattern in WEIGHTS:
                    for weights in (self.folder / file).parent.glob(pattern):
                        weights.unlink()
        return f"{future.result():6.1f} s  {step['rule']} {key}"


def kind_of(step: Mapping[str, Any]) -> str:
    """Which processes run a step: those of training, which needs most of a GPU's memory, or others. On purpose without
    a GPU (CUDA_VISIBLE_DEVICES is empty), those that see none run all."""
    if not step["resources"][1]["gpu"] or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return "cpu"
    return "training" if step["rule"] in ("pretrain", "train", "unlearn", "attack", "attack_quantized") else "gpu"


def run(steps: Sequence[Mapping[str, Any]], folder: Path, arguments: argparse.Namespace) -> int:
    """Run the steps until all are done or failed, or the time is up; returns how many failed."""
    state, started = Run(steps, folder, arguments.drop_weights), time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    sizes = {"training": arguments.training, "gpu": arguments.gpu, "cpu": arguments.cpu}
    pools = {
        kind: ProcessPoolExecutor(number, spawn, prepare, (int(kind != "cpu"), str(folder)))
        for kind, number in sizes.items()
    }
    running: dict[Future[float], Mapping[str, Any]] = {}
    failures = 0
    over: Callable[[], bool] = lambda: time.monotonic() - started > 60 * arguments.minutes  # noqa: E731
    while not over():
        for step in state.ready():
            running[pools[kind_of(step)].submit(run_step, step)] = step
        if not running:
            break
        for future in wait(running, timeout=1, return_when=FIRST_COMPLETED).done:
            line = state.finish(running.pop(future), future)
            failures += line.startswith("FAILED")
            print(f"{time.monotonic() - started:7.1f}  {line}", flush=True)
    if running:
        print(f"the time is up: {len(running)} steps stopped, {len(state.waiting)} not begun", flush=True)
    for pool in pools.values():
        for process in list((pool._processes or {}).values()) if running else ():
            process.kill()
        pool.shutdown(cancel_futures=True)
    return failures


def audit_command(planned: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    """Audit a plan's seeds as the command line says; what is wrong ends the program in one line."""
    sys.path.insert(0, str(ROOT / "src"))
    from palimpsest.errors import PalimpsestError

    step = next(step for step in planned["steps"] if step["rule"] == "audit")
    files = [arguments.json, arguments.csv]
    json_file, csv_file = (
        file.resolve() if file else Path(step["output"][1][kind])
        for kind, file in zip(("json", "csv"), files, strict=True)
    )
    os.chdir(ROOT / planned["study"])
    try:
        print(audit(step, sorted(set(arguments.seeds)), json_file, csv_file))
    except PalimpsestError as error:
        sys.exit(str(error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("plan")
    making.add_argument("study", type=Path)
    making.add_argument("file", type=Path)
    running = commands.add_parser("run")
    running.add_argument("file", type=Path)
    running.add_argument("--training", type=int, default=1, help="processes that train, on the GPU")
    running.add_argument("--gpu", type=int, default=1, help="processes that share the GPU with them")
    running.add_argument("--cpu", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="processes without one")
    running.add_argument("--minutes", type=float, default=1e6, help="after which what runs is stopped")
    running.add_argument("--drop-weights", action="store_true")
    running.add_argument("--only", nargs="*", help="rules to run, of the plan's")
    auditing = commands.add_parser("audit", help="the audit of what a run made that was stopped")
    auditing.add_argument("file", type=Path)
    auditing.add_argument("--seeds", type=int, nargs="+", required=True, help="those whose scores are complete")
    auditing.add_argument("--json", type=Path, help="where audit.json goes (the study's results)")
    auditing.add_argument("--csv", type=Path, help="where audit.csv goes (the study's results)")
    arguments = parser.parse_args()
    if arguments.command == "plan":
        return plan(arguments.study, arguments.file)
    planned = json.loads(arguments.file.read_text())
    if arguments.command == "audit":
        return audit_command(planned, arguments)
    steps = [step for step in planned["steps"] if not arguments.only or step["rule"] in arguments.only]
    sys.exit(min(run(steps, ROOT / planned["study"], arguments), 1))


if __name__ == "__main__":
    main()
