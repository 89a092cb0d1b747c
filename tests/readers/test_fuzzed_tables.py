"""Bad lines, drawn by Hypothesis, in every list that a user can have: one sentence or the right answer, never anything else."""

import csv
import io
from pathlib import Path
from typing import Any

import image_sets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anchored.errors import InputError
from anchored.readers.celeba import read_celeba
from anchored.readers.folder import read_folder, read_waterbirds

FUZZ = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CELL = st.one_of(
    st.sampled_from(["", " ", "nan", "-1", "0", "1", "2", "3", "1.0", "01", "train", "dev", "000001.jpg", "../x", "/x", "a/../b"]),
    st.sampled_from(['"', '""', ",", "\t"]),
    st.text(max_size=8),
    st.integers(-(10**20), 10**20).map(str),
)

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
# Unicode's white space. Python's strip() takes four control characters for it, too.
SPACES = "".join(character for character in map(chr, range(0x3001)) if character.isspace() and character not in "\x1c\x1d\x1e\x1f")
WORDS = {word: split for split, words in SPLITS.items() for word in words}


def edited(data: st.DataObject, text: str, separator: str) -> str:
    """`text` with some cells replaced, lines repeated, removed or cut, and bytes that belong nowhere."""
    lines = [line.split(separator) for line in text.splitlines()]
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(lines) - 1))
        line = lines[number]
        match data.draw(st.sampled_from(["cell", "repeat", "remove", "cut", "longer"])):
            case "cell":
                line[data.draw(st.integers(0, len(line) - 1))] = data.draw(CELL)
            case "repeat":
                lines.insert(data.draw(st.integers(0, len(lines))), list(line))
            case "remove" if len(lines) > 1:
                del lines[number]
            case "cut" if len(line) > 1:
                del line[data.draw(st.integers(1, len(line) - 1)) :]
            case "longer":
                line.append(data.draw(CELL))
    return "\n".join(map(separator.join, lines)) + "\n"


def outcome(read: Any, entry: dict[str, Any], root: Path) -> Any:
    """What was read, or None where it was refused with a sentence that names a file."""
    refusal = None
    try:
        return read(entry, root)
    except InputError as error:
        refusal = error.message
    assert str(root) in refusal
    assert refusal.endswith(".")
    assert len(refusal) < 3000
    return None


def slowly(path: Path) -> list[dict[str, str]]:
    """The lines of a table that are not empty, cells without spaces around them."""
    lines = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
    cells = [{str(name).strip(SPACES): (cell or "").strip(SPACES) for name, cell in line.items()} for line in lines]
    return [line for line in cells if any(line.values())]


def same(label: str, cell: str) -> bool:
    """Whether a label is the text of a cell, or the same number."""
    return label == cell or float(label) == float(cell)


@FUZZ
@given(data=st.data())
def test_edited_metadata_of_ones_own(tmp_path, data) -> None:
    """What is accepted is what a slow reader finds: the csv module and dictionaries, line by line."""
    rows = [(f"{line}.png", *labels) for line, labels in enumerate(zip("ab" * 6, "xxyy" * 3, image_sets.SPLITS, strict=True))]
    stream = io.StringIO()
    stream.writelines(",".join(map(str, row)) + "\n" for row in [("image", "y", "place", "split"), *rows])
    path = tmp_path / "set" / "metadata.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(edited(data, stream.getvalue(), ","), encoding="utf-8", errors="ignore")
    entry = image_sets.entry(reader="folder", folder="set", unseen_groups=True)
    found = outcome(read_folder, entry, tmp_path)
    if found is not None:
        labels = found.facts["classes"], found.facts["attributes"]
        columns = found.columns
        assert columns.null_count().sum_horizontal().item() == 0
        assert set(columns["y"]) == set(range(len(labels[0])))
        assert columns["group"].to_list() == [len(labels[1]) * y + a for y, a in columns.select("y", "a").iter_rows()]
        assert set(columns["split"]) == {"train", "val", "test"}
        names = list(found.images.names)
        assert len(set(names)) == len(names) == len(columns)
        assert not [name for name in names if name.startswith("/") or ".." in name.split("/")]
        if b"\r" in path.read_bytes():  # the csv module takes one for the end of a line, wherever it stands
            return
        lines = slowly(path)
        assert names == [line["image"] for line in lines]
        for line, y, a, split in zip(lines, *columns.select("y", "a", "split"), strict=True):
            assert same(labels[0][str(y)], line["y"])
            assert same(labels[1][str(a)], line["place"])
            assert split == WORDS.get(line["split"].lower()) or split == ("train", "val", "test")[int(float(line["split"]))]


