"""Remembers how the last sign-in in this browser ended, to stop redirect loops through Quota.

A page may redirect a signed-in person to sign in: `permission_required` does if they lack the
permission. Quota, where they are signed in, sends them back at once, and the page redirects them
again. So the session keeps where a sign-in has led to, and a failure that has not been shown yet.
"""

import hashlib
import time
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.db import Error
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare

from django_quota.tokens.clock import is_recent

LANDED_KEY = "django_quota_landed"
FAILED_KEY = "django_quota_failed"
#: Query parameters of a page that shows a failure (`django_quota.web.messages.explain`).
FAILURE_PARAMETERS = ("quota_error", "quota_ref", "quota_retry", "scope", "next")
#: Seconds for which an outcome counts as recent: a redirect loop returns within them, also on a
#: slow connection.
RECENT_SECONDS = 60
#: So many sign-ins in a row, each within RECENT_SECONDS of the last, are a loop.
MAX_ROUNDS = 5


def record_landing(session: SessionBase, state: str, url: str, extra_scopes: str) -> None:
    """Note that the sign-in with this `state` has succeeded and leads to `url`."""
    rounds = _recent_dict(session, LANDED_KEY).get("rounds", 0)
    session[LANDED_KEY] = {
        "state": _digest(state),
        "url": url,
        "extra_scopes": extra_scopes,
        "at": time.time(),
        "rounds": rounds + 1 if isinstance(rounds, int) else 1,
    }


def landing_url(session: SessionBase, state: str | None) -> str:
    """Return where the last sign-in led to, "" if its state was another one."""
    landed = _stored_dict(session, LANDED_KEY)
    if not state or not constant_time_compare(str(landed.get("state", "")), _digest(state)):
        return ""
    return str(landed.get("url", ""))


def has_been_at_quota(session: SessionBase) -> bool:
    """Return True if a sign-in has begun this session, so that Quota may have one, too."""
    return bool(_stored_dict(session, LANDED_KEY))


def is_round_trip(session: SessionBase, url: str, extra_scopes: str, *, has_next: bool) -> bool:
    """Return True if a sign-in for the same `extra_scopes` has just led to `url`.

    `has_next` is True if the request names `url`, as Django's decorators do. A person may click a
    button without `next` twice, so only MAX_ROUNDS sign-ins are a loop then, and also if `url`
    changes each time.
    """
    landed = _recent_dict(session, LANDED_KEY)
    if has_next and (landed.get("url"), landed.get("extra_scopes")) == (url, extra_scopes):
        return True
    rounds = landed.get("rounds")
    return isinstance(rounds, int) and rounds >= MAX_ROUNDS


def record_failure(request: HttpRequest, query: dict[str, str]) -> None:
    """Note that a sign-in has failed, and that a page of the project with `query` shall show it."""
    with suppress(Error):  # the database may be the reason of the failure
        if not request.session.is_empty():
            request.session[FAILED_KEY] = query | {"at": time.time()}


def forget_failure(request: HttpRequest) -> None:
    """Forget the failure, because a page shows it to the person."""
    session = getattr(request, "session", None)
    if session is not None:
        with suppress(Error):
            session.pop(FAILED_KEY, None)


def pop_failure(request: HttpRequest, next_url: str) -> dict[str, str]:
    """Return the query of a failure that has not been shown, because its page redirected the
    browser to sign in. Only once, so that the person can try again. {} if there is none."""
    query = _recent_dict(request.session, FAILED_KEY)
    request.session.pop(FAILED_KEY, None)
    if not query and settings.SESSION_COOKIE_NAME not in request.COOKIES:
        query = _failure_in(next_url)  # a browser without cookies has lost the session
    return {name: str(query[name]) for name in FAILURE_PARAMETERS if name in query}


def strip_failure(next_url: str) -> str:
    """Return `next_url`; if it is the page of an earlier failure, the `next` that it names."""
    query = _failure_in(next_url)
    return query.get("next", urlsplit(next_url)._replace(query="").geturl()) if query else next_url


def _failure_in(url: str) -> dict[str, str]:
    """The query of `url` if it is the page of a failure, else {}."""
    query = dict(parse_qsl(urlsplit(url).query))
    return query if {"quota_error", "quota_ref"} <= query.keys() else {}


def _stored_dict(session: SessionBase, key: str) -> dict[str, Any]:
    stored = session.get(key)
    return stored if isinstance(stored, dict) else {}


def _recent_dict(session: SessionBase, key: str) -> dict[str, Any]:
    stored = _stored_dict(session, key)
    at = stored.get("at")
    if not isinstance(at, float):
        return {}
    # Another server may have written it, and its clock may be ahead.
    return stored if is_recent(time.time() - at, RECENT_SECONDS, ahead=RECENT_SECONDS) else {}


def _digest(state: str) -> str:
    return hashlib.sha256(state.encode()).hexdigest()
