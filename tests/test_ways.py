"""Every way of running gives the same bytes; and the table of docs/reliability.md that says so is written here."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator

import pytest
from checkout import REPOSITORY, Checkout
from ways import WAYS, Way

PAGE = REPOSITORY / "docs" / "reliability.md"
HEADER = """\
| way | command | results | of them other bytes | SHA-256 of the tables |
| --- | --- | --- | --- | --- |
"""
EXPECTED = {"results/tables/README.md", "results/metrics.csv", "results/fim/fim/fim.safetensors"}
Cells = tuple[str, str, str, str, str]


@pytest.fixture(scope="module")
def record() -> Iterator[Callable[[Cells], None]]:
    """Takes the rows of the table; writes it at the end where that was asked for."""
    rows: list[Cells] = []
    yield rows.append
    if os.environ.get("ANCHORED_WRITE_WAYS"):
        table = "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
        PAGE.write_text(re.sub(re.escape(HEADER) + r"(?:\|.*\n)*", lambda _: HEADER + table, PAGE.read_text()))


@pytest.mark.parametrize("way", [pytest.param(way, id=way.fixture, marks=getattr(pytest.mark, way.marker)) for way in WAYS])
def test_results_are_those_of_one_machine(
    way: Way, by_snakemake: Checkout, record: Callable[[Cells], None], request: pytest.FixtureRequest
):
    ours, theirs = request.getfixturevalue(way.fixture).results(), by_snakemake.results()
    assert ours.keys() >= EXPECTED
    assert ours.keys() == theirs.keys()
    different = [path for path in ours if ours[path] != theirs[path]]
    record((way.name, f"`{way.command}`", str(len(ours)), str(len(different)), f"`{tables_digest(ours)}`"))
    assert different == []


def tables_digest(results: dict[str, bytes]) -> str:
    """Of the names and bytes of all files in results/tables, shortened."""
    made = hashlib.sha256()
    for path in sorted(path for path in results if path.startswith("results/tables/")):
        made.update(path.encode() + b"\0" + hashlib.sha256(results[path]).digest())
    return made.hexdigest()[:16]


def test_the_page_has_a_row_for_every_way():
    table = PAGE.read_text().split(HEADER)[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert [row[:2] for row in rows] == [[way.name, f"`{way.command}`"] for way in WAYS], "run `make test-ways`."
    assert {row[3] for row in rows} == {"0"}
    assert len({row[4] for row in rows}) == 1


def test_readme_names_the_commands():
    readme = (REPOSITORY / "README.md").read_text()
    assert [way.command for way in WAYS if not all(word in readme for word in way.command.split())] == []
