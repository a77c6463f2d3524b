"""Many streams at once: `python -m benchmarks.streams`, as benchmarks.refresh does it.

STREAMS of them, of as many people, arrive at a project under ASGI. At the same time a few arrive at
two proxies, which know neither wallets nor what an answer says: one is a view of the same project,
one a bare ASGI application. All have the same upstream, whose every word is the name of whose token
it was asked with.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.course import run, say
from tests.helpers.programs import database, free_port
from tests.light_provider import LightProvider
from tests.storms.crew import make_users
from tests.upstream import HEAD, chunk, last

STREAMS = 200
WAVES = 6
WORKERS = 2
#: Seconds between two arrivals; that each lasts, so that all are open at once before the first one
#: ends; between two words of one.
ARRIVAL, LASTING, PAUSE = 1 / 20, 12, 3
#: Of so many arrivals, one at each proxy.
SAMPLE = 8
CONFIG = "DJANGO_QUOTA_BENCHMARK"
ASK = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "stream": True}


# --- upstream ---


async def answer(
    lasting: float, pause: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One connection: says the name in the bearer, again and again."""
    try:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower():
            (length,) = re.findall(r"content-length: (\d+)", head)
            await reader.readexactly(int(length))
            (name,) = re.findall(r"authorization: bearer quota_token_(\w+)", head)
            writer.write(HEAD)
            for _ in range(int(lasting / pause)):
                tell(writer, chunk(name))
                await writer.drain()
                await asyncio.sleep(pause)
            tell(writer, {**last(credits_used=1, balance_after=1), "id": os.urandom(8).hex()})
            writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


def tell(writer: asyncio.StreamWriter, what: dict[str, Any]) -> None:
    said = b"data: " + json.dumps(what).encode() + b"\n\n"
    writer.write(b"%x\r\n%s\r\n" % (len(said), said))


def serve(origin: Any, lasting: float, pause: float) -> None:
    async def main() -> None:
        each = partial(answer, lasting, pause)
        server = await asyncio.start_server(each, "127.0.0.1", 0, backlog=1024)
        origin.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await server.serve_forever()

    asyncio.run(main())


@contextmanager
def upstream(lasting: float = LASTING, pause: float = PAUSE) -> Iterator[str]:
    """Its origin. A stream lasts so many seconds, with such pauses between its words."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=serve, args=(there, lasting, pause))
    process.start()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


# --- the applications, made by uvicorn's --factory ---


def project() -> Any:
    """The project of benchmarks.urls_streams, on the database of the benchmark."""
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application

    config = json.loads(os.environ[CONFIG])
    settings.DATABASES["default"].update(config["database"])
    for name, value in config["settings"].items():
        setattr(settings, name, value)
    django.setup()
    return get_asgi_application()


def bare() -> Any:
    """Hands on byte for byte, without Django."""
    origin = json.loads(os.environ[CONFIG])["settings"]["QUOTA_BASE_URL"]

    @cache
    def client() -> httpx2.AsyncClient:
        return httpx2.AsyncClient(limits=httpx2.Limits(max_connections=1000), timeout=600)

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        who = dict(scope["headers"])[b"cookie"].decode().rpartition("=")[2]
        url = f"{origin}/v1/chat/completions"
        headers = {"Authorization": f"Bearer quota_token_{who}"}
        async with client().stream("POST", url, json=ASK, headers=headers) as reply:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            async for part in reply.aiter_raw():
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    return proxy


class Server:
    """Uvicorn with WORKERS workers."""

    def __init__(self, app: str, config: str) -> None:
        self.port = free_port()
        command = ["uvicorn", f"benchmarks.streams:{app}", "--factory", "--lifespan", "off"]
        options = ["--workers", str(WORKERS), "--port", str(self.port), "--log-level", "warning"]
        environment = os.environ | {CONFIG: config}
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command, *options], env=environment
        )

    def __enter__(self) -> Server:
        give_up = time.monotonic() + 30
        while time.monotonic() < give_up:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            time.sleep(0.2)
        raise TimeoutError("the server does not answer")

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def megabytes(self) -> int:
        """The memory of its workers together."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        status = [Path(f"/proc/{child}/status").read_text() for child in children.split()]
        return sum(int(kb) for kb in re.findall(r"VmRSS:\s+(\d+)", "".join(status))) // 1024


