"""A strict Quota for the soak: it rotates, ends what is used twice, and writes down who got what.

A grant is what one sign-in gives. Its newest refresh token, spent, gives the next pair and ends the
access token before; an older one ends the grant. Nothing of that has a grace period. It signs its
id_tokens, keeps a wallet for each person, answers chats for a price, and tells of both by webhook.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import select
import socket
import sys
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.signing import b64, forge, jwk

REFRESH, ACCESS = "quota_refresh_", "quota_token_"
#: Credits of the first person; the second has twice that, and so on: a balance says whose it is.
WALLET = 1_000_000_000
#: Seconds that a streamed answer takes.
STREAM = (0.05, 1.5)
#: A client waits 10 seconds for an answer. What it may have given up on is not carried out.
GIVE_UP_AFTER = 9.5


@dataclass
class Grant:
    """One sign-in's tokens."""

    sub: str
    number: int
    generation: int = -1
    expires_at: float = 0
    #: Which process got the newest pair, and when.
    owner: int = 0
    answered_at: float = 0
    #: What ended it: "user", at Quota; "revoked", by us; "reused", a token that was spent before.
    ended_by: str = ""
    #: The newest refresh token was given back to us.
    given_back: bool = False

    @property
    def newest(self) -> str:
        return f"{REFRESH}{self.sub}.{self.number}.{self.generation}"

    @property
    def access(self) -> str:
        return f"{ACCESS}{self.sub}.{self.number}.{self.generation}"


@dataclass(frozen=True)
class Call:
    """An AI call that somebody has paid."""

    id: str
    payer: str
    wanted: str
    process: int
    at: float
    #: All of the answer was sent.
    whole: bool
    streamed: bool


@dataclass
class Books:
    """What the provider has seen."""

    outcomes: Counter[str] = field(default_factory=Counter)
    grants: dict[int, Grant] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    balances: dict[str, int] = field(default_factory=lambda: defaultdict(int))


Answer = tuple[int, dict[str, Any]]


