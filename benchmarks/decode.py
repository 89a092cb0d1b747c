"""Images per second from JPEG files to normalised batches: the packed store against torchvision's transforms in a DataLoader.

    python benchmarks/decode.py [--images 1000] [--repeats 3] [--threads 1]

The files are crops of the photographs that scikit-image carries, at the size of CelebA's aligned images (178 x 218) and at a usual
size of collections (500 x 375). The reference is what the published code does in every epoch: Image.open().convert("RGB"), Resize
and CenterCrop, ToTensor, Normalize, in a shuffled DataLoader. The store decodes once, which is `anchored prepare` with its digests,
its index and its file on the disk; every epoch then reads shuffled batches from it. All ways run in one process, one after the
other and again, so that a busy machine slows all of them alike; the fastest run of each counts. Images per CPU second are those of
all threads and processes of a way together: what one core does, however many there are.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import polars as pl
import torch
from machine import processor
from PIL import Image
from skimage import data

from anchored.backbones.features import to_input
from anchored.compat import prepare_torchvision
from anchored.data.frames import VERSION
from anchored.data.store import Store, open_store
from anchored.plan.preprocessing import transform, words
from anchored.preparation.writing import write_store
from anchored.processes import cpus
from anchored.readers.decode import Decoded
from anchored.readers.encoded import FolderImages

NAMES = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field", "immunohistochemistry")
SETS: dict[str, tuple[tuple[int, int], Any]] = {
    "178 x 218": ((178, 218), transform("group-dro", "faces", 224)),
    "500 x 375": ((500, 375), transform("group-dro", "scenes", 224)),
}
STORAGES = ("raw", "zstd")
NORMAL = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
BATCH = 64
CPU = torch.device("cpu")


class Spent(NamedTuple):
    """Seconds of a run: on the wall, and of all CPUs."""

    wall: float
    cpu: float


def main() -> None:
    """Prints a table for each set of files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch in the process that trains")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    prepare_torchvision()
    print(f"{processor()}, {cpus()} CPUs, load {os.getloadavg()[0]:.1f}; torch {torch.__version__}, "
          f"torchvision {metadata.version('torchvision')}, Pillow {PIL.__version__}, {VERSION}")  # fmt: skip
    for title, (size, steps) in SETS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_photographs(folder / "files", options.images, size)
            spent = measure(folder, steps, options)
        print(f"\n{options.images} JPEG files of {title}, {words(steps)}, batches of {BATCH}, best of {options.repeats}\n")
        print("| way | images/s | per CPU second | ratio |\n| --- | ---: | ---: | ---: |")
        reference = min(each.cpu for each in next(iter(spent.values())))
        for way, runs in spent.items():
            wall, cpu = (options.images / min(values) for values in zip(*runs, strict=True))
            print(f"| {way} | {wall:.0f} | {cpu:.0f} | {cpu * reference / options.images:.2f} |")


def measure(folder: Path, steps: Any, options: argparse.Namespace) -> dict[str, list[Spent]]:
    """What each way spent, run by run."""
    files = sorted((folder / "files").iterdir())
    images = FolderImages(folder / "files", [path.name for path in files])
    index = pl.DataFrame({"row": np.arange(len(files), dtype=np.int32)})

    def prepare(storage: Any) -> Callable[[], None]:
        def run() -> None:
            write_store(folder / storage, {"image": Decoded(images, 224, steps)}, index, {}, storage=storage)

        return run

    ways: dict[str, Callable[[], None]] = {
        **{f"DataLoader, num_workers={workers}, every epoch": loader(files, steps, workers) for workers in (0, 1, 2)},
        **{f"anchored, prepare, {storage}": prepare(storage) for storage in STORAGES},
        **{f"anchored, every epoch, {storage}": (lambda storage=storage: consume(epoch(stores[storage]))) for storage in STORAGES},
    }
    stores = {}
    for storage in STORAGES:
        ways[f"anchored, prepare, {storage}"]()
        stores[storage] = open_store(folder / storage)
    spent: dict[str, list[Spent]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            started = _clocks()
            way()
            ended = _clocks()
            spent[name].append(Spent(ended.wall - started.wall, ended.cpu - started.cpu))
    return spent


def write_photographs(folder: Path, count: int, size: tuple[int, int]) -> None:
    """JPEG files of `size`, windows of random place and extent of the photographs."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(getattr(data, name)()).convert("RGB") for name in NAMES]
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        scale = min(photograph.width / size[0], photograph.height / size[1]) * rng.uniform(0.55, 1)
        width, height = size[0] * scale, size[1] * scale
        left, top = rng.uniform(0, photograph.width - width), rng.uniform(0, photograph.height - height)
        window = photograph.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
        window.save(folder / f"{number:05d}.jpg", quality=92)


def loader(files: list[Path], steps: Any, workers: int) -> Callable[[], None]:
    """An epoch of the published pipeline."""
    dataset = Published(files, steps)
    made = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, num_workers=workers)
    return lambda: consume(iter(made))


class Published(torch.utils.data.Dataset):
    """Files, decoded and transformed when they are asked for."""

    def __init__(self, files: list[Path], steps: Any) -> None:
        from torchvision import transforms as tv

        made = {"resize": lambda step: tv.Resize(step["size"]), "centre-crop": lambda step: tv.CenterCrop(step["size"])}
        self._files = files
        self._transform = tv.Compose([*(made[step["step"]](step) for step in steps), tv.ToTensor(), tv.Normalize(**NORMAL)])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self._transform(Image.open(self._files[number]).convert("RGB"))


def epoch(store: Store) -> Iterator[torch.Tensor]:
    """An epoch from a store, as training reads it."""
    images = store.layer("image")
    for rows in np.array_split(np.random.default_rng().permutation(len(images)), -(-len(images) // BATCH)):
        yield to_input(images[rows], NORMAL, CPU)


def consume(batches: Iterator[torch.Tensor]) -> None:
    """Takes all batches."""
    for batch in batches:
        assert batch.shape[1:] == (3, 224, 224)


def _clocks() -> Spent:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Spent(time.perf_counter(), sum(each.ru_utime + each.ru_stime for each in used))


if __name__ == "__main__":
    main()
