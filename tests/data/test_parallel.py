"""Threads change neither results nor their order, hold a bounded number of them, and lose no error."""

import os
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anchored.data.parallel import in_order
from anchored.processes import cpus


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 0.002), max_size=30), st.integers(1, 5))
def test_results_come_in_order(delays, workers):
    """Whoever is fastest: a store whose rows change places still has the right shape and the right labels."""

    def slow(number):
        time.sleep(delays[number])
        return number * 3

    assert list(in_order(slow, range(len(delays)), workers=workers)) == [number * 3 for number in range(len(delays))]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_what_is_ahead_is_bounded(workers):
    """A slow disk behind fast decoders: without a bound, all images of a dataset end up in memory."""
    begun = []
    results = in_order(begun.append, range(1000), workers=workers)
    for taken in range(1, 20):
        next(results)
        time.sleep(0.002)
        assert len(begun) <= taken + 4 * workers
    results.close()
    assert len(begun) < 1000


def test_things_are_taken_as_they_are_needed():
    """An endless source is none that has to be read to its end first."""

    def numbers():
        number = 0
        while True:
            yield number
            number += 1

    results = in_order(str, numbers(), workers=2)
    assert [next(results) for _ in range(5)] == list("01234")
    results.close()


def test_an_error_comes_at_its_place():
    def picky(number):
        if number == 7:
            raise OSError("image 7")
        return number

    results = in_order(picky, range(100), workers=3)
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(OSError, match="image 7"):
        next(results)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_no_thread_outlives_its_consumer(error):
    """Ctrl-C in the middle of a dataset must end the program."""
    results = in_order(str, range(10_000), workers=3)
    next(results)
    if error:
        with pytest.raises(error):
            results.throw(error)
    else:
        results.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("in-order")] == []


def test_several_threads_work_at_once():
    """Two that wait for each other: one thread alone would wait for ever."""
    meeting = threading.Barrier(2, timeout=30)
    assert sorted(in_order(lambda _: meeting.wait(), range(2), workers=2)) == [0, 1]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinities")
def test_a_scheduler_decides_how_many_cpus_there_are():
    """A job that was given one CPU of a large node must not start a thread for each of the node's."""
    allowed = os.sched_getaffinity(0)
    assert cpus() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
