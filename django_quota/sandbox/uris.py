"""Validation of the URIs that developers register."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from .api import bad_request

__all__ = ["check_uri"]

MAX_URI_LENGTH = 2_000
HTTP_HOSTS = {"localhost", "127.0.0.1"}


def check_uri(field: str, uri: Any) -> str:
    """Return the URI if a developer may register it. Raises a 400 that says why not."""
    problem = _find_problem(uri)
    if problem:
        hint = f"Rejected: {uri!r:.200}"
        raise bad_request(f"{field}: {problem}", hint, "invalid_redirect_uri")
    return str(uri)


def _find_problem(uri: Any) -> str:
    """Return what is wrong with a URI, or "" if it may be registered."""
    if not isinstance(uri, str) or len(uri) > MAX_URI_LENGTH:
        return f"a URI must be a string of up to {MAX_URI_LENGTH} characters."
    if not uri.isascii() or not uri.isprintable() or " " in uri:
        return "a URI must consist of printable ASCII characters without spaces."
    if "*" in uri:
        return "wildcards are not supported; register every URI in full."
    if "#" in uri:
        return "a URI must not have a fragment."
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "this is not a URI."
    if not host or parts.username is not None or parts.password is not None:
        return "a URI must be absolute, with a host and without credentials."
    if parts.scheme == "https" or (parts.scheme == "http" and host in HTTP_HOSTS):
        return ""
    return "https is required, except for localhost and 127.0.0.1."
