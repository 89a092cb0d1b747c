"""How long a plan takes on N devices: every job as soon as what it needs is there and a device is free."""

import heapq
from collections.abc import Mapping, Set
from graphlib import TopologicalSorter

from anchored.cost.work import Job


def makespan(seconds: Mapping[Job, float], needs: Mapping[Job, Set[Job]], held: Set[Job], slots: int) -> float:
    """Seconds from the first start to the last end.

    Of the jobs that may start, the one goes first for which the longest chain of jobs waits: a FIM before any job that needs none.

    Args:
        seconds: of each job.
        needs: the jobs that each waits for.
        held: jobs that occupy a device; the others run beside them.
        slots: number of devices.
    """
    followers: dict[Job, list[Job]] = {job: [] for job in seconds}
    for job in seconds:
        for before in needs[job]:
            followers[before].append(job)
    chain: dict[Job, float] = {}
    for job in reversed(list(TopologicalSorter(needs).static_order())):
        chain[job] = seconds[job] + max((chain[after] for after in followers[job]), default=0.0)
    waiting = {job: len(needs[job]) for job in seconds}
    startable = [job for job in seconds if not waiting[job]]
    queue: list[tuple[float, Job]] = []
    running: list[tuple[float, Job]] = []
    now, free = 0.0, slots
    while startable or queue or running:
        for job in startable:
            if job in held:
                heapq.heappush(queue, (-chain[job], job))
            else:
                heapq.heappush(running, (now + seconds[job], job))
        while queue and free:
            job = heapq.heappop(queue)[1]
            heapq.heappush(running, (now + seconds[job], job))
            free -= 1
        now, ended = heapq.heappop(running)
        free += ended in held
        for after in followers[ended]:
            waiting[after] -= 1
        startable = [after for after in followers[ended] if not waiting[after]]
    return now