@FUZZ
@given(data=st.data())
def test_edited_waterbirds(tmp_path, data) -> None:
    """Its labels are 0 and 1: whatever is accepted has the label of its line."""
    if not (tmp_path / "birds").exists():
        image_sets.waterbirds(tmp_path / "birds")
        (tmp_path / "kept.csv").write_bytes((tmp_path / "birds" / "metadata.csv").read_bytes())
    text = edited(data, (tmp_path / "kept.csv").read_text(), ",")
    (tmp_path / "birds" / "metadata.csv").write_text(text, encoding="utf-8", errors="ignore")
    entry = image_sets.entry(reader="waterbirds", folder="birds", published=False, unseen_groups=True)
    found = outcome(read_waterbirds, entry, tmp_path)
    if found is not None:
        assert set(found.columns["y"]) | set(found.columns["a"]) <= {0, 1}
        by_name = {line: (y, a) for line, (y, a) in enumerate(zip(image_sets.LABELS, image_sets.PLACES, strict=True))}
        same = sum(
            by_name[int(name.split("/")[-1].removesuffix(".jpg"))] == labels
            for name, labels in zip(found.images.names, found.columns.select("y", "a").iter_rows(), strict=True)
            if name.split("/")[-1].removesuffix(".jpg").isdecimal() and int(name.split("/")[-1].removesuffix(".jpg")) in by_name
        )
        assert same >= len(found.columns) - 6  # at most three edits, of which each touches at most a line and its copy


@FUZZ
@given(data=st.data(), flavour=st.sampled_from(["csv", "txt"]), which=st.sampled_from(["list_attr_celeba", "list_eval_partition"]))
def test_edited_celeba_lists(tmp_path, data, flavour, which) -> None:
    """The lists are joined by name: whatever line is accepted has the labels that the lists give to its image."""
    known = image_sets.faces()
    lists = image_sets.celeba_lists(known, dict(zip(known, image_sets.SPLITS, strict=True)), flavour)
    separator = "," if flavour == "csv" else " "
    folder = tmp_path / flavour
    (folder / "img_align_celeba").mkdir(parents=True, exist_ok=True)
    for name, text in lists.items():
        changed = edited(data, text, separator) if name.startswith(which) else text
        (folder / name).write_text(changed, encoding="utf-8", errors="ignore")
    entry = image_sets.entry(reader="celeba", folder=flavour, published=False, unseen_groups=True)
    found = outcome(read_celeba, entry, tmp_path)
    if found is not None:
        assert set(found.columns["y"]) | set(found.columns["a"]) <= {0, 1}
        names = list(found.images.names)
        assert len(set(names)) == len(names)
        if which == "list_eval_partition":
            expected = [(int(known[name]["Blond_Hair"] == 1), int(known[name]["Male"] == 1)) for name in names]
            assert list(found.columns.select("y", "a").iter_rows()) == expected


@FUZZ
@given(noise=st.binary(max_size=200))
def test_bytes_that_are_no_table(tmp_path, noise) -> None:
    """A truncated download, a picture, an HTML page under the name of a table."""
    (tmp_path / "set").mkdir(exist_ok=True)
    (tmp_path / "set" / "metadata.csv").write_bytes(noise)
    assert outcome(read_folder, image_sets.entry(reader="folder", folder="set"), tmp_path) is None
