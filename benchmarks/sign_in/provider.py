"""The provider of all contestants: `python -m benchmarks.sign_in.provider`, which takes orders.

It is the strict one of the tests, with a latency and with people who agree. It serves http, and
https with the certificate in the file that `BENCHMARK_CERTIFICATE` names.
"""

from __future__ import annotations

import base64
import dataclasses
import os
import re
import ssl
import threading
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.sign_in.project import CLIENT_ID, CLIENT_SECRET
from benchmarks.sign_in.rotation import Family
from benchmarks.sign_in.workers import answer_orders
from tests.hostile.provider import AUTHORIZE, DISCOVERY, JWKS, TOKEN, USERINFO, HostileProvider
from tests.tiny_server import Answer, Seen, TinyServer, json_answer

BASIC = "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()


class Provider(HostileProvider):
    """Honest. Many people may sign in at once, if the contestant sends a nonce."""

    def __init__(self, server: TinyServer) -> None:
        super().__init__(server)
        #: Seconds before each answer. To connect takes no longer for it, which favours whoever
        #: connects often.
        self.latency = 0.0
        self.newest_refresh_token = ""
        self.family = Family()
        #: Nonce -> who has agreed to that sign-in.
        self._people: dict[str | None, dict[str, Any]] = {}
        self._signing = threading.Lock()
        self.discovery = {
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
        }
        for path, endpoint in (
            (DISCOVERY, self._discovery),
            (JWKS, self._jwks),
            (TOKEN, self._token),
            (USERINFO, self._userinfo),
        ):
            server.on(path, partial(self._answer_later, endpoint))

    def _answer_later(self, endpoint: Callable[[Seen], Answer], request: Seen) -> Answer:
        return dataclasses.replace(endpoint(request), delay=self.latency)

    def _token(self, request: Seen) -> Answer:
        if request.form.get("grant_type") == "refresh_token":
            return self._refresh(request)
        return super()._token(request)

    def _refresh(self, request: Seen) -> Answer:
        """RFC 6749 section 6. The client's secret is in the form or the header."""
        form = request.form
        posted = (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
        if not posted and request.headers.get("authorization") != BASIC:
            return json_answer({"error": "invalid_client"}, status=401)
        pair = self.family.renew(form["refresh_token"])
        if pair is None:
            return json_answer({"error": "invalid_grant"}, status=400)
        return json_answer({**pair, "token_type": "Bearer", "expires_in": 3600})

    def issue(self) -> dict[str, str]:
        """The tokens that renewals begin with; the access token has expired."""
        self.family = Family()
        tokens = self.family.issue()
        self.family.expire()
        return tokens

    def judge(self, got: list[str], refresh_token: str) -> dict[str, Any]:
        return self.family.judge(got, refresh_token)

    def token_reply(self, nonce: str | None) -> dict[str, Any]:
        reply = super().token_reply(nonce)
        self.newest_refresh_token = reply["refresh_token"]
        return reply

    def id_token(self, nonce: str | None) -> str:
        with self._signing:
            self.person = self._people.pop(nonce)
            return super().id_token(nonce)

    def agree(self, url: str, sub: str) -> str:
        """As the person `sub` who agrees: the URL that leads back (RFC 6749 section 4.1.2)."""
        assert url.startswith(self.origin + AUTHORIZE), url
        (nonce,) = parse_qs(urlsplit(url).query).get("nonce", [None])
        self._people[nonce] = {
            "sub": sub,
            "email": f"{sub}@example.com",
            "email_verified": True,
            "name": "Ada Lovelace",
        }
        target = url.removeprefix(self.origin)
        reply = self._authorize(Seen(method="GET", target=target, headers={}, body=b""))
        (location,) = re.findall(rb"Location: (\S+)", reply.head)
        return str(location.decode())

    def count(self) -> dict[str, Any]:
        """Requests and new connections since this was asked last, and the newest refresh token."""
        counts = {"requests": self.asked(), "connections": self.server.connections}
        self.server.requests.clear()
        self.server.connections = 0
        return counts | {"refresh_token": self.newest_refresh_token}

    def set_latency(self, seconds: float) -> None:
        self.latency = seconds


def main() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(os.environ["BENCHMARK_CERTIFICATE"])
    with TinyServer() as plain, TinyServer(tls=tls) as encrypted:
        providers = {"http": Provider(plain), "https": Provider(encrypted)}

        def at(method: str) -> Callable[..., Any]:
            return lambda scheme, **what: getattr(providers[scheme], method)(**what)

        orders = {
            method: at(method) for method in ("agree", "count", "set_latency", "issue", "judge")
        }
        answer_orders({"origin": lambda scheme: providers[scheme].origin, **orders})


if __name__ == "__main__":
    main()
