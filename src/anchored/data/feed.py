"""Batches made ahead of their consumer, and how long each waited for the other.

    images per second of the loader = images / seconds spent making batches,    waited = seconds the consumer stood still

With a GPU the next batches are made in a thread while the device works on the present one; numpy and torch release the
interpreter's lock in their loops. On a CPU a thread would only take the cores away from the network: `depth=0` makes each batch
when it is asked for, with the same measurements.
"""

import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Batch = TypeVar("Batch")


class Feed(Generic[Batch]):
    """Iterates over `batches` in their order, up to `depth` of them ahead.

    An exception in `batches` is raised at its place in the order, with its traceback. When the consumer stops early, is
    interrupted or fails, the thread ends after the batch it is at; a generator is then closed.

    Args:
        batches: what to iterate over; its batches are tensors, or mappings, tuples or lists that start with one.
        depth: batches that may be ready or in the making ahead of the consumer's; 0 makes them in the consumer's thread.
        device: where the batches are made. A thread that makes them on a GPU gets a stream of its own, so that they are made
            beside the consumer's work and not between it.

    Attributes:
        images: images in the batches made so far.
        busy_seconds: time spent making batches.
        waited_seconds: time the consumer spent waiting for batches.
    """

    def __init__(self, batches: Iterable[Batch], *, depth: int = 0, device: torch.device | None = None) -> None:
        if depth < 0:
            raise ValueError(f"depth is {depth}; 0 makes batches in line, a positive number that many ahead.")
        self._batches = batches
        self._depth = depth
        self._device = device
        self.images = 0
        self.busy_seconds = 0.0
        self.waited_seconds = 0.0

    @property
    def images_per_second(self) -> float:
        """Images that the loader alone makes in a second; 0 before the first batch."""
        return self.images / self.busy_seconds if self.busy_seconds else 0.0

    def __iter__(self) -> Iterator[Batch]:
        handed_out = self._ahead() if self._depth else self._made(None)
        try:
            while True:
                started = time.perf_counter()
                try:
                    batch = next(handed_out)
                except StopIteration:
                    return
                finally:
                    self.waited_seconds += time.perf_counter() - started
                yield batch
        finally:
            handed_out.close()

    def _made(self, stream: torch.cuda.Stream | None) -> Generator[Batch, None, None]:
        """The batches as they are made; what a batch takes ends when its last kernel on `stream` does."""
        source = iter(self._batches)
        try:
            while True:
                started = time.perf_counter()
                try:
                    with torch.cuda.stream(stream):
                        batch = next(source)
                    if stream is not None:
                        stream.synchronize()
                except StopIteration:
                    return
                finally:
                    self.busy_seconds += time.perf_counter() - started
                self.images += _count(batch)
                yield batch
        finally:
            if isinstance(source, Generator):
                source.close()

    def _ahead(self) -> Generator[Batch, None, None]:
        on_gpu = self._device is not None and self._device.type == "cuda"
        ready: SimpleQueue[Batch | _End] = SimpleQueue()
        free, stop = threading.Semaphore(self._depth), threading.Event()

        def work() -> None:
            made = self._made(torch.cuda.Stream(self._device) if on_gpu else None)
            try:
                while free.acquire() and not stop.is_set():
                    ready.put(next(made))
            except StopIteration:
                ready.put(_End(None))
            except BaseException as error:
                ready.put(_End(error))
            finally:
                made.close()

        thread = threading.Thread(target=work, name="feed", daemon=True)
        thread.start()
        try:
            while not isinstance(batch := ready.get(), _End):
                if on_gpu:
                    _keep_for(torch.cuda.current_stream(self._device), batch)
                yield batch
                free.release()
            if batch.error is not None:
                raise batch.error
        finally:
            stop.set()
            free.release()
            thread.join()


@dataclass(frozen=True)
class _End:
    """After the last batch: the exception that ended them, if one did."""

    error: BaseException | None


def default_depth(device: torch.device) -> int:
    """Batches to make ahead where the consumer computes on `device`: two for a GPU; a CPU has no core to spare."""
    return 2 if device.type == "cuda" else 0


def to_device(values: NDArray, device: torch.device) -> Tensor:
    """`values` on `device`; towards a GPU through pinned memory, so that the copy overlaps with what the CPU does next."""
    host = torch.from_numpy(np.ascontiguousarray(values))
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)


def _count(batch: Any) -> int:
    """Images of a batch: the length of its first tensor."""
    if isinstance(batch, Mapping):
        return _count(next(iter(batch.values())))
    return _count(batch[0]) if isinstance(batch, tuple | list) else len(batch)


def _keep_for(stream: torch.cuda.Stream, batch: Any) -> None:
    """Tells the allocator that `stream` uses the batch's memory, which belongs to the stream it was made on."""
    if isinstance(batch, Tensor):
        batch.record_stream(stream)
    elif isinstance(batch, Mapping | tuple | list):
        for part in batch.values() if isinstance(batch, Mapping) else batch:
            _keep_for(stream, part)
