"""The files of a source, from their addresses or from the hub, each compared with everything that is known of it."""

import logging
from pathlib import Path

from anchored.errors import InputError
from anchored.fetch import hub as hugging_face
from anchored.fetch.digests import Digest, measure, mismatch, parse
from anchored.fetch.pins import Fetched, FetchedFile, record_path, write_record
from anchored.fetch.redact import redacted
from anchored.fetch.sources import RemoteFile, Source
from anchored.fetch.transfer import Resumable, Unreachable

Loaded = tuple[Fetched, dict[str, FetchedFile]]

log = logging.getLogger("anchored")


def from_addresses(source: Source, work: Path, folder: Path, record: Fetched, *, archive: bool) -> Loaded:
    """Downloads the files of a source to `work`/files, one after the other; each is written to the record at once.

    With `archive`, the archive is asked before the publisher.

    Raises:
        InputError: no address gives the file that it should be.
        Unreachable: no address answers.
        EnvironmentFailure: the disk is full; what has come is kept.
    """
    files: dict[str, FetchedFile] = {}
    for file in source.files:
        addresses = [*file.archive, file.url] if archive else [file.url, *file.archive]
        files[file.name] = _from_any(file, addresses, work / "files", record.files.get(file.name))
        record = _pinned(record, folder, file.name, files[file.name], known=any(digest.whole for digest in file.digests))
    return record, files


def from_hub(source: Source, work: Path, folder: Path, record: Fetched, *, archive: bool) -> Loaded:
    """Downloads the files of a repository to `work`/files, at the table's commit, else at the one of the first time."""
    rules = source.hub
    assert rules is not None
    revision, wanted = hugging_face.list_files(rules, rules.revision or record.revision)
    record = record.model_copy(update={"revision": revision})
    files: dict[str, FetchedFile] = {}
    for announced in wanted:
        path = hugging_face.download(rules, revision, announced.name, work / "files")
        known = [parse(rules.digests[announced.name])] if announced.name in rules.digests else []
        told = [Digest("sha256", announced.sha256)] if announced.sha256 else []
        where = hugging_face.hub_address(rules, revision, announced.name)
        files[announced.name] = _checked(path, where, [*known, *told], announced.size, record.files.get(announced.name))
        record = _pinned(record, folder, announced.name, files[announced.name], known=bool(known))
    _remove_bookkeeping(work / "files")
    return record, files


def _from_any(file: RemoteFile, addresses: list[str], folder: Path, pin: FetchedFile | None) -> FetchedFile:
    """The file from the first address that gives it."""
    failures: list[InputError | Unreachable] = []
    for url in addresses:
        if failures:
            log.warning("%s\n  trying %s", failures[-1].message, redacted(url))
        try:
            path = _retrieve(url, file, folder, pin)
            return _checked(path, redacted(url), file.digests, file.size, pin)
        except (InputError, Unreachable) as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    kind = InputError if any(isinstance(failure, InputError) for failure in failures) else Unreachable
    texts = "\n  ".join(failure.message for failure in failures)
    raise kind(f"{file.name} cannot be had from any of {len(failures)} addresses.\n  {texts}", failures[-1].hint)


def _retrieve(url: str, file: RemoteFile, folder: Path, pin: FetchedFile | None) -> Path:
    import pooch

    pooch.get_logger().setLevel("ERROR")
    whole = [digest for digest in file.digests if digest.whole] + ([Digest("sha256", pin.sha256)] if pin else [])
    place = folder / file.name
    place.parent.mkdir(parents=True, exist_ok=True)
    downloader = Resumable(place.parent, place.name, file.size, file.at_most, digest_known=bool(whole))
    try:
        got = pooch.retrieve(
            url, known_hash=":".join(whole[0]) if whole else None, fname=place.name, path=place.parent, downloader=downloader
        )
    except ValueError as error:  # pooch's only word for a digest that differs; it has removed the file
        first_time = pin if pin and whole[0].digits == pin.sha256 else None
        raise _other_bytes(redacted(url), str(error).partition(". ")[0], first_time) from None
    return Path(got)


def _checked(path: Path, where: str, digests: list[Digest], size: int | None, pin: FetchedFile | None) -> FetchedFile:
    """The record of a downloaded file that passed every comparison; any other is removed."""
    found = measure(path, [digest.algorithm for digest in digests])
    got = path.stat().st_size
    wrong = [text for digest in digests if (text := mismatch(found, digest))]
    if size is not None and got != size:
        wrong.append(f"it has {got} bytes, not {size}")
    if wrong or (pin and pin.sha256 != found["sha256"]):
        path.unlink()
        text = wrong[0] if wrong else f"its sha256 is {found['sha256']}, not {pin and pin.sha256}"
        raise _other_bytes(where, text, None if wrong else pin)
    return FetchedFile(sha256=found["sha256"], size=got, origin=where)


def _other_bytes(where: str, what: str, pin: FetchedFile | None) -> InputError:
    if pin:
        return InputError(
            f"{where} gives another file than the first time ({pin.origin}): {what}.",
            "nothing was kept. If the publisher says that it was replaced, remove the source's record in .fetched.",
        )
    return InputError(f"{where} gives another file than the table describes: {what}.", "nothing was kept.")


def _pinned(record: Fetched, folder: Path, name: str, file: FetchedFile, *, known: bool) -> Fetched:
    """The record with this file, written; says loudly where nothing but the first use vouches for it."""
    if not known and name not in record.files:
        log.warning(
            "no digest of %s was known beforehand: nobody vouches for it.\n  its sha256 %s is trusted from here on (%s); "
            "compare it with a colleague's.", name, file.sha256, record_path(folder, record.name),
        )  # fmt: skip
    record = record.model_copy(update={"files": {**record.files, name: file}})
    write_record(folder, record)
    return record


def _remove_bookkeeping(folder: Path) -> None:
    """The hub's library leaves its own notes beside the files."""
    import shutil

    shutil.rmtree(folder / ".cache", ignore_errors=True)
    shutil.rmtree(folder / ".huggingface", ignore_errors=True)