@dataclass
class Way:
    """One of the three ways to an answer, and what has come of it."""

    server: Server
    path: str
    cookies: dict[str, str]
    first: list[float] = field(default_factory=list)
    wrong: int = 0

    async def go(self, name: str) -> None:
        """One stream, to its end, by one person."""
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        cookie = f"sessionid={self.cookies[name]}"
        writer.write(
            f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode()
        )
        body = await reader.readuntil(name.encode())
        self.first.append(time.perf_counter() - began)
        body += await reader.readuntil(b"\r\n0\r\n\r\n")
        said = set(re.findall(rb'"(?:text|content)": ?"(\w+)"', body))
        self.wrong += said != {name.encode()}
        writer.close()


async def wave(ours: Way, proxies: list[Way]) -> None:
    """STREAMS of them, and now and then one at each proxy, between two others."""
    async with asyncio.TaskGroup() as group:
        for number in range(STREAMS):
            name = f"u{number}"
            group.create_task(ours.go(name))
            await asyncio.sleep(ARRIVAL / 2)
            for index, proxy in enumerate(proxies):
                if number % SAMPLE == index:
                    group.create_task(proxy.go(name))
            await asyncio.sleep(ARRIVAL / 2)


def streams(quota: LightProvider) -> None:
    """First words, whose they are, and memory."""
    users = make_users(STREAMS, expire_in=36_000)
    sessions = {user.username: session_of(user) for user in users}
    with ExitStack() as stack:
        config = config_of(stack.enter_context(upstream()))
        server, apart = (stack.enter_context(Server(app, config)) for app in ("project", "bare"))
        mine = Way(server, "/astream", sessions)
        view = Way(server, "/proxy", sessions)
        plain = Way(apart, "/", {name: name for name in sessions})
        memory = []
        for _ in range(WAVES):
            asyncio.run(wave(mine, [view, plain]))
            memory.append(server.megabytes())
    say(f"{STREAMS} streams at once, {WAVES} times: whole", len(mine.first), str(STREAMS * WAVES))
    say("... that carried a word of another's", mine.wrong + view.wrong + plain.wrong, "0")
    first = statistics.median(mine.first)
    for what, proxy in (("a proxy in the same project", view), ("a bare ASGI proxy", plain)):
        theirs = statistics.median(proxy.first)
        say(f"... first word of {what}, median", f"{1000 * theirs:.1f} ms", "for comparison")
        say("... ours after that", f"{1000 * (first - theirs):.1f} ms", "2 at most")
    say("... memory of the workers after each time, in MB", memory, "flat")


def config_of(origin: str) -> str:
    """Of a `Server`: the database of this process, and the upstream at `origin`."""
    from django.conf import settings
    from django.db import connection

    pool: dict[str, Any] = {"OPTIONS": {"pool": {"min_size": 4, "max_size": 20}}}
    ours = {
        "SECRET_KEY": settings.SECRET_KEY,
        "QUOTA_BASE_URL": origin,
        "ROOT_URLCONF": "benchmarks.urls_streams",
        "MIDDLEWARE": [*settings.MIDDLEWARE, "django_quota.middleware.QuotaMiddleware"],
    }
    mine = database() | (pool if connection.vendor == "postgresql" else {})
    return json.dumps({"database": mine, "settings": ours}, default=str)


def session_of(user: Any) -> str:
    """The key of a session in which `user` is signed in."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.sessions.backends.db import SessionStore

    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django_quota.backends.QuotaBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    return str(session.session_key)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ds", default="tests.settings_postgresql")
    run(streams, parser.parse_args().ds)


if __name__ == "__main__":
    main()
