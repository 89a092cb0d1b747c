"""One file over HTTP: whatever the server does, the file is whole and right, or it is not there."""

import errno
import io
import logging
import random
import shutil
import tempfile
from pathlib import Path

import pytest
import requests
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st
from local_web import serving

from anchored.errors import EnvironmentFailure, InputError
from anchored.fetch.transfer import Resumable, Unreachable

CONTENT = random.Random(0).randbytes(50_000)
NEW = random.Random(1).randbytes(40_000)


def load(url: str, folder: Path, **settings) -> bytes:
    """The bytes that a transfer brings."""
    values = {"size": None, "at_most": 1_000_000, "digest_known": False, "pause": lambda seconds: None} | settings
    Resumable(folder, "file.bin", **values)(url, str(folder / "out"), None)
    return (folder / "out").read_bytes()


def left(folder: Path) -> set[str]:
    """Endings of what a transfer left behind."""
    return {"".join(path.name.partition(".part")[1:]) for path in folder.iterdir()}


@pytest.mark.parametrize("settings", [{}, {"chunked": True}, {"etag": None}, {"ranges": False}])
def test_whole_file(web, tmp_path, settings):
    """The plain case: one request, no part left."""
    assert load(web.serve("/f", CONTENT, **settings), tmp_path) == CONTENT
    assert len(web.asked) == 1
    assert left(tmp_path) == {""}


def test_empty_file(web, tmp_path):
    """Nothing is something, too."""
    assert load(web.serve("/f", b""), tmp_path) == b""


@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(0, len(CONTENT)), max_size=5), chunked=st.booleans())
def test_cut_connections_continue(cuts, chunked):
    """Wherever the line breaks, what has come is not asked for again, and the file is the publisher's."""
    folder = Path(tempfile.mkdtemp())
    try:
        with serving() as web:
            url = web.serve("/f", CONTENT, cuts=list(cuts), chunked=chunked)
            assert load(url, folder) == CONTENT
            starts = [request.first for request in web.asked]
            assert starts == sorted(starts)
            if not chunked:  # a chunk that was cut is lost; without chunks every byte counts
                expected = 0
                for request, cut in zip(web.asked, cuts, strict=False):
                    assert request.first == expected
                    expected = min(expected + cut, len(CONTENT))
    finally:
        shutil.rmtree(folder)


def test_later_run_continues(web, tmp_path):
    """A process that gave up or was killed leaves a part; the next one asks for the rest of that very version."""
    url = web.serve("/f", CONTENT, cuts=[10_000, 0, 0])
    with pytest.raises(Unreachable, match=r"the connection was cut, 2 times in a row") as raised:
        load(url, tmp_path, attempts=2)
    assert "it continues after 10.0 kB" in raised.value.hint
    assert left(tmp_path) == {".part", ".part.json"}
    web.asked.clear()
    web.pages["/f"].cuts.clear()
    assert load(url, tmp_path) == CONTENT
    assert [request.headers["Range"] for request in web.asked] == ["bytes=10000-"]
    assert web.asked[0].headers["If-Range"] == '"1"'


def test_progress_resets_the_count_of_failures(web, tmp_path):
    """Ten cuts are fine as long as bytes come."""
    assert load(web.serve("/f", CONTENT, cuts=[4000] * 10), tmp_path, attempts=2) == CONTENT


def test_server_without_ranges_starts_again(web, tmp_path):
    """The second answer is the whole file: it replaces the part instead of following it."""
    assert load(web.serve("/f", CONTENT, ranges=False, cuts=[10_000]), tmp_path) == CONTENT


@pytest.mark.parametrize("heeds", [True, False])
def test_changed_file_starts_again(web, tmp_path, heeds):
    """Half of one version and half of another is no file, also where the server ignores If-Range."""
    url = web.serve("/f", CONTENT, cuts=[10_000, 0])
    with pytest.raises(Unreachable):
        load(url, tmp_path, attempts=1)
    web.serve("/f", NEW, etag='"2"', heeds_if_range=heeds)
    assert load(url, tmp_path) == NEW


def test_changed_file_of_the_same_length_starts_again(web, tmp_path):
    """The server ignores If-Range and continues another version: only its ETag tells."""
    url = web.serve("/f", CONTENT, cuts=[10_000])
    with pytest.raises(Unreachable):
        load(url, tmp_path, attempts=1)
    web.serve("/f", CONTENT[::-1], etag='"2"', heeds_if_range=False)
    assert load(url, tmp_path) == CONTENT[::-1]


def test_rest_in_pieces(web, tmp_path):
    """A server may answer a range with less than was asked for (RFC 9110, 15.3.7): whole answers, and no whole file."""
    assert load(web.serve("/f", CONTENT, cuts=[10_000], most=15_000), tmp_path, attempts=2) == CONTENT
    assert [request.first for request in web.asked] == [0, 10_000, 25_000, 40_000]


def test_same_validator_other_length_starts_again(web, tmp_path):
    """A validator that lies is caught by the announced length."""
    url = web.serve("/f", CONTENT, cuts=[10_000])
    with pytest.raises(Unreachable):
        load(url, tmp_path, attempts=1)
    web.serve("/f", NEW)
    assert load(url, tmp_path) == NEW


