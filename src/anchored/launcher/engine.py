"""Snakemake as a child process: started, watched, told to stop, and seen to its end."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from anchored.launcher import queue
from anchored.launcher.story import Story
from anchored.launcher.watchdog import Sight, Watchdog
from anchored.processes import children

_LOOK_EVERY = 5.0
# What Snakemake gets to end by itself; its plugin may sleep for three minutes before it notices.
_TIME_TO_END = 20.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Ending:
    """How it ended.

    Args:
        code: Snakemake's exit code, negative where a signal ended it.
        hung: it had lost its jobs, and was ended for that.
        interrupted: somebody asked for the end.
    """

    code: int
    hung: bool = False
    interrupted: bool = False


class Engine:
    """One run of Snakemake.

    Args:
        folder: where it runs.
        story: reads its log.
        patience: seconds of silence without jobs in the queue that count as hanging.
        say: tells the user something.
    """

    def __init__(self, folder: Path, story: Story, patience: float, say: Callable[[str], None]) -> None:
        self._folder, self._story, self._patience, self._say = folder, story, patience, say
        self._process: subprocess.Popen[bytes] | None = None
        self._interrupts: list[int] = []

    def run(self, command: Sequence[str], on_start: Callable[[int], None]) -> Ending:
        """Starts Snakemake, tells `on_start` its process, and returns when it ended, by itself or because it hung."""
        watchdog = Watchdog(self._patience)
        with self._forwarding():
            # A session of its own: Ctrl-C reaches it through `_forward` only, in jobs of a cluster and on one machine alike.
            self._process = subprocess.Popen(command, cwd=self._folder, stdin=subprocess.DEVNULL, start_new_session=True)
            on_start(self._process.pid)
            while True:
                with suppress(subprocess.TimeoutExpired):
                    code = self._process.wait(min(_LOOK_EVERY, self._patience / 5))
                    self._story.read()
                    return Ending(code, interrupted=bool(self._interrupts))
                self._story.read()
                # Without SLURM nobody can lose a job.
                if self._story.run and watchdog.hangs(time.monotonic(), self._sight(self._process.pid)):
                    return Ending(self._end(self._process), hung=True, interrupted=bool(self._interrupts))

    def _sight(self, process: int) -> Sight:
        jobs = queue.jobs_of([self._story.run or ""])
        return Sight(self._story.size, children(process), None if jobs is None else len(jobs))

    def _end(self, process: "subprocess.Popen[bytes]") -> int:
        for number in (signal.SIGINT, signal.SIGKILL):
            self._signal_all(number)
            with suppress(subprocess.TimeoutExpired):
                return process.wait(_TIME_TO_END)
        return process.wait()

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._interrupts.append(number)
        if number != signal.SIGINT:
            self._say("asked to end: nothing more is submitted, running jobs are waited for. Ctrl-C cancels them.")
            self._signal(signal.SIGTERM)
        elif self._interrupts.count(signal.SIGINT) > 1:
            self._say("ending Snakemake at once.")
            self._signal_all(signal.SIGKILL)
        elif self._story.run:
            self._say("interrupted: the jobs are cancelled, which may take some minutes. Ctrl-C again ends Snakemake at once.")
            # Only itself: an sbatch that dies half-way leaves a job that nobody knows.
            self._signal(signal.SIGINT)
        else:
            self._say("interrupted.")
            self._signal_all(signal.SIGINT)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            if self._process and self._process.poll() is None:
                os.kill(self._process.pid, number)

    def _signal_all(self, number: int) -> None:
        with suppress(ProcessLookupError):
            if self._process:
                os.killpg(self._process.pid, number)

    @contextmanager
    def _forwarding(self) -> Iterator[None]:
        # What is ignored (as under nohup) stays ignored. The child starts with the default of what has a handler here.
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._forward)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
