"""The tiny study through a real Slurm, which this script installs (Debian), starts on this one machine,
and stops: `make test-slurm`.

Everything Slurm writes is in a temporary folder; the machine's own Slurm, if it has one, is left alone. The node
has two GPUs that are plain files, so that the rules' GPUs are asked for and granted; the steps then find no NVIDIA
GPU and compute on the CPU.
"""

import argparse
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "workflow/profiles/slurm"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun")
CONFIG = """\
ClusterName=palimpsest
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={daemon_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2
GresTypes=gpu
AccountingStorageType=accounting_storage/none
MinJobAge=3600
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=16000 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def install() -> None:
    """Slurm and munge from Debian, where they are missing."""
    if os.geteuid():
        raise SystemExit("Error: Slurm's daemons change users, so this test runs as root: sudo make test-slurm.")
    if all(shutil.which(name) for name in PROGRAMS):
        return
    if not shutil.which("apt-get"):
        raise SystemExit(f"Error: install Slurm and munge first ({', '.join(PROGRAMS)}): this machine has no apt-get.")
    subprocess.run(["apt-get", "update", "-q"], check=True)
    subprocess.run(
        ["apt-get", "install", "-q", "-y", "--no-install-recommends", "slurm-wlm", "munge"],
        check=True,
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """A cluster of this machine while the block lasts; gives the environment in which sbatch and the others find it."""
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    for gpu in range(2):
        (folder / f"gpu{gpu}").touch()
    ports = {"controller_port": free_port(), "daemon_port": free_port()}
    (folder / "slurm.conf").write_text(CONFIG.format(host=socket.gethostname(), folder=folder, **ports))
    (folder / "gres.conf").write_text(f"NodeName=localhost Name=gpu File={folder}/gpu[0-1]\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    srun = folder / "bin/srun"  # the plugin takes SLURM_CONF from the environment of jobs, where it calls srun
    srun.write_text(f'#!/bin/sh\nexport SLURM_CONF={folder}/slurm.conf\nexec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munged += [f"--{what}-file={folder}/munge.{what}" for what in ("pid", "seed", "log")]
    config = ["-f", environment["SLURM_CONF"]]
    daemons = []
    try:
        for command in (munged, ["slurmctld", "-D", *config], ["slurmd", "-D", "-N", "localhost", *config]):
            with open(folder / f"{command[0]}.out", "w") as output:
                daemons.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
            time.sleep(1)
        wait_until_idle(environment, folder)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(30)


def wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    for _ in range(60):
        state = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True).stdout
        if state.strip() == "idle":
            return
        time.sleep(1)
    logs = "".join(file.read_text()[-2000:] for file in sorted(folder.glob("*.out")) + sorted(folder.glob("*.log")))
    raise SystemExit(f"Error: Slurm's node did not come up within a minute.\n{logs}")


def run_study(folder: Path, environment: dict[str, str]) -> float:
    """The tiny study in the folder with the repository's Slurm profile; returns seconds."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--workflow-profile", str(PROFILE)]
    # this cluster keeps no accounts and answers at once
    command += [
        "--slurm-no-account",
        "--slurm-status-command",
        "squeue",
        "--slurm-init-seconds-before-status-checks",
        "3",
    ]
    command += ["--seconds-between-status-checks", "3"]
    started = time.monotonic()
    done = subprocess.run(command, env=environment | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        logs = sorted((folder / ".snakemake/slurm_logs").rglob("*.log"))
        print(*(file.read_text()[-3000:] for file in logs[-3:]), sep="\n")
        raise SystemExit("Error: the study failed under Slurm.")
    return time.monotonic() - started


def planned(folder: Path) -> dict[str, int]:
    """How many steps of each rule the study in the folder has, as Snakemake plans it."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    listed = subprocess.run(
        [*command, "--dry-run"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    ).stdout
    counts = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", listed, re.MULTILINE)}
    return {
        rule: count for rule, count in counts.items() if rule not in ("all", "total")
    }  # all: Snakemake does it itself


def declared() -> dict[str, dict[str, int]]:
    """`gpu` and `mem_mb` of every rule, from the rule files. One that depends on the format counts as none:
    the tiny study's are made on the CPU."""
    found: dict[str, dict[str, int]] = {}
    heirs = []
    for file in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for part in re.split(r"^(?=rule |use rule )", file.read_text(), flags=re.MULTILINE):
            if own := re.match(r"rule (\w+):", part):
                found[own[1]] = {key: int(n) for key, n in re.findall(r"^ +(gpu|mem_mb)=(\d+)", part, re.MULTILINE)}
            elif inherited := re.match(r"use rule (\w+) as (\w+)", part):
                heirs.append(inherited.groups())
    return found | {heir: found[rule] for rule, heir in heirs}


def expected(plan: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """What Slurm is to be asked for, by kind of job, as the plugin calls them:
    `count` jobs of `gpus`, `mem_mb` and at most `cpus` each.

    A group's name is followed by its rule's.
    `abreast` of its steps run at a time, which together need what that many need.
    """
    profile, rules = yaml.safe_load((PROFILE / "config.yaml").read_text()), declared()
    kinds = {}
    for rule, count in plan.items():
        group = profile["groups"].get(rule)
        size = profile["group-components"][group] if group else 1
        abreast = min(profile["resources"]["abreast"], count) if group else 1
        kinds[f"{group}_{rule}" if group else rule] = {
            "count": math.ceil(count / size),
            "gpus": rules[rule].get("gpu", 0),
            "mem_mb": abreast * rules[rule]["mem_mb"],
            "cpus": abreast,
        }
    return kinds


def jobs(environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """What Slurm ran: by job its id, kind (the rule, or group and rule), state, and the GPUs,
    MiB and cores that it asked for."""
    fields = ("JobID", "Comment", "State", "tres-per-job", "MinMemory", "NumCPUs")
    listed = subprocess.run(
        ["squeue", "--states=all", "--noheader", "--Format=" + ",".join(f"{field}:|" for field in fields)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [job(*(field.strip() for field in line.split("|")[: len(fields)])) for line in listed.splitlines()]


def job(number: str, comment: str, state: str, tres: str, memory: str, cpus: str) -> dict[str, Any]:
    """From squeue's words, such as rule_train_wildcards_target_0, gres:gpu:1 and 3000M."""
    gpus = re.fullmatch(r"gres[:/]gpu(?::(\d+))?", tres)
    amount = re.fullmatch(r"(\d+)([MGT])", memory)
    return {
        "id": number,
        "kind": comment.removeprefix("rule_").partition("_wildcards_")[0],
        "state": state,
        "gpus": int(gpus[1] or 1) if gpus else 0,
        "mem_mb": int(amount[1]) * 1024 ** "MGT".index(amount[2]) if amount else memory,
        "cpus": int(cpus),
    }


def differences(ran: Sequence[Mapping[str, Any]], wanted: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What of the jobs is not as the study's plan, the rules and the profile have it."""
    found = [f"job {each['id']} ({each['kind']}) is {each['state']}" for each in ran if each["state"] != "COMPLETED"]
    counts = Counter(each["kind"] for each in ran)
    for kind in sorted({*counts, *wanted}):
        planned_count = wanted[kind]["count"] if kind in wanted else 0
        if counts[kind] != planned_count:
            found.append(f"{counts[kind]} jobs are {kind}, planned were {planned_count}")
    for each in ran:
        settings = wanted.get(each["kind"], {})
        asked = [
            f"{key} {each[key]} instead of {settings[key]}"
            for key in ("gpus", "mem_mb")
            if settings and each[key] != settings[key]
        ]
        if settings and each["cpus"] > settings["cpus"]:
            asked.append(f"cpus {each['cpus']} instead of at most {settings['cpus']}")
        found += [f"job {each['id']} ({each['kind']}) asked for {what}" for what in asked]
    return found


def check(folder: Path, ran: Sequence[Mapping[str, Any]], wanted: Mapping[str, Mapping[str, int]]) -> None:
    """Raise SystemExit unless the study is whole and went through Slurm as the profile says; print what was found."""
    rows = json.loads((folder / "results/audit.json").read_text())["rows"]
    problems = differences(ran, wanted)
    if len(rows) != 15 or not (folder / "results/report.html").exists():
        problems.append(f"the study is not whole: {len(rows)} rows")
    gpus = sum(each["gpus"] > 0 for each in ran)
    planned_gpus = sum(settings["count"] for settings in wanted.values() if settings["gpus"])
    print(f"{len(ran)} jobs of Slurm, planned {sum(settings['count'] for settings in wanted.values())}")
    print(f"{gpus} of them with a GPU, planned {planned_gpus}")
    for kind, settings in wanted.items():
        mine = [each for each in ran if each["kind"] == kind]
        memory = sorted({str(each["mem_mb"]) for each in mine})
        print(
            f"  {kind}: {len(mine)} of {settings['count']} jobs, --mem {', '.join(memory)} of {settings['mem_mb']} MiB"
        )
    if problems:
        raise SystemExit("Error: " + "; ".join(problems))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the folder with Slurm's and the study's files")
    keep = parser.parse_args().keep
    install()
    home = Path(tempfile.mkdtemp(prefix="palimpsest-slurm-"))
    try:
        with slurm(home) as environment:
            (home / "study").mkdir()
            shutil.copy2(ROOT / "tests/tiny/params.yaml", home / "study/params.yaml")
            wanted = expected(planned(home / "study"))
            seconds = run_study(home / "study", environment)
            ran = jobs(environment)
        check(home / "study", ran, wanted)
        print(f"The tiny study ran through Slurm in {seconds:.0f} s.")
    finally:
        if not keep:
            shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