@pytest.mark.parametrize(("etag", "date", "digest_known", "first"), [
    (None, None, False, 0),
    (None, None, True, 10_000),
    ('W/"1"', None, False, 0),
    (None, "Wed, 21 Oct 2015 07:28:00 GMT", False, 10_000),
])  # fmt: skip
def test_without_proof_of_sameness_no_continuation(web, tmp_path, etag, date, digest_known, first):
    """Without ETag, date and digest nobody would notice that the second half is of another file; a weak ETag proves nothing."""
    headers = {"Last-Modified": date} if date else {}
    url = web.serve("/f", CONTENT, etag=etag, headers=headers, cuts=[10_000], heeds_if_range=False)
    assert load(url, tmp_path, digest_known=digest_known) == CONTENT
    assert web.asked[1].first == first


def test_part_that_is_whole_already(web, tmp_path):
    """Killed between the last byte and the renaming: the server has nothing to add (416)."""
    url = web.serve("/f", CONTENT, cuts=[10_000])
    with pytest.raises(Unreachable):
        load(url, tmp_path, attempts=1)
    part = next(path for path in tmp_path.iterdir() if path.suffix == ".part")
    part.write_bytes(CONTENT)
    web.asked.clear()
    assert load(url, tmp_path) == CONTENT
    assert [request.first for request in web.asked] == [len(CONTENT)]


def test_part_that_is_too_long(web, tmp_path):
    """Somebody else's bytes: thrown away."""
    url = web.serve("/f", CONTENT, cuts=[10_000])
    with pytest.raises(Unreachable):
        load(url, tmp_path, attempts=1)
    part = next(path for path in tmp_path.iterdir() if path.suffix == ".part")
    part.write_bytes(CONTENT + b"more")
    assert load(url, tmp_path) == CONTENT


PAGES = {
    "<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title>": "a confirmation page of Google Drive, titled 'Google",
    "<html><title>Welcome</title><form><input type='password'>": "a login page, titled 'Welcome'",
    "<html>Just a moment... <noscript>": "a page that asks whether you are human",
    "\n  <html><body>hello": "a web page",
}


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
@pytest.mark.parametrize("page", PAGES)
def test_page_instead_of_the_file(web, tmp_path, page, kind):
    """Servers answer 200 with a page; it is recognised by its type, or by how it begins."""
    url = web.serve("/f", page.encode(), headers={"Content-Type": kind})
    with pytest.raises(InputError) as raised:
        load(url, tmp_path)
    assert f"/f gives {PAGES[page]}" in raised.value.message
    assert left(tmp_path) == set()


def test_page_does_not_cost_the_part(web, tmp_path):
    """A hotel's login page in the middle of a download must not undo it."""
    url = web.serve("/f", CONTENT, cuts=[10_000])
    with pytest.raises(Unreachable):
        load(url, tmp_path, attempts=1)
    web.serve("/f", b"<html>log in", ranges=False)
    with pytest.raises(InputError, match="a login page"):
        load(url, tmp_path)
    web.serve("/f", CONTENT)
    web.asked.clear()
    assert load(url, tmp_path) == CONTENT
    assert web.asked[0].first == 10_000


@pytest.mark.parametrize("settings", [{"chunked": True}, {"announced": False}])
def test_endless_body_is_cut_off(web, tmp_path, settings):
    """A server that never stops fills no disk."""
    url = web.serve("/f", CONTENT, endless=True, **settings)
    with pytest.raises(InputError, match=r"/f sends more than the 120\.0 kB that file\.bin may have"):
        load(url, tmp_path, at_most=120_000, digest_known=True)
    assert left(tmp_path) == set()


def test_body_longer_than_announced(web, tmp_path):
    """What a server sends behind the announced end is not read."""
    assert load(web.serve("/f", CONTENT, endless=True), tmp_path) == CONTENT


def test_announced_size(web, tmp_path):
    """The table's size, and its bound, are compared before a byte is written."""
    url = web.serve("/f", CONTENT)
    with pytest.raises(InputError, match=r"announces 50000 bytes, but file\.bin has 49999"):
        load(url, tmp_path, size=49_999)
    with pytest.raises(InputError, match=r"announces 50\.0 kB; more than 40\.0 kB is not believed"):
        load(url, tmp_path, at_most=40_000)
    assert left(tmp_path) == set()
    assert load(url, tmp_path, size=50_000, at_most=40_000) == CONTENT


def test_body_without_announced_end(web, tmp_path):
    """Such a body cannot be told from a cut one, except by a digest."""
    url = web.serve("/f", CONTENT, announced=False)
    with pytest.raises(InputError, match=r"does not say how long the file is, and no digest of file\.bin is known"):
        load(url, tmp_path)
    assert load(url, tmp_path, digest_known=True) == CONTENT


def test_body_in_another_encoding(web, tmp_path):
    """Bytes that only travel compressed are not the bytes that Range counts."""
    with pytest.raises(InputError, match="in another encoding"):
        load(web.serve("/f", CONTENT, headers={"Content-Encoding": "br"}), tmp_path)


