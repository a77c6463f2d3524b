"""Saves the session inside a view, where a failure can still lead to an error page.

SessionMiddleware saves the session after the view, and a failure there is a plain 500.
"""

import logging

from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.db import Error

from django_quota.exceptions import ProviderUnavailable, SignInFailed

logger = logging.getLogger("django_quota.sign_in")


def save(session: SessionBase) -> None:
    """Save the session. Raises ProviderUnavailable if it has ended or the database is away."""
    try:
        type(session).save(session)
    except UpdateError:  # Django raises it for both
        raise ProviderUnavailable(
            "The session was ended in another tab meanwhile, or the database is away.",
            request_sent=False,
        ) from None


def save_or_refuse(session: SessionBase) -> None:
    """Save the session. Raises SignInFailed if it was ended in another tab."""
    try:
        session.save()
    except UpdateError:
        raise SignInFailed(
            "state_mismatch", "the session was ended in another tab meanwhile"
        ) from None


def reopen(session: SessionBase) -> SessionBase:
    """Return the same session, not read yet. SessionMiddleware's save of it may fail: `save` has
    saved what must be saved."""
    session = discard_changes(session)
    session.modified = True
    save = session.save

    def save_if_possible(must_create: bool = False) -> None:
        try:
            save(must_create)
        except (Error, UpdateError) as error:
            if must_create:
                raise
            logger.warning("the session was not saved again: %s", type(error).__name__)

    session.save = save_if_possible  # type: ignore[method-assign]
    return session


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
