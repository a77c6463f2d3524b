"""A provider that does as it is told: honest by default, with a switch for each misbehaviour.

It speaks real HTTP and is as strict as RFC 6749, RFC 7636 and OpenID Connect Core 1.0 let a
provider be, so that a client that forgets its part is caught, too.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests import signing
from tests.tiny_server import Answer, Seen, TinyServer, answer, json_answer

CLIENT_ID = "quota_client_hostile"
CLIENT_SECRET = "quota_secret_hostile_hush"
REMOVED = ...

DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/.well-known/jwks.json"
AUTHORIZE = "/oauth/authorize"
TOKEN = "/oauth/token"
USERINFO = "/oauth/userinfo"
END_SESSION = "/oauth/logout"
REVOKE = "/oauth/revoke"


def changed(honest: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`honest` with the changes made; what is changed to `...` is left out."""
    return {name: value for name, value in (honest | changes).items() if value is not REMOVED}


@dataclass(frozen=True)
class Grant:
    """What a code stands for."""

    redirect_uri: str
    nonce: str | None
    code_challenge: str


class HostileProvider:
    """Each public attribute is a switch; a whole endpoint is replaced with `server.on(...)`."""

    def __init__(self, server: TinyServer) -> None:
        self.server = server
        self.origin = server.origin
        #: Who signs in, and what the provider says about them.
        self.person: dict[str, Any] = {
            "sub": "8c5f3f0e-7a4e-4b57-9c7e-0d6f0f5b1c11",
            "email": "ada@example.com",
            "email_verified": True,
            "name": "Ada Lovelace",
        }
        #: Changes to what an honest provider would say; `...` leaves something out.
        self.discovery: dict[str, Any] = {}
        self.callback: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.token: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        #: The members of the JWK Set, and how a header and claims become an id_token.
        self.keys: list[Any] = [signing.jwk("k1")]
        self.sign: Callable[[Any, Any], str] = signing.forge
        self._grants: dict[str, Grant] = {}
        for path, endpoint in (
            (DISCOVERY, self._discovery),
            (JWKS, self._jwks),
            (AUTHORIZE, self._authorize),
            (TOKEN, self._token),
            (USERINFO, self._userinfo),
            (REVOKE, lambda request: json_answer({})),
        ):
            server.on(path, endpoint)

    def asked(self) -> list[str]:
        """What was asked for so far: "POST /oauth/token" and so on."""
        return [f"{r.method} {r.target.partition('?')[0]}" for r in self.server.requests]

    def document(self) -> dict[str, Any]:
        """The discovery document as it is served now."""
        honest = {
            "issuer": self.origin,
            "authorization_endpoint": self.origin + AUTHORIZE,
            "token_endpoint": self.origin + TOKEN,
            "userinfo_endpoint": self.origin + USERINFO,
            "jwks_uri": self.origin + JWKS,
            "revocation_endpoint": self.origin + REVOKE,
            "end_session_endpoint": self.origin + END_SESSION,
            "id_token_signing_alg_values_supported": ["RS256"],
        }
        return changed(honest, self.discovery)

    def _discovery(self, request: Seen) -> Answer:
        return json_answer(self.document())

    def _jwks(self, request: Seen) -> Answer:
        return json_answer({"keys": self.keys})

    def _authorize(self, request: Seen) -> Answer:
        """The person says yes; RFC 6749 section 4.1.2."""
        query = {n: v[0] for n, v in parse_qs(urlsplit(request.target).query).items()}
        code = secrets.token_urlsafe(16)
        self._grants[code] = Grant(
            query["redirect_uri"], query.get("nonce"), query.get("code_challenge", "")
        )
        response = changed({"code": code, "state": query["state"]}, self.callback)
        return answer(
            status=302, Location=f"{query['redirect_uri']}?{urlencode(response, doseq=True)}"
        )

    def _token(self, request: Seen) -> Answer:
        """Strict: the code once, with this client's secret, redirect_uri and verifier."""
        form = request.form
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return json_answer({"error": "invalid_client"}, status=401)
        grant = self._grants.pop(form.get("code", ""), None)
        if grant is None or form.get("redirect_uri") != grant.redirect_uri:
            return json_answer({"error": "invalid_grant"}, status=400)
        if grant.code_challenge and s256(form.get("code_verifier", "")) != grant.code_challenge:
            return json_answer({"error": "invalid_grant"}, status=400)
        return json_answer(self.token_reply(grant.nonce))

    def token_reply(self, nonce: str | None) -> dict[str, Any]:
        honest = {
            "access_token": f"quota_token_{secrets.token_urlsafe(16)}",
            "refresh_token": f"quota_refresh_{secrets.token_urlsafe(16)}",
            "token_type": "Bearer",
            "expires_in": 3600,
            "scope": "openid profile email credits.read credits.spend",
        }
        if self.token.get("id_token") is not REMOVED:
            honest["id_token"] = self.id_token(nonce)
        return changed(honest, self.token)

    def id_token(self, nonce: str | None) -> str:
        now = int(time.time())
        honest = {
            "iss": self.document().get("issuer"),
            "aud": CLIENT_ID,
            "exp": now + 3600,
            "iat": now,
            "nonce": nonce,
            **self.person,
        }
        header = changed({"alg": "RS256", "typ": "JWT", "kid": "k1"}, self.header)
        return self.sign(header, changed(honest, self.claims))

    def _userinfo(self, request: Seen) -> Answer:
        if not request.headers.get("authorization", "").startswith("Bearer quota_token_"):
            return json_answer({"error": "invalid_token"}, status=401)
        return json_answer(changed(self.person, self.userinfo))


def s256(verifier: str) -> str:
    """RFC 7636 section 4.2."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
