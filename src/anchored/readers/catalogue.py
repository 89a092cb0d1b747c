"""The readers of images in files, by the names that configurations give them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from anchored.readers import origin
from anchored.readers.celeba import read_celeba
from anchored.readers.encoded import Chosen
from anchored.readers.folder import read_folder, read_waterbirds
from anchored.readers.images import draw, read_images
from anchored.readers.parquet import read_parquet
from anchored.readers.reading import Reading

Reader = Callable[[Mapping[str, Any], Path], Reading]


def read_training_images(entry: Mapping[str, Any], root: Path) -> Reading:
    """The images of the split train of a labelled dataset, without their labels, in its order.

    Raises:
        InputError: as its reader does; there are fewer than `limit`.
    """
    source = LABELLED[entry["of"]["reader"]](entry["of"], root)
    rows = (source.columns["split"] == "train").arg_true().to_list()
    chosen = [rows[number] for number in draw(len(rows), entry, source.images.where)]
    facts = {
        "source": source.facts["source"] | {"name": f"training images of {source.facts['source']['name']}"},
        "preprocessing": origin.preprocessing(entry),
    }
    return Reading(Chosen(source.images, chosen), pl.DataFrame(), facts)


LABELLED: dict[str, Reader] = {
    "waterbirds": read_waterbirds,
    "celeba": read_celeba,
    "folder": read_folder,
    "parquet": read_parquet,
}
READERS: dict[str, Reader] = {**LABELLED, "images": read_images, "training-images": read_training_images}
