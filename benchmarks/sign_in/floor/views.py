from __future__ import annotations

import base64
import hashlib
import secrets
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseRedirect
from django.urls import reverse

from benchmarks.sign_in.floor import client, rows
from benchmarks.sign_in.project import CLIENT_ID, SCOPES


def start(request: HttpRequest) -> HttpResponse:
    redirect_uri = request.build_absolute_uri(reverse("floor-callback"))
    state, nonce = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    verifier = secrets.token_urlsafe(48)
    digest = hashlib.sha256(verifier.encode()).digest()
    request.session["floor"] = {
        "state": state,
        "nonce": nonce,
        "code_verifier": verifier,
        "redirect_uri": redirect_uri,
    }
    query = {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": redirect_uri,
        "scope": " ".join(SCOPES),
        "state": state,
        "nonce": nonce,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    return HttpResponseRedirect(f"{client.metadata()['authorization_endpoint']}?{urlencode(query)}")


def callback(request: HttpRequest) -> HttpResponse:
    started = request.session.pop("floor", None)
    state = request.GET.get("state", "")
    if started is None or not secrets.compare_digest(started["state"], state):
        return HttpResponseBadRequest("unknown state")
    reply = client.exchange(
        request.GET["code"],
        redirect_uri=started["redirect_uri"],
        code_verifier=started["code_verifier"],
    )
    claims = client.validate(reply["id_token"], nonce=started["nonce"])
    user = rows.write(claims, reply)
    login(request, user, backend=settings.AUTHENTICATION_BACKENDS[0])
    return HttpResponseRedirect("/")
