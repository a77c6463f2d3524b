"""Which URIs a developer may register."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from .api import ApiError, bad_request

__all__ = ["check_uri"]

MAX_URI_LENGTH = 2_000
LOCAL_HOSTS = {"localhost", "127.0.0.1"}


def check_uri(field: str, uri: Any) -> str:
    """Return a URI that may be registered. Raises a 400 that says what is wrong with it."""

    def refuse(why: str) -> ApiError:
        return bad_request(f"{field}: {why}", f"Rejected: {uri!r:.200}", "invalid_redirect_uri")

    if not isinstance(uri, str) or len(uri) > MAX_URI_LENGTH:
        raise refuse(f"each entry must be a string of up to {MAX_URI_LENGTH} characters.")
    if not uri.isascii() or not uri.isprintable() or " " in uri:
        raise refuse("only printable ASCII without spaces.")
    if "*" in uri:
        raise refuse("no wildcards; register every URI in full.")
    if "#" in uri:
        raise refuse("no fragments.")
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise refuse("this is not a URI.") from None
    if not host or parts.username is not None or parts.password is not None:
        raise refuse("an absolute URI with a host and without credentials.")
    if parts.scheme == "https" or (parts.scheme == "http" and host in LOCAL_HOSTS):
        return uri
    raise refuse("https is required; http is for localhost and 127.0.0.1 only.")
