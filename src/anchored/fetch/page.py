"""Web pages that come in place of a file: said what they are, so that nobody trains on a login form."""

import re

from anchored.errors import InputError
from anchored.fetch.redact import redacted

PEEK = 64 << 10
_PAGES = (
    (r"virus scan warning|can't scan this file|drive\.google\.com|google drive", "a confirmation page of Google Drive",
     "open the address in a browser, confirm, and place the file by hand."),
    (r"type=[\"']?password|sign in|log ?in", "a login page",
     "the publisher asks for an account: log in with a browser and place the file by hand."),
    (r"captcha|are you a robot|just a moment", "a page that asks whether you are human",
     "fetch it with a browser and place the file by hand."),
)  # fmt: skip


def is_page(name: str, content_type: str, head: bytes) -> bool:
    """Whether an answer is a web page though the file called `name` is none."""
    if name.endswith((".html", ".htm", ".xml")):
        return False
    if content_type.split(";")[0].strip().lower() in ("text/html", "application/xhtml+xml"):
        return True
    start = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html"))


def page_error(url: str, body: bytes) -> InputError:
    """The error that says which kind of page came instead of the file."""
    text = body.decode("utf-8", "replace")
    found = re.search(r"<title[^>]*>([^<]{1,200})", text, re.IGNORECASE)
    title = f", titled '{' '.join(found[1].split())[:80]}'" if found else ""
    for pattern, what, hint in _PAGES:
        if re.search(pattern, text, re.IGNORECASE):
            return InputError(f"{redacted(url)} gives {what}{title}, not the file.", hint)
    return InputError(f"{redacted(url)} gives a web page{title}, not the file.", "look at the address in a browser.")
