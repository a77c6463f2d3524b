"""Sign-ins with more and more gunicorn workers."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from benchmarks.growth.figures import NAMES, Case, Measures, Size, take_all_turns
from benchmarks.growth.fleet import Fleet, fleet
from benchmarks.sign_in.contestants import PROJECTS
from benchmarks.sign_in.databases import Database
from benchmarks.sign_in.run import Provider
from benchmarks.sign_in.workers import environment_with
from tests.helpers.programs import ROOT, free_port

LATENCY = 0.02
#: So many more browsers than workers, so that a worker need not wait for one.
MORE = 2
TEXT = """
A sign-in is the start view and the callback, over HTTP, at gunicorn with sync workers; the provider
takes 20 ms for each answer. There are two browsers more than workers; each is a person who has
signed in before, and signs in again and again for {turn} s in a turn, each time as a browser that
is new to the site. Each sign-in has to end at the home page, with one request for the token.
Browsers, provider, database and workers share the machine's cores.
"""


class Gunicorn:
    """So many sync workers of the contestant with that environment; a context manager."""

    def __init__(self, workers: int, environment: dict[str, str]) -> None:
        self.port = free_port()
        application = "django.core.wsgi:get_wsgi_application()"
        options = ["--workers", str(workers), "--bind", f"127.0.0.1:{self.port}"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", application, *options, "--log-level", "warning"],
            cwd=ROOT,
            env=environment_with(
                DJANGO_SETTINGS_MODULE="benchmarks.sign_in.settings", **environment
            ),
        )

    def __enter__(self) -> Self:
        give_up = time.monotonic() + 60
        while self._process.poll() is None and time.monotonic() < give_up:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            time.sleep(0.1)
        self.__exit__()
        raise RuntimeError("gunicorn does not answer")

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(60)


class Browser:
    """New to the site on that port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookies: dict[str, str] = {}

    def go(self, url: str) -> str:
        """Where the answer leads."""
        parts = urlsplit(url)
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(
                "GET",
                f"{parts.path}?{parts.query}",
                headers={"Host": "localhost", "Cookie": cookies},
            )
            reply = connection.getresponse()
            if reply.status != 302:
                raise RuntimeError(f"{url}: {reply.status} {reply.read(1000).decode()}")
            for header in reply.headers.get_all("Set-Cookie", []):
                self.cookies |= {name: one.value for name, one in SimpleCookie(header).items()}
            return str(reply.headers["Location"])


class People:
    """Who sign in at once; they agree at the provider one after the other."""

    def __init__(self, quota: Provider) -> None:
        self.quota = quota
        self._agreeing = threading.Lock()

    def sign_in(self, name: str, port: int, sub: str) -> None:
        browser = Browser(port)
        url = browser.go(PROJECTS[name].start)
        with self._agreeing:
            back = self.quota.ask("agree", scheme="http", url=url, sub=sub)
        led_to = browser.go(back)
        if led_to != "/":
            raise RuntimeError(f"{name}: a sign-in has led to {led_to}")

    def sign_in_for(self, name: str, port: int, seconds: float, count: int) -> float:
        """So many of them, again and again; sign-ins a second."""
        self.quota.ask("count", scheme="http")
        began = time.perf_counter()

        def one(number: int) -> int:
            done = 0
            while done == 0 or time.perf_counter() < began + seconds:
                self.sign_in(name, port, f"person-{number}")
                done += 1
            return done

        with ThreadPoolExecutor(count) as pool:
            done = sum(pool.map(one, range(count)))
        took = time.perf_counter() - began
        asked = self.quota.ask("count", scheme="http")["requests"].count("POST /oauth/token")
        if asked != done:
            raise RuntimeError(f"{name}: {done} sign-ins have asked for {asked} tokens")
        return done / took


def measure(database: Database, size: Size) -> Measures:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        quota = stack.enter_context(Provider(Path(folder)))
        quota.ask("set_latency", scheme="http", seconds=LATENCY)
        origin = quota.ask("origin", scheme="http")
        start = partial(fleet, "benchmarks.sign_in.contestant", database=database, origin=origin)
        fleets = {name: stack.enter_context(start(name)) for name in NAMES}
        servers = {
            (workers, name): stack.enter_context(Gunicorn(workers, fleets[name].environment))
            for workers in size.at
            for name in NAMES
        }
        people = People(quota)

        def turn(at: int, name: str) -> dict[str, float]:
            port = servers[at, name].port
            rate = people.sign_in_for(name, port, size.turn, at + MORE)
            return {"sign-ins a second": rate}

        measures = take_all_turns(size, turn)
        for name in NAMES:
            check(name, fleets[name], quota)
        return measures


def check(name: str, site: Fleet, quota: Provider) -> None:
    """Raises RuntimeError if one more sign-in has not written what the contestant promises."""
    (worker,) = site.workers
    sub = "person-0"
    url = worker.ask("start")["location"]
    worker.ask("come_back", url=quota.ask("agree", scheme="http", url=url, sub=sub))
    token = quota.ask("count", scheme="http")["refresh_token"]
    found = worker.ask("check", sub=sub, refresh_token=token)
    if missing := set(PROJECTS[name].promises) - set(found):
        raise RuntimeError(f"{name}: after a sign-in there is no {', '.join(sorted(missing))}")


CASE = Case(
    name="sign_ins",
    title="Sign-ins, by gunicorn workers",
    across="gunicorn workers",
    text=TEXT,
    full=Size(at=(1, 2, 4), rounds=10, turn=4),
    quick=Size(at=(1, 2, 4), rounds=3, turn=1),
    measure=measure,
)
