"""What the views share: where a browser may be sent, and what kind of answer a caller wants."""

from typing import TypeVar
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import resolve_url
from django.utils.http import url_has_allowed_host_and_scheme

R = TypeVar("R", bound=HttpResponseBase)

__all__ = ["private", "safe_next", "single", "url_with", "wants_page"]


def single(request: HttpRequest, name: str) -> str | None:
    """A query parameter that was sent exactly once; RFC 6749 section 3.1 forbids repeating one."""
    values = request.GET.getlist(name)
    return values[0] if len(values) == 1 and _is_text(values[0]) else None


def _is_text(value: str) -> bool:
    """False for a lone surrogate: a Content-Type with an odd charset can bring one, and it fits
    into no URL, no log and no database."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def safe_next(request: HttpRequest, url: str | None) -> str:
    """`url` if it stays on this site, else "" (RFC 9700 section 4.11: no open redirector)."""
    if not url or not _is_text(url):
        return ""
    safe = url_has_allowed_host_and_scheme(
        url, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return url if safe else ""


def url_with(to: str, **query: str) -> str:
    """The URL of a view name or path, with those query parameters that are not empty."""
    url = resolve_url(to)
    given = {name: value for name, value in query.items() if value}
    if not given:
        return url
    url, mark, fragment = url.partition("#")
    return f"{url}{'&' if '?' in url else '?'}{urlencode(given)}{mark}{fragment}"


def wants_page(request: HttpRequest) -> bool:
    """Is this a browser's navigation, to be answered by a page, and not a fetch() for JSON?

    Browsers name text/html when they navigate; fetch() and curl send `*/*`.
    """
    return request.get_preferred_type(["application/json", "text/html"]) == "text/html"


def private(response: R) -> R:
    """For one person: in no cache, named to no other site (RFC 9700 section 4.2.4), in nobody's
    frame (section 4.16).

    Not `no-referrer`: browsers then post a page's forms with `Origin: null`, which Django refuses.
    """
    response["Cache-Control"] = "no-store, private"
    response["Referrer-Policy"] = "same-origin"
    response["X-Frame-Options"] = "DENY"
    return response
