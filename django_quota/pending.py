"""Sign-ins that have been started in this browser and not come back yet.

They live in the session, under a key of our own, so that another browser cannot finish them
(login CSRF, RFC 6749 section 10.12) and two tabs do not disturb each other. Each can be taken
once.
"""

import base64
import hashlib
import json
import logging
import secrets
import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from django.contrib.sessions.backends.base import SessionBase
from django.core.cache import cache
from django.utils.crypto import constant_time_compare

from .conf import get_settings

__all__ = ["LIFETIME", "MAX_PENDING", "PendingSignIn", "keep", "take"]

logger = logging.getLogger("django_quota.pending")

SESSION_KEY = "django_quota_pending"
#: The oldest are dropped for the next one: a session must not grow without bound. In characters of
#: JSON: what does not fit into a cookie, where that is the session, browsers drop without a word.
MAX_PENDING, MAX_LENGTH = 8, 3600
#: Seconds in which a person has to come back from Quota.
LIFETIME = 15 * 60


@dataclass(frozen=True, kw_only=True)
class PendingSignIn:
    """What the callback needs to know of the start, and nobody else may.

    `redirect_uri` is kept because the exchange must repeat it byte for byte (RFC 6749 section
    4.1.3). `user_pk` is set for Connect Wallet: who is to be connected; `replaces` is the external
    id of the wallet that they have agreed to give up for it. `needs` are the scopes beyond the
    settings' for which this sign-in was started.
    """

    redirect_uri: str
    next: str = ""
    user_pk: str | None = None
    replaces: str = ""
    needs: str = ""
    state: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    code_verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)
    started_at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        for known in fields(self):
            if not isinstance(getattr(self, known.name), known.type):  # type: ignore[arg-type]
                raise TypeError(f"{known.name} is of another type")

    @property
    def is_expired(self) -> bool:
        """Has the person taken longer than LIFETIME to come back?"""
        age = time.time() - self.started_at
        # The start may have been stamped by another server, whose clock is a little ahead.
        return not -get_settings().clock_skew <= age <= LIFETIME

    @property
    def code_challenge(self) -> str:
        """S256 of the verifier (RFC 7636 section 4.2)."""
        digest = hashlib.sha256(self.code_verifier.encode("ascii")).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def keep(session: SessionBase, pending: PendingSignIn) -> None:
    """Remember `pending` in this browser's session."""
    items = [*_kept(session), asdict(pending)][-MAX_PENDING:]
    while len(items) > 1 and len(json.dumps(items)) > MAX_LENGTH:
        del items[0]
    session[SESSION_KEY] = items


def take(session: SessionBase, state: str | None) -> PendingSignIn | None:
    """The sign-in with this `state`, which is forgotten by that, however old; None if there is none
    or somebody else takes it at this moment."""
    found: dict[str, Any] | None = None
    others = []
    for item in _kept(session):
        if state and constant_time_compare(item.get("state", ""), state):
            found = item
        else:
            others.append(item)
    if found is None or not _is_first(str(state)):
        return None
    session[SESSION_KEY] = others
    try:
        return PendingSignIn(**found)
    except TypeError:  # kept by another version of this package, during a deployment
        return None


def _kept(session: SessionBase) -> list[dict[str, Any]]:
    """What is in the session, without what another version of this package may have put there."""
    items = session.get(SESSION_KEY)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _is_first(state: str) -> bool:
    """False for the second of two requests at once, which have both read the session as it was:
    a code that is sent twice may cost its tokens (RFC 6749 section 4.1.2).

    As good as the cache is: one for each process closes the gap within a process only.
    """
    key = f"django_quota:taken:{hashlib.sha256(state.encode()).hexdigest()}"
    try:
        # Some caches hide that they are down: nothing is added, and nothing is there.
        return bool(cache.add(key, True, LIFETIME)) or cache.get(key) is None
    except Exception as error:  # a cache that is down must not stop a sign-in
        logger.warning("the cache cannot be written: %s", type(error).__name__)
        return True
