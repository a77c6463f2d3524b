"""Saves the session inside a view, where a failure can still lead to an error page.

SessionMiddleware saves the session after the view, and a failure there is a plain 500.
"""

import logging
from typing import Any

from django.contrib import auth
from django.contrib.sessions.backends import db
from django.contrib.sessions.backends.base import (
    VALID_KEY_CHARS,
    CreateError,
    SessionBase,
    UpdateError,
)
from django.db import Error
from django.utils.crypto import constant_time_compare, get_random_string

from django_quota.exceptions import ProviderUnavailable, SignInFailed

logger = logging.getLogger("django_quota.sign_in")

#: The attribute of a session that holds what `_state` returned when it was saved last.
_SAVED = "_django_quota_saved"


def save(session: SessionBase) -> None:
    """Save the session, unless it is saved as it is. Raises ProviderUnavailable if it has ended or
    the database is away."""
    if _is_saved(session):
        return
    try:
        type(session).save(session)
    except UpdateError:  # Django raises it for both
        raise ProviderUnavailable(
            "The session was ended in another tab meanwhile, or the database is away.",
            request_sent=False,
        ) from None
    _note_saved(session)


def save_or_refuse(session: SessionBase) -> None:
    """Save the session. Raises SignInFailed if it was ended in another tab."""
    try:
        session.save()
    except UpdateError:
        raise SignInFailed(
            "state_mismatch", "the session was ended in another tab meanwhile"
        ) from None


def reopen(session: SessionBase) -> SessionBase:
    """Return the same session, not read yet. SessionMiddleware saves it again only if it has
    changed since `save`, and that may fail: `save` has saved what must be saved."""
    session = discard_changes(session)
    session.modified = True
    save = session.save

    def save_if_possible(must_create: bool = False) -> None:
        if not must_create and _is_saved(session):
            return
        try:
            save(must_create)
        except (Error, UpdateError) as error:
            if must_create:
                raise
            logger.warning("the session was not saved again: %s", type(error).__name__)

    session.save = save_if_possible  # type: ignore[method-assign]
    return session


def add_user(session: SessionBase, user: Any) -> None:
    """Write `user` into the session under a new key as `auth.login` does, which then has nothing to
    change in it.

    As there, nothing stays of another user's session, and the stored session has no user until it
    is saved after the receivers of `user_logged_in`: one may fail, or end all sessions of the user.
    """
    values = {
        auth.SESSION_KEY: user._meta.pk.value_to_string(user),
        auth.BACKEND_SESSION_KEY: user.backend,
        auth.HASH_SESSION_KEY: user.get_session_auth_hash(),
    }
    if auth.SESSION_KEY in session and not (
        session[auth.SESSION_KEY] == values[auth.SESSION_KEY]
        and constant_time_compare(
            session.get(auth.HASH_SESSION_KEY, ""), values[auth.HASH_SESSION_KEY]
        )
    ):
        session.clear()
    session.pop(auth.SESSION_KEY, None)
    renew_key(session)
    session.update(values)


def renew_key(session: SessionBase) -> None:
    """Save the session under a new key, and delete the old one: a person who knew the old key must
    not share the new session (session fixation).

    For Django's sessions in the database, this takes an INSERT and a DELETE. `cycle_key` looks
    first whether a random key of 32 characters is free, which the INSERT ensures, and reads the
    session that it deletes.
    """
    if type(session) is not db.SessionStore:
        session.cycle_key()
        return
    old = session.session_key
    while True:
        session._session_key = get_random_string(32, VALID_KEY_CHARS)
        try:
            type(session).save(session, must_create=True)
        except CreateError:
            continue
        break
    session.modified = True  # so that SessionMiddleware sends the new key
    if old is not None:
        session.model.objects.filter(session_key=old).delete()


def _state(session: SessionBase) -> tuple[str | None, bytes]:
    """Return the key and the data of the session, to compare them."""
    return session.session_key, session.serializer().dumps(dict(session.items()))


def _note_saved(session: SessionBase) -> None:
    # A session in the database stores exactly what the serializer returns. One in a cache may hold
    # objects that the serializer refuses, or between which it does not distinguish.
    if type(session) is db.SessionStore:
        setattr(session, _SAVED, _state(session))


def _is_saved(session: SessionBase) -> bool:
    saved = getattr(session, _SAVED, None)
    return saved is not None and saved == _state(session)


def discard_changes(session: SessionBase) -> SessionBase:
    """Return the same session, not read and not changed, so that nothing is saved."""
    return type(session)(session.session_key)


def load_or_discard(session: SessionBase) -> None:
    """Read the session that SessionMiddleware will save. If the database is away, mark the session
    as unchanged, so that the middleware does not try."""
    try:
        session.keys()
    except Error:
        session.modified = False
