"""The README's tables are those in results/tables, and its commands and configuration work.

Run as a program (`python tests/test_readme.py`), this file writes the tables into the README.
"""

import re
from pathlib import Path

from anchored.plan.expand import expand
from anchored.plan.read import read_config

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TABLES = ROOT / "results" / "tables"
BLOCK = re.compile(r"(<!-- table (?P<name>[a-z0-9-]+) -->\n)(?P<text>.*?)(<!-- end -->)", re.DOTALL)


def stored_table(path: Path) -> str:
    """The lines of the table at `path`.md, without its heading and notes."""
    return "\n".join(line for line in path.with_suffix(".md").read_text().splitlines() if line.startswith("|"))


def with_tables(text: str) -> str:
    """The README with every block filled from the stored tables."""
    return BLOCK.sub(lambda match: f"{match[1]}\n{stored_table(TABLES / match['name'])}\n\n{match[4]}", text)


def test_tables_are_those_of_the_demo() -> None:
    """A table typed by hand would go stale without anybody noticing."""
    text = README.read_text()
    assert len(BLOCK.findall(text)) >= 3
    assert with_tables(text) == text, "run `python tests/test_readme.py` after `make demo`"


def test_the_configuration_compiles(tmp_path: Path) -> None:
    text = README.read_text().split("```yaml\n", 1)[1].split("```", 1)[0]
    (tmp_path / "birds.yaml").write_text(text)
    plan = expand(read_config(tmp_path / "birds.yaml"))
    assert {cell["arm"] for cell in plan["cells"].values()} == {"erm", "l2sp", "ewc"}


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"(?:^|`)make ([a-z]+)", README.read_text(), re.MULTILINE))
    assert {"demo", "test"} <= targets
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets <= rules


def test_pictures_and_links_exist() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
