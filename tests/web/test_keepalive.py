"""What a reader gets while the model is silent, and how soon the call ends without a reader."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connections
from django.test import RequestFactory

from django_quota.ai.factory import openai_client
from django_quota.models import UsageRecord
from django_quota.streaming import stream_response
from django_quota.wallet import balances
from django_quota.web import keepalive
from tests.helpers.balances import cache_balance
from tests.helpers.concurrency import run_async
from tests.helpers.streams import QUOTA, VIEWS, AsgiRequest, events, next_event
from tests.sandbox_client import Person
from tests.served import Served
from tests.upstream import Upstream, chunk, last
from tests.urls_streaming import ASK

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def project(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.urls_streaming"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django_quota.middleware.QuotaMiddleware"]


COMMENT = keepalive.COMMENT.encode()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepalive, "SILENCE_SECONDS", 0.05)


def reading_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "django_quota-stream"]


@pytest.mark.usefixtures("impatient")
class TestComments:
    def test_comment_is_sent_while_the_model_is_silent_under_wsgi(
        self, upstream: Upstream, person: Person
    ) -> None:
        response: Any = person.client.get("/stream")
        parts = iter(response.streaming_content)
        assert [next(parts), next(parts)] == [COMMENT] * 2
        upstream.say(chunk("first"))
        assert events(next_event(parts)) == [("delta", {"text": "first"})]
        assert next(parts) == COMMENT
        upstream.say(last(**QUOTA))
        upstream.end()
        assert [kind for kind, _ in events(b"".join(parts).decode())] == ["done"]
        response.close()
        assert UsageRecord.objects.get().complete
        assert reading_threads() == []

    @pytest.mark.parametrize("view", VIEWS)
    def test_comment_is_sent_while_the_model_is_silent_under_asgi(
        self, upstream: Upstream, person: Person, view: str
    ) -> None:
        async def read() -> str:
            browser = AsgiRequest(person, view)
            await browser.ask()
            for _ in range(2):
                assert (await browser.asgi.receive_output(20))["body"] == COMMENT
            upstream.say(chunk("first"))
            first = await browser.read()
            assert (await browser.asgi.receive_output(20))["body"] == COMMENT
            upstream.say(last(**QUOTA))
            upstream.end()
            return first + await browser.read_all()

        assert [kind for kind, _ in events(run_async(read()))] == ["delta", "done"]
        assert UsageRecord.objects.get().complete
        assert reading_threads() == []

    @pytest.mark.slow
    @pytest.mark.parametrize("view", VIEWS)
    def test_comment_is_sent_while_only_chunks_without_text_come(
        self, upstream: Upstream, person: Person, view: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A model that writes the arguments of a tool is silent for the reader."""
        monkeypatch.setattr(keepalive, "SILENCE_SECONDS", 1.0)

        async def read() -> None:
            browser = AsgiRequest(person, view)
            await browser.ask()
            part = asyncio.create_task(browser.asgi.receive_output(20))
            while not part.done():
                upstream.say(chunk(""))
                await asyncio.wait({part}, timeout=0.1)
            assert part.result()["body"] == COMMENT
            await browser.leave()

        run_async(read())

    @pytest.mark.parametrize("view", VIEWS)
    def test_reader_who_leaves_after_a_comment_ends_the_call(
        self, upstream: Upstream, person: Person, user: Any, view: str
    ) -> None:
        async def leave() -> None:
            browser = AsgiRequest(person, view)
            upstream.say(chunk("first"))
            await browser.ask()
            await browser.read()
            assert (await browser.asgi.receive_output(20))["body"] == COMMENT
            await browser.leave()
            assert await asyncio.to_thread(upstream.hung_up.wait, 20)

        run_async(leave())
        (row,) = UsageRecord.objects.all()
        assert (row.user, row.credits_used, row.complete) == (user, None, False)
        assert reading_threads() == []

    def test_response_closed_while_its_thread_reads(
        self, upstream: Upstream, person: Person
    ) -> None:
        response: Any = person.client.get("/stream")
        assert next(iter(response.streaming_content)) == COMMENT
        response.close()
        assert upstream.hung_up.wait(20)
        assert reading_threads() == []

    def test_error_while_reading_is_raised_to_the_reader(
        self, upstream: Upstream, person: Person
    ) -> None:
        response: Any = person.client.get("/stream")
        parts = iter(response.streaming_content)
        assert next(parts) == COMMENT
        upstream.cut()
        assert [kind for kind, _ in events(b"".join(parts).decode())] == ["error"]
        response.close()


