"""A Slurm cluster of one node with two stand-in GPUs, on loopback, for as long as a test needs it.

Everything lies in one folder and listens on 127.0.0.1 at free ports. The daemons are children
of this process and end with it. The node claims more cores and memory than the machine has, so
that jobs which a real cluster would run side by side do so here; nothing is computed with the
stand-in GPUs, which are null devices: Slurm gives them away, and TensorFlow, finding no driver,
uses the CPU.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "squeue", "scancel")
NODE_CPUS, NODE_MB = 12, 96_000
NULL_DEVICE = os.makedev(1, 3)

SLURM_CONF = """\
ClusterName=unveil
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SrunPortRange=60001-63000
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny,NoAddrCache
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=30
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
MinJobAge=7200
SchedulerParameters=sched_min_interval=200000,batch_sched_delay=0
EnforcePartLimits=ALL
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=lab Nodes={host} AllowAccounts=lab State=UP
"""


@dataclass(frozen=True)
class Job:
    """A job as ``squeue`` tells it.

    Attributes:
        number: Slurm's id.
        state: such as RUNNING.
        begin: when it started, ISO 8601 without a zone, or N/A.
        end: when it ended or must end.
        comment: rule and wildcards, or group and rules.
    """

    number: str
    state: str
    begin: str
    end: str
    comment: str

    def is_of(self, rule: str) -> bool:
        """Tell whether it is a job of a rule."""
        return self.comment.startswith(f"rule_{rule}_wildcards_")


@dataclass
class Cluster:
    """A running cluster.

    Attributes:
        folder: configuration, state and logs of the daemons.
        node: its only node.
        environment: what a client needs to find it.
    """

    folder: Path
    node: str
    environment: dict[str, str]
    daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    def start(self, name: str, *words: str) -> None:
        """Start a daemon in the foreground, its output in a file."""
        with open(self.folder / f"{name}.out", "a") as log:
            self.daemons[name] = subprocess.Popen(
                words, stdout=log, stderr=subprocess.STDOUT, env=self.environment
            )

    def stop(self, name: str) -> None:
        """End a daemon that this object started."""
        process = self.daemons.pop(name)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def start_controller(self) -> None:
        """Start slurmctld, and wait until it answers."""
        self.start("slurmctld", "slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        wait_until(lambda: self.ask("scontrol", "ping").returncode == 0, "slurmctld to answer")

    def ask(self, *words: str) -> subprocess.CompletedProcess:
        """Run one of Slurm's own commands."""
        return subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=60
        )

    def jobs(self, folder: Path) -> list[Job]:
        """Return the jobs of a working directory that the controller knows, past ones too."""
        form = "%i|%T|%S|%e|%Z|%k"
        lines = self.ask("squeue", "--states=all", "--noheader", f"--format={form}").stdout
        rows = [line.split("|", 5) for line in lines.splitlines()]
        return [Job(*row[:4], row[5]) for row in rows if row[4] == str(folder)]

    def node_state(self) -> str:
        """Return the state of the node, such as IDLE or DOWN."""
        return self.ask("sinfo", "--noheader", "--format=%T").stdout.strip().upper()

    def pids(self, job: str) -> list[int]:
        """Return the processes of a running job."""
        lines = self.ask("scontrol", "listpids", job).stdout.splitlines()[1:]
        return [int(line.split()[0]) for line in lines if line.split()[0].isdigit()]

    def empty(self) -> None:
        """Cancel all jobs and wait until they are gone."""
        self.ask("scancel", "--user=root")
        gone = ("squeue", "--noheader", "--states=PENDING,RUNNING,COMPLETING")
        wait_until(lambda: not self.ask(*gone).stdout.strip(), "the queue to be empty")


def wait_until(condition: Callable[[], object], what: str, *, seconds: float = 60) -> None:
    """Poll a condition.

    Raises:
        TimeoutError: if it does not come true in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)


def why_not() -> str | None:
    """Return why no cluster can be started on this machine, or None."""
    if os.geteuid() != 0:
        return "Slurm's daemons and stand-in GPUs need root"
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        return f"no {', '.join(missing)}; install the packages slurm-wlm, slurm-client and munge"
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.mknod(Path(folder) / "nvidia0", stat.S_IFCHR | 0o666, NULL_DEVICE)
            os.open(Path(folder) / "nvidia0", os.O_RDONLY)
        except OSError as error:
            return f"no device files can be made here ({error})"
    return None


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a cluster and stop it; the folder's name is short, as sockets want it."""
    folder = Path(tempfile.mkdtemp(prefix="unveil-slurm-"))
    running = Cluster(folder, socket.gethostname().split(".")[0], _configure(folder))
    try:
        _start_munge(running)
        running.start_controller()
        running.start(
            "slurmd", "slurmd", "-D", "-f", str(folder / "slurm.conf"), "-N", running.node
        )
        wait_until(lambda: running.node_state() == "IDLE", "the node to be idle")
        yield running
        running.empty()
    finally:
        for name in list(running.daemons)[::-1]:
            running.stop(name)
        _end_jobs(folder)
        shutil.rmtree(folder)


def _end_jobs(folder: Path) -> None:
    """End what jobs of the cluster left: a frozen process outlives its cancelled job."""
    mark = f"SLURM_CONF={folder}/".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(process.name) != os.getpid() and mark in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def _configure(folder: Path) -> dict[str, str]:
    for name in ("state", "spool", "dev", "bin"):
        (folder / name).mkdir()
    for number in range(2):
        os.mknod(folder / "dev" / f"nvidia{number}", stat.S_IFCHR | 0o666, NULL_DEVICE)
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/dev/nvidia[0-1]\n")
    (folder / "slurm.conf").write_text(
        SLURM_CONF.format(
            folder=folder,
            host=socket.gethostname().split(".")[0],
            ports=_free_ports(2),
            cpus=NODE_CPUS,
            memory=NODE_MB,
        )
    )
    # Jobs drop SLURM_CONF before their own srun: a real cluster has it in /etc/slurm.
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    return {
        **os.environ,
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
    }


def _start_munge(running: Cluster) -> None:
    key = running.folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(1024))
    names = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid"}
    names |= {"log-file": "munge.log", "seed-file": "munge.seed"}
    options = [f"--{option}={running.folder / name}" for option, name in names.items()]
    running.start("munged", "munged", "--foreground", "--force", *options)
    wait_until(lambda: (running.folder / "munge.socket").exists(), "munge's socket")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def send(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to those of the processes that still live."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
