"""One file over HTTP, continued where it stopped: a downloader for pooch.

What has come lies in `NAME.<address>.part`, with the server's ETag or Last-Modified beside it. A later attempt asks for the rest
of that very version (Range, If-Range; RFC 9110, 13.1.5 and 14.2); a server that cannot, or whose file changed, starts from zero.
The outcome is not believed: sizes are compared, pages are recognised, and pooch compares the digest before the file gets its name.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import requests
import urllib3

from anchored import __version__
from anchored.amounts import amount
from anchored.errors import AnchoredError, EnvironmentFailure, InputError
from anchored.fetch.bar import byte_bar
from anchored.fetch.page import PEEK, is_page, page_error
from anchored.fetch.redact import redacted
from anchored.files import disk_failure, write_json

_CHUNK = 256 << 10
_TIMEOUT = (15, 60)
_LONGEST_PAUSE = 60.0
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LATER = {408, 425, 429, 500, 502, 503, 504}

log = logging.getLogger("anchored")


class Unreachable(EnvironmentFailure):
    """The network or the server failed again and again; another address may work."""


class _Again(Exception):
    """Worth another attempt: after a pause, and from zero where `fresh`."""

    def __init__(self, reason: str, *, pause: float | None = None, fresh: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.pause, self.fresh = reason, pause, fresh


@dataclass(frozen=True)
class Resumable:
    """Downloads a file of `pooch.retrieve`; what has come survives a failure, a kill and a full disk.

    Args:
        folder: where the parts lie between attempts.
        name: name of the file, for parts and messages.
        size: bytes that the file must have, or None.
        at_most: bytes after which a transfer is cut off where `size` is None.
        digest_known: a whole digest will be compared; only then may a part without validator be continued, or a body without
            announced end be believed.
        attempts: consecutive attempts without a new byte before giving up.
        pause: waits; for tests.
    """

    folder: Path
    name: str
    size: int | None
    at_most: int
    digest_known: bool
    attempts: int = 6
    pause: Callable[[float], None] = lambda seconds: time.sleep(seconds)

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Brings `url` to `output_file`.

        Raises:
            InputError: the server refuses, has no such file, gives a page, or another size than it should.
            Unreachable: the network or the server failed too often.
            EnvironmentFailure: the disk is full; the part is kept.
        """
        part = Part.of(self.folder, self.name, url)
        with requests.Session() as session:
            session.headers.update({"User-Agent": f"anchored/{__version__}", "Accept-Encoding": "identity"})
            if url.startswith("https:"):
                del session.adapters["http://"]  # a redirect to it is refused before anything is said there
            self._persist(session, url, part)
        os.replace(part.file, output_file)
        part.remove()

    def _persist(self, session: requests.Session, url: str, part: "Part") -> None:
        failures, most = 0, part.length()
        while True:
            try:
                self._attempt(session, url, part)
                return
            except _Again as again:
                # `from None` below: the library's own texts hold whole addresses, which can hold credentials.
                failures = 1 if part.length() > most else failures + 1
                most = max(most, part.length())
                if again.fresh:
                    part.remove()
                if failures >= self.attempts:
                    reason = again.reason
                    break
                wait = min(_LONGEST_PAUSE, again.pause if again.pause is not None else 2.0 ** (failures - 1))
                log.info("%s: %s; again in %.0f s, from %s", self.name, again.reason, wait, amount(part.length()))
                self.pause(wait)
        raise Unreachable(
            f"{redacted(url)}: {reason}, {self.attempts} times in a row.",
            f"run the same command again later; it continues after {amount(part.length())}." if part.length() else
            "check the network and the proxy variables.",
        )  # fmt: skip

    def _attempt(self, session: requests.Session, url: str, part: "Part") -> None:
        part = part.usable(self.digest_known)
        offset = part.length()
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and part.validator:
            headers["If-Range"] = part.validator
        with _asked(session, url, headers) as response:
            if response.status_code == 416 and offset:
                if _content_range(response)[1] == offset:
                    self._refuse_size(url, response, offset)
                    return
                raise _Again("the server's file is not the one that was begun", pause=0, fresh=True)
            _refuse_status(url, response)
            self._take(url, part, response, offset)

    def _take(self, url: str, part: "Part", response: requests.Response, offset: int) -> None:
        """Writes the body of an answer behind the first `offset` bytes, or over them where the answer is the whole file."""
        body = _stream(response)
        head = next(body, b"")
        if is_page(self.name, response.headers.get("Content-Type", ""), b"" if response.status_code == 206 else head):
            raise page_error(url, head + b"".join(_first(body, PEEK)))
        if response.headers.get("Content-Encoding", "identity") != "identity" and not self.name.endswith((".gz", ".tgz")):
            raise InputError(f"{redacted(url)} gives the file in another encoding than asked for.", "fetch it with a browser.")
        validator, length = _validator(response), _length(response)
        if response.status_code == 206:
            start, total = _content_range(response)
            if start != offset or _differ(part.total, total) or _differ(part.validator, validator):
                raise _Again("the server's file changed meanwhile", pause=0, fresh=True)
            total = total or part.total or (None if length is None else offset + length)
        else:
            if offset:
                log.info("%s: the server starts from the beginning", self.name)
            offset, total = 0, length
        self._refuse_size(url, response, total)
        part = replace(part, validator=validator, total=total)
        self._write(url, part, head, body, offset)
        if total is not None and part.length() != total:
            raise _Again("the connection was cut")

    def _refuse_size(self, url: str, response: requests.Response, total: int | None) -> None:
        if total is not None and self.size not in (None, total):
            raise InputError(
                f"{redacted(url)} announces {total} bytes, but {self.name} has {self.size}.",
                "the publisher replaced it, or something else answers.",
            )
        if total is not None and total > (self.size or self.at_most):
            raise InputError(f"{redacted(url)} announces {amount(total)}; more than {amount(self.at_most)} is not believed.")
        endless = total is None and "chunked" not in response.headers.get("Transfer-Encoding", "").lower()
        if endless and self.size is None and not self.digest_known:
            raise InputError(
                f"{redacted(url)} does not say how long the file is, and no digest of {self.name} is known.",
                "a cut would go unnoticed: fetch it with a browser, compare its size, and place it by hand.",
            )

    def _write(self, url: str, part: "Part", head: bytes, body: Iterator[bytes], offset: int) -> None:
        limit = self.size or part.total or self.at_most
        try:
            if part.total is not None and (free := shutil.disk_usage(self.folder).free) < part.total - offset:
                raise EnvironmentFailure(
                    f"{self.name} needs another {amount(part.total - offset)}, {self.folder} has {amount(free)} free.",
                    "free space, or give another place with --to.",
                )
            if not offset:
                part.remember()
            bar = byte_bar(self.name, part.total, offset)
            with part.file.open("r+b" if offset else "wb", buffering=0) as stream, bar as advance:
                stream.truncate(offset)
                stream.seek(offset)
                done = offset
                while head:
                    done += len(head)
                    if done > limit:
                        break
                    _write_all(stream, head)
                    advance(done)
                    head = next(body, b"")
        except OSError as error:
            raise _disk(self.name, part, error) from None
        if done > limit:
            part.remove()
            raise InputError(
                f"{redacted(url)} sends more than the {amount(limit)} that {self.name} may have.",
                "something else answers in the publisher's place; nothing was kept.",
            )