@pytest.mark.parametrize(("status", "sentence"), [
    (401, "refuses access (401"), (403, "refuses access (403"), (404, "is not there (404"), (410, "is not there (410"),
    (400, "answers 400"),
])  # fmt: skip
def test_refusals_are_final(web, tmp_path, status, sentence):
    """Asking again would not help: one request, and what to do."""
    with pytest.raises(InputError) as raised:
        load(web.serve("/f", b"no", status=status), tmp_path)
    assert sentence in raised.value.message
    assert len(web.asked) == 1
    if status in (401, 403):
        assert "~/.netrc" in raised.value.hint
        assert "accepted licence" in raised.value.hint


def test_busy_server_is_asked_again(web, tmp_path):
    """With the pause that it asks for, else with ever longer ones."""
    pauses: list[float] = []
    url = web.serve("/f", b"", status=503, headers={"Retry-After": "7"})
    with pytest.raises(Unreachable, match=r"answers 503 Service Unavailable, 4 times in a row"):
        load(url, tmp_path, attempts=4, pause=pauses.append)
    web.serve("/f", b"", status=503)
    with pytest.raises(Unreachable):
        load(url, tmp_path, attempts=4, pause=pauses.append)
    assert pauses == [7, 7, 7, 1, 2, 4]


def test_nobody_answers(tmp_path):
    """A closed port: exit code 5 in the end, and where to look."""
    with serving() as web:
        url = web.url("/f")
    with pytest.raises(Unreachable, match="the server cannot be reached") as raised:
        load(url, tmp_path)
    assert "proxy" in raised.value.hint
    assert raised.value.exit_code == 5


def test_redirect_without_end(web, tmp_path):
    """It is followed for a while only."""
    with pytest.raises(InputError, match="redirects without end"):
        load(web.serve("/f", b"", status=302, headers={"Location": "/f"}), tmp_path)


@pytest.mark.parametrize("kind", ["http", "file"])
def test_redirect_that_drops_encryption(web, monkeypatch, tmp_path, kind):
    """Where no digest is known, a file over plain http could be anybody's; nothing is said there at all."""
    (tmp_path / "secret").write_bytes(b"secret")
    asked = []

    def redirect(adapter, request, **options):
        asked.append(request.url)
        answer = requests.Response()
        answer.status_code, answer.url, answer.request = 302, request.url, request
        answer.headers["Location"] = web.serve("/f", b"file") if kind == "http" else (tmp_path / "secret").as_uri()
        answer.raw = urllib3.HTTPResponse(io.BytesIO(b""), preload_content=False)
        return answer

    send = requests.adapters.HTTPAdapter.send
    monkeypatch.setattr(
        requests.adapters.HTTPAdapter, "send",
        lambda adapter, request, **options: (redirect if request.url.startswith("https") else send)(adapter, request, **options),
    )  # fmt: skip
    with pytest.raises(InputError, match="redirects to an address that is not https"):
        load("https://publisher.example/f", tmp_path)
    assert (asked, web.asked) == (["https://publisher.example/f"], [])


@pytest.mark.parametrize("status", [None, 403, 503])
def test_credentials_are_never_shown(web, tmp_path, caplog, status):
    """User, password and query of an address can be secrets: none is in an error, in its traceback, or in the log."""
    caplog.set_level(logging.DEBUG, logger="anchored")
    logging.getLogger("anchored").propagate = True
    url = web.serve("/f", b"", status=status or 200).replace("//", "//hans:geheim@") + "?token=schlüssel&X-Amz-Signature=5ecret"
    if status is None:
        web.server.shutdown()
        web.server.server_close()
    with pytest.raises((InputError, Unreachable)) as raised:
        load(url, tmp_path, attempts=2)
    logging.getLogger("anchored").debug("failed", exc_info=raised.value)
    for secret in ("geheim", "hans", "schl", "5ecret"):
        assert secret not in caplog.text
        assert secret not in str(raised.value)
    assert "/f" in caplog.text


def test_too_little_space_is_said_at_once(web, tmp_path, monkeypatch):
    """Before an hour of downloading."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 20_000, 20_000))
    with pytest.raises(EnvironmentFailure, match=r"file\.bin needs another 50\.0 kB, .* has 20\.0 kB free"):
        load(web.serve("/f", CONTENT), tmp_path)


def test_full_disk_keeps_the_part(web, tmp_path, monkeypatch):
    """What has come was paid for; the next run continues behind it."""
    written = []

    def write(stream, data):
        if sum(written) >= 20_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(stream.write(data[: 20_000 - sum(written)]))
        return len(written) and (len(data) <= written[-1] or write(stream, data[written[-1] :]))

    url = web.serve("/f", CONTENT)
    with monkeypatch.context() as patch:
        patch.setattr("anchored.fetch.transfer._write_all", write)
        with pytest.raises(EnvironmentFailure, match=r"no space left on device; 20\.0 kB of file\.bin have come") as raised:
            load(url, tmp_path)
    assert "it continues there" in raised.value.hint
    web.asked.clear()
    assert load(url, tmp_path) == CONTENT
    assert web.asked[0].first == 20_000
