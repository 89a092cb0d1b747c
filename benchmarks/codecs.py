"""Space and time of ways to store squares without loss, on the files of benchmarks/decode.py and on a folder of one's own.

    python benchmarks/codecs.py [--images 100] [--repeats 3] [FOLDER]

Milliseconds are those of one CPU for an image of 224 x 224 pixels, the fastest of the repeats. blosc2 and imagecodecs are measured
where they are installed; neither is a dependency.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from decode import SETS, write_photographs
from machine import processor
from PIL import Image

from anchored.data import frames
from anchored.plan.preprocessing import transform, words
from anchored.readers.preprocess import decode, preprocess

Way = tuple[Callable[[np.ndarray], Any], Callable[[Any], np.ndarray]]
CENSUS = 202_599
"""Images of CelebA."""


def main() -> None:
    """Prints a table for each set of squares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(processor())
    for title, images in squares(options.folder, options.images):
        print(f"\n{len(images)} of {title}\n")
        print("| way | ratio | CelebA, GB | write, ms | read, ms |\n| --- | ---: | ---: | ---: | ---: |")
        for name, (encode, decode_one) in ways().items():
            best = [np.inf, np.inf]
            for _ in range(options.repeats):
                started = time.thread_time()
                stored = [encode(image) for image in images]
                between = time.thread_time()
                found = [decode_one(each) for each in stored]
                best = [min(best[0], between - started), min(best[1], time.thread_time() - between)]
            assert all(np.array_equal(one.reshape(image.shape), image) for one, image in zip(found, images, strict=True)), name
            ratio = sum(image.nbytes for image in images) / sum(len(memoryview(each).cast("B")) for each in stored)
            write, read = (1e3 * seconds / len(images) for seconds in best)
            print(f"| {name} | {ratio:.2f} | {CENSUS * images[0].nbytes / ratio / 1e9:.1f} | {write:.2f} | {read:.2f} |")


def squares(folder: Path | None, count: int) -> list[tuple[str, list[np.ndarray]]]:
    """Squares by their origin."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        for number, (title, (size, steps)) in enumerate(SETS.items()):
            files = Path(name) / str(number)
            write_photographs(files, count, size)
            found.append((f"{title}, {words(steps)}", _read(files, steps)))
    if folder:
        steps = transform("group-dro", "scenes", 224)
        found.append((f"{folder.name}, {words(steps)}", _read(folder, steps)[:count]))
    return found


def _read(folder: Path, steps: Any) -> list[np.ndarray]:
    return [np.ascontiguousarray(preprocess(decode(path.read_bytes()), steps)) for path in sorted(folder.iterdir())]


def ways() -> dict[str, Way]:
    """How to write and how to read, by name."""
    shape = (224, 224, 3)

    def read_frame(data: bytes) -> np.ndarray:
        out = np.empty(shape, np.uint8)
        frames.decode(data, out)
        return out

    def raw_zstd(level: int) -> Way:
        made, undone = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
        return lambda image: made.compress(image.data), lambda data: np.frombuffer(undone.decompress(data), np.uint8)

    def pillow(kind: str, **options: Any) -> Way:
        def write(image: np.ndarray) -> bytes:
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, kind, **options)
            return stream.getvalue()

        return write, lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    return {
        "raw": (np.copy, np.copy),
        "zstd": raw_zstd(1),
        "**storage: zstd**, differences": (frames.encode, read_frame),
        "PNG, Pillow": pillow("PNG", compress_level=1),
        "WebP, Pillow": pillow("WEBP", lossless=True, method=0, quality=0),
        **_blosc2(),
        **_imagecodecs(),
    }


def _blosc2() -> dict[str, Way]:
    try:
        import blosc2
    except ImportError:
        return {}
    blosc2.set_nthreads(1)
    options = {"typesize": 3, "codec": blosc2.Codec.ZSTD, "clevel": 1, "filters": [blosc2.Filter.SHUFFLE, blosc2.Filter.BYTEDELTA],
               "filters_meta": [0, 3]}  # fmt: skip
    return {"blosc2, shuffle and bytedelta": (lambda image: blosc2.compress2(image, **options),
                                              lambda data: np.frombuffer(blosc2.decompress2(data), np.uint8))}  # fmt: skip


def _imagecodecs() -> dict[str, Way]:
    try:
        import imagecodecs as codecs
    except ImportError:
        return {}
    return {
        "QOI": (codecs.qoi_encode, codecs.qoi_decode),
        "JPEG-LS": (codecs.jpegls_encode, codecs.jpegls_decode),
        "JPEG XL, effort 1": (lambda image: codecs.jpegxl_encode(image, lossless=True, effort=1, numthreads=1),
                              lambda data: codecs.jpegxl_decode(data, numthreads=1)),
    }  # fmt: skip


if __name__ == "__main__":
    main()
