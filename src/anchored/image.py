"""The container image that a step runs in, if any, and whether its code is that of the checkout.

`containers/describe` writes `image.json` beside the image's Python when the image is built; `docs/images.md` says what its digest
covers. An image holds its own copy of this package, while engines watch the files of the checkout: a step refuses to run where the
two differ, or an edit would seem to have been computed.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from anchored.errors import EnvironmentFailure, InputError
from anchored.steps import MODULES, PACKAGE, code_digest

# Set by the engines for the processes that they start: `step=digest` of each step's code as they watch it, separated by commas.
WATCHED = "ANCHORED_CODE"
_TOLD = ("digest", "sbom", "variant", "base", "revision", "modified")


def image() -> dict[str, Any] | None:
    """What a record says of the image: its digest, that of its list of packages, variant, base and commit. None outside of one.

    Raises:
        InputError: the image describes itself wrongly.
    """
    # Code from elsewhere (PYTHONPATH, an editable installation) is none of the image's.
    file = Path(sys.prefix) / "image.json"
    if not file.is_file() or not PACKAGE.is_relative_to(sys.prefix):
        return None
    try:
        told = json.loads(file.read_text())
        return {key: told[key] for key in _TOLD}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} does not describe this image.", "build the image again with containers/build.") from error


def watched_code() -> str:
    """The value of `ANCHORED_CODE` for this installation."""
    return ",".join(f"{step}={code_digest(step)[:16]}" for step in MODULES)


def require_watched_code(step: str, root: Path) -> None:
    """Compares the code of a step in an image with the code that an engine watches, or with the checkout in `root`.

    Raises:
        EnvironmentFailure: they differ.
    """
    told = image()
    if told is None:
        return
    watched = dict(part.split("=", 1) for part in os.environ.get(WATCHED, "").split(",") if "=" in part).get(step)
    if watched is None and (root / "src" / "anchored").is_dir():
        watched = code_digest(step, root / "src" / "anchored")
    if watched is not None and not code_digest(step, PACKAGE).startswith(watched[:16]):
        built = f"commit {told['revision'][:10]}" if told["revision"] else "other sources"
        changed = ", with uncommitted changes" if told["modified"] else ""
        raise EnvironmentFailure(
            f"the image was built from {built}{changed}; its code of {step} is not that of this checkout.",
            "build the image again with `containers/build`, or check out what it was built from.",
        )
