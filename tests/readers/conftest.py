"""Prepared sets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import image_sets
import pytest

from anchored.data.store import Store, open_store
from anchored.errors import InputError
from anchored.paths import Paths
from anchored.preparation.step import prepare


@pytest.fixture
def packed(tmp_path: Path) -> Callable[..., Store]:
    """packed(reader="folder", folder="birds", ...) -> the store of a dataset below tmp_path."""

    def run(**dataset: Any) -> Store:
        prepare(image_sets.plan(set={"size": 8, **dataset}), "set", Paths(tmp_path))
        return open_store(Paths(tmp_path).data("set"))

    return run


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., InputError]:
    """refused(reader="folder", ...) -> why `prepare` refuses a dataset below tmp_path. Nothing may have been written."""

    def run(**dataset: Any) -> InputError:
        with pytest.raises(InputError) as caught:
            prepare(image_sets.plan(set={"size": 8, **dataset}), "set", Paths(tmp_path))
        data = Paths(tmp_path).data("set")
        assert not data.exists() or list(data.iterdir()) == []
        assert caught.value.exit_code == 3
        return caught.value

    return run
