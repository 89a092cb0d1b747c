"""Tests that need programs of the system: skipped where these are missing, unless whoever runs the tests promised them."""

import os

import pytest

PROMISED = "ANCHORED_REQUIRE"
"""Variable that names markers, separated by commas, whose tests must run: `ANCHORED_REQUIRE=slurm,containers make test`."""


def unavailable(marker: str, reason: str) -> None:
    """Skips the test, or fails it where `marker` was promised."""
    if marker in os.environ.get(PROMISED, "").split(","):
        pytest.fail(f"{PROMISED} promises tests marked {marker}, but {reason}")
    pytest.skip(reason)