@dataclass(frozen=True)
class Part:
    """What has come of a file from one address."""

    file: Path
    validator: str | None = None
    total: int | None = None

    @classmethod
    def of(cls, folder: Path, name: str, url: str) -> "Part":
        """The part of this address; never mixed with what another address gave."""
        return cls(folder / f"{name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")

    @property
    def notes(self) -> Path:
        """Validator and announced length, as JSON."""
        return self.file.with_name(self.file.name + ".json")

    def length(self) -> int:
        """Bytes that have come."""
        try:
            return self.file.stat().st_size
        except FileNotFoundError:
            return 0

    def usable(self, digest_known: bool) -> "Part":
        """The part with its notes; removed where nothing proves that the server would continue the same bytes."""
        try:
            notes = json.loads(self.notes.read_text())
            part = replace(self, validator=notes["validator"], total=notes["total"])
        except (OSError, ValueError, KeyError, TypeError):
            part = self
        if part.validator is None and not digest_known:
            part.remove()
            return Part(self.file)
        return part

    def remember(self) -> None:
        """Writes the notes of a file that begins."""
        self.file.unlink(missing_ok=True)
        write_json(self.notes, {"validator": self.validator, "total": self.total})

    def remove(self) -> None:
        """Forgets all that has come."""
        for file in (self.file, self.notes):
            with suppress(OSError):
                file.unlink(missing_ok=True)


