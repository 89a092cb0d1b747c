"""Copies of the miniature runs of both engines."""

from collections.abc import Callable
from pathlib import Path

import pytest
from checkout import REPOSITORY, Checkout, check_out


@pytest.fixture
def made_by(by_snakemake: Checkout, by_dvc: Checkout, tmp_path: Path) -> Callable[[str], Checkout]:
    """made_by("dvc") -> a copy, in another place, of the checkout that this engine ran in."""

    def copy(engine: str) -> Checkout:
        return {"snakemake": by_snakemake, "dvc": by_dvc}[engine].copy(tmp_path / engine)

    return copy


@pytest.fixture(scope="session", params=["snakemake", "dvc"])
def adopted(
    request: pytest.FixtureRequest, by_snakemake: Checkout, by_dvc: Checkout, tmp_path_factory: pytest.TempPathFactory
) -> Checkout:
    """A checkout that one engine ran in and the other adopted; tests must not change it."""
    maker = {"snakemake": by_snakemake, "dvc": by_dvc}[request.param]
    made = maker.copy(tmp_path_factory.mktemp("adopted") / request.param)
    made.run("anchored", "adopt", "--from", request.param)
    return made


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout of the demo in which nothing has run; tests must put back what they change."""
    return check_out(tmp_path_factory.mktemp("fresh") / "checkout", (REPOSITORY / "config" / "demo.yaml").read_text())
