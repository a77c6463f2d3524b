from __future__ import annotations

from functools import cache
from typing import Any

from benchmarks.sign_in.contestants.floor import Floor
from benchmarks.sign_in.project import CLIENT_ID, CLIENT_SECRET, SCOPES


class Authlib(Floor):
    """Authlib's client for Django, which stores nothing itself: the rows are the floor's."""

    name = "Authlib"
    package = "Authlib"
    start = "/authlib/start"

    def urls(self) -> list[Any]:
        from django.urls import path

        return [
            path("authlib/start", start),
            path("authlib/callback", callback, name="authlib-callback"),
        ]

    def access_token(self, user: Any) -> str | None:
        return None  # it would be the floor's


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
