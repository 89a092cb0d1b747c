"""A feed hands out the same batches in the same order, whoever makes them, and lets nothing get lost: errors, threads, time."""

import gc
import threading
import traceback

import numpy as np
import pytest
import torch

from anchored.data.feed import Feed, default_depth, to_device

DEPTHS = (0, 1, 3)


def batches(count=5, images=4):
    for number in range(count):
        yield {"large": torch.full((images, 2), float(number)), "uniforms": torch.zeros(images)}


def feeding():
    return [thread for thread in threading.enumerate() if thread.name == "feed"]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    assert feeding() == []
    yield
    assert feeding() == []


@pytest.mark.parametrize("depth", DEPTHS)
def test_order_and_content_are_kept(depth):
    feed = Feed(batches(), depth=depth)
    assert [float(batch["large"][0, 0]) for batch in feed] == [0, 1, 2, 3, 4]
    assert feed.images == 20


@pytest.mark.parametrize("depth", DEPTHS)
def test_nothing_to_feed(depth):
    feed = Feed([], depth=depth)
    assert list(feed) == []
    assert (feed.images, feed.images_per_second) == (0, 0.0)


@pytest.mark.parametrize("depth", DEPTHS)
def test_error_comes_at_its_place_with_its_traceback(depth):
    """A queue that only passes the message on hides the line that failed."""

    def unreadable_image():
        yield from batches(2)
        raise OSError("image 9 is truncated")

    seen = []
    with pytest.raises(OSError, match="image 9 is truncated") as caught:
        seen.extend(float(batch["large"][0, 0]) for batch in Feed(unreadable_image(), depth=depth))
    assert seen == [0, 1]
    assert "unreadable_image" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_early_stop_closes_the_source(depth, error):
    """A thread that waits for ever to hand over its batch keeps the process alive and its memory occupied."""
    closed = []

    def source():
        try:
            yield from batches(1000)
        finally:
            closed.append(True)

    held = source()  # else the collector would close it

    def consume():
        for number, _ in enumerate(Feed(held, depth=depth)):
            if number == 2 and error:
                raise error
            if number == 2:
                break

    if error:
        with pytest.raises(error):
            consume()
    else:
        consume()
    gc.collect()
    assert closed == [True]
    assert feeding() == []


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_more_batches_than_the_depth_are_ahead(depth):
    """Each batch of views is hundreds of MB: the thread must stop while the consumer is slow."""
    made, reached = [], threading.Semaphore(0)

    def source():
        for batch in batches(50):
            made.append(batch)
            reached.release()
            yield batch

    iterator = iter(Feed(source(), depth=depth))
    for taken in range(1, 6):
        next(iterator)
        while len(made) < taken - 1 + depth:  # the thread fills what it may
            assert reached.acquire(timeout=30)
        assert len(made) <= taken - 1 + depth + 1
    iterator.close()
    assert len(made) < 50


def test_batches_are_made_ahead():
    """The second batch is made while the consumer holds the first: that is all a thread is for."""
    second = threading.Event()

    def source():
        yield torch.zeros(1)
        second.set()
        yield torch.zeros(1)

    for _ in Feed(source(), depth=2):
        assert second.wait(timeout=30)


def test_in_line_runs_in_the_consumers_thread():
    """On a CPU a thread would compete with the network for the cores."""
    threads = []

    def source():
        threads.append(threading.current_thread())
        yield torch.zeros(1)

    list(Feed(source(), depth=0))
    assert threads == [threading.current_thread()]


class Clock:
    """A clock that only those who work move."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize("depth", DEPTHS)
def test_busy_time_is_that_of_the_loader(depth, monkeypatch):
    """The time the consumer takes between two batches is no time of the loader."""
    clock = Clock()
    monkeypatch.setattr("anchored.data.feed.time", clock)

    def source():
        for batch in batches():
            clock.now += 2
            yield batch

    feed = Feed(source(), depth=depth)
    for _ in feed:
        if depth == 0:
            clock.now += 100
    assert feed.busy_seconds == 10
    assert feed.images_per_second == 20 / 10
    assert feed.waited_seconds <= feed.busy_seconds
    if depth == 0:
        assert feed.waited_seconds == feed.busy_seconds


@pytest.mark.parametrize(
    ("batch", "images"),
    [(torch.zeros(3, 2), 3), ({"a": torch.zeros(4), "b": torch.zeros(4, 2)}, 4), ((torch.zeros(5), torch.zeros(5)), 5)],
)
def test_images_are_counted_in_every_structure(batch, images):
    feed = Feed([batch, batch])
    list(feed)
    assert feed.images == 2 * images


def test_thread_computes_as_the_plan_says():
    """Other numbers of threads give other bits, and torch keeps the number per thread until it is set."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = []

        def source():
            torch.rand(64, 64) @ torch.rand(64, 64)
            found.append(torch.get_num_threads())
            yield torch.zeros(1)

        list(Feed(source(), depth=1))
        assert found == [1]
    finally:
        torch.set_num_threads(before)


def test_negative_depth_is_refused():
    with pytest.raises(ValueError, match="depth is -1; 0 makes batches in line"):
        Feed([], depth=-1)


def test_default_depth():
    assert [default_depth(torch.device(name)) for name in ("cpu", "cuda")] == [0, 2]


def test_to_device_keeps_the_values():
    """Slices of draws are not contiguous."""
    values = np.arange(24, dtype=np.float32).reshape(4, 6)[:, 1:4]
    assert torch.equal(to_device(values, torch.device("cpu")), torch.tensor(values.tolist()))
