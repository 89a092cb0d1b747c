"""Sources that a person places: said what to do, then checked like any other."""

from pathlib import Path

from anchored.errors import InputError
from anchored.fetch.digests import measure, mismatch, parse
from anchored.fetch.pins import Fetched, FetchedFile
from anchored.fetch.sources import ByHand, Option, Placed, Source

ORIGIN = "placed by hand"


def check_placed(source: Source, folder: Path, record: Fetched) -> dict[str, FetchedFile]:
    """The files of a source that a person placed in `folder`, with their digests.

    A file that `record` knows and that did not change since is not read again; one without a known digest must be the same as at
    its first check.

    Raises:
        InputError: something is missing, or is not what it should be; the hint says what to do.
    """
    rules = source.by_hand
    assert rules is not None
    missing = [placed for placed in rules.files if not any((folder / option.name).exists() for option in placed.any)]
    if missing:
        lines = "; ".join(f"{placed.what} ({_forms(placed)})" for placed in missing)
        raise InputError(f"{source.name} is not complete in {folder}: {lines} missing.", _instructions(source, rules, folder))
    found: dict[str, FetchedFile] = {}
    for placed in rules.files:
        option = next(option for option in placed.any if (folder / option.name).exists())
        path = folder / option.name
        if option.file:
            found[option.name] = _check_file(path, option, record.files.get(option.name))
        else:
            _check_folder(path, option)
    return found


def _check_file(path: Path, option: Option, known: FetchedFile | None) -> FetchedFile:
    if not path.is_file():
        raise InputError(f"{path} is no file.", "place the publisher's file there.")
    status = path.stat()
    if known and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
        return known
    digest = parse(option.digest) if option.digest else None
    found = measure(path, [digest.algorithm] if digest else [])
    wrong = mismatch(found, digest) if digest else None
    if wrong:
        raise InputError(f"{path} is not the publisher's file: {wrong}.", "the download was cut or changed: download it again.")
    if known and known.sha256 != found["sha256"]:
        raise InputError(
            f"{path} is another file than before: its sha256 is {found['sha256']}, it was {known.sha256}.",
            "place the earlier one, or remove the record of this source in .fetched if the change is meant.",
        )
    return FetchedFile(sha256=found["sha256"], size=status.st_size, origin=ORIGIN, mtime_ns=status.st_mtime_ns)


def _check_folder(path: Path, option: Option) -> None:
    if not path.is_dir():
        raise InputError(f"{path} is no folder.", "place the unpacked folder there.")
    count = sum(1 for entry in path.iterdir() if not entry.name.startswith("."))
    if option.entries and count != option.entries:
        raise InputError(f"{path} holds {count} entries, not {option.entries}.", "it was unpacked incompletely: unpack it again.")


def _forms(placed: Placed) -> str:
    return " or ".join(f"the folder {option.folder}/" if option.folder else option.name for option in placed.any)


def _instructions(source: Source, rules: ByHand, folder: Path) -> str:
    licences = "; ".join(source.licence_lines)
    text = " ".join(rules.text.split())
    return f"{text} Place it in {folder.resolve()}, then run `anchored fetch {source.name}` again to check it. Licence: {licences}."
