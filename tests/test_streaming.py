"""An answer on its way to the browser: at once, to its end or not, and paid for."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from django.contrib import auth
from django.db import connections
from django.db.models import QuerySet
from django.test import AsyncClient, RequestFactory
from openai import AsyncStream, Stream

from django_quota import signals
from django_quota.exceptions import ConfigurationError
from django_quota.models import UsageRecord
from django_quota.streaming import EventStreamResponse, stream_response
from django_quota.wallet import purchases
from django_quota.wallet.balances import kept_balance
from django_quota.web import answer_events
from django_quota.web.answer_events import AnswerEvents
from tests.helpers.balances import cache_balance
from tests.helpers.concurrency import run_async
from tests.helpers.streams import QUOTA, VIEWS, AsgiRequest, events, next_event, whole_answer
from tests.sandbox_client import Person
from tests.shown import listening
from tests.upstream import Upstream, chunk, last

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def project(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.urls_streaming"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django_quota.middleware.QuotaMiddleware"]


@pytest.mark.parametrize("view", VIEWS)
class TestUnderAsgi:
    def test_text_then_what_it_cost(
        self, upstream: Upstream, person: Person, user: Any, view: str
    ) -> None:
        upstream.say(chunk(""), chunk("Hel"), chunk("lo"), last(**QUOTA))
        upstream.end()

        async def read() -> tuple[dict[bytes, bytes], str]:
            browser = AsgiRequest(person, view)
            return await browser.ask(), await browser.read_all()

        headers, body = run_async(read())

        assert headers[b"Content-Type"] == b"text/event-stream"
        assert headers[b"Cache-Control"] == b"no-store, private"
        assert headers[b"X-Accel-Buffering"] == b"no"
        assert headers[b"Content-Encoding"] == b"identity"
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
                    "state": "available",
                    "finish_reason": "stop",
                },
            ),
        ]
        assert purchases.get_balance(user).credits == 998_800
        row = UsageRecord.objects.get()
        assert (row.user, row.credits_used, row.complete) == (user, 1_200, True)

    def test_the_first_token_before_the_second_is_there(
        self, upstream: Upstream, person: Person, view: str
    ) -> None:
        async def read() -> str:
            browser = AsgiRequest(person, view)
            upstream.say(chunk("first"))
            await browser.ask()
            first = await browser.read()
            upstream.say(chunk("second"), last(**QUOTA))
            upstream.end()
            return first + "|" + await browser.read_all()

        first, _, rest = run_async(read()).partition("|")
        assert events(first) == [("delta", {"text": "first"})]
        assert [kind for kind, _ in events(rest)] == ["delta", "done"]

    def test_a_browser_that_goes_away_ends_it_upstream(
        self, upstream: Upstream, person: Person, user: Any, view: str
    ) -> None:
        cache_balance(user, 1)

        async def leave() -> None:
            browser = AsgiRequest(person, view)
            upstream.say(chunk("first"))
            await browser.ask()
            await browser.read()
            await browser.leave()  # while upstream is silent
            assert await asyncio.to_thread(upstream.hung_up.wait, 20)

        with listening(signals.usage_recorded) as heard:
            run_async(leave())
        row = UsageRecord.objects.get()
        assert (row.user, row.credits_used, row.complete) == (user, None, False)
        assert [h["complete"] for h in heard] == [False]

    def test_a_browser_that_never_read_a_word(
        self, upstream: Upstream, person: Person, user: Any, view: str
    ) -> None:
        cache_balance(user, 1)

        async def leave() -> None:
            browser = AsgiRequest(person, view)
            await browser.ask()
            await browser.leave()
            assert await asyncio.to_thread(upstream.hung_up.wait, 20)

        run_async(leave())
        assert not UsageRecord.objects.exists()
        assert kept_balance(user) is None  # it may have cost something

    def test_its_user_is_loaded_once(
        self, upstream: Upstream, person: Person, view: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not for the bill once more, at the end of each of many."""
        loaded: list[Any] = []
        real = auth.get_user

        def get_user(request: Any) -> Any:
            loaded.append(request)
            return real(request)

        monkeypatch.setattr(auth, "get_user", get_user)
        upstream.say(chunk("all"), last(**QUOTA))
        upstream.end()

        whole_answer(person, view)
        assert UsageRecord.objects.get().complete
        # Who pays is `request.user` in an async view too, which itself asked `request.auser()`.
        assert len(loaded) == 1

    @pytest.mark.slow
    def test_leaves_nothing_in_memory(self, upstream: Upstream, person: Person, view: str) -> None:
        upstream.say(chunk("all"), last(**QUOTA))
        upstream.end()

        kinds = (EventStreamResponse, Stream, AsyncStream, AnswerEvents)

        def alive() -> list[Any]:
            gc.collect()
            return [each for each in gc.get_objects() if issubclass(type(each), kinds)]

        before = alive()  # kept by other tests, whose error messages hold them
        whole_answer(person, view)
        assert [each for each in alive() if not any(each is other for other in before)] == []

    def test_no_connection_of_the_database_is_held_while_it_waits(
        self, upstream: Upstream, person: Person, view: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every request has a thread of its own under ASGI."""
        given_back: list[bool] = []
        real = answer_events.close_idle_connections

        def give() -> None:
            real()
            given_back.append(connections["default"].connection is None)

        monkeypatch.setattr(answer_events, "close_idle_connections", give)
        upstream.say(chunk("all"), last(**QUOTA))
        upstream.end()

        assert [kind for kind, _ in events(whole_answer(person, view))] == ["delta", "done"]
        assert given_back and all(given_back)

    def test_djangos_own_client(self, upstream: Upstream, person: Person, view: str) -> None:
        """As a project would test its view."""
        upstream.say(chunk("all"), last(**QUOTA))
        upstream.end()

        async def read() -> str:
            client = AsyncClient(SERVER_NAME="localhost")
            client.cookies = person.client.cookies
            response = await client.get(f"/{view}")
            body = b"".join([part async for part in response])
            response.close()
            return body.decode()

        assert [kind for kind, _ in events(run_async(read()))] == ["delta", "done"]


class TestUnderWsgi:
    def test_the_first_token_before_the_second_is_there(
        self, upstream: Upstream, person: Person, user: Any
    ) -> None:
        upstream.say(chunk("first"))
        response = person.client.get("/stream")
        parts = iter(response.streaming_content)
        assert events(next_event(parts)) == [("delta", {"text": "first"})]
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
        next_event(iter(response.streaming_content))
        response.close()
        assert upstream.hung_up.wait(20)
        assert UsageRecord.objects.get().complete is False

    def test_one_that_never_came_for_it(self, upstream: Upstream, person: Person) -> None:
        person.client.get("/stream").close()
        assert upstream.hung_up.wait(20)
        assert not UsageRecord.objects.exists()

    @pytest.mark.parametrize(
        ("code", "told", "words", "status_url"),
        [
            ("upstream_error", "provider_unavailable", "The answer broke off", None),
            ("insufficient_credits", "insufficient_credits", "Your credits", "topup_url"),
            (402, "insufficient_credits", "Your credits", "topup_url"),
        ],
    )
    def test_an_error_on_the_way_is_an_event(
        self,
        upstream: Upstream,
        person: Person,
        code: str | int,
        told: str,
        words: str,
        status_url: str | None,
    ) -> None:
        upstream.say(chunk("first"), {"error": {"code": code, "message": "quota_token_hush"}})
        upstream.end()
        body = person.client.get("/stream").getvalue().decode()
        (_, first), (kind, data) = events(body)
        assert (first, kind) == ({"text": "first"}, "error")
        assert data["error"]["code"] == told
        assert data["error"]["message"].startswith(words)
        assert status_url is None or data[status_url] == "/auth/quota/packages"
        assert "hush" not in body
        assert UsageRecord.objects.get().complete is False

    def test_an_answer_that_nobody_reads(
        self, upstream: Upstream, person: Person, user: Any
    ) -> None:
        """Not even its first word; a server then closes the response, and no more."""
        cache_balance(user, 1)
        person.client.get("/stream").close()
        assert upstream.hung_up.wait(20)
        assert kept_balance(user) is None  # it may have cost something

    def test_a_connection_that_breaks_is_an_event(self, upstream: Upstream, person: Person) -> None:
        upstream.say(chunk("first"))
        upstream.cut()
        found = events(person.client.get("/stream").getvalue().decode())
        assert [kind for kind, _ in found] == ["delta", "error"]

    def test_an_answer_that_does_not_say_what_it_cost(
        self, upstream: Upstream, person: Person, user: Any
    ) -> None:
        cache_balance(user, 7)
        upstream.say(chunk("all"), chunk(finish="stop"))
        upstream.end()
        (_, (kind, data)) = events(person.client.get("/stream").getvalue().decode())
        assert (kind, data["cost"], data["credits_used"]) == ("done", "", None)
        row = UsageRecord.objects.get()
        assert (row.credits_used, row.complete) == (None, True)

    @pytest.mark.parametrize(
        "end",
        [
            {"choices": None},
            {"choices": []},
            {"choices": [{"index": 0, "finish_reason": "stop"}]},
            {"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]},
        ],
    )
    def test_the_last_chunk_need_hold_nothing_but_what_it_cost(
        self, upstream: Upstream, person: Person, end: dict[str, Any]
    ) -> None:
        upstream.say(chunk("all"), last(**QUOTA) | end)
        upstream.end()
        found = events(person.client.get("/stream").getvalue().decode())
        assert [kind for kind, _ in found] == ["delta", "done"]
        assert found[1][1]["credits_used"] == 1_200

    def test_a_receiver_that_fails_takes_nothing_away(
        self, upstream: Upstream, person: Person, user: Any
    ) -> None:
        def broken(**said: Any) -> None:
            raise RuntimeError("the project's own")

        signals.usage_recorded.connect(broken)
        try:
            upstream.say(chunk("all"), last(**QUOTA))
            upstream.end()
            found = events(person.client.get("/stream").getvalue().decode())
        finally:
            signals.usage_recorded.disconnect(broken)
        assert found[1][1]["credits_used"] == 1_200
        assert purchases.get_balance(user).credits == 998_800

    def test_odd_chunks(self, upstream: Upstream, person: Person) -> None:
        """Whatever comes: the browser is told, and the log."""
        upstream.say(chunk("first"), {"choices": [{"delta": {"content": 5}}]})
        upstream.end()
        found = events(person.client.get("/stream").getvalue().decode())
        assert [kind for kind, _ in found] == ["delta", "error"]

    def test_a_database_that_fails_takes_no_answer_away(
        self, upstream: Upstream, person: Person, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("no space left")

        monkeypatch.setattr(QuerySet, "get_or_create", broken)
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
