"""The people of the soak: they read pages, spend, sign in and disconnect, at both servers."""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path

import urllib3

from benchmarks.soaking.provider import WALLET, Provider
from benchmarks.soaking.servers import Server

#: Any will do, if cookie and header agree.
CSRF = "s" * 32
#: Seconds after which the person gives up.
PATIENCE = 60
HTTP = urllib3.PoolManager(maxsize=32, retries=False, timeout=PATIENCE)


@dataclass
class Person:
    """Somebody with a wallet at Quota and a session at the site."""

    number: int
    cookie: str = ""
    connected: bool = False
    #: Held by who signs them in or disconnects them.
    busy: threading.Lock = field(default_factory=threading.Lock)

    @property
    def sub(self) -> str:
        return f"u{self.number:03}"


@dataclass(frozen=True)
class Visit:
    """One request, as the person saw it."""

    what: str
    server: str
    began: float
    seconds: float
    #: "ok", "sign in", "unavailable" (a 503), "cut" (no answer), "failed".
    outcome: str


class Visitors:
    """Threads that go on visiting until the block ends."""

    def __init__(self, people: list[Person], servers: list[Server], quota: Provider) -> None:
        self.people, self.servers, self.quota = people, servers, quota
        self.visits: list[Visit] = []
        self.mixed: list[str] = []
        self.failures: list[str] = []
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, mixed: int, plain: int) -> None:
        """`mixed` visitors who do all there is, `plain` ones who only read pages."""
        works = [self._do_anything] * mixed + [self._read_pages] * plain
        self._threads = [threading.Thread(target=self._go_on, args=(work,)) for work in works]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def sign_everybody_in(self) -> None:
        for person in self.people:
            while not person.connected:
                self.sign_in(person, random.choice(self.servers))

    def _go_on(self, work: Callable[[Person, Server], None]) -> None:
        while not self._over.wait(random.expovariate(1 / 0.3)):
            work(random.choice(self.people), random.choice(self.servers))

    def _read_pages(self, person: Person, server: Server) -> None:
        if random.random() < 0.7:
            self.visit(person, server, "plain")
        else:
            self.look_at_balance(person, server)

    def _do_anything(self, person: Person, server: Server) -> None:
        is_asgi = server.name == "uvicorn"
        works: dict[Callable[[Person, Server], None], int] = {
            self._read_pages: 40,
            self._spends("ask"): 14,
            self._spends("ask-outside"): 10,
            self._spends("aask"): 14 if is_asgi else 4,
            self._spends("stream"): 8,
            self._spends("astream"): 8 if is_asgi else 0,
            self.leave_early: 3,
            self.sign_in: 3,
            self.disconnect: 2,
            self.disconnect_at_quota: 1,
        }
        (work,) = random.choices(list(works), list(works.values()))
        work(person, server)

    def _spends(self, what: str) -> Callable[[Person, Server], None]:
        def spend(person: Person, server: Server) -> None:
            if self.visit(person, server, what).outcome == "sign in" and person.connected:
                self.sign_in(person, server)

        return spend

    def look_at_balance(self, person: Person, server: Server) -> None:
        self.visit(person, server, "balance", self._check_balance)

    def _check_balance(self, person: Person, page: str) -> None:
        shown = re.search(r"\$([\d,.]+)", page)
        if shown is not None:
            dollars = float(shown[1].replace(",", ""))
            if math.ceil(dollars * 1_000_000 / WALLET) != person.number:
                self.mixed.append(f"{person.sub} was shown ${dollars}")

    def visit(
        self,
        person: Person,
        server: Server,
        what: str,
        check: Callable[[Person, str], None] | None = None,
    ) -> Visit:
        """Open a page of the site; read it to its end."""
        began, text = time.time(), ""
        try:
            reply = self._request("GET", server, f"/{what}", person.cookie)
            text = reply.data.decode()
            outcome = _OUTCOMES.get(reply.status, "failed")
            if outcome == "failed":
                text = f"{reply.status} {text}"
            if what in ("stream", "astream") and outcome == "ok":
                outcome, text = _of_stream(text), text[-300:]
        except urllib3.exceptions.HTTPError as error:
            outcome, text = "cut", type(error).__name__
        if outcome == "ok" and check is not None:
            check(person, text)
        return self._note(what, server, began, outcome, text)

    def _note(self, what: str, server: Server, began: float, outcome: str, text: str) -> Visit:
        now = time.time()
        if outcome == "cut" and not server.was_disturbed(began, now):
            outcome = "failed"
        visit = Visit(what, server.name, began, now - began, outcome)
        self.visits.append(visit)
        if outcome == "failed":
            at = time.strftime("%H:%M:%S", time.localtime(began))
            self.failures.append(f"{at} {server.name} {what} {now - began:.1f} s: {text[:300]!r}")
        return visit

    def _request(
        self, method: str, server: Server, path: str, cookie: str, *, whole: bool = True
    ) -> urllib3.BaseHTTPResponse:
        url = path if path.startswith("http") else server.origin + path
        headers = {"Cookie": f"sessionid={cookie}; csrftoken={CSRF}", "X-CSRFToken": CSRF}
        # A connection that is kept open may just be closing: no fault of the site.
        headers["Connection"] = "close"
        return HTTP.request(method, url, headers=headers, redirect=False, preload_content=whole)

    def leave_early(self, person: Person, server: Server) -> None:
        """Begin to read a stream, and leave."""
        began, text = time.time(), ""
        try:
            reply = self._request("GET", server, "/stream", person.cookie, whole=False)
            outcome = _OUTCOMES.get(reply.status, "failed")
            reply.read(10)
            reply.close()
        except urllib3.exceptions.HTTPError as error:
            outcome, text = "cut", type(error).__name__
        self._note("leave", server, began, outcome, text)

    def sign_in(self, person: Person, server: Server) -> None:
        """With a browser that is new to the site."""
        if not person.busy.acquire(blocking=False):
            return
        began, text = time.time(), ""
        try:
            start = self._request("GET", server, "/auth/quota/start", "")
            outcome, text = _unless_sent_on(start)
            if not outcome:
                back = self.quota.authorize(start.headers["Location"], person.sub)
                landed = self._request("GET", server, back, _session_of(start))
                outcome, text = _unless_sent_on(landed)
                if not outcome:
                    person.cookie, person.connected = _session_of(landed), True
                    outcome = "ok"
        except urllib3.exceptions.HTTPError as error:
            outcome, text = "cut", type(error).__name__
        finally:
            person.busy.release()
        self._note("sign in", server, began, outcome, text)

    def disconnect(self, person: Person, server: Server) -> None:
        """Here; and sign in again, after a while."""
        if not person.busy.acquire(blocking=False):
            return
        began, text = time.time(), ""
        person.connected = False
        try:
            reply = self._request("POST", server, "/auth/quota/disconnect", person.cookie)
            outcome = _OUTCOMES.get(reply.status, "failed")
            text = f"{reply.status} {reply.data.decode()}"
        except urllib3.exceptions.HTTPError as error:
            outcome, text = "cut", type(error).__name__
        finally:
            person.busy.release()
        self._note("disconnect", server, began, outcome, text)
        self._come_back(person)

    def disconnect_at_quota(self, person: Person, server: Server) -> None:
        """On Quota's own pages; and sign in again, after a while."""
        person.connected = False
        self.quota.disconnect(person.sub)
        self._come_back(person)

    def _come_back(self, person: Person) -> None:
        self._over.wait(random.uniform(0, 3))
        while not person.connected and not self._over.is_set():
            self.sign_in(person, random.choice(self.servers))
            self._over.wait(0.5)


_OUTCOMES = {200: "ok", 302: "sign in", 401: "sign in", 503: "unavailable"}


def _of_stream(text: str) -> str:
    """What has become of a stream that began: its last event says so."""
    if "event: done" in text:
        return "ok"
    return "unavailable" if "event: error" in text else "failed"


def _unless_sent_on(reply: urllib3.BaseHTTPResponse) -> tuple[str, str]:
    """An outcome, and words for it, unless `reply` leads on in a sign-in."""
    location = reply.headers.get("Location", "")
    if reply.status != 302 or "quota_error=" in location:
        refused = "provider_unavailable" in location
        return ("unavailable" if refused else "failed"), f"{reply.status} {location}"
    return "", ""


def _session_of(reply: urllib3.BaseHTTPResponse) -> str:
    cookies = SimpleCookie()
    for line in reply.headers.getlist("Set-Cookie"):
        cookies.load(line)
    return cookies["sessionid"].value


def read_heard(path: Path) -> dict[str, list[int]]:
    """Event -> the processes that heard of it, in turn."""
    heard: dict[str, list[int]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        event, process = line.split()
        heard.setdefault(event, []).append(int(process))
    return heard
