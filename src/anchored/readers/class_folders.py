"""Labels from the names of folders: `train/jay/17.jpg` is a training image of the class jay. There is no attribute."""

from collections import Counter
from pathlib import Path

import polars as pl

from anchored.locate import is_image
from anchored.readers.tables import LINE, split_named


def class_folders(folder: Path) -> pl.DataFrame | None:
    """The table that folders SPLIT/CLASS stand for: LINE, img_filename, y and split, in the order of the paths.

    Images that lie beside the classes, hidden ones, and folders at the top that name no split are left out.

    Returns:
        the table; None where no folder is laid out so.
    """
    rows = [
        (path.relative_to(folder).as_posix(), path.relative_to(split).parts[0], split.name)
        for split in _folders(folder)
        if split_named(split.name)
        for path in sorted(split.glob("*/**/*"))
        if is_image(path.name) and path.is_file() and not any(part.startswith(".") for part in path.relative_to(split).parts)
    ]
    if not rows:
        return None
    return pl.DataFrame(rows, schema=["img_filename", "y", "split"], orient="row").with_row_index(LINE, offset=1)


def images_by_folder(folder: Path) -> Counter[str]:
    """Images in each folder inside of `folder`, at any depth below it, by the folder's name."""
    found = {child.name: sum(is_image(path.name) for path in child.rglob("*")) for child in _folders(folder)}
    return Counter({name: images for name, images in found.items() if images})


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
