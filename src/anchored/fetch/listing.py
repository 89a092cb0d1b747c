"""The table of `anchored fetch --list`; docs/datasets.md holds the same, and a test compares them."""

from tabulate import tabulate

from anchored.amounts import amount
from anchored.fetch.sources import Source, find_source, load_sources

COLUMNS = ("source", "what", "download", "digest", "licence", "how", "last tried")


def list_sources(name: str | None = None) -> str:
    """All sources, or the one of that name, as a Markdown table.

    Raises:
        ConfigError: there is no such source.
    """
    rows = [_row(source) for source in ([find_source(name)] if name else load_sources().values())]
    return tabulate(rows, headers=COLUMNS, tablefmt="github", disable_numparse=True)


def _row(source: Source) -> tuple[str, ...]:
    exact = bool(source.files) and all(file.size for file in source.files)
    size = "?" if source.size is None else ("" if exact else "about ") + amount(source.size)
    pinned = {True: "known", False: "first use", None: "built"}[source.pinned]
    tried = source.verified.isoformat() if source.verified else "not tried"
    return source.name, source.title, size, pinned, ", ".join(licence.name for licence in source.licences), _how(source), tried


def _how(source: Source) -> str:
    if source.builder:
        return "built here"
    if source.by_hand:
        return "by hand"
    if source.hub:
        return "hub"
    return "download, archive" if any(file.archive for file in source.files) else "download"
