"""Checks of URLs: this package's own, the error page, and the hosts that people return to."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.core.checks import CheckMessage, Error, Warning
from django.urls import (
    NoReverseMatch,
    Resolver404,
    ResolverMatch,
    URLPattern,
    get_script_prefix,
    resolve,
    reverse,
)

from django_quota.conf import Settings
from django_quota.web.redirects import url_with

from .common import is_path_of_subclass

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")


def check_urls(**kwargs: Any) -> list[CheckMessage]:
    """Check that no pattern before this package's URLs, such as a catch-all, matches them."""
    found: dict[tuple[str, str], str] = {}
    try:
        for path, match in _shadowed_paths():
            found.setdefault((match.route, match.view_name), path)
    except Exception:  # an error in a URL module of the project, which Django reports itself
        return []
    return [
        Error(
            f"{path} is one of django_quota's URLs, but the pattern {route!r} ({view}) comes "
            "before them and matches it.",
            hint="Put the line path('auth/quota/', include('django_quota.urls')) before the "
            "catch-all pattern.",
            id="django_quota.E007",
        )
        for (route, view), path in found.items()
    ]


def _shadowed_paths() -> Iterator[tuple[str, ResolverMatch]]:
    """Each path of this package that leads to another view, with that match."""
    from django_quota.urls import urlpatterns

    for pattern in urlpatterns:
        try:
            path = unquote(reverse(f"django_quota:{pattern.name}"))
            match = resolve("/" + path.removeprefix(get_script_prefix()))
        except (NoReverseMatch, Resolver404):
            continue  # not in the project's URLs (E005), or below a prefix with arguments
        # A project replaces one of our views on purpose by a pattern for this very path.
        is_exact = match.route == path.removeprefix(get_script_prefix())
        if not is_exact and not _leads_to_view(match, pattern):
            yield path, match


def _leads_to_view(match: ResolverMatch, pattern: URLPattern) -> bool:
    """True if `match` leads to the view of `pattern`, to a subclass or to a decorated copy."""
    if match.url_name == pattern.name and "django_quota" in match.app_names:
        return True
    view: Any = match.func
    while view is not None:
        if view is pattern.callback:
            return True
        view = getattr(view, "__wrapped__", None)  # set by decorators
    view_class = getattr(pattern.callback, "view_class", None)
    return view_class is not None and issubclass(
        getattr(match.func, "view_class", object), view_class
    )


def check_error_url(quota: Settings) -> Iterator[CheckMessage]:
    """Check that QUOTA_ERROR_URL is a path or the name of a URL."""
    try:
        url_with(quota.error_url)
    except NoReverseMatch:
        yield Error(
            f"QUOTA_ERROR_URL is {quota.error_url!r}, which is neither a path nor the "
            "name of a URL of this project.",
            hint='Is path("auth/quota/", include("django_quota.urls")) in your URLs? '
            'Otherwise set QUOTA_ERROR_URL to a path such as "/".',
            id="django_quota.E005",
        )


def check_error_page(quota: Settings) -> Iterator[CheckMessage]:
    """Check that LoginRequiredMiddleware does not hide the error page from anonymous visitors."""
    if not any(is_path_of_subclass(path, LoginRequiredMiddleware) for path in settings.MIDDLEWARE):
        return
    try:
        url = urlsplit(url_with(quota.error_url))
        page = resolve("/" + url.path.removeprefix(get_script_prefix()).lstrip("/"))
    except (NoReverseMatch, Resolver404):
        return  # check_error_url reports it, or the page is on another server
    if url.netloc or not getattr(page.func, "login_required", True):
        return
    yield Warning(
        f"QUOTA_ERROR_URL is {quota.error_url!r}, a page that LoginRequiredMiddleware shows "
        "only to users who are signed in: people whose sign-in failed cannot read the reason.",
        hint="Mark its view with @login_not_required, or leave QUOTA_ERROR_URL out: the "
        "package's own page is marked.",
        id="django_quota.W006",
    )


def check_next_hosts(quota: Settings) -> Iterator[CheckMessage]:
    """Check the return to other hosts, where one callback serves hosts that share a session."""
    if not quota.redirect_uri or not settings.SESSION_COOKIE_DOMAIN or quota.allowed_next_hosts:
        return
    callback = urlsplit(quota.redirect_uri).hostname
    if all(host in (callback, *LOCAL_HOSTS) for host in settings.ALLOWED_HOSTS):
        return
    yield Warning(
        f"People who sign in on another host of ALLOWED_HOSTS end on {callback}, the host of "
        "QUOTA_REDIRECT_URI.",
        hint="Name in QUOTA_ALLOWED_NEXT_HOSTS the hosts that people may be sent back to, such "
        f"as [{settings.SESSION_COOKIE_DOMAIN!r}].",
        id="django_quota.W007",
    )
