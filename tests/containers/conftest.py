"""The image and the miniature study outside of it, each made once a session."""

from collections.abc import Iterator

import pytest
from built_image import Image, built_image
from checkout import HERE, Checkout, check_out


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """The image of this checkout."""
    with built_image() as made:
        yield made


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The miniature study, computed by this environment; tests must not change it."""
    checkout = check_out(tmp_path_factory.mktemp("outside") / "mini", (HERE / "mini.yaml").read_text())
    checkout.run("snakemake", "--cores", "2", timeout=1800)
    return checkout
