"""Streams that do not come to their end: whoever leaves, whatever breaks, and who pays for it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import markcoroutinefunction, sync_to_async
from django.contrib.auth import get_user_model
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.db.backends.signals import connection_created
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.test import AsyncClient, Client
from django.urls import path

from django_quota.ai.factory import async_openai_client, developer_client, openai_client
from django_quota.exceptions import QuotaError
from django_quota.models import ProviderAccount, UsageRecord
from django_quota.streaming import stream_response
from django_quota.wallet import purchases
from django_quota.wallet.balances import kept_balance
from tests import urls_streaming
from tests.helpers import streams
from tests.helpers.balances import cache_balance
from tests.helpers.concurrency import run_async, wait_until
from tests.helpers.streams import QUOTA, VIEWS, AsgiRequest, events, next_event, whole_answer
from tests.sandbox_client import Person
from tests.tiny_server import HANG_UP, TinyServer, answer
from tests.upstream import Upstream, chunk, last

pytestmark = [
    pytest.mark.django_db(transaction=True),
    # Django cancels the task of a request whose browser has left. httpx2 then closes its generator
    # `Response.aiter_raw` in one task while the garbage collector closes it in another, and Python
    # reports "asynchronous generator is already executing" for the second. The connection is closed
    # either way, which these tests check; nothing of this package holds that generator.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <async_generator object Response.aiter_raw"
        ":pytest.PytestUnraisableExceptionWarning"
    ),
]


async def for_request_user(request: HttpRequest) -> HttpResponseBase:
    client = async_openai_client(request.user)
    return stream_response(request, await client.chat.completions.create(**urls_streaming.ASK))


def paid_by_us(request: HttpRequest) -> HttpResponseBase:
    client = developer_client("sk-quota-ours")
    return stream_response(request, client.chat.completions.create(**urls_streaming.ASK))


def whole(request: HttpRequest) -> HttpResponse:
    ask = urls_streaming.ASK | {"stream": False}
    completion = openai_client(request.user).chat.completions.create(**ask)
    return HttpResponse(completion.choices[0].message.content)


urlpatterns = [
    *urls_streaming.urlpatterns,
    path("for-request-user", for_request_user),
    path("paid-by-us", paid_by_us),
    path("whole", whole),
]


@pytest.fixture(autouse=True)
def project(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django_quota.middleware.QuotaMiddleware"]


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of a request that is cancelled, Django leaves its body and its connection to the garbage,
    which may be collected in the midst of another test."""
    bodies: list[Any] = []
    opened: list[Any] = []
    real = ASGIHandler.read_body

    async def read_body(self: Any, receive: Any) -> Any:
        bodies.append(await real(self, receive))
        return bodies[-1]

    def note(connection: Any, **_: Any) -> None:
        opened.append(connection)

    monkeypatch.setattr(ASGIHandler, "read_body", read_body)
    connection_created.connect(note)
    yield
    connection_created.disconnect(note)
    wait_for_abandoned()
    for body in bodies:
        body.close()
    for connection in opened:
        if connection is not connections[connection.alias]:
            connection.inc_thread_sharing()
            connection.close()
            connection.dec_thread_sharing()


def wait_for_abandoned() -> None:
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "django_quota-abandoned":
            thread.join()


@pytest.fixture
def shown(user: Any) -> None:
    """A balance that a call may have made wrong."""
    cache_balance(user, 1)


def billed() -> list[tuple[Any, int | None, bool]]:
    return list(UsageRecord.objects.values_list("user_id", "credits_used", "complete"))


