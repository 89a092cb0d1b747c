"""Addresses as they may be shown: without user, password, query and fragment, which can all hold credentials."""

import re
from urllib.parse import urlsplit


def redacted(url: str) -> str:
    """`url` without anything that could be a secret; says that there was a query."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}://{host}{port}{parts.path}" + ("?..." if parts.query else "")


def redacted_text(text: str) -> str:
    """What a program says, with every address in it as above."""
    return re.sub(r"\bhttps?://[^\s'\"<>()]+", lambda found: redacted(found[0]), text)
