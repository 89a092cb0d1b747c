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
    """Puts the rows in the page's table; those of tests that did not run stay as they are, those of no test go."""
    made = ((row.fault, row.happened, row.attempts, row.again, row.lost, _tables(row)) for row in rows)
    lines = _lines() | {str(cells[0]): f"| {' | '.join(map(str, cells))} |" for cells in made}
    table = "".join(f"{lines[fault]}\n" for fault in faults_of_tests() if fault in lines)
    text = PAGE.read_text()
    PAGE.write_text(re.sub(re.escape(HEADER) + r"(?:\|.*\n)*", lambda _: HEADER + table, text))


def _tables(row: Row) -> str:
    return "the same bytes" if row.equal else "different"


def _lines() -> dict[str, str]:
    table = PAGE.read_text().split(HEADER, 1)[1].split("\n\n")[0]
    return {line.split("|")[1].strip(): line for line in table.splitlines() if line}


def faults_of_page() -> list[str]:
    """First column of the page's table."""
    return list(_lines())


def faults_of_tests() -> list[str]:
    """The faults that tests make rows of."""
    return re.findall(r'made\.row\(\s*"([^"]+)"', Path(__file__).with_name("test_faults.py").read_text())
