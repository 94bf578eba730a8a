"""The tiny study through a real Slurm, which this script installs (Debian), starts on this one machine, and stops: `make test-slurm`.

Everything Slurm writes is in a temporary folder; the machine's own Slurm, if it has one, is left alone. The node has two GPUs that are
plain files, so that the rules' GPUs are asked for and granted; the steps then find no NVIDIA GPU and compute on the CPU.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun")
GROUPS, ABREAST = ("survival", "scores"), 2
"""Groups of the profile, and how many of their steps may run at a time."""
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
    folder.mkdir()
    shutil.copy2(ROOT / "tests/tiny/params.yaml", folder / "params.yaml")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--workflow-profile", str(ROOT / "workflow/profiles/slurm")]
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


def jobs(environment: dict[str, str]) -> list[dict[str, str]]:
    """What Slurm ran: by job its comment (rule or group), state and GPUs."""
    listed = subprocess.run(
        ["squeue", "--states=all", "--noheader", "--Format=JobID:|,Comment:|,State:|,tres-per-job:|,NumCPUs:|"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = ("id", "what", "state", "gpus", "cpus")
    return [dict(zip(names, line.split("|"), strict=False)) for line in listed.splitlines()]


def check(folder: Path, ran: list[dict[str, str]]) -> None:
    """Raise SystemExit unless the study is whole and went through Slurm as the profile says."""
    rows = json.loads((folder / "results/audit.json").read_text())["rows"]
    kinds = Counter(each["what"].partition("_wildcards_")[0] for each in ran)
    problems = [f"job {each['id']} ({each['what']}) is {each['state']}" for each in ran if each["state"] != "COMPLETED"]
    if len(rows) != 15 or not (folder / "results/report.html").exists():
        problems.append(f"the study is not whole: {len(rows)} rows")
    print("jobs of Slurm by what they did:", dict(kinds))
    for each in ran:
        if each["what"].startswith(GROUPS) and int(each["cpus"]) > ABREAST:
            problems.append(f"the group {each['what']} asked for {each['cpus']} cores instead of {ABREAST}")
    gpus = [each for each in ran if each["gpus"].startswith("gres:gpu")]
    print(f"{len(ran)} jobs of Slurm, {len(gpus)} of them with a GPU")
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
            seconds = run_study(home / "study", environment)
            ran = jobs(environment)
        check(home / "study", ran)
        print(f"The tiny study ran through Slurm in {seconds:.0f} s.")
    finally:
        if not keep:
            shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
