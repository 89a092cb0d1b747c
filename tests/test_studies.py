"""Studies whose tables are committed: their pages show those tables, their plans are those of their configurations.

Run as a program (`python tests/test_studies.py`), this file writes the tables into the pages.
"""

from pathlib import Path

import pytest
from test_readme import BLOCK, ROOT, stored_table

from anchored.plan.compile import check_plan
from anchored.plan.load import load_plan

STUDIES = sorted(path.name for path in (ROOT / "studies").iterdir())


def filled(name: str) -> str:
    """The page of a study with every block filled from its stored tables."""
    tables = ROOT / "studies" / name / "tables"
    text = page(name).read_text()
    return BLOCK.sub(lambda match: f"{match[1]}\n{stored_table(tables / match['name'])}\n\n{match[4]}", text)


def page(name: str) -> Path:
    return ROOT / "docs" / f"{name}.md"


@pytest.mark.parametrize("name", STUDIES)
def test_the_page_shows_the_stored_tables(name: str) -> None:
    """A table typed by hand would go stale without anybody noticing."""
    text = page(name).read_text()
    assert BLOCK.search(text)
    assert filled(name) == text, "run `python tests/test_studies.py`"


@pytest.mark.parametrize("name", STUDIES)
def test_the_plan_is_that_of_the_configuration(name: str) -> None:
    check_plan(ROOT / "config" / f"{name}.yaml", ROOT / "plans" / f"{name}.json")


@pytest.mark.parametrize("name", STUDIES)
def test_tables_are_of_the_arms_of_the_plan(name: str) -> None:
    """A plan that was changed after its run would stand beside tables of another grid."""
    for experiment, entry in load_plan(ROOT / "plans" / f"{name}.json")["experiments"].items():
        rows = stored_table(ROOT / "studies" / name / "tables" / f"{experiment}-val-wga-tuned").splitlines()[2:]
        counts = [int(row.split("|")[2]) for row in rows]
        assert counts == [len(arm["configurations"]) for arm in entry["arms"].values()]


if __name__ == "__main__":
    for study in STUDIES:
        page(study).write_text(filled(study))
