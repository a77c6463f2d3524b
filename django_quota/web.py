"""What the views share: where a browser may be sent, and what kind of answer a caller wants."""

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from django.core import signing
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import resolve_url
from django.utils.functional import LazyObject
from django.utils.http import url_has_allowed_host_and_scheme

R = TypeVar("R", bound=HttpResponseBase)
V = TypeVar("V", bound=Callable[..., Any])

__all__ = [
    "current_page",
    "is_htmx",
    "is_sent_on",
    "outside_transactions",
    "posted",
    "private",
    "read_scope",
    "referring_page",
    "safe_next",
    "send_on",
    "sign_scope",
    "single",
    "url_with",
    "user_of",
    "wants_page",
]

#: Seconds in which a link that asks for one more scope is followed.
SCOPE_LIFETIME = 3600
_SCOPE_SALT = "django_quota.scope"


def outside_transactions(view: V) -> V:
    """`view`, in no transaction of the project's, of whichever database: none may be open while
    Quota is asked, and what is saved before that must stand (ATOMIC_REQUESTS)."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def single(request: HttpRequest, name: str) -> str | None:
    """A query parameter that was sent exactly once; RFC 6749 section 3.1 forbids repeating one."""
    values = request.GET.getlist(name)
    return values[0] if len(values) == 1 and _is_text(values[0]) else None


def posted(request: HttpRequest, name: str) -> str:
    """A field of a form; "" where there is none, or no text in it."""
    value = request.POST.get(name, "")
    return value if _is_text(value) else ""


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

    Browsers name text/html when they navigate; fetch() and curl send `*/*`. So does htmx, also for
    a link or a form that it has taken over (hx-boost), which is a navigation all the same.
    """
    return (
        _is_boosted(request)
        or request.get_preferred_type(["application/json", "text/html"]) == "text/html"
    )


def is_htmx(request: HttpRequest) -> bool:
    """Has htmx sent this? It follows a redirect by itself and swaps the page that it finds there
    into the one that is open; so it is sent on by a header of its own."""
    return request.headers.get("HX-Request") == "true"


def is_sent_on(request: HttpRequest) -> bool:
    """Is this a navigation, or htmx, which is sent on like one? A fetch() gets JSON."""
    return wants_page(request) or is_htmx(request)


def send_on(request: HttpRequest, url: str) -> HttpResponse:
    """Send a person's browser to `url`; htmx by its header: it cannot fetch another site, and would
    swap a page of this one into the one that is open."""
    if is_htmx(request):
        return HttpResponse(headers={"HX-Redirect": url})
    return HttpResponseRedirect(url)


def _is_boosted(request: HttpRequest) -> bool:
    return request.headers.get("HX-Boosted") == "true"


async def user_of(request: HttpRequest) -> Any:
    """`request.user` for async code. `request.auser` alone would miss a user that a middleware of
    the project's own has put there, for a key of its API, say."""
    user: Any = request.user
    return await request.auser() if isinstance(user, LazyObject) else user


def current_page(request: HttpRequest) -> str:
    """The page that the person is on, to come back to; "" where that cannot be said."""
    # What is boosted is a navigation: the address that it goes to is a page's own.
    if is_htmx(request) and not _is_boosted(request):
        return _page_of(request, "HX-Current-URL")
    # A form is not sent again, but the page that it stands on is there.
    return request.get_full_path() if request.method == "GET" else referring_page(request)


def referring_page(request: HttpRequest) -> str:
    """The page that a form or a script stands on; "" where the browser does not say."""
    return _page_of(request, "Referer")


def _page_of(request: HttpRequest, header: str) -> str:
    """The page of this site that `header` names, without scheme and host; else ""."""
    url = urlsplit(safe_next(request, request.headers.get(header)))
    # Once more: without the host, http://this.site//evil.example is another site's.
    return safe_next(request, url._replace(scheme="", netloc="").geturl())


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
