"""An answer on its way to the browser: at once, to its end or not, and paid for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.db import connections
from django.test import RequestFactory

from django_quota import ai, signals, wallet
from django_quota.exceptions import ConfigurationError
from django_quota.models import UsageRecord
from django_quota.streaming import stream_response
from tests.sandbox_client import Person
from tests.shown import listening
from tests.upstream import Upstream, chunk, last

pytestmark = pytest.mark.django_db(transaction=True)

VIEWS = ["stream", "astream"]
QUOTA: Any = {"credits_used": 1_200, "balance_after": 998_800}


@pytest.fixture(autouse=True)
def project(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.urls_streaming"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django_quota.middleware.QuotaMiddleware"]


@pytest.fixture
def upstream(user: Any, settings: Any) -> Iterator[Upstream]:
    with Upstream() as running:
        settings.QUOTA_BASE_URL = running.origin
        yield running


def events(body: str) -> list[tuple[str, Any]]:
    """As a browser reads them."""
    found = []
    for block in body.split("\n\n")[:-1]:
        kind, data = block.split("\n")
        found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


class Browser:
    """The other side of an ASGI server."""

    def __init__(self, person: Person, path: str) -> None:
        cookie = person.client.cookies["sessionid"].value
        self.asgi: Any = ApplicationCommunicator(  # type: ignore[no-untyped-call]
            get_asgi_application(),
            {
                "type": "http",
                "method": "GET",
                "path": f"/{path}",
                "query_string": b"",
                "headers": [(b"host", b"localhost"), (b"cookie", f"sessionid={cookie}".encode())],
            },
        )

    async def ask(self) -> dict[bytes, bytes]:
        """The head of the response."""
        await self.asgi.send_input({"type": "http.request", "body": b""})
        start = await self.asgi.receive_output(20)
        assert start["status"] == 200
        return dict(start["headers"])

    async def read(self) -> str:
        """The next part of it."""
        part = await self.asgi.receive_output(20)
        return str(part["body"].decode())

    async def read_all(self) -> str:
        body = ""
        while True:
            part = await self.asgi.receive_output(20)
            body += part.get("body", b"").decode()
            if not part.get("more_body"):
                await self.asgi.wait(20)
                return body

    async def leave(self) -> None:
        await self.asgi.send_input({"type": "http.disconnect"})
        await self.asgi.wait(20)


def under_asgi(work: Any) -> Any:
    async def main() -> Any:
        try:
            return await work()
        finally:
            ai._shared_async_client.cache_clear()
            await sync_to_async(connections.close_all)()

    return asyncio.run(main())


@pytest.mark.parametrize("view", VIEWS)
class TestUnderAsgi:
    def test_text_then_what_it_cost(
        self, upstream: Upstream, person: Person, user: Any, view: str
    ) -> None:
        upstream.say(chunk(""), chunk("Hel"), chunk("lo"), last(**QUOTA))
        upstream.end()

        async def read() -> tuple[dict[bytes, bytes], str]:
            browser = Browser(person, view)
            return await browser.ask(), await browser.read_all()

        headers, body = under_asgi(read)

        assert headers[b"Content-Type"] == b"text/event-stream"
        assert headers[b"Cache-Control"] == b"no-store, private"
        assert events(body) == [
            ("delta", {"text": "Hel"}),
            ("delta", {"text": "lo"}),
            (
                "done",
                {
                    "credits_used": 1_200,
                    "cost": "$0.0012",
                    "balance_after": 998_800,
                    "balance": "$0.9988",
                    "finish_reason": "stop",
                },
            ),
        ]
        assert wallet.get_balance(user).credits == 998_800
        row = UsageRecord.objects.get()
        assert (row.user, row.credits_used, row.complete) == (user, 1_200, True)

    def test_the_first_token_before_the_second_is_there(
        self, upstream: Upstream, person: Person, view: str
    ) -> None:
        async def read() -> str:
            browser = Browser(person, view)
            upstream.say(chunk("first"))
            await browser.ask()
            first = await browser.read()
            upstream.say(chunk("second"), last(**QUOTA))
            upstream.end()
            return first + "|" + await browser.read_all()

        first, _, rest = under_asgi(read).partition("|")
        assert events(first) == [("delta", {"text": "first"})]
        assert [kind for kind, _ in events(rest)] == ["delta", "done"]

    def test_a_browser_that_goes_away_ends_it_upstream(
        self, upstream: Upstream, person: Person, user: Any, view: str
    ) -> None:
        wallet.keep_balance(user, wallet.Balance(credits=1), as_of=9e9)

        async def leave() -> None:
            browser = Browser(person, view)
            upstream.say(chunk("first"))
            await browser.ask()
            await browser.read()
            if view == "stream":
                upstream.say(chunk("second"))  # its thread cannot be stopped while it waits for one
            await browser.leave()
            assert await asyncio.to_thread(upstream.hung_up.wait, 20)

        with listening(signals.usage_recorded) as heard:
            under_asgi(leave)
        row = UsageRecord.objects.get()
        assert (row.user, row.credits_used, row.complete) == (user, None, False)
        assert [h["complete"] for h in heard] == [False]


class TestUnderWsgi:
    def test_the_first_token_before_the_second_is_there(
        self, upstream: Upstream, person: Person, user: Any
    ) -> None:
        upstream.say(chunk("first"))
        response = person.client.get("/stream")
        parts = iter(response.streaming_content)
        assert events(next(parts).decode()) == [("delta", {"text": "first"})]
        upstream.say(chunk("second"), last(**QUOTA))
        upstream.end()
        rest = b"".join(parts).decode()
        assert [kind for kind, _ in events(rest)] == ["delta", "done"]
        assert UsageRecord.objects.get().credits_used == 1_200

    def test_a_browser_that_goes_away_ends_it_upstream(
        self, upstream: Upstream, person: Person
    ) -> None:
        upstream.say(chunk("first"))
        response = person.client.get("/stream")
        next(iter(response.streaming_content))
        response.close()
        assert upstream.hung_up.wait(20)
        assert UsageRecord.objects.get().complete is False

    def test_one_that_never_came_for_it(self, upstream: Upstream, person: Person) -> None:
        person.client.get("/stream").close()
        assert upstream.hung_up.wait(20)
        assert not UsageRecord.objects.exists()

    @pytest.mark.parametrize(
        ("code", "told", "status_url"),
        [
            ("upstream_error", "provider_unavailable", None),
            ("insufficient_credits", "insufficient_credits", "topup_url"),
        ],
    )
    def test_an_error_on_the_way_is_an_event(
        self, upstream: Upstream, person: Person, code: str, told: str, status_url: str | None
    ) -> None:
        upstream.say(chunk("first"), {"error": {"code": code, "message": "quota_token_hush"}})
        upstream.end()
        body = person.client.get("/stream").getvalue().decode()
        (_, first), (kind, data) = events(body)
        assert (first, kind) == ({"text": "first"}, "error")
        assert data["error"]["code"] == told and data["error"]["message"]
        assert status_url is None or data[status_url] == "/auth/quota/packages"
        assert "hush" not in body
        assert UsageRecord.objects.get().complete is False

    def test_a_connection_that_breaks_is_an_event(self, upstream: Upstream, person: Person) -> None:
        upstream.say(chunk("first"))
        upstream.cut()
        found = events(person.client.get("/stream").getvalue().decode())
        assert [kind for kind, _ in found] == ["delta", "error"]

    def test_an_answer_that_does_not_say_what_it_cost(
        self, upstream: Upstream, person: Person, user: Any
    ) -> None:
        wallet.keep_balance(user, wallet.Balance(credits=7), as_of=9e9)
        upstream.say(chunk("all"), chunk(finish="stop"))
        upstream.end()
        (_, (kind, data)) = events(person.client.get("/stream").getvalue().decode())
        assert (kind, data["cost"], data["credits_used"]) == ("done", "", None)
        row = UsageRecord.objects.get()
        assert (row.credits_used, row.complete) == (None, True)

    def test_odd_chunks(self, upstream: Upstream, person: Person) -> None:
        """Whatever comes: the browser is told, and the log."""
        upstream.say(chunk("first"), {"choices": "none"})
        upstream.end()
        found = events(person.client.get("/stream").getvalue().decode())
        assert [kind for kind, _ in found] == ["delta", "error"]

    def test_a_database_that_fails_takes_no_answer_away(
        self, upstream: Upstream, person: Person, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("no space left")

        monkeypatch.setattr(UsageRecord.objects, "get_or_create", broken)
        upstream.say(chunk("all"), last(**QUOTA))
        upstream.end()
        found = events(person.client.get("/stream").getvalue().decode())
        assert [kind for kind, _ in found] == ["delta", "done"]

    def test_text_with_line_ends_stays_one_event(self, upstream: Upstream, person: Person) -> None:
        text = "a\n\nevent: done\ndata: {}\r\n\u2028é"
        upstream.say(chunk(text), last(**QUOTA))
        upstream.end()
        found = events(person.client.get("/stream").getvalue().decode())
        assert found[0] == ("delta", {"text": text})
        assert len(found) == 2


def test_what_fails_before_the_stream_is_an_ordinary_answer(person: Person, user: Any) -> None:
    person.sandbox.set(fail={"path": "/v1/chat/completions", "status": 402, "times": 1})
    answer = person.client.get("/stream")
    assert (answer.status_code, answer.json()["topup_url"]) == (402, "/auth/quota/packages")


def test_an_async_stream_under_wsgi_says_what_to_do() -> None:
    """Its sockets belong to an event loop that ends with the view."""

    async def chunks() -> Any:
        yield chunk("first")

    with pytest.raises(ConfigurationError, match="synchronous view, or an ASGI server"):
        stream_response(RequestFactory().get("/"), chunks())
