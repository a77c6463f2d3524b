"""A token endpoint for storms: real HTTP, strict rotation, and a count of every refresh token.

Nothing has to be registered. `quota_refresh_NAME.0` is the first refresh token of the family NAME;
spending it gives `quota_refresh_NAME.1` and `quota_token_NAME.1`, and spending it again ends the
family. It knows no cryptography and gives no id_token, so it is no bottleneck.

In a process of its own: `python -m tests.light_provider --port 0` prints its origin, and serves
until it is terminated. `GET /counts` gives `Counts` as JSON, `POST /settings` takes any of
`Switches`, and `POST /reset` forgets everything.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs

REFRESH, ACCESS = "quota_refresh_", "quota_token_"


@dataclass
class Switches:
    """How Quota behaves."""

    #: Seconds before each answer of the token endpoint.
    latency: float = 0
    #: HTTP status to fail with: family -> status; "*" stands for all families.
    fail: dict[str, int] = field(default_factory=dict)
    #: Seconds of Retry-After in a failure.
    retry_after: int | None = None
    #: Seconds in which the token that was spent last gets its successors once more.
    grace_period: float = 0
    #: Take the request and never answer. Whoever hangs is let go when it is switched off.
    hang: bool = False
    #: Answer only when so many renewals wait for an answer: proof that they are made at once.
    together: int = 1
    #: Seconds that an access token lives.
    expires_in: int = 3600
    #: What the client has to send.
    client_secret: str = "quota_secret_test"


@dataclass
class Counts:
    """What was asked."""

    #: Refresh token -> how often it was sent.
    sent: Counter[str] = field(default_factory=Counter)
    #: Refresh requests by what became of them: renewed, again (in the grace period), reused (which
    #: ends the family), refused (of an ended family), failed, client (refused).
    outcomes: Counter[str] = field(default_factory=Counter)
    revoked: Counter[str] = field(default_factory=Counter)


@dataclass
class _Family:
    generation: int = 0
    spent_at: float = 0
    ended: bool = False


Answer = tuple[int, dict[str, Any]]


class LightProvider:
    """The server; a context manager. Its `counts` and `switches` may be used directly, too."""

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.origin = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self.reset()

    def reset(self) -> None:
        with self._lock:
            self.switches = Switches()
            self.counts = Counts()
            self._families: dict[str, _Family] = {}
            self._gathering: threading.Barrier | None = None

    def set(self, **switches: Any) -> None:
        with self._lock:
            self.switches = Switches(**(asdict(self.switches) | switches))
            together = self.switches.together
            self._gathering = threading.Barrier(together) if together > 1 else None

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def _run(self, work: Callable[..., None], *of: Any) -> None:
        thread = threading.Thread(target=work, args=of, daemon=True)
        self._threads.add(thread)
        thread.start()

    def __exit__(self, *error: object) -> None:
        self.set(hang=False)
        # Shut down before it is closed: that is what wakes the thread which accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                sock, _address = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(sock)
            self._run(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as stream, contextlib.suppress(OSError):
            while (request := _read(stream)) is not None:
                sock.sendall(_bytes(*self._answer(*request)))
        self._open.discard(sock)
        self._threads.discard(threading.current_thread())

    def _answer(self, target: str, body: bytes) -> tuple[int, dict[str, Any], int | None]:
        document: dict[str, Any] = {}
        status, retry_after = 200, None
        if target == "/oauth/token":
            status, document = self._token(_form(body))
            retry_after = self.switches.retry_after if status not in (200, 400, 401) else None
        elif target == "/oauth/revoke":
            self._revoke(_form(body)["token"])
        elif target == "/.well-known/openid-configuration":
            document = self._discovery()
        elif target == "/.well-known/jwks.json":
            document = {"keys": []}  # it signs nothing
        elif target == "/counts":
            with self._lock:
                document = {name: dict(count) for name, count in vars(self.counts).items()}
        elif target == "/settings":
            self.set(**json.loads(body))
        elif target == "/reset":
            self.reset()
        else:
            status, document = 404, {"error": "not_found"}
        return status, document, retry_after

    def _discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.origin,
            "authorization_endpoint": f"{self.origin}/oauth/authorize",
            "token_endpoint": f"{self.origin}/oauth/token",
            "revocation_endpoint": f"{self.origin}/oauth/revoke",
            "jwks_uri": f"{self.origin}/.well-known/jwks.json",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def _token(self, form: dict[str, str]) -> Answer:
        assert form["grant_type"] == "refresh_token", form["grant_type"]
        token = form["refresh_token"]
        family, _, generation = token.removeprefix(REFRESH).rpartition(".")
        with self._lock:
            self.counts.sent[token] += 1
            outcome, answer = self._judge(form, family, int(generation))
            self.counts.outcomes[outcome] += 1
        # The verdict stands before the wait, as it does where an answer is lost on the way.
        if self._gathering is not None and outcome == "renewed":
            self._gathering.wait(30)
        if self.switches.latency:
            time.sleep(self.switches.latency)
        while self.switches.hang:
            time.sleep(0.01)
        return answer

    def _judge(self, form: dict[str, str], name: str, generation: int) -> tuple[str, Answer]:
        if form["client_secret"] != self.switches.client_secret:
            return "client", (401, {"error": "invalid_client"})
        status = self.switches.fail.get(name) or self.switches.fail.get("*")
        if status:
            return "failed", (status, {"error": "server_error"})
        family = self._families.setdefault(name, _Family())
        if family.ended or generation > family.generation:
            return "refused", (400, {"error": "invalid_grant"})
        if generation == family.generation:
            family.generation += 1
            family.spent_at = time.monotonic()
            return "renewed", (200, self._pair(name, family))
        in_time = time.monotonic() - family.spent_at < self.switches.grace_period
        if in_time and generation == family.generation - 1:
            return "again", (200, self._pair(name, family))
        family.ended = True
        return "reused", (400, {"error": "invalid_grant"})

    def _pair(self, name: str, family: _Family) -> dict[str, Any]:
        return {
            "access_token": f"{ACCESS}{name}.{family.generation}",
            "refresh_token": f"{REFRESH}{name}.{family.generation}",
            "token_type": "Bearer",
            "expires_in": self.switches.expires_in,
        }

    def _revoke(self, token: str) -> None:
        name = token.removeprefix(REFRESH).rpartition(".")[0]
        with self._lock:
            self.counts.revoked[token] += 1
            self._families.setdefault(name, _Family()).ended = True


def _read(stream: Any) -> tuple[str, bytes] | None:
    """Target and body of the next request."""
    first = stream.readline()
    if not first.strip():
        return None
    length = 0
    while line := stream.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    body = stream.read(length)
    return (first.split(b" ")[1].decode(), body) if len(body) == length else None


def _form(body: bytes) -> dict[str, str]:
    return {name: value for name, (value,) in parse_qs(body.decode(), strict_parsing=True).items()}


def _bytes(status: int, document: dict[str, Any], retry_after: int | None) -> bytes:
    body = json.dumps(document).encode()
    head = [
        f"HTTP/1.1 {status} Whatever",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *([] if retry_after is None else [f"Retry-After: {retry_after}"]),
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    with LightProvider(parser.parse_args().port) as provider:
        print(provider.origin, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