def test_thread_that_reads_leaves_no_connection_of_the_database(
    upstream: Upstream, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error makes it forget the balance, and the cache may be in the database."""
    opened: list[Any] = []

    def forget(user: Any) -> None:
        if threading.current_thread() in reading_threads():
            connections["default"].ensure_connection()
            opened.append(connections["default"])

    monkeypatch.setattr("django_quota.ai.clients.forget_balance", forget)
    upstream.cut()
    person.client.get("/stream").getvalue()
    (connection,) = opened
    assert connection.connection is None


def test_reader_is_slower_than_the_model(upstream: Upstream, person: Person) -> None:
    """Only what the reader takes is read: else a fast model would be paid to its end for nobody."""
    told = []

    class Chunks:
        response = SimpleNamespace(is_closed=False, extensions={})

        def __iter__(self) -> Any:
            for number in range(3):
                told.append(number)
                yield number

    chunks: Any = keepalive.read_chunks(Chunks())
    assert next(chunks) == 0
    assert told == [0]
    chunks.close()
    assert told == [0]


@pytest.mark.parametrize(
    "extensions", [{}, {"network_stream": SimpleNamespace(get_extra_info=lambda name: None)}]
)
def test_transport_of_the_projects_own_is_not_hung_up_on(extensions: dict[str, Any]) -> None:
    response = SimpleNamespace(is_closed=False, extensions=extensions)
    keepalive.cut_connection(SimpleNamespace(response=response))


class TestHead:
    @pytest.mark.parametrize("view", VIEWS)
    def test_call_ends_at_once_under_asgi(
        self, upstream: Upstream, person: Person, user: Any, view: str
    ) -> None:
        cache_balance(user, 1)
        upstream.say(chunk("first"))

        async def ask() -> dict[bytes, bytes]:
            browser = AsgiRequest(person, view, method="HEAD")
            headers = await browser.ask()
            assert await browser.read_all() == ""
            return headers

        assert run_async(ask())[b"Content-Type"] == b"text/event-stream"
        assert upstream.hung_up.wait(20)
        assert not UsageRecord.objects.exists()
        assert balances.kept_balance(user) is None  # it may have cost something

    def test_call_ends_at_once_under_wsgi(self, upstream: Upstream, user: Any) -> None:
        cache_balance(user, 1)
        upstream.say(chunk("first"))
        chunks = openai_client(user).chat.completions.create(**ASK)
        # Not by Django's client, which takes the content away before it is read.
        response = stream_response(RequestFactory().head("/stream"), chunks)
        assert next(iter(response), None) is None
        response.close()
        assert upstream.hung_up.wait(20)
        assert not UsageRecord.objects.exists()
        assert balances.kept_balance(user) is None


@pytest.mark.process
@pytest.mark.parametrize(
    ("server", "view"), [("gunicorn", "stream"), ("uvicorn", "stream"), ("uvicorn", "astream")]
)
class TestServers:
    def test_reader_leaves_while_the_model_is_silent(
        self, upstream: Upstream, person: Person, user: Any, server: str, view: str
    ) -> None:
        upstream.say(chunk("first"))
        with Served(server, silence=0.2) as served:
            with served.ask("GET", f"/{view}", session_of(person)) as browser:
                body = b""
                while b"event: delta" not in body:
                    part = browser.recv(4096)
                    assert part, body  # the server has closed the connection
                    body += part
            assert upstream.hung_up.wait(60)
        (row,) = UsageRecord.objects.all()
        assert (row.user, row.credits_used, row.complete) == (user, None, False)

    def test_head_request_ends_the_call(
        self, upstream: Upstream, person: Person, user: Any, server: str, view: str
    ) -> None:
        upstream.say(chunk("first"))
        cookie = session_of(person)
        with (
            Served(server, silence=3600) as served,
            served.ask("HEAD", f"/{view}", cookie) as browser,
        ):
            head = browser.recv(4096)
            assert head.startswith(b"HTTP/1.1 200") and head.endswith(b"\r\n\r\n")
            assert upstream.hung_up.wait(60)
        assert not UsageRecord.objects.exists()


def session_of(person: Person) -> str:
    return person.client.cookies["sessionid"].value
