"""Random tokens, client ids and secrets, with the prefixes that Quota uses."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

__all__ = [
    "checksum",
    "generate_access_token",
    "generate_api_key",
    "generate_client_id",
    "generate_client_secret",
    "generate_refresh_token",
    "generate_session_token",
]


def generate_client_id() -> str:
    """Return a new client id."""
    return f"quota_client_{secrets.token_hex(16)}"


def generate_client_secret() -> str:
    """Return a new client secret."""
    return f"quota_secret_{secrets.token_urlsafe(32)}"


def generate_api_key() -> str:
    """Return a new API key for a developer's server."""
    return f"sk-quota-{secrets.token_urlsafe(32)}"


def generate_session_token() -> str:
    """Return a new session token for a developer."""
    return f"sess_{secrets.token_urlsafe(32)}"


def generate_access_token(request: Any) -> str:
    """Return a new access token; called by oauthlib."""
    return f"quota_token_{secrets.token_urlsafe(32)}"


def generate_refresh_token(request: Any) -> str:
    """Return a new refresh token; called by oauthlib."""
    return f"quota_refresh_{secrets.token_urlsafe(32)}"


def checksum(token: str) -> str:
    """Return the hexadecimal SHA-256 of a token, which is stored instead of the token."""
    return hashlib.sha256(token.encode()).hexdigest()
