"""When silence means that Snakemake hangs.

Its SLURM plugin asks for the state of all its jobs in one query. Where all attempts at it fail (the controller was away), it
forgets the jobs, asks about nothing from then on, and Snakemake waits for ever for jobs that nobody watches. Seen from outside:
Snakemake's log does not grow, it has no child process, and the queue, which answers, holds none of its jobs. All of that also
happens for a while in a healthy run, since the plugin asks at intervals of up to three minutes; hence a time.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sight:
    """What was seen at one moment.

    Args:
        log_size: bytes of Snakemake's log.
        children: processes that Snakemake started and that live.
        queued: jobs of this run in the queue, or None where the controller did not answer.
    """

    log_size: int
    children: int
    queued: int | None


class Watchdog:
    """Says that a run hangs once it was silent, idle and without jobs at every look during `patience` seconds."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: float | None = None
        self._log_size = -1

    def hangs(self, clock: float, sight: Sight) -> bool:
        """Takes in what was seen at the time `clock`, in seconds."""
        grown = sight.log_size != self._log_size
        self._log_size = sight.log_size
        # No answer is not an empty queue.
        if grown or sight.children or sight.queued is None or sight.queued:
            self._since = None
            return False
        if self._since is None:
            self._since = clock
        return clock - self._since >= self._patience
