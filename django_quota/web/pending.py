"""The sign-ins that this browser has started and not finished yet.

The session holds them, so that another browser cannot finish them (login CSRF, RFC 6749 section
10.12). It holds several, so that two tabs do not disturb each other. Each can be used once.
"""

import base64
import hashlib
import json
import secrets
import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from django.contrib.sessions.backends.base import SessionBase
from django.utils.crypto import constant_time_compare

from django_quota.conf import get_settings
from django_quota.tokens.clock import is_recent
from django_quota.wallet import caching

SESSION_KEY = "django_quota_pending"
#: The oldest sign-ins are dropped beyond this number, so that the session cannot grow without end,
#: and beyond these characters of JSON: if the session is a cookie, browsers drop a longer one
#: silently.
MAX_PENDING, MAX_LENGTH = 8, 3600
#: Seconds in which the person must come back from Quota.
LIFETIME = 15 * 60


@dataclass(frozen=True, kw_only=True)
class PendingSignIn:
    """A started sign-in, with the secrets that only its callback may use.

    The token request must repeat `redirect_uri` byte for byte (RFC 6749 section 4.1.3). For Connect
    Wallet, `user_pk` is the user who gets the wallet, and `replaces` the external id of the wallet
    that they agreed to replace. `extra_scopes` are scopes beyond those of the settings.
    """

    redirect_uri: str
    next: str = ""
    user_pk: str | None = None
    replaces: str = ""
    extra_scopes: str = ""
    state: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    code_verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)
    started_at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        for each in fields(self):
            if not isinstance(getattr(self, each.name), each.type):  # type: ignore[arg-type]
                raise TypeError(f"{each.name} has another type")

    @property
    def is_expired(self) -> bool:
        """True if the person has taken longer than LIFETIME to come back."""
        age = time.time() - self.started_at
        # The sign-in may have started on another server, whose clock is a little ahead.
        return not is_recent(age, LIFETIME, ahead=get_settings().clock_skew)

    @property
    def code_challenge(self) -> str:
        """S256 of the verifier (RFC 7636 section 4.2)."""
        digest = hashlib.sha256(self.code_verifier.encode("ascii")).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def save(session: SessionBase, pending: PendingSignIn) -> None:
    """Add `pending` to the session."""
    items = [*_stored_items(session), asdict(pending)][-MAX_PENDING:]
    while len(items) > 1 and len(json.dumps(items)) > MAX_LENGTH:
        del items[0]
    session[SESSION_KEY] = items


def pop(session: SessionBase, state: str | None) -> PendingSignIn | None:
    """Remove the sign-in with this `state` from the session and return it, however old it is.

    None if there is none, or if another request is using it at this moment.
    """
    found: dict[str, Any] | None = None
    others = []
    for item in _stored_items(session):
        if state and constant_time_compare(item.get("state", ""), state):
            found = item
        else:
            others.append(item)
    if found is None or not _is_first(str(state)):
        return None
    session[SESSION_KEY] = others
    try:
        return PendingSignIn(**found)
    except TypeError:  # saved by another version of this package, during a deployment
        return None


def _stored_items(session: SessionBase) -> list[dict[str, Any]]:
    """The items in the session, without any that another version of this package has saved."""
    items = session.get(SESSION_KEY)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _is_first(state: str) -> bool:
    """Return False for the second of two simultaneous requests, which have both read the session
    before the other saved it. Quota may revoke the tokens of a code that is sent twice (RFC 6749
    section 4.1.2)."""
    key = f"django_quota:taken:{hashlib.sha256(state.encode()).hexdigest()}"
    return caching.claim(key, LIFETIME, if_down=True)  # a sign-in must work while the cache is down
