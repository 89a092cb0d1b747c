"""What runs on the nodes, seen from outside: the environment of every step, once a second."""

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self


class Observer:
    """Looks at the processes of steps while it is open.

    Attributes:
        moments: at each look, the visible GPUs of each running step: (node, devices) by its SLURM job.
    """

    def __init__(self, configuration: str):
        self._configuration = f"SLURM_CONF={configuration}".encode()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_often)
        self.moments: list[dict[str, tuple[str, str]]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _look_often(self) -> None:
        while not self._over.wait(1):
            self.moments.append(dict(filter(None, map(self._step, filter(str.isdigit, os.listdir("/proc"))))))

    def _step(self, pid: str) -> tuple[str, tuple[str, str]] | None:
        try:
            command = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
            if len(command) < 3 or not command[1].endswith(b"/anchored"):
                return None
            variables = Path("/proc", pid, "environ").read_bytes().split(b"\0")
        except OSError:
            return None
        if self._configuration not in variables:
            return None
        values = dict(item.decode(errors="replace").split("=", 1) for item in variables if b"=" in item)
        return values["SLURM_JOB_ID"], (values["SLURMD_NODENAME"], values.get("CUDA_VISIBLE_DEVICES", ""))
