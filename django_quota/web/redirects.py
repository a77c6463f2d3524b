"""Builds and checks the URLs that a browser is redirected to, and redirects it."""

from typing import Any
from urllib.parse import urlencode, urlsplit

from django.conf import global_settings, settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.request import split_domain_port, validate_host
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, Resolver404, get_script_prefix, resolve, reverse
from django.utils.http import url_has_allowed_host_and_scheme

from django_quota.conf import get_settings
from django_quota.conf.origins import origin
from django_quota.exceptions import ConfigurationError

from .requests import is_boosted, is_htmx, is_text


def safe_next(request: HttpRequest, url: str | None) -> str:
    """Return `url` if it is on this host or on one of QUOTA_ALLOWED_NEXT_HOSTS, else "" (RFC 9700
    section 4.11: no open redirector)."""
    if not url or not is_text(url):
        return ""
    safe = url_has_allowed_host_and_scheme(
        url,
        allowed_hosts={request.get_host(), *_allowed_host_of(url)},
        require_https=request.is_secure(),
    )
    return url if safe else ""


def _allowed_host_of(url: str) -> set[str]:
    """The host of `url`, with its port, if QUOTA_ALLOWED_NEXT_HOSTS names it."""
    try:
        host = urlsplit(url).netloc
        allowed = get_settings().allowed_next_hosts
    except (ValueError, ConfigurationError):  # a system check reports it; this page may show it
        return set()
    domain, _port = split_domain_port(host)
    return {host} if domain and validate_host(domain, allowed) else set()


def url_on_this_host(request: HttpRequest, path: str) -> str:
    """Return `path` with scheme and host of this request, if the sign-in will return to another
    host (QUOTA_REDIRECT_URI) that may redirect here (QUOTA_ALLOWED_NEXT_HOSTS); else ""."""
    fixed, url = get_settings().redirect_uri, request.build_absolute_uri(path)
    if fixed is None or origin(fixed) == origin(url) or not _allowed_host_of(url):
        return ""
    return url


def url_with(to: str, **query: str) -> str:
    """Return the URL of a view name or path, with the query parameters that are not empty."""
    url = resolve_url(to)
    parameters = {name: value for name, value in query.items() if value}
    if not parameters:
        return url
    url, mark, fragment = url.partition("#")
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}{mark}{fragment}"


def url_for_script(request: HttpRequest, url: str) -> str:
    """Return `url` for a script: an absolute URL if the script's page is on another host."""
    return request.build_absolute_uri(url) if _is_cross_host(request) else url


def _is_cross_host(request: HttpRequest) -> bool:
    """Return True if `Origin` names another host, or is "null", as for a page without an origin.

    Schemes are not compared: behind a TLS proxy that Django does not know of, they differ for the
    site's own pages.
    """
    sent = request.headers.get("Origin")
    if sent is None:
        return False
    try:
        origin_host = urlsplit(sent).netloc.lower()
    except ValueError:
        return True
    return _without_default_port(origin_host) != _without_default_port(request.get_host().lower())


def _without_default_port(host: str) -> str:
    """Remove the default port, which browsers omit and some proxies add."""
    return host.removesuffix(":80").removesuffix(":443")


def site_url(to: Any = None) -> str:
    """Return the URL of a view name or path (str) of the settings; the site's home if it is not set
    or "/". On a sub-path (FORCE_SCRIPT_NAME), "/" would be the home of another site."""
    return resolve_url(to) if to and to != "/" else get_script_prefix()


def site_login_url(request: HttpRequest, next_url: str) -> str:
    """Return the URL of the site's own sign-in page (LOGIN_URL), which leads on to `next_url`; ""
    if there is none."""
    try:
        login_url = resolve_url(settings.LOGIN_URL) if settings.LOGIN_URL else ""
    except NoReverseMatch:
        return ""
    url = urlsplit(login_url)
    is_here = url.netloc in ("", request.get_host())
    if is_here and (url.path == reverse("django_quota:start") or not _is_login_page(url.path)):
        return ""
    if next_url and not is_here:
        next_url = request.build_absolute_uri(next_url)
    return url_with(login_url, next=next_url)


def _is_login_page(path: str) -> bool:
    """Return False for Django's default LOGIN_URL where the project has no such page."""
    if path != global_settings.LOGIN_URL:
        return bool(path)
    try:
        resolve(path)
    except Resolver404:
        return False
    return True


def user_home_url() -> str:
    """The page for a signed-in person without a `next`: LOGIN_REDIRECT_URL if set, else home."""
    is_set = settings.is_overridden("LOGIN_REDIRECT_URL")  # type: ignore[misc]
    return site_url(settings.LOGIN_REDIRECT_URL if is_set else None)


def redirect_browser(request: HttpRequest, url: str) -> HttpResponse:
    """Redirect the browser to `url`; htmx by its own header, as it cannot fetch another site, and
    would insert a page of this site into the open one."""
    if is_htmx(request):
        return HttpResponse(headers={"HX-Redirect": url})
    return HttpResponseRedirect(url)


def current_page(request: HttpRequest) -> str:
    """The page that the person is on, to return to; "" if it is not known."""
    # A boosted request is a navigation, so its URL is that of a page.
    if is_htmx(request) and not is_boosted(request):
        return _page_in(request, "HX-Current-URL")
    # A POST cannot be repeated, so return to the page of its form.
    return request.get_full_path() if request.method == "GET" else referring_page(request)


def referring_page(request: HttpRequest) -> str:
    """The page of the form or script that sends the request; "" if the browser does not name it."""
    return _page_in(request, "Referer")


def _page_in(request: HttpRequest, header: str) -> str:
    """The page that `header` names: a path on this host, or a URL on an allowed one; else ""."""
    page = safe_next(request, request.headers.get(header))
    url = urlsplit(page)
    if url.netloc and url.netloc != request.get_host():
        return page
    # Check the path, too: without its host, http://this.site//evil.example leads to another site.
    return safe_next(request, url._replace(scheme="", netloc="").geturl())
