"""The command's files: complete, reproducible, self-contained; and its errors."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from anchored.errors import InputError
from anchored.paths import Paths
from anchored.report.html import Grid, inline_svg, provenance_grid, training_grid
from anchored.report.step import tables


@pytest.fixture
def own(study: tuple[dict[str, Any], Paths], tmp_path: Path) -> tuple[dict[str, Any], Paths]:
    """A copy of the study that a test may damage."""
    plan, paths = study
    shutil.copytree(paths.root, tmp_path / "own")
    return plan, Paths(tmp_path / "own")


def contents(paths: Paths) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for folder in (paths.tables, paths.figures) for path in folder.iterdir()}


def test_two_runs_give_the_same_bytes_and_remove_what_is_stale(own: tuple[dict[str, Any], Paths]) -> None:
    plan, paths = own
    first = contents(paths)
    assert len(first) == 3 * 10 + len(("README.md", "metrics.json", "strength.json")) + 2 * 3
    (paths.tables / "old-val-wga-tuned.md").write_text("of an earlier plan")
    (paths.tables / ".gitignore").write_text("kept")
    tables(plan, paths)
    (paths.tables / ".gitignore").unlink()
    assert contents(paths) == first


def test_tables_do_not_depend_on_records_or_histories(own: tuple[dict[str, Any], Paths]) -> None:
    """Wall times differ on every run; they may stand on the page only."""
    plan, paths = own
    first = contents(paths)
    for job in [*plan["baseline"], *plan["anchored"]]:
        (paths.run(job) / "record.json").write_text('{"wall_seconds": 99.9')
        (paths.run(job) / "history.parquet").unlink()
    tables(plan, paths, force=True)
    assert contents(paths) == first
    assert "No records were found." in paths.report.read_text()


class Page(HTMLParser):
    """Collects ids and addresses, and checks that tags close in order."""

    VOID = ("meta", "br", "img", "link", "hr", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def _note(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            elif name in ("href", "xlink:href", "src"):
                self.links.append(str(value))


def test_the_page_is_whole_and_needs_no_other_file(own: tuple[dict[str, Any], Paths]) -> None:
    _, paths = own
    text = paths.report.read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids)), "ids of inlined figures clash"
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)
    assert text.count("<svg") == 3
    assert "Scenes &amp; a tiny_net" in text
    assert "displacement from the anchor" in text
    assert "sha256:" in text
    assert "1.5" in text


def test_missing_results_name_the_command_that_makes_them(own: tuple[dict[str, Any], Paths]) -> None:
    plan, paths = own
    fisher = paths.fim("dino-1") / "fim.safetensors"
    whole = fisher.read_bytes()
    fisher.write_bytes(b"short")
    with pytest.raises(InputError, match=r"fim.safetensors cannot be read[\s\S]*run `anchored fim dino-1`"):
        tables(plan, paths)
    fisher.unlink()
    with pytest.raises(InputError, match=r"1 of them missing: .*fim.safetensors.\n  run `anchored fim dino-1`"):
        tables(plan, paths)
    fisher.write_bytes(whole)
    paths.comparisons.write_bytes(paths.comparisons.read_bytes()[:100])
    with pytest.raises(InputError, match=r"comparisons.parquet cannot be read[\s\S]*run `anchored evaluate`"):
        tables(plan, paths)
    paths.metrics.unlink()
    with pytest.raises(InputError, match=r"1 of them missing: .*metrics.parquet.\n  run `anchored evaluate`"):
        tables(plan, paths)


def test_inlined_figures_keep_their_references() -> None:
    svg = '<?xml version="1.0"?><svg id="a"><path id="p"/><use xlink:href="#p" clip-path="url(#c)"/></svg>'
    assert inline_svg(svg, "f") == '<svg id="f-a"><path id="f-p"/><use xlink:href="#f-p" clip-path="url(#f-c)"/></svg>'


def test_training_measures_are_those_of_the_picked_epoch() -> None:
    picks = pl.DataFrame({"arm": ["ewc", "ewc"], "cell": ["x", "y"], "epoch": [2, 1]})
    history = pl.DataFrame({"cell": ["x", "x", "y"], "epoch": [1, 2, 1], "displacement": [9.0, 1.0, 3.0]})
    grid = training_grid(picks, history, "validation WGA")
    assert grid.rows == (("EWC", "2 ± 1.41"),)
    assert training_grid(picks, pl.DataFrame(), "") == Grid((), ())


def test_records_without_keys_stay_readable() -> None:
    assert provenance_grid({"j": {}}).rows == (("j", "", "", "", "", "", ""),)