class Slow:
    """A middleware that is busy with the response until the browser has gone away."""

    entered, left = threading.Event(), threading.Event()

    def __init__(self, get_response: Callable[..., Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        response = self.get_response(request)
        self.entered.set()
        self.left.wait(20)
        return response


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_a_response_that_nobody_takes(
    upstream: Upstream, person: Person, user: Any, shown: None, view: str, settings: Any
) -> None:
    """The browser has gone away before its head was sent, and Django has nothing to close."""
    settings.MIDDLEWARE = [f"{__name__}.Slow", *settings.MIDDLEWARE]
    Slow.entered.clear()
    Slow.left.clear()

    async def leave() -> bool:
        browser = AsgiRequest(person, view)
        upstream.say(chunk("first"))
        await browser.asgi.send_input({"type": "http.request", "body": b""})
        assert await asyncio.to_thread(Slow.entered.wait, 20)
        await browser.asgi.send_input({"type": "http.disconnect"})
        Slow.left.set()
        await browser.asgi.wait(20)
        gc.collect()
        return await asyncio.to_thread(upstream.hung_up.wait, 20)

    assert run_async(leave())
    wait_for_abandoned()
    assert kept_balance(user) is None


def send_breaks(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Once that is set, nothing can be sent to the browser."""
    real = streams.get_asgi_application
    broken = threading.Event()

    def application() -> Any:
        app = real()

        async def run(scope: Any, receive: Any, send: Any) -> None:
            async def sending(message: Any) -> None:
                if broken.is_set():
                    raise OSError("the browser has gone")
                await send(message)

            await app(scope, receive, sending)

        return run

    monkeypatch.setattr(streams, "get_asgi_application", application)
    return broken


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("how", ["cancelled", "cannot send"])
def test_where_the_server_ends_it(
    upstream: Upstream,
    person: Person,
    user: Any,
    shown: None,
    view: str,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A task that is cancelled, as all are when a server stops, or whose `send` fails, closes no
    response."""
    broken = send_breaks(monkeypatch)

    async def end() -> bool:
        browser = AsgiRequest(person, view)
        upstream.say(chunk("first"))
        await browser.ask()
        await browser.read()
        if how == "cancelled":
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        else:
            broken.set()
            upstream.say(chunk("second"))
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await browser.asgi.future
        return await asyncio.to_thread(upstream.hung_up.wait, 20)

    assert run_async(end())
    assert billed() == [(user.pk, None, False)]
    assert kept_balance(user) is None


class ToAsync:
    """As Django advises under ASGI: it makes an asynchronous iterator of a synchronous one."""

    sync_capable, async_capable = False, True

    def __init__(self, get_response: Callable[..., Any]) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> Any:
        response = await self.get_response(request)
        content = response.streaming_content

        async def parts() -> Any:
            following: Any = sync_to_async(next)
            while (part := await following(content, None)) is not None:
                yield part

        response.streaming_content = parts()
        return response


@pytest.mark.parametrize("early", [False, True])
def test_a_middleware_that_wraps_the_content(
    upstream: Upstream, person: Person, user: Any, settings: Any, early: bool
) -> None:
    settings.MIDDLEWARE = [f"{__name__}.ToAsync", *settings.MIDDLEWARE]
    upstream.say(chunk("first"))

    async def read() -> str:
        browser = AsgiRequest(person, "stream")
        await browser.ask()
        first = await browser.read()
        if early:
            await browser.leave()
            assert await asyncio.to_thread(upstream.hung_up.wait, 20)
            return first
        upstream.say(last(**QUOTA))
        upstream.end()
        return first + await browser.read_all()

    kinds = [kind for kind, _ in events(run_async(read()))]
    assert kinds == (["delta"] if early else ["delta", "done"])
    assert billed() == [(user.pk, None, False) if early else (user.pk, 1_200, True)]


class Heartbeat(ToAsync):
    """Sends a comment while the model thinks, so that proxies keep the line."""

    async def __call__(self, request: HttpRequest) -> Any:
        response = await self.get_response(request)
        response.streaming_content = self.beat(aiter(response.streaming_content))
        return response

    async def beat(self, parts: Any) -> Any:
        while True:
            following = asyncio.ensure_future(anext(parts))
            while not following.done():
                await asyncio.wait({following}, timeout=0.05)
                if not following.done():
                    yield ": still here\n\n"
            yield following.result()


def test_a_middleware_that_is_still_asking_for_the_next_word(
    upstream: Upstream, person: Person, user: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.MIDDLEWARE = [f"{__name__}.Heartbeat", *settings.MIDDLEWARE]
    broken = send_breaks(monkeypatch)
    upstream.say(chunk("first"))

    async def leave() -> bool:
        browser = AsgiRequest(person, "astream")
        await browser.ask()
        while not (await browser.read()).startswith("event"):
            pass
        broken.set()
        with pytest.raises(OSError, match="the browser has gone"):  # what the server did meet
            await browser.asgi.future
        return await asyncio.to_thread(upstream.hung_up.wait, 20)

    assert run_async(leave())
    assert billed() == [(user.pk, None, False)]


@pytest.mark.parametrize("view", VIEWS)
def test_where_it_is_closed_on_the_event_loop(
    upstream: Upstream, person: Person, user: Any, view: str
) -> None:
    """By a project's own test, say: no thread is there to ask the database."""
    upstream.say(chunk("first"))

    async def look() -> None:
        client = AsyncClient(SERVER_NAME="localhost")
        client.cookies = person.client.cookies
        response: Any = await client.get(f"/{view}")
        parts = aiter(response.streaming_content) if response.is_async else None
        await (anext(parts) if parts else sync_to_async(next)(iter(response.streaming_content)))
        response.close()
        await response._closing

    run_async(look())
    assert upstream.hung_up.wait(20)
    wait_until(lambda: billed() == [(user.pk, None, False)])


def test_a_closed_tab_is_no_outage(
    upstream: Upstream, person: Person, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, where an operator looks for those of Quota's: we cut the connection ourselves,
    to wake the thread that waits for the next word."""
    upstream.say(chunk("first"))
    response: Any = person.client.get("/stream")
    parts = iter(response.streaming_content)
    next_event(parts)
    response._answer.reader_gone = True
    upstream.cut()
    assert list(parts) == []
    response.close()
    assert [r for r in caplog.records if r.name.startswith("django_quota")] == []


@pytest.mark.parametrize("view", VIEWS)
def test_an_answer_that_ceases_is_not_whole(
    upstream: Upstream, person: Person, user: Any, view: str
) -> None:
    """A proxy on the way has closed it, as if that were its end."""
    upstream.say(chunk("The answer is not"))
    upstream.cease()

    assert [kind for kind, _ in events(whole_answer(person, view))] == ["delta", "error"]
    assert billed() == [(user.pk, None, False)]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("extra", [{}, {"quota": {"credits_used": 7, "balance_after": 1}}])
def test_an_answer_whose_finish_reason_is_an_error_is_not_done(
    upstream: Upstream, person: Person, user: Any, view: str, extra: dict[str, Any]
) -> None:
    """What it has cost is recorded all the same."""
    upstream.say(chunk("The answer is not"), chunk(finish="error", **extra))
    upstream.end()

    told = events(whole_answer(person, view))

    assert [kind for kind, _ in told] == ["delta", "error"]
    assert told[1][1]["error"]["message"] == "The answer broke off before its end."
    assert billed() == [(user.pk, 7 if extra else None, bool(extra))]


def test_the_balance_is_forgotten_before_the_browser_hears_of_an_error(
    upstream: Upstream, person: Person, user: Any, shown: None
) -> None:
    """It asks at once."""
    upstream.say(chunk("first"), {"error": {"code": "upstream_error", "message": "x"}})
    upstream.end()
    response = person.client.get("/stream")
    parts = iter(response.streaming_content)
    assert [events(next_event(parts))[0][0] for _ in range(2)] == ["delta", "error"]
    assert kept_balance(user) is None
    response.close()


class ActsFor:
    """An API key, or an operator who acts for a person: `request.user` is not the session's."""

    def __init__(self, get_response: Callable[..., Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        request.user = ProviderAccount.objects.get().user
        return self.get_response(request)


@pytest.mark.parametrize("view", ["stream", "for-request-user"])
@pytest.mark.parametrize("session", ["somebody else's", "none"])
def test_who_pays_is_billed(
    upstream: Upstream, user: Any, settings: Any, view: str, session: str
) -> None:
    *others, ours = settings.MIDDLEWARE
    settings.MIDDLEWARE = [*others, f"{__name__}.ActsFor", ours]
    client = Client(SERVER_NAME="localhost")
    if session == "none":
        client.cookies["sessionid"] = "none"
    else:
        client.force_login(get_user_model().objects.create(username="admin"))
    upstream.say(chunk("all"), last(**QUOTA))
    upstream.end()

    assert [kind for kind, _ in events(whole_answer(client, view))] == ["delta", "done"]
    assert billed() == [(user.pk, 1_200, True)]


def test_what_the_developer_pays_is_nobodys(upstream: Upstream, person: Person, user: Any) -> None:
    cache_balance(user, 7)
    upstream.say(chunk("all"), last(**QUOTA))
    upstream.end()
    found = events(person.client.get("/paid-by-us").getvalue().decode())
    assert [kind for kind, _ in found] == ["delta", "done"]
    assert billed() == []
    assert kept_balance(user) == purchases.Balance(credits=7)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("said", "forgets"),
    [
        (HANG_UP, True),
        (answer(b"{}", status=502), True),
        (answer(b"null"), True),
        (answer(b"{}", status=429), False),
        (answer(b"{}", status=400), False),
    ],
    ids=["cut", "502", "null", "429", "400"],
)
def test_a_call_that_may_have_cost_something_forgets_the_balance(
    user: Any, shown: None, settings: Any, said: Any, forgets: bool, is_async: bool
) -> None:
    ask = urls_streaming.ASK | {"stream": False}

    async def call() -> None:
        await async_openai_client(user).chat.completions.create(**ask)

    with TinyServer() as quota:
        quota.on("/v1/chat/completions", said)
        settings.QUOTA_BASE_URL = quota.origin
        with pytest.raises(QuotaError):
            if is_async:
                run_async(call())
            else:
                openai_client(user).chat.completions.create(**ask)
    assert (kept_balance(user) is None) is forgets


def test_a_call_that_is_cancelled_forgets_the_balance(
    upstream: Upstream, user: Any, shown: None
) -> None:
    """It is at Quota, and nobody waits for what it costs."""

    async def leave() -> None:
        completions = async_openai_client(user).chat.completions
        call = asyncio.create_task(completions.create(**urls_streaming.ASK | {"stream": False}))
        assert await asyncio.to_thread(upstream.asked.wait, 20)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call

    run_async(leave())
    assert kept_balance(user) is None


@pytest.mark.parametrize("kind", ["text/html", "application/json"])
@pytest.mark.parametrize(
    "body",
    [
        b"<html>maintenance</html>",
        b"",
        b"null",
        b"[]",
        b"true",
        b"5",
        b"[" * 100_000,
        b'{"id": ' + b"1" * 5_000 + b"}",
    ],
    ids=lambda body: body.decode()[:9],
)
def test_what_is_no_completion(
    user: Any, person: Person, settings: Any, body: bytes, kind: str
) -> None:
    """A gateway says 200 all the same: the view answers as it does to an outage."""
    with TinyServer() as quota:
        quota.on("/v1/chat/completions", answer(body, Content_Type=kind))
        settings.QUOTA_BASE_URL = quota.origin
        assert person.client.get("/whole").status_code == 503
        found = events(person.client.get("/stream").getvalue().decode())
    assert [kind for kind, _ in found] == ["error"]