class Provider:
    """The server; a context manager. `tell(type, data)` is called for each webhook."""

    def __init__(self, people: list[str], tell: Callable[[str, dict[str, Any]], None]) -> None:
        self.books = Books(balances={sub: WALLET * n for n, sub in enumerate(people, 1)})
        self.tell = tell
        self._codes: dict[str, dict[str, str]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._answers = threading.Event()
        self._answers.set()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.provider = self
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._answers.set()
        self._server.shutdown()
        self._server.server_close()

    def hang(self, seconds: float) -> None:
        """Take requests and answer none, for so long."""
        self._answers.clear()
        time.sleep(seconds)
        self._answers.set()

    def wait(self, sock: socket.socket) -> bool:
        """During an outage, until it ends. False if the client has gone, or may be going."""
        if self._answers.is_set():
            return True
        began = time.monotonic()
        self._answers.wait()
        if time.monotonic() - began > GIVE_UP_AFTER:
            return False
        readable, _, _ = select.select([sock], [], [], 0)
        return not readable or bool(sock.recv(1, socket.MSG_PEEK))

    def authorize(self, url: str, sub: str) -> str:
        """As a person who agrees: the address that leads back to us (RFC 6749 section 4.1.2)."""
        asked = dict(parse_qsl(urlsplit(url).query))
        code = f"code_{random.getrandbits(128):032x}"
        with self._lock:
            self._codes[code] = asked | {"sub": sub}
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def disconnect(self, sub: str) -> None:
        """The person disconnects this app at Quota."""
        with self._lock:
            for grant in self.books.grants.values():
                if grant.sub == sub and not grant.ended_by:
                    grant.ended_by = "user"
        self.tell("user.disconnected", {"user_id": sub, "disconnected_at": _now()})

    def token(self, form: dict[str, str]) -> Answer:
        owner = int(form["client_secret"].rpartition("_")[2])
        with self._lock:
            if form["grant_type"] == "authorization_code":
                return self._exchange(form, owner)
            outcome, answer = self._refresh(form["refresh_token"], owner)
            self.books.outcomes[outcome] += 1
            return answer

    def _exchange(self, form: dict[str, str], owner: int) -> Answer:
        asked = self._codes.pop(form["code"], None)
        if asked is None or asked["code_challenge"] != _s256(form["code_verifier"]):
            return 400, {"error": "invalid_grant"}
        grant = Grant(asked["sub"], next(self._numbers))
        self.books.grants[grant.number] = grant
        self.books.outcomes["sign-ins"] += 1
        return 200, self._pair(grant, owner) | {"id_token": self._id_token(asked)}

    def _refresh(self, token: str, owner: int) -> tuple[str, Answer]:
        grant, generation = self._find(token)
        if grant is None or grant.ended_by:
            return "refused", (400, {"error": "invalid_grant"})
        if generation != grant.generation:
            grant.ended_by = "reused"
            return "reused", (400, {"error": "invalid_grant"})
        return "renewed", (200, self._pair(grant, owner))

    def _find(self, token: str) -> tuple[Grant | None, int]:
        _name, number, generation = token.rsplit(".", 2)
        return self.books.grants.get(int(number)), int(generation)

    def _pair(self, grant: Grant, owner: int) -> dict[str, Any]:
        lifetime = random.randint(20, 40)
        grant.generation += 1
        grant.expires_at = time.time() + lifetime
        grant.owner, grant.answered_at = owner, time.time()
        return {
            "access_token": grant.access,
            "refresh_token": grant.newest,
            "token_type": "Bearer",
            "expires_in": lifetime,
            "scope": "openid profile email credits.read credits.spend",
        }

    def _id_token(self, asked: dict[str, str]) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.origin,
            "sub": asked["sub"],
            "aud": asked["client_id"],
        }
        claims |= {"iat": now, "exp": now + 3600, "nonce": asked["nonce"]}
        return forge({"alg": "RS256", "typ": "JWT", "kid": "k1"}, claims)

    def revoke(self, form: dict[str, str]) -> Answer:
        with self._lock:
            grant, _generation = self._find(form["token"])
            self.books.outcomes["revoked"] += 1
            if grant is None:
                return 200, {}
            grant.given_back |= form["token"] in (grant.newest, grant.access)
            is_news, grant.ended_by = not grant.ended_by, grant.ended_by or "revoked"
        if is_news:
            self.tell("user.disconnected", {"user_id": grant.sub, "disconnected_at": _now()})
        return 200, {}

    def person(self, bearer: str) -> str | None:
        """Whose wallet a token opens, if it is good."""
        with self._lock:
            try:
                grant, _generation = self._find(bearer)
            except ValueError:
                return None
            good = grant is not None and not grant.ended_by and grant.access == bearer
            return grant.sub if grant and good and grant.expires_at > time.time() else None

    def describe(self, sub: str) -> Answer:
        """The person and what they have, at both endpoints that say so."""
        who = {"wallet": "oauth_user", "user_id": sub, "sub": sub, "name": f"Person {sub}"}
        return 200, who | {"balance": self.books.balances[sub]}

    def settle(self, sub: str, model: str) -> dict[str, Any]:
        """Charge for an answer; its `quota` block."""
        cost = random.randint(100, 2000)
        with self._lock:
            self.books.balances[sub] -= cost
            left = self.books.balances[sub]
        told = {"user_id": sub, "new_balance": left, "amount_spent": cost, "model": model}
        self.tell("balance.updated", told)
        if random.random() < 0.3:
            self.tell("usage.completed", {"user_id": sub, "credits_used": cost})
        return {"credits_used": cost, "balance_after": left}

    def note(self, sub: str, asked: dict[str, Any], call_id: str, *, whole: bool) -> None:
        """Write the call down, once its answer is out or its client is gone."""
        said = json.loads(asked["messages"][0]["content"])
        wanted = said["user"].removeprefix("quota-")
        streamed = bool(asked.get("stream"))
        call = Call(call_id, sub, wanted, said["pid"], time.time(), whole, streamed)
        with self._lock:
            self.books.calls.append(call)

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.origin,
            "authorization_endpoint": f"{self.origin}/oauth/authorize",
            "token_endpoint": f"{self.origin}/oauth/token",
            "userinfo_endpoint": f"{self.origin}/oauth/userinfo",
            "revocation_endpoint": f"{self.origin}/oauth/revoke",
            "jwks_uri": f"{self.origin}/.well-known/jwks.json",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    provider: Provider

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever hung up is no news; of anything else the run must not go on without a word."""
        if not isinstance(sys.exception(), ConnectionError):
            traceback.print_exc()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the books have it."""

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers["Content-Length"])))

    def _serve(self, body: bytes) -> None:
        provider = self.server.provider
        if not provider.wait(self.connection):
            self.close_connection = True
            return
        if self.path == "/v1/chat/completions":
            self._chat(json.loads(body))
        else:
            self._send(*self._answer(body))

    def _answer(self, body: bytes) -> Answer:
        provider = self.server.provider
        if self.path == "/oauth/token":
            return provider.token(_form(body))
        if self.path == "/oauth/revoke":
            return provider.revoke(_form(body))
        if self.path == "/.well-known/openid-configuration":
            return 200, provider.discovery()
        if self.path == "/.well-known/jwks.json":
            return 200, {"keys": [jwk()]}
        if self.path in ("/v1/balance", "/oauth/userinfo"):
            sub = self._person()
            return provider.describe(sub) if sub else _REFUSED
        return 404, {"error": {"code": "not_found", "message": self.path}}

    def _person(self) -> str | None:
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.server.provider.person(bearer)

    def _send(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _chat(self, asked: dict[str, Any]) -> None:
        provider, sub = self.server.provider, self._person()
        if sub is None:
            return self._send(*_REFUSED)
        call_id = f"chatcmpl-{random.getrandbits(96):024x}"
        whole = False
        try:
            if asked.get("stream"):
                self._stream(sub, asked, call_id)
            else:
                quota = provider.settle(sub, asked["model"])
                message = {"role": "assistant", "content": "Hello"}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                self._send(
                    200, _completion(call_id, choice, "chat.completion", usage=USAGE, quota=quota)
                )
            whole = True
        finally:
            provider.note(sub, asked, call_id, whole=whole)

    def _stream(self, sub: str, asked: dict[str, Any], call_id: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        settled = False
        pause = random.uniform(*STREAM) / 5
        try:
            for part in self._parts(call_id):
                self._write(part)
                time.sleep(pause)
            quota = self.server.provider.settle(sub, asked["model"])
            settled = True
            choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
            last = _completion(call_id, choice, usage=USAGE, quota=quota)
            self._write(f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")
        finally:
            if not settled:  # whoever hangs up pays for what was sent
                self.server.provider.settle(sub, asked["model"])

    def _parts(self, call_id: str) -> Iterator[str]:
        for word in ("Hello", ", ", "dear", " ", "reader"):
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            yield f"data: {json.dumps(_completion(call_id, choice))}\n\n"

    def _write(self, text: str) -> None:
        data = text.encode()
        readable, _, _ = select.select([self.connection], [], [], 0)
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            raise BrokenPipeError
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
_REFUSED: Answer = (401, {"error": {"code": "invalid_token", "message": "The token is not good."}})


def _completion(
    call_id: str, choice: dict[str, Any], kind: str = "chat.completion.chunk", **extra: Any
) -> dict[str, Any]:
    head = {"id": call_id, "object": kind, "created": 1, "model": "gpt-4o-mini"}
    return {**head, "choices": [choice], **extra}


def _form(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode(), strict_parsing=True))


def _s256(verifier: str) -> str:
    return b64(hashlib.sha256(verifier.encode()).digest())


def _now() -> str:
    return datetime.now(UTC).isoformat()
