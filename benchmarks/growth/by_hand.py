"""A renewal by hand, as a good engineer would write it for one project: the floor.

One transaction holds the row's lock while the provider is asked, so there is one request. What the
package does beyond that is not here: a rollback or a killed process in between loses the new pair,
and each caller who waits takes up a connection.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from benchmarks.sign_in.floor import client
from benchmarks.sign_in.floor.models import Token
from benchmarks.sign_in.project import CLIENT_ID, CLIENT_SECRET


def access_token(user: Any) -> str:
    """The user's access token, renewed first if it has expired."""
    with transaction.atomic():
        token = Token.objects.select_for_update().get(account__user_id=user.pk)
        if token.expires_at <= timezone.now():
            reply = refresh(token.refresh_token)
            now = timezone.now()
            token.access_token = reply["access_token"]
            token.refresh_token = reply["refresh_token"]
            token.expires_at = now + timedelta(seconds=reply["expires_in"])
            token.updated_at = now
            token.save(update_fields=["access_token", "refresh_token", "expires_at", "updated_at"])
    return str(token.access_token)


def refresh(refresh_token: str) -> dict[str, Any]:
    """The new tokens (RFC 6749 section 6)."""
    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
    }
    reply = client.http.post(
        client.metadata()["token_endpoint"],
        data=form,
        timeout=client.TIMEOUT,
        allow_redirects=False,
    )
    reply.raise_for_status()
    tokens: dict[str, Any] = reply.json()
    return tokens
