"""The table in docs/reliability.md: written from the rows of the fault tests, read by the test that compares both."""

import re
from collections.abc import Sequence
from pathlib import Path

from checkout import REPOSITORY
from faults import Row

PAGE = REPOSITORY / "docs" / "reliability.md"
HEADER = """\
| what breaks | what happens | attempts | epochs computed again | results lost | tables |
| --- | --- | --- | --- | --- | --- |
"""
COMMANDS = re.findall(r"^    ((?:anchored|snakemake) .+)$", PAGE.read_text(), flags=re.MULTILINE)


def write_table(rows: Sequence[Row]) -> None:
    """Puts the rows in the place of the page's table."""
    lines = [f"| {row.fault} | {row.happened} | {row.attempts} | {row.again} | {row.lost} | {_tables(row)} |\n" for row in rows]
    text = PAGE.read_text()
    PAGE.write_text(re.sub(re.escape(HEADER) + r"(?:\|.*\n)*", lambda _: HEADER + "".join(lines), text))


def _tables(row: Row) -> str:
    return "the same bytes" if row.equal else "different"


def faults_of_page() -> list[str]:
    """First column of the page's table."""
    table = PAGE.read_text().split(HEADER, 1)[1]
    return [line.split("|")[1].strip() for line in table.split("\n\n")[0].splitlines()]


def faults_of_tests() -> list[str]:
    """The faults that tests make rows of."""
    return re.findall(r'made\.row\(\s*"([^"]+)"', Path(__file__).with_name("test_faults.py").read_text())
