"""Detect impersonation: staff who act as a user, to see the site as that user does.

Four packages are detected by their marks: django-hijack, django-su and django-loginas mark the
session, django-impersonate marks the request. QUOTA_IMPERSONATION adds the project's own way. A
mark counts even if its package is no longer installed, because the session still belongs to the
person who began to act.
"""

from collections.abc import Callable
from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.signing import BadSignature, TimestampSigner
from django.http import HttpRequest

from django_quota.conf import get_settings
from django_quota.conf.functions import import_function

#: Characters of a name that a usage record stores.
MAX_NAME_LENGTH = 255
#: The name of a person if the mark contains no name, or its signature is not valid.
UNKNOWN = "unknown"


def who_acts(request: HttpRequest) -> str | None:
    """Return the name of the person who acts as the user of `request`; None if nobody does.

    It is their username, or the text that QUOTA_IMPERSONATION returns. In a chain of people who act
    as each other, it is the first one, who sits at the keyboard. It may use the session and the
    database, so async code calls it in a thread. Raises ConfigurationError if QUOTA_IMPERSONATION
    is wrong.
    """
    function = project_function()
    if function is not None and (actor := function(request)):
        return _name(actor)
    return _marked_in_session(getattr(request, "session", None)) or _marked_on_request(request)


def project_function() -> Callable[[HttpRequest], Any] | None:
    """Return the function that QUOTA_IMPERSONATION names; None if it is not set.

    Raises ConfigurationError if it names no plain function.
    """
    path = get_settings().impersonation
    task = "takes the request and returns the user who acts, or None"
    return None if path is None else import_function("QUOTA_IMPERSONATION", path, task)


def _marked_in_session(session: Any) -> str | None:
    if session is None:
        return None
    if trail := session.get(
        "hijack_history"
    ):  # django-hijack: primary keys, the first person first
        return _name_of_key(_first(trail))
    if trail := session.get("exit_users_pk"):  # django-su: pairs of primary key and backend
        return _name_of_key(_first(_first(trail)))
    flag = getattr(django_settings, "LOGINAS_FROM_USER_SESSION_FLAG", "loginas_from_user")
    if flag in session:  # django-loginas: a signed primary key
        try:
            return _name_of_key(TimestampSigner().unsign(session[flag]))
        except (BadSignature, TypeError, AttributeError):
            return UNKNOWN
    return None


def _marked_on_request(request: HttpRequest) -> str | None:
    """Return the name that django-impersonate marks. Its session mark covers some URLs only."""
    actor = getattr(request, "impersonator", None)
    return _name(actor) if actor else None


def _first(trail: Any) -> Any:
    return trail[0] if isinstance(trail, list | tuple) and trail else None


def _name_of_key(key: Any) -> str:
    """Return the username of the user with that primary key; the key if they are deleted."""
    if not isinstance(key, str | int):
        return UNKNOWN
    try:
        user = get_user_model()._base_manager.filter(pk=key).first()
    except (ValueError, OverflowError, ValidationError):
        return UNKNOWN
    return _name(user or str(key))


def _name(actor: Any) -> str:
    name = actor.get_username() if hasattr(actor, "get_username") else actor
    return str(name)[:MAX_NAME_LENGTH] or UNKNOWN
