"""Links among the results: Snakemake does not replace those into DVC's cache; neither DVC nor git looks behind any."""

from collections.abc import Iterator
from pathlib import Path

from anchored.doctor.dvc_settings import settings
from anchored.doctor.finding import Finding, Patient, error, ok, warning

UNSAFE = ("hardlink", "symlink")
_FOLDERS = ("", "data", "backbones", "fim", "shards", "runs", "tables", "figures")


def check(patient: Patient) -> Iterator[Finding]:
    """DVC's kind of links, and folders of results that lie elsewhere."""
    found = [*linked_cache(patient.root), *linked_results(patient.root)]
    yield from found or [ok("links", "results are files of their own")]


def linked_cache(root: Path) -> Iterator[Finding]:
    """An error where DVC puts links into results/, or has put some there."""
    if not (root / ".dvc").is_dir():
        return
    kinds = _kinds(root)
    unsafe = [kind for kind in kinds if kind in UNSAFE]
    linked = _linked_files(root) if not unsafe else None
    if unsafe or linked:
        what = f"DVC's cache.type is {','.join(kinds)}" if unsafe else f"{linked} is a link into DVC's cache"
        yield error(
            "links",
            f"{what}: results would be write-protected links into the cache, which Snakemake does not replace.",
            "`dvc config cache.type reflink,copy` where it was set (--local, --global), then `dvc checkout --relink`.",
        )


def linked_results(root: Path) -> Iterator[Finding]:
    """A warning for every folder of results that is a link."""
    for name in _FOLDERS:
        folder = root / "results" / name
        if folder.is_symlink():
            yield warning(
                "links",
                f"{folder} is a link to {folder.resolve()}: Snakemake works, but DVC and git refuse what lies behind links.",
                "use a bind mount, or clone the repository on that disk.",
            )


def _kinds(root: Path) -> list[str]:
    found = (settings(root) or {}).get("cache.type", "")
    return [kind.strip() for kind in found.split(",")] if found else []


def _linked_files(root: Path) -> Path | None:
    """The first record that is a link into the cache, by kind of step; records stand for all outputs of theirs."""
    for record in sorted((root / "results").glob("*/*/record.json")):
        if record.is_symlink() or record.stat().st_nlink > 1:
            return record
    return None
