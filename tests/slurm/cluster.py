"""A real SLURM on this machine: the controller, several nodes, fake GPUs and, where asked for, the accounting database.

Everything lies in one folder and belongs to the user who starts it: configuration, keys, state and logs. All daemons listen on
loopback. Nodes have the hardware that they are told to have; GPUs are links to /dev/null, which SLURM lends and counts as it does
real ones. `start` is idempotent: it starts what is dead, and brings back nodes that an earlier fault took out of service.

Needs Debian's packages slurm-wlm and munge, with accounting also slurmdbd and mariadb-server.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("slurm.conf.in")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "sinfo", "scancel")
ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacct", "sacctmgr")
SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")
# Offsets in the block of ports: the controller, then one a node.
DATABASE_DAEMON, DATABASE, PORTS = 100, 101, 102


@dataclass(frozen=True)
class Hardware:
    """What every node says it has.

    Args:
        nodes: how many nodes.
        cpus: CPUs of a node.
        memory: MiB of a node.
        gpus: GPUs of a node.
        gpu_type: what SLURM calls them.
    """

    nodes: int = 2
    cpus: int = 4
    memory: int = 8192
    gpus: int = 2
    gpu_type: str = "fake"


def missing_programs(*, accounting: bool = False) -> list[str]:
    """The programs of SLURM that this machine lacks."""
    wanted = PROGRAMS + (ACCOUNTING_PROGRAMS if accounting else ())
    return [name for name in wanted if shutil.which(name, path=_search_path()) is None]


class Cluster:
    """A SLURM cluster in `folder`.

    Args:
        folder: a path of at most 80 bytes: those of sockets may have 107.
        hardware: of the nodes.
        accounting: with the database that `sacct` asks.
        node_timeout: seconds after which a silent node counts as lost.
    """

    def __init__(self, folder: Path, hardware: Hardware | None = None, *, accounting: bool = False, node_timeout: int = 30):
        if len(os.fsencode(folder)) > 80:
            raise ValueError(f"{folder} is too long for the path of a socket in it.")
        self.folder = folder
        self.hardware = hardware or Hardware()
        self.accounting = accounting
        self.node_timeout = node_timeout
        self._port = _free_ports(PORTS)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to talk to this cluster, and to no other."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        return inherited | {"SLURM_CONF": str(self._configuration), "PATH": f"{self.folder / 'bin'}{os.pathsep}{_search_path()}"}

    @property
    def _configuration(self) -> Path:
        return self.folder / "etc" / "slurm.conf"

    def start(self) -> "Cluster":
        """Starts what does not run; returns when all nodes are in service."""
        self._lay_out()
        self._start_munge()
        if self.accounting:
            self._start_database()
        self._configure()
        if self.accounting:
            self._start_accounting()
        self._spawn("slurmctld", "slurmctld", "-D", "-i")
        _wait_for("the controller", 30, lambda: self.run("scontrol", "ping", check=False).returncode == 0)
        for node in self.nodes:
            self.start_node(node)
        _wait_for("the nodes", 60, self._heal)
        return self

    def start_node(self, node: str) -> None:
        """Starts the daemon of a node."""
        self._spawn(f"slurmd.{node}", "slurmd", "-D", "-N", node)

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes."""
        return [f"node{number}" for number in range(1, self.hardware.nodes + 1)]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a program of SLURM."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=check, timeout=120)

    def jobs(self, *, state: str = "all") -> list[dict[str, str]]:
        """Jobs that the controller remembers: id, state, node, name and comment of each."""
        fields = {"id": "%A", "state": "%T", "node": "%N", "name": "%j", "comment": "%k", "partition": "%P"}
        done = self.run("squeue", "--noheader", f"--states={state}", "--format", "\x1f".join(fields.values()))
        return [dict(zip(fields, line.split("\x1f"), strict=True)) for line in done.stdout.splitlines()]

    def daemon(self, name: str) -> int | None:
        """The process of a daemon (`slurmctld`, `slurmd.node1`), or None where it does not run."""
        file = self.folder / "run" / f"{name}.pid"
        pid = int(file.read_text()) if file.exists() else None
        return pid if pid is not None and _alive(pid) else None

    def kill(self, name: str, number: int = signal.SIGTERM) -> None:
        """Sends a signal to a daemon and waits for its end."""
        pid = self.daemon(name)
        if pid is None:
            raise ValueError(f"{name} does not run.")
        os.kill(pid, number)
        _wait_for(f"the end of {name}", 20, lambda: not _alive(pid))

    def lose_node(self, node: str) -> None:
        """Kills the daemon of a node and everything that runs on it, as a power failure would."""
        jobs = {pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._runs_on(pid, node)}
        victims = jobs | {above for pid in jobs if _command(above := _parent(pid)).startswith(b"slurmstepd")}
        self.kill(f"slurmd.{node}", signal.SIGKILL)
        # All are halted before the first one ends: what outlived another could tell the controller of its end.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in victims:
                if _alive(pid):
                    os.kill(pid, number)

    def stop(self, *, purge: bool = False) -> None:
        """Ends all jobs and daemons; with `purge` also removes the folder."""
        if self.daemon("slurmctld"):
            self.run("scancel", "--user", getpass.getuser(), check=False)
            _wait_for("the jobs' end", 20, lambda: not self.jobs(state="RUNNING,COMPLETING"), needed=False)
        daemons = [f"slurmd.{node}" for node in self.nodes] + ["slurmctld", "slurmdbd", "mariadbd", "munged"]
        for name in daemons:
            if pid := self.daemon(name):
                os.kill(pid, signal.SIGTERM)
        for name in daemons:
            pid = self.daemon(name)
            if pid and not _wait_for(name, 10, lambda pid=pid: not _alive(pid), needed=False):
                os.kill(pid, signal.SIGKILL)
        if purge:
            shutil.rmtree(self.folder, ignore_errors=True)

    def log(self, name: str) -> str:
        """What a daemon wrote."""
        return (self.folder / "log" / f"{name}.log").read_text(errors="replace")

    def _lay_out(self) -> None:
        for name in ("etc", "munge", "state", "spool", "run", "log", "dev", "bin", *(f"spool/{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.folder / "munge"):
            folder.chmod(0o755)
        # The plug-in removes SLURM's variables from a job's environment before it calls srun, which would then find no cluster.
        srun = shutil.which("srun", path=_search_path())
        shim = self.folder / "bin" / "srun"
        shim.write_text(f'#!/bin/sh\nSLURM_CONF="{self._configuration}" exec {srun} "$@"\n')
        shim.chmod(0o755)

    def _start_munge(self) -> None:
        folder, key, log = self.folder / "munge", self.folder / "munge" / "key", self.folder / "log" / "munged.log"
        if not key.exists():
            _write_secret(key, secrets.token_bytes(1024))
        if not self.daemon("munged"):
            (folder / "socket").unlink(missing_ok=True)
        self._spawn(
            "munged", "munged", "--foreground", "--force", f"--socket={folder / 'socket'}", f"--key-file={key}",
            f"--log-file={log}", f"--pid-file={self.folder / 'run' / 'munged.munge.pid'}", f"--seed-file={folder / 'seed'}",
        )  # fmt: skip
        _wait_for("munge", 20, (folder / "socket").is_socket)

    def _configure(self) -> None:
        host, nodes, devices = socket.gethostname().split(".")[0], [], []
        for number, node in enumerate(self.nodes, start=1):
            gpus = f" Gres=gpu:{self.hardware.gpu_type}:{self.hardware.gpus}" if self.hardware.gpus else ""
            nodes.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={self._port + number} CPUs={self.hardware.cpus} "
                f"RealMemory={self.hardware.memory}{gpus} State=UNKNOWN"
            )
            for index in range(self.hardware.gpus):
                device = self.folder / "dev" / f"{node}-gpu{index}"
                if not device.is_symlink():
                    device.symlink_to(os.devnull)
            if self.hardware.gpus:
                files = f"{self.folder}/dev/{node}-gpu[0-{self.hardware.gpus - 1}]"
                devices.append(f"NodeName={node} Name=gpu Type={self.hardware.gpu_type} File={files}")
        accounting = "AccountingStorageType=accounting_storage/none"
        if self.accounting:
            accounting = "\n".join(
                (
                    "AccountingStorageType=accounting_storage/slurmdbd",
                    "AccountingStorageHost=127.0.0.1",
                    f"AccountingStoragePort={self._port + DATABASE_DAEMON}",
                    f"AccountingStoragePass={self.folder}/munge/socket",
                    f"AccountingStorageTRES=gres/gpu,gres/gpu:{self.hardware.gpu_type}",
                    "AccountingStoreFlags=job_comment",
                )
            )
        text = TEMPLATE.read_text().format(
            host=host, port=self._port, user=getpass.getuser(), folder=self.folder, node_timeout=self.node_timeout,
            accounting=accounting, nodes="\n".join(nodes),
        )  # fmt: skip
        self._configuration.write_text(text)
        (self.folder / "etc" / "gres.conf").write_text("\n".join(devices) + "\n")

    def _start_database(self) -> None:
        data, sock, user = self.folder / "mysql", self.folder / "run" / "sql", getpass.getuser()
        if not (data / "mysql").is_dir():
            install = ("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
                       "--skip-test-db", f"--user={user}")  # fmt: skip
            self.run(*install)
        self._spawn(
            "mariadbd", "mariadbd", "--no-defaults", f"--user={user}", f"--datadir={data}", f"--socket={sock}",
            f"--pid-file={self.folder / 'run' / 'mariadbd.sql.pid'}", "--bind-address=127.0.0.1", f"--port={self._port + DATABASE}",
            "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=2",
        )  # fmt: skip
        client = ("mariadb", "--no-defaults", "-uroot", f"--socket={sock}")
        _wait_for("the database", 60, lambda: self.run(*client, "-e", "select 1", check=False).returncode == 0)
        password = self.folder / "etc" / "password"
        if not password.exists():
            _write_secret(password, secrets.token_hex(16).encode())
        for host in ("127.0.0.1", "localhost"):
            statement = (f"CREATE DATABASE IF NOT EXISTS slurm_acct_db; CREATE USER IF NOT EXISTS 'slurm'@'{host}' "
                         f"IDENTIFIED BY '{password.read_text()}'; GRANT ALL ON slurm_acct_db.* TO 'slurm'@'{host}';")  # fmt: skip
            self.run(*client, "-e", statement)

    def _start_accounting(self) -> None:
        settings = {
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self.folder}/munge/socket",
            "DbdHost": socket.gethostname().split(".")[0],
            "DbdAddr": "127.0.0.1",
            "DbdPort": self._port + DATABASE_DAEMON,
            "SlurmUser": getpass.getuser(),
            "LogFile": self.folder / "log" / "slurmdbd.log",
            "PidFile": self.folder / "run" / "slurmdbd.slurm.pid",
            "StorageType": "accounting_storage/mysql",
            "StorageHost": "127.0.0.1",
            "StoragePort": self._port + DATABASE,
            "StorageUser": "slurm",
            "StoragePass": (self.folder / "etc" / "password").read_text(),
            "StorageLoc": "slurm_acct_db",
        }
        text = "\n".join(f"{key}={value}" for key, value in settings.items()) + "\n"
        _write_secret(self.folder / "etc" / "slurmdbd.conf", text.encode())
        self._spawn("slurmdbd", "slurmdbd", "-D")
        _wait_for("slurmdbd", 60, lambda: self.run("sacctmgr", "-n", "list", "cluster", check=False).returncode == 0)
        # Each fails where it exists already.
        self.run("sacctmgr", "-i", "add", "cluster", "anchored", check=False)
        self.run("sacctmgr", "-i", "add", "account", "lab", "Cluster=anchored", "Description=lab", "Organization=lab", check=False)
        self.run("sacctmgr", "-i", "add", "user", getpass.getuser(), "Account=lab", "DefaultAccount=lab", check=False)

    def _spawn(self, name: str, *command: str) -> None:
        if self.daemon(name):
            return
        with open(self.folder / "log" / f"{name}.out", "ab") as out:
            daemon: subprocess.Popen[Any] = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        (self.folder / "run" / f"{name}.pid").write_text(str(daemon.pid))

    def _heal(self) -> bool:
        states = dict(line.split() for line in self.run("sinfo", "-h", "-N", "-p", "cpu", "-o", "%N %t").stdout.splitlines())
        lost = [node for node, state in states.items() if state.startswith(("down", "drain", "drng", "fail"))]
        for node in lost:
            self.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
        return not lost and all(state.rstrip("*") in ("idle", "mix", "alloc", "comp") for state in states.values())

    def _runs_on(self, pid: int, node: str) -> bool:
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False
        return {f"SLURM_CONF={self._configuration}".encode(), f"SLURMD_NODENAME={node}".encode()} <= set(variables)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def _search_path() -> str:
    return os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS))


def _write_secret(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _wait_for(what: str, seconds: float, reached: Callable[[], bool], *, needed: bool = True) -> bool:
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            if needed:
                raise TimeoutError(f"{what} did not come within {seconds} s; see the cluster's logs.")
            return False
        time.sleep(0.1)
    return True


def _free_ports(count: int) -> int:
    """The first of `count` ports that nobody listens on."""
    for first in range(20000 + os.getpid() % 100 * 110, 60000, count):
        sockets = []
        try:
            for port in range(first, first + count):
                sockets.append(socket.socket())
                sockets[-1].bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
        return first
    raise OSError(f"no {count} free ports in a row.")
