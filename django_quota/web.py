"""What the views share: where a browser may be sent, and what kind of answer a caller wants."""

from typing import TypeVar
from urllib.parse import urlencode, urlsplit

from django.core import signing
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import resolve_url
from django.utils.http import url_has_allowed_host_and_scheme

R = TypeVar("R", bound=HttpResponseBase)

__all__ = [
    "current_page",
    "is_htmx",
    "private",
    "read_scope",
    "safe_next",
    "sign_scope",
    "single",
    "url_with",
    "wants_page",
]

#: Seconds in which a link that asks for one more scope is followed.
SCOPE_LIFETIME = 3600
_SCOPE_SALT = "django_quota.scope"


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


def is_htmx(request: HttpRequest) -> bool:
    """Has htmx sent this? It follows a redirect by itself and swaps the page that it finds there
    into the one that is open; so it is sent on by a header of its own."""
    return request.headers.get("HX-Request") == "true"


def current_page(request: HttpRequest) -> str:
    """The page that the person is on, to come back to; "" where that cannot be said."""
    # What is boosted is a navigation: the address that it goes to is a page's own.
    if is_htmx(request) and request.headers.get("HX-Boosted") != "true":
        url = urlsplit(safe_next(request, request.headers.get("HX-Current-URL")))
        # Once more: without the host, http://this.site//evil.example is another site's.
        return safe_next(request, url._replace(scheme="", netloc="").geturl())
    return request.get_full_path() if request.method == "GET" else ""


def sign_scope(scope: str) -> str:
    """`scope` for a URL: nobody else can make a link that asks a person for more than this site
    wants."""
    return signing.TimestampSigner(salt=_SCOPE_SALT).sign(scope) if scope else ""


def read_scope(value: str | None) -> str:
    """What `sign_scope` has signed within the last hour, else ""."""
    try:
        signer = signing.TimestampSigner(salt=_SCOPE_SALT)
        return signer.unsign(value or "", max_age=SCOPE_LIFETIME)
    except signing.BadSignature:
        return ""


def private(response: R) -> R:
    """For one person: in no cache, named to no other site (RFC 9700 section 4.2.4), in nobody's
    frame (section 4.16).

    Not `no-referrer`: browsers then post a page's forms with `Origin: null`, which Django refuses.
    """
    response["Cache-Control"] = "no-store, private"
    response["Referrer-Policy"] = "same-origin"
    response["X-Frame-Options"] = "DENY"
    return response
