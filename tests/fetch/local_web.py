"""A web server on this machine that misbehaves as told, and remembers what it was asked."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """What the server gives for a path."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = '"1"'
    ranges: bool = True
    heeds_if_range: bool = True
    most: int | None = None
    """Bytes of an answer to a range: the server gives less than was asked for."""
    announced: bool = True
    """Content-Length is sent."""
    chunked: bool = False
    endless: bool = False
    cuts: list[int] = field(default_factory=list)
    """Bytes of the body after which the connection breaks, one for each request; afterwards none breaks."""
    wait: threading.Event | None = None
    """The body is held back until this is set."""
    reached: threading.Event = field(default_factory=threading.Event)
    """Set when the page was asked for."""


@dataclass
class Request:
    """What was asked."""

    path: str
    headers: Message
    method: str

    @property
    def first(self) -> int:
        """First byte that was asked for."""
        return int(self.headers.get("Range", "bytes=0-")[len("bytes=") :].split("-")[0])


class Web:
    """The server: `pages` by path (without query), `asked` in order."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.server = server
        self.pages: dict[str, Page] = {}
        self.asked: list[Request] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}{path}"

    def serve(self, path: str, body: bytes = b"", **settings) -> str:
        self.pages[path] = Page(body, **settings)
        return self.url(path)


@contextmanager
def serving() -> Iterator[Web]:
    """A running server on a free port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.web = web = Web(server)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        web: Web = self.server.web  # type: ignore[attr-defined]
        web.asked.append(Request(self.path, self.headers, self.command))
        page = web.pages.get(self.path.split("?")[0])
        if page is None:
            self.close_connection = True
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        page.reached.set()
        if page.wait is not None:
            page.wait.wait(30)
        self._send(page)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send(self, page: Page) -> None:
        first, status, body = 0, page.status, page.body
        asked = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if asked and page.ranges and status == 200 and (condition in (None, page.etag) or not page.heeds_if_range):
            first = int(asked[len("bytes=") :].split("-")[0])
            status = 206 if first < len(body) else 416
        self.close_connection = True
        self.send_response(status)
        self.send_header("Connection", "close")
        for name, value in page.headers.items():
            self.send_header(name, value)
        if page.etag:
            self.send_header("ETag", page.etag)
        if status == 416:
            self.send_header("Content-Range", f"bytes */{len(body)}")
            body, first = b"", 0
        if status == 206:
            last = min(len(body), first + (page.most or len(body))) - 1
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
            body = body[: last + 1]
        body = body[first:]
        if page.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif page.announced:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = page.cuts.pop(0) if page.cuts else None
        try:
            self._body(page, body if cut is None else body[:cut], whole=cut is None)
        except OSError:
            return  # the client had enough

    def _body(self, page: Page, body: bytes, *, whole: bool) -> None:
        if not page.chunked:
            while True:
                self.wfile.write(body)
                if not page.endless:
                    return
        pieces = [body[start : start + 1000] for start in range(0, len(body), 1000)]
        while True:
            for piece in pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if not page.endless:
                break
        if whole:
            self.wfile.write(b"0\r\n\r\n")
