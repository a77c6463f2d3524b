"""Reads a request: its parameters, and the kind of response that it expects."""

import copy

from django.http import HttpRequest, QueryDict

from django_quota.oidc.authorization_code import AuthorizationResponse


def query_value(request: HttpRequest, name: str) -> str | None:
    """The query parameter `name`; None if it is missing, not text, or sent more than once (which
    RFC 6749 section 3.1 forbids)."""
    values = request.GET.getlist(name)
    return values[0] if len(values) == 1 and is_text(values[0]) else None


def authorization_response(request: HttpRequest) -> AuthorizationResponse:
    """Return the parameters that Quota adds to the URL of the callback."""
    values = {
        name: (query_value(request, name) or "") if name in request.GET else None
        for name in ("code", "error", "iss")
    }
    return AuthorizationResponse(**values)


def without_query(request: HttpRequest) -> HttpRequest:
    """Return a copy of the request without code and state: the backend of mozilla-django-oidc
    accepts any keyword, and would send Quota's code to its own provider."""
    request = copy.copy(request)
    request.GET = QueryDict()
    request.META = {**request.META, "QUERY_STRING": ""}
    return request


def form_value(request: HttpRequest, name: str) -> str:
    """The form field `name`; "" if it is missing or not text."""
    value = request.POST.get(name, "")
    return value if is_text(value) else ""


def is_text(value: str) -> bool:
    """False for text with a lone surrogate, which no URL, log or database accepts. A Content-Type
    with an unusual charset can produce one."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def wants_page(request: HttpRequest) -> bool:
    """True for a browser's navigation, which gets a page; False for a fetch(), which gets JSON.

    Browsers accept text/html when they navigate; fetch() and curl send `*/*`. So does htmx, also
    for a link or a form that it has taken over (hx-boost), although that is a navigation.
    """
    return (
        is_boosted(request)
        or request.get_preferred_type(["application/json", "text/html"]) == "text/html"
    )


def is_htmx(request: HttpRequest) -> bool:
    """True for requests made by htmx. It would follow a redirect itself and insert the new page
    into the open one, so it is redirected by a header (`redirect_browser`)."""
    return request.headers.get("HX-Request") == "true"


def is_boosted(request: HttpRequest) -> bool:
    """True for a link or a form that htmx has taken over (hx-boost)."""
    return request.headers.get("HX-Boosted") == "true"


def expects_redirect(request: HttpRequest) -> bool:
    """True for a navigation or htmx, which `redirect_browser` redirects. A fetch() gets JSON."""
    return wants_page(request) or is_htmx(request)


def is_prefetch(request: HttpRequest) -> bool:
    """True if the browser loads the URL in advance, for a click that may never come."""
    # `Sec-Purpose` is in the Fetch standard; older browsers send the others.
    names = ("Sec-Purpose", "Purpose", "X-Moz", "X-Purpose")
    purposes = {request.headers.get(name, "").partition(";")[0].strip().lower() for name in names}
    return not purposes.isdisjoint(("prefetch", "prerender", "preview"))
