"""A real HTTP server whose answers a test writes byte for byte, and which remembers what came."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A request as it arrived. Header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        fields = parse_qs(self.body.decode(), strict_parsing=True, keep_blank_values=True)
        assert all(len(values) == 1 for values in fields.values()), self.body
        return {name: values[0] for name, values in fields.items()}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the server does: it sends `head` at once, then `rest` one byte each `pause` seconds
    (at once if 0), and then keeps the connection if `keep`."""

    head: bytes = b""
    rest: bytes = b""
    pause: float = 0
    delay: float = 0
    keep: bool = True


def answer(body: bytes = b"", *, status: int = 200, delay: float = 0, **headers: str) -> Answer:
    """An ordinary reply. `Retry_After="3"` stands for the header Retry-After."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    given.setdefault("Content-Length", str(len(body)))
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in given.items())]
    return Answer(head="\r\n".join([*lines, "", ""]).encode("latin-1") + body, delay=delay)


def json_answer(document: Any, *, status: int = 200, delay: float = 0, **headers: str) -> Answer:
    headers.setdefault("Content_Type", "application/json")
    return answer(json.dumps(document).encode(), status=status, delay=delay, **headers)


#: Takes the request and closes the connection without a word.
HANG_UP = Answer(keep=False)


class LiveAnswer:
    """The answer to one request, which a test writes while the other side reads it."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._parts: queue.Queue[bytes | None] = queue.Queue()
        #: Set once the request has come.
        self.asked = threading.Event()
        #: Set once the connection is closed, by either side.
        self.hung_up = threading.Event()

    def write(self, part: bytes) -> None:
        self._parts.put(part)

    def cut(self) -> None:
        """The connection ends, once all that was written is sent."""
        self._parts.put(None)

    def send(self, sock: socket.socket) -> None:
        self.asked.set()
        sock.sendall(self._head)
        watcher = threading.Thread(target=self._watch, args=(sock,))
        watcher.start()
        with contextlib.suppress(OSError):
            while (part := self._parts.get()) is not None:
                sock.sendall(part)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # so that the watcher ends, too
        watcher.join(10)

    def _watch(self, sock: socket.socket) -> None:
        """Until the other side closes."""
        with contextlib.suppress(OSError):
            while sock.recv(65536):
                pass
        self.hung_up.set()
        self.cut()


#: What to answer, or how to find out from the request.
Answering = Answer | LiveAnswer | Callable[[Seen], Answer]


@dataclass
class TinyServer:
    """Answers each path with the answers given for it, in order; the last one is repeated."""

    #: With a certificate, for https.
    tls: ssl.SSLContext | None = None
    requests: list[Seen] = field(default_factory=list)
    connections: int = 0
    #: Bytes of answers that the other side's operating system has taken.
    bytes_sent: int = 0
    _answers: dict[str, list[Answering]] = field(
        default_factory=lambda: defaultdict(list), repr=False
    )

    def __enter__(self) -> Self:
        self._stopping = threading.Event()
        self._closed = threading.Semaphore(0)
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        # Of more who connect at once than this, some wait a second before they try again.
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        scheme = "https" if self.tls else "http"
        self.origin = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._run(self._accept)
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        for sock in [self._listener, *self._open]:
            _shut(sock)
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def on(self, path: str, *answers: Answering) -> None:
        """From now on `path` is answered like this, whatever was planned for it before."""
        self._answers[path] = list(answers)

    def seen(self, path: str) -> list[Seen]:
        return [request for request in self.requests if request.target.partition("?")[0] == path]

    def wait_until_closed(self) -> None:
        """Until this server has closed one more of its connections."""
        assert self._closed.acquire(timeout=10)

    def _run(self, work: Any, *args: Any) -> None:
        thread = threading.Thread(target=work, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, _address = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(sock)
            self._run(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        try:
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
                self._open.append(sock)
            with sock.makefile("rb") as stream:
                while (request := _read(stream)) is not None:
                    self.requests.append(request)
                    planned = self._answers[request.target.partition("?")[0]]
                    reply = planned.pop(0) if len(planned) > 1 else (planned or [_NOT_FOUND])[0]
                    if isinstance(reply, LiveAnswer):
                        reply.send(sock)
                        return
                    if not self._send(sock, reply if isinstance(reply, Answer) else reply(request)):
                        return
        except (OSError, ValueError):
            pass  # the client went away, as clients do, or does not speak HTTP
        finally:
            _shut(sock)
            self._closed.release()

    def _send(self, sock: socket.socket, reply: Answer) -> bool:
        if self._stopping.wait(reply.delay):
            return False
        pieces = [reply.head]
        if reply.pause:
            pieces += [bytes([byte]) for byte in reply.rest]
        else:
            pieces += [reply.rest[at : at + 65536] for at in range(0, len(reply.rest), 65536)]
        for piece in pieces:
            sock.sendall(piece)
            self.bytes_sent += len(piece)
            if reply.pause and self._stopping.wait(reply.pause):
                return False
        return reply.keep


_NOT_FOUND = json_answer({"error": "not_found"}, status=404)


def _read(stream: Any) -> Seen | None:
    first = stream.readline()
    if not first.strip():
        return None
    method, target, _version = first.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while line := stream.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        assert name.lower() not in headers, f"{name} was sent twice"
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", 0)))
    return Seen(method=method, target=target, headers=headers, body=body)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
