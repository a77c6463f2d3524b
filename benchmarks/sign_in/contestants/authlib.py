from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

from benchmarks.sign_in.contestants.floor import Floor
from benchmarks.sign_in.project import CLIENT_ID, CLIENT_SECRET, SCOPES


class Authlib(Floor):
    """Authlib's client for Django, which stores nothing itself: the rows are the floor's.

    Its session renews a token that has expired, and calls `update_token` to have it stored; its
    client for Django would do so only with a request to an API.
    """

    name = "Authlib"
    package = "Authlib"
    start = "/authlib/start"

    def urls(self) -> list[Any]:
        from django.urls import path

        return [
            path("authlib/start", start),
            path("authlib/callback", callback, name="authlib-callback"),
        ]

    def access_token(self, user: Any) -> str:
        from benchmarks.sign_in.floor.models import Token

        row = Token.objects.get(account__user=user)
        with session_of(row) as session:
            session.ensure_active_token()
            return str(session.token["access_token"])


@cache
def client() -> Any:
    from authlib.integrations.django_client import OAuth

    from benchmarks.sign_in.settings import CONTESTANT

    return OAuth().register(
        "quota",
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        server_metadata_url=f"{CONTESTANT['origin']}/.well-known/openid-configuration",
        client_kwargs={
            "scope": " ".join(SCOPES),
            "code_challenge_method": "S256",
            "token_endpoint_auth_method": "client_secret_post",
        },
    )


def session_of(row: Any) -> Any:
    """A session with the token in that row."""
    from authlib.integrations.requests_client import OAuth2Session

    def save(token: Any, refresh_token: Any = None, access_token: Any = None) -> None:
        row.access_token, row.refresh_token = token["access_token"], token["refresh_token"]
        row.expires_at = datetime.fromtimestamp(token["expires_at"], UTC)
        row.save()

    return OAuth2Session(
        CLIENT_ID,
        CLIENT_SECRET,
        token_endpoint=client().load_server_metadata()["token_endpoint"],
        token_endpoint_auth_method="client_secret_post",
        token={
            "access_token": row.access_token,
            "refresh_token": row.refresh_token,
            "token_type": "Bearer",
            "expires_at": int(row.expires_at.timestamp()),
        },
        update_token=save,
    )


def start(request: Any) -> Any:
    from django.urls import reverse

    redirect_uri = request.build_absolute_uri(reverse("authlib-callback"))
    return client().authorize_redirect(request, redirect_uri)


def callback(request: Any) -> Any:
    from django.conf import settings
    from django.contrib.auth import login
    from django.http import HttpResponseRedirect

    from benchmarks.sign_in.floor.rows import write

    reply = client().authorize_access_token(request)
    user = write(reply["userinfo"], reply)
    login(request, user, backend=settings.AUTHENTICATION_BACKENDS[0])
    return HttpResponseRedirect("/")