def _asked(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    """The head of an answer. A redirect from https to anything else is refused: its file could be anybody's."""
    try:
        response = session.get(url, headers=headers, stream=True, timeout=_TIMEOUT)
    except requests.exceptions.TooManyRedirects:
        raise InputError(f"{redacted(url)} redirects without end.", "look at the address in a browser.") from None
    except requests.exceptions.InvalidSchema:
        raise InputError(f"{redacted(url)} redirects to an address that is not https.", "fetch it with a browser.") from None
    except requests.exceptions.SSLError:
        raise InputError(f"{redacted(url)}: the server's certificate is not accepted.", "check the clock and the proxy.") from None
    except requests.exceptions.Timeout:
        raise _Again("the server does not answer") from None
    except requests.exceptions.ConnectionError as error:
        cut = "aborted" in str(error).lower() or "reset" in str(error).lower()
        raise _Again("the connection was cut" if cut else "the server cannot be reached") from None
    except requests.exceptions.RequestException as error:
        raise InputError(f"{redacted(url)} cannot be asked: {type(error).__name__}.", "check the address and the proxy.") from None
    return response


def _refuse_status(url: str, response: requests.Response) -> None:
    code, where = response.status_code, redacted(url)
    if code in (200, 206):
        return
    if code in _LATER:
        wait = response.headers.get("Retry-After", "")
        raise _Again(f"the server answers {code} {response.reason}", pause=float(wait) if wait.isdecimal() else None)
    if code in (401, 403, 407):
        raise InputError(
            f"{where} refuses access ({code} {response.reason}).",
            "the publisher may ask for an account or an accepted licence: log in with a browser, put credentials for the host into "
            "~/.netrc, or place the file by hand.",
        )
    if code in (404, 410):
        raise InputError(f"{where} is not there ({code} {response.reason}).", "the publisher moved it: look for it on its pages.")
    raise InputError(f"{where} answers {code} {response.reason}.", "look at the address in a browser.")


def _stream(response: requests.Response) -> Iterator[bytes]:
    """The body as it travels. Raw: a decoded body would not be the bytes that Range counts."""
    try:
        yield from response.raw.stream(_CHUNK, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError):
        raise _Again("the connection was cut") from None


def _first(body: Iterator[bytes], count: int) -> Iterator[bytes]:
    with suppress(_Again):
        while count > 0 and (block := next(body, b"")):
            count -= len(block)
            yield block


def _length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """First byte and total of `Content-Range: bytes 5-9/10` or `bytes */10`."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    start = span.partition("-")[0]
    if unit != "bytes":
        return None, None
    return int(start) if start.isdecimal() else None, int(total) if total.isdecimal() else None


def _validator(response: requests.Response) -> str | None:
    """A strong ETag, else Last-Modified: what If-Range accepts."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _differ(one: Any, other: Any) -> bool:
    return one is not None and other is not None and one != other


def _write_all(stream: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[stream.write(view) :]


def _disk(name: str, part: Part, error: OSError) -> AnchoredError | Exception:
    if error.errno in _FULL:
        return EnvironmentFailure(
            f"cannot write {part.file}: {os.strerror(error.errno or 0).lower()}; {amount(part.length())} of {name} have come.",
            "free space or raise the quota, then run the same command again; it continues there.",
        )
    return disk_failure(part.file, error)
