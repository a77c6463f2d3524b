"""Origins of URLs (RFC 6454)."""

from urllib.parse import urlsplit


def origin(url: str) -> str:
    """Return scheme, host and port of `url`, in lower case, without a default port (RFC 6454
    section 4).

    Raises ValueError for a URL without an origin, so that two malformed URLs never compare equal.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not an http(s) URL with a host")
    default = {"http": 80, "https": 443}[parts.scheme]
    port = "" if parts.port in (None, default) else f":{parts.port}"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"
