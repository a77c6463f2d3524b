"""Random credentials with Quota's prefixes."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

__all__ = [
    "checksum",
    "new_access_token",
    "new_client_id",
    "new_client_secret",
    "new_refresh_token",
    "new_session_token",
]


def new_client_id() -> str:
    """Return a public client id."""
    return f"quota_client_{secrets.token_hex(16)}"


def new_client_secret() -> str:
    """Return a client secret, to be shown once."""
    return f"quota_secret_{secrets.token_urlsafe(32)}"


def new_session_token() -> str:
    """Return a developer's session token."""
    return f"sess_{secrets.token_urlsafe(32)}"


def new_access_token(request: Any) -> str:
    """Return an access token for an oauthlib request."""
    return f"quota_token_{secrets.token_urlsafe(32)}"


def new_refresh_token(request: Any) -> str:
    """Return a refresh token for an oauthlib request."""
    return f"quota_refresh_{secrets.token_urlsafe(32)}"


def checksum(token: str) -> str:
    """Return the hex SHA-256 by which a random token is stored and looked up."""
    return hashlib.sha256(token.encode()).hexdigest()
