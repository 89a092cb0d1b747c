"""The published group counts of Waterbirds and CelebA: a checksum against tables in a wrong order, which train without an error."""

from collections.abc import Mapping
from typing import NamedTuple

from anchored.errors import InputError

Counts = Mapping[str, Mapping[int, int]]


class Published(NamedTuple):
    """Images of the groups 0, 1, 2, 3 of a split, and how certain that is."""

    groups: tuple[int, int, int, int]
    source: str


# g = 2 y + a. Reviewed: train of Waterbirds was read in a primary source; the others in public files of third parties that agree
# with each other, and their totals are those of the datasets that they come from (CUB 11,788, CelebA 202,599 images).
WATERBIRDS = {
    "train": Published((3498, 184, 56, 1057), "WILDS's code"),
    "val": Published((467, 466, 133, 133), "second-hand: a public repository"),
    "test": Published((2255, 2255, 642, 642), "second-hand: three public repositories"),
}
BLOND_MALE = {
    "train": Published((71629, 66874, 22880, 1387), "second-hand: five public repositories"),
    "val": Published((8535, 8276, 2874, 182), "second-hand: public repositories"),
    "test": Published((9767, 7535, 2480, 180), "second-hand: public repositories"),
}

_HINT = (
    "a table in another order than its images trains without an error: get list and images of one source again. For a subset or "
    "a changed copy set `published: false`; the tables then say so."
)


def is_published(table: Mapping[str, Published], found: Counts) -> bool:
    """Whether the group counts of every split are the published ones."""
    return all(_counts(found, split) == published.groups for split, published in table.items())


def check_groups(name: str, table: Mapping[str, Published], found: Counts) -> None:
    """Raises InputError with both histograms where the group counts of a split are not the published ones."""
    differing = []
    for split, published in table.items():
        counts = _counts(found, split)
        if counts != published.groups:
            differing.append(f"{split} {_slashes(counts)}, published {_slashes(published.groups)} ({published.source})")
    if differing:
        raise InputError(f"group counts (2 y + a) are not those of {name}: {'; '.join(differing)}.", _HINT)


def check_totals(name: str, table: Mapping[str, Published], found: Counts) -> None:
    """Raises InputError where the number of images of a split is not the published one; holds for any attributes."""
    differing = []
    for split, published in table.items():
        total, expected = sum(found.get(split, {}).values()), sum(published.groups)
        if total != expected:
            differing.append(f"{split} {total}, published {expected} ({published.source})")
    if differing:
        raise InputError(f"numbers of images are not those of {name}: {'; '.join(differing)}.", _HINT)


def _counts(found: Counts, split: str) -> tuple[int, ...]:
    return tuple(found.get(split, {}).get(group, 0) for group in range(4))


def _slashes(counts: tuple[int, ...]) -> str:
    return "/".join(map(str, counts))
