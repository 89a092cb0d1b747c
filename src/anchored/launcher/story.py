"""What Snakemake's log says of a run: which steps failed for good, and why.

A step that failed and was repeated with success is no failure. Why it failed stands in the step's own log, where it could write
one; of a job that was killed, SLURM knows more.
"""

import re
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

_RUN_ID = re.compile(r"^SLURM run ID: (\S+)")
_FINISHED = re.compile(r"^Finished jobid: (\d+) ")
_ERROR = re.compile(r"^Error in rule (\S+):$")
_FIELD = re.compile(r"^ {4}(\w+): (.*)$")
_PRINTED = re.compile(r"^Logfile .+:$")
_STATE = re.compile(r"SLURM status is: '(\w+)'")
_SENTENCE = re.compile(r"^anchored\.\S+\.\w+: (.+)$")

# Lines of a log that the identity of its run stands in.
_HEAD = 100

_STATES = {
    "TIMEOUT": ("it ran into its time limit", "raise `runtime` in the profile; it continues where it was"),
    "OUT_OF_MEMORY": ("it needed more memory than it had asked for", "raise `mem_mb` in the profile"),
    "NODE_FAIL": ("its node was lost", ""),
    "PREEMPTED": ("another job took its place", ""),
    "CANCELLED": ("somebody cancelled it", ""),
}


@dataclass
class Failure:
    """A step that failed: its rule, its log, what was said about it and what helps."""

    rule: str
    log: str = ""
    why: str = ""
    advice: str = ""


@dataclass
class Story:
    """What a log said so far; `read` takes in what was added.

    Args:
        folder: where Snakemake runs; logs are named relative to it.
    """

    folder: Path
    run: str | None = None
    finished: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)
    _known: frozenset[Path] = frozenset()
    _log: Path | None = None
    _read: int = 0
    _block: dict[str, str] | None = None
    _fence: str | None = None
    _inside: bool = False

    def __post_init__(self) -> None:
        self._known = frozenset(_logs(self.folder))

    @property
    def log(self) -> Path | None:
        """Snakemake's log of this run: the first that was not there when the story began."""
        if self._log is None:
            self._log = min((path for path in _logs(self.folder) if path not in self._known), default=None)
        return self._log

    @property
    def size(self) -> int:
        """Bytes of the log."""
        return self.log.stat().st_size if self.log else 0

    def read(self) -> None:
        """Takes in the lines that were added."""
        if self.log is None:
            return
        with self.log.open("rb") as stream:
            stream.seek(self._read)
            added = stream.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            self._take(line)

    def _take(self, line: str) -> None:
        if self._fence is not None:
            # The log of a failed step, printed between two lines: a Snakemake inside of the job tells its own story there.
            self._fence = self._fence or line
            if line == self._fence and self._inside:
                self._fence = None
            self._inside = self._fence is not None
            return
        if self._block is not None:
            if found := _FIELD.match(line):
                self._block[found[1]] = found[2]
            if line.startswith("    "):
                return
            self._failed(self._block)
            self._block = None
        if found := _ERROR.match(line):
            self._block = {"rule": found[1]}
        elif _PRINTED.match(line):
            self._fence, self._inside = "", False
        elif found := _FINISHED.match(line):
            self.finished += 1
            self.failures.pop(found[1], None)
        elif found := _RUN_ID.match(line):
            self.run = found[1]

    def _failed(self, block: dict[str, str]) -> None:
        said = block.get("message", "")
        logs = [word.rstrip(",") for word in block.get("log", "").split() if word.rstrip(",").endswith(".log")]
        state = found[1] if (found := _STATE.search(said)) else ""
        if any(_over_memory(self.folder / log) for log in logs):
            state = "OUT_OF_MEMORY"
        why, advice = _STATES.get(state, ("", ""))
        # What SLURM did to a job is the reason; of a job that ended by itself the step knows it.
        sentences = [sentence for log in logs if (sentence := _sentence(self.folder / log))]
        why = why or (sentences or [said.split("For further error")[0].strip()])[0]
        written = [log for log in logs if _text(self.folder / log)]
        self.failures[block.get("jobid", "")] = Failure(block["rule"], (written or logs or [""])[0], why, advice)


def runs_of(folder: Path) -> set[str]:
    """SLURM runs of any Snakemake in `folder`, from its logs."""
    found = set()
    for path in _logs(folder):
        with path.open(errors="replace") as stream:
            found |= {match[1] for line in islice(stream, _HEAD) if (match := _RUN_ID.match(line))}
    return found


def _logs(folder: Path) -> list[Path]:
    return sorted((folder / ".snakemake" / "log").glob("*.snakemake.log"))


def _over_memory(log: Path) -> bool:
    """Whether SLURM killed for memory: where it does so by itself, without cgroups, the job's state is only "FAILED"."""
    return bool(re.search(r"[Ee]xceeded (?:job )?memory limit", _text(log)))


def _sentence(log: Path) -> str:
    """The sentence for the user in a step's log: the last error that it raised."""
    found = [match[1] for line in _text(log).splitlines() if (match := _SENTENCE.match(line))]
    return found[-1] if found else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace") if path.suffix == ".log" else ""
    except OSError:
        return ""
