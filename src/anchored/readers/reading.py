"""What every reader returns, and how a table of labels becomes the columns of an index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from anchored.errors import InputError
from anchored.readers import origin, tables
from anchored.readers.decode import Decoded
from anchored.readers.encoded import Encoded
from anchored.readers.tables import Table

# Labels and groups are stored in 16 bits.
_MOST_GROUPS = 1 << 15
# Labels that say nothing without the name of their column.
_TRUTHS = ("true", "false")


@dataclass(frozen=True)
class Reading:
    """A dataset in files: its images, not yet decoded, and what is known of each.

    Args:
        images: the N encoded images.
        columns: N lines; of labelled data split, draw (-1: one draw), a, source (line of the table), and y and group, or, of a
            multi-label dataset, a column of 0 and 1 for each target. No columns for a bank.
        facts: entries of the manifest.
    """

    images: Encoded
    columns: pl.DataFrame
    facts: dict[str, Any]

    def decoded(self, entry: Mapping[str, Any]) -> Decoded:
        """The images (N, S, S, 3) as the plan's entry wants them."""
        return Decoded(self.images, entry["size"], entry["transform"])


def general_facts(entry: Mapping[str, Any], folder: Path, given: Path, published: str = "") -> dict[str, Any]:
    """The entries that every manifest of files has: source and preprocessing."""
    return {"source": origin.source(folder, given, published), "preprocessing": origin.preprocessing(entry)}


def index_columns(splits: pl.Series, **labels: pl.Series) -> pl.DataFrame:
    """split, draw and source beside columns of labels."""
    count = len(splits)
    return pl.DataFrame(
        {
            "split": splits,
            "draw": pl.repeat(-1, count, dtype=pl.Int16, eager=True),
            **{name: values.cast(pl.Int16) for name, values in labels.items()},
            "source": pl.int_range(count, dtype=pl.Int32, eager=True),
        }
    )


def with_groups(columns: pl.DataFrame, attributes: int) -> pl.DataFrame:
    """Adds g = A y + a of A attribute values."""
    group = attributes * pl.col("y").cast(pl.Int32) + pl.col("a").cast(pl.Int32)
    return columns.with_columns(group.cast(pl.Int16).alias("group"))


def histogram(columns: pl.DataFrame) -> dict[str, dict[int, int]]:
    """Images of each group in each split."""
    sizes = columns.group_by("split", "group").len().sort("split", "group")
    found: dict[str, dict[int, int]] = {}
    for split, group, size in sizes.iter_rows():
        found.setdefault(split, {})[group] = size
    return found


def own_labels(
    entry: Mapping[str, Any], table: Table, roles: Mapping[str, str], known: Mapping[str, Sequence[str]] | None = None
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Index columns and facts of a table with the user's own labels.

    Args:
        entry: of the plan; tells names and whether train may lack groups.
        table: the checked paths.
        roles: columns of label, attribute and split; no attribute where there is none.
        known: names of the labels 0, 1, ... of a role that the file brings along.

    Raises:
        InputError: an unknown split, an empty label, names that do not fit, groups that train lacks.
    """
    splits = tables.standard_splits(table, roles["split"])
    y, classes = tables.number_labels(table, roles["label"], "class")
    a, attributes = pl.repeat(0, len(y), dtype=pl.Int32, eager=True), [""]
    if "attribute" in roles:
        a, attributes = tables.number_labels(table, roles["attribute"], "attribute")
    if len(classes) * len(attributes) > _MOST_GROUPS:
        raise InputError(
            f"{table.where}: {len(classes)} classes (column {roles['label']}) times {len(attributes)} attribute values are more "
            f"than {_MOST_GROUPS} groups.",
            "are these the right columns? Set `label` and `attribute`.",
        )
    columns = with_groups(index_columns(splits, y=y, a=a), len(attributes))
    names = group_names(
        _named(entry["classes"] or _known(known, "label", classes), classes, roles["label"], "classes", table.where),
        _named(entry["attributes"] or _known(known, "attribute", attributes), attributes, roles.get("attribute", ""), "attributes",
               table.where),
    )  # fmt: skip
    require_seen(entry, columns, names, table.where)
    facts: dict[str, Any] = {"classes": _numbered(classes), "group_names": names}
    if "attribute" in roles:
        facts["attributes"] = _numbered(attributes)
    return columns, facts


def require_seen(entry: Mapping[str, Any], columns: pl.DataFrame, names: Mapping[str, str], where: Path) -> None:
    """Raises InputError where val or test have groups that train lacks, unless the plan's entry accepts it."""
    if entry["unseen_groups"]:
        return
    found = histogram(columns)
    unseen = {
        group: ", ".join(f"{split} {found[split][group]}" for split in ("val", "test") if group in found[split])
        for group in sorted({*found["val"], *found["test"]} - set(found["train"]))
    }
    if unseen:
        listed = "; ".join(f"{names[str(group)]} ({sizes})" for group, sizes in list(unseen.items())[:3])
        raise InputError(
            f"{where}: train has no images of {len(unseen)} of the {len(set().union(*found.values()))} groups: {listed}.",
            "a misspelt label looks like this. If it is meant so, set `unseen_groups: true`.",
        )


def group_names(classes: Sequence[str], attributes: Sequence[str]) -> dict[str, str]:
    """Names of the groups g = A y + a."""
    pairs = [(y, a) for y in classes for a in attributes]
    return {str(group): ", ".join(filter(None, pair)) for group, pair in enumerate(pairs)}


def histogram_lines(columns: pl.DataFrame, names: Mapping[str, str], most: int = 16) -> list[str]:
    """The group histogram as lines of text: a split each, or, of many groups, the `most` smallest of each split."""
    lines = []
    for split, sizes in sorted(histogram(columns).items(), key=lambda item: tables.SPLITS.index(item[0])):
        shown = sorted(sizes.items(), key=lambda item: item[1])[:most] if len(sizes) > most else sizes.items()
        rest = f", and {len(sizes) - most} larger groups" if len(sizes) > most else ""
        groups = "; ".join(f"{names[str(group)]}: {size}" for group, size in shown)
        lines.append(f"{split} {sum(sizes.values())} images ({groups}{rest})")
    return lines


def _named(given: Sequence[str] | None, labels: list[str], column: str, key: str, where: Path) -> list[str]:
    """Readable names of labels: those of the configuration, the labels themselves, or COLUMN=LABEL for numbers and truths."""
    if given is None:
        return [f"{column}={label}" if tables.is_number(label) or label in _TRUTHS else label for label in labels]
    if len(given) != len(labels):
        shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
        raise InputError(
            f"{where} has {len(labels)} values in column {column or '-'} ({shown}), `{key}` has {len(given)} names.",
            f"give a name for each in this order, or leave `{key}` out.",
        )
    return list(given)


def _known(known: Mapping[str, Sequence[str]] | None, role: str, labels: Sequence[str]) -> list[str] | None:
    """The names of `labels` among those of a role, None unless every label is a number that has one."""
    by_number = {str(number): name for number, name in enumerate((known or {}).get(role, ()))}
    return [by_number[label] for label in labels] if set(labels) <= by_number.keys() else None


def _numbered(labels: Sequence[str]) -> dict[str, str]:
    return {str(number): label for number, label in enumerate(labels)}
