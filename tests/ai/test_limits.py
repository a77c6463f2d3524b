"""A spending limit stops the next call of a client before it is sent, and cuts running streams."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.http import HttpRequest
from django.test.utils import CaptureQueriesContext

from django_quota.ai import WalletAuth
from django_quota.ai.factory import async_openai_client, openai_client
from django_quota.ai.sdk_http import httpx
from django_quota.conf import get_settings
from django_quota.exceptions import ConfigurationError, SpendingLimitReached
from django_quota.models import UsageRecord
from django_quota.tokens import access
from django_quota.tokens.payer import during
from django_quota.wallet import billed_for, caching, limits, spending_limit
from tests.helpers.concurrency import closes_connections, run_async, wait_until
from tests.helpers.priced import HELLO, STREAM, PricedAnswers, aask, ask
from tests.sandbox_client import Person, Sandbox
from tests.tiny_server import TinyServer, json_answer
from tests.upstream import Upstream, chunk, last

pytestmark = pytest.mark.django_db(transaction=True)

CHAT = "/v1/chat/completions"
PRICE = 40


@pytest.fixture
def server(user: Any, settings: Any) -> Iterator[TinyServer]:
    """An AI whose every answer costs PRICE credits."""
    with TinyServer() as server:
        server.on(CHAT, PricedAnswers(PRICE))
        settings.QUOTA_BASE_URL = server.origin
        yield server


@pytest.fixture
def live(server: TinyServer) -> Upstream:
    """The answer to the first call, which the test writes; the others cost PRICE."""
    answer = Upstream()
    server.on(CHAT, answer, PricedAnswers(PRICE))
    return answer


def calls_until_stopped(call: Callable[[], Any]) -> tuple[int, SpendingLimitReached]:
    """Return how many calls were made, and what stopped the next one."""
    for number in range(100):
        try:
            call()
        except SpendingLimitReached as error:
            return number, error
    raise AssertionError("no limit was reached")


class TestNextCall:
    def test_is_stopped_before_it_is_sent_and_before_a_token_is_fetched(
        self, user: Any, server: TinyServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with spending_limit(credits=2 * PRICE):
            client = openai_client(user)
            ask(client)
            ask(client)
            with (
                CaptureQueriesContext(connection) as queries,
                pytest.raises(SpendingLimitReached) as caught,
            ):
                ask(client)
        assert (caught.value.limit, caught.value.spent) == (80, 80)
        assert len(server.seen(CHAT)) == 2
        assert len(queries) == 0  # a token takes one

    def test_of_an_async_client_is_stopped(self, user: Any, server: TinyServer) -> None:
        async def main() -> None:
            with spending_limit(credits=PRICE):
                client = async_openai_client(user)
                await aask(client)
                with pytest.raises(SpendingLimitReached):
                    await aask(client)

        run_async(main())
        assert len(server.seen(CHAT)) == 1

    @pytest.mark.parametrize("max_retries", [0, 3])
    def test_is_stopped_with_retries_too(
        self, user: Any, server: TinyServer, max_retries: int
    ) -> None:
        client = openai_client(user).with_options(max_retries=max_retries)
        with spending_limit(credits=PRICE):
            made, _ = calls_until_stopped(lambda: ask(client))
        assert made == len(server.seen(CHAT)) == 1

    def test_of_the_sandbox_is_stopped(self, user: Any, sandbox: Sandbox, person: Person) -> None:
        with spending_limit(credits=1) as bill:
            made, error = calls_until_stopped(lambda: ask(openai_client(user)))
        assert (made, bill.calls) == (1, 1)
        assert error.spent == 1_000_000 - sandbox.balance_of(person.email)

    def test_in_a_task_is_stopped(self, user: Any, server: TinyServer) -> None:
        async def main() -> list[Any]:
            with spending_limit(credits=PRICE):
                client = async_openai_client(user)
                await asyncio.create_task(aask(client))
                return await asyncio.gather(
                    *(asyncio.create_task(aask(client)) for _ in range(3)), return_exceptions=True
                )

        assert {type(each) for each in run_async(main())} == {SpendingLimitReached}

    @pytest.mark.parametrize("has_block", [False, True])
    def test_in_a_thread_is_stopped_by_the_limit_of_its_client(
        self, user: Any, server: TinyServer, has_block: bool
    ) -> None:
        """Also if the thread has a block of its own."""
        found: list[tuple[int, SpendingLimitReached]] = []
        with spending_limit(credits=2 * PRICE):
            client = openai_client(user)

        @closes_connections
        def work() -> None:
            if not has_block:
                found.append(calls_until_stopped(lambda: ask(client)))
                return
            with billed_for(purpose="step"):
                found.append(calls_until_stopped(lambda: ask(client)))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        ((made, error),) = found
        assert (made, error.kind) == (2, "block")
        assert {row.purpose for row in user.quota_usage.all()} == {"step" if has_block else ""}

    def test_of_the_request_of_the_client_is_stopped_in_a_thread(
        self, user: Any, server: TinyServer, settings: Any
    ) -> None:
        settings.QUOTA_SPENDING_LIMITS = {"request": 2 * PRICE}
        request = HttpRequest()
        request.user, request.session = user, {}  # type: ignore[assignment]
        with during(request):
            client = openai_client(user)
            ask(client)
        found: list[tuple[int, SpendingLimitReached]] = []
        work = closes_connections(lambda: found.append(calls_until_stopped(lambda: ask(client))))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        ((made, error),) = found
        assert (made, error.kind) == (1, "request")

    def test_by_wallet_auth_is_stopped(self, user: Any, server: TinyServer) -> None:
        with (
            httpx.Client(base_url=server.origin, auth=WalletAuth(user)) as client,
            spending_limit(credits=PRICE),
        ):
            made, _ = calls_until_stopped(lambda: client.post(CHAT, json=HELLO))
        assert made == len(server.seen(CHAT)) == 1

    def test_by_an_async_wallet_auth_is_stopped(self, user: Any, server: TinyServer) -> None:
        async def main() -> None:
            async with httpx.AsyncClient(base_url=server.origin, auth=WalletAuth(user)) as client:
                with spending_limit(credits=PRICE):
                    await client.post(CHAT, json=HELLO)
                    with pytest.raises(SpendingLimitReached):
                        await client.post(CHAT, json=HELLO)

        run_async(main())

    def test_that_costs_nothing_is_sent(self, user: Any, sandbox: Sandbox) -> None:
        with spending_limit(credits=1):
            client = openai_client(user)
            ask(client)
            assert client.models.list().data


class TestDay:
    @pytest.fixture(autouse=True)
    def limit(self, settings: Any) -> None:
        settings.QUOTA_SPENDING_LIMITS = {"user_day": 2 * PRICE}

    def test_stops_the_next_call(self, user: Any, server: TinyServer) -> None:
        made, error = calls_until_stopped(lambda: ask(openai_client(user)))
        assert (made, error.kind, error.spent) == (2, "user_day", 80)
        assert len(server.seen(CHAT)) == 2

    def test_stops_the_next_async_call(self, user: Any, server: TinyServer) -> None:
        async def main() -> None:
            await aask(async_openai_client(user))
            await aask(async_openai_client(user))
            with pytest.raises(SpendingLimitReached):
                await aask(async_openai_client(user))

        run_async(main())

    def test_adds_one_query_to_a_call(self, user: Any, server: TinyServer, settings: Any) -> None:
        client = openai_client(user)
        ask(client)
        with CaptureQueriesContext(connection) as with_limit:
            ask(client)
        settings.QUOTA_SPENDING_LIMITS = None
        with CaptureQueriesContext(connection) as without:
            ask(client)
        added = [each["sql"] for each in with_limit if "SUM(" in each["sql"]]
        assert (len(with_limit), len(added)) == (len(without) + 1, 1)

    def test_function_that_uses_the_database_works_in_async_code(
        self, user: Any, server: TinyServer, settings: Any
    ) -> None:
        def by_count(user: Any) -> Any:
            return {"user_day": 1} if UsageRecord.objects.exists() else None

        async def main() -> None:
            await aask(async_openai_client(user))
            with pytest.raises(SpendingLimitReached):
                await aask(async_openai_client(user))

        settings.QUOTA_SPENDING_LIMITS = by_count
        run_async(main())


@pytest.mark.parametrize("limits", [None, {}, {"request": 10**6}])
def test_call_without_a_limit_for_the_day_makes_no_more_queries(
    user: Any, server: TinyServer, settings: Any, limits: Any
) -> None:
    client = openai_client(user)
    counts = []
    for value in (None, limits):
        settings.QUOTA_SPENDING_LIMITS = value
        with CaptureQueriesContext(connection) as queries, during_request(user):
            ask(client)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def during_request(user: Any) -> Any:
    request = HttpRequest()
    request.user, request.session = user, {}  # type: ignore[assignment]
    return during(request)


def spend_elsewhere(user: Any) -> None:
    """A call by code that shares only the database and the cache with this thread."""

    @closes_connections
    def call() -> None:
        ask(openai_client(user))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


class TestRunningStream:
    def assert_cut(self, user: Any, live: Upstream, error: SpendingLimitReached) -> None:
        assert error.spent == PRICE
        assert live.hung_up.wait(20)
        wait_until(lambda: user.quota_usage.count() == 2)
        rows = user.quota_usage.order_by("credits_used").values_list("credits_used", "complete")
        assert set(rows) == {(PRICE, True), (None, False)}

    def test_is_cut_by_the_limit_of_its_block(self, user: Any, live: Upstream) -> None:
        with spending_limit(credits=30):
            client = openai_client(user)
            live.say(chunk("Hel"))
            stream = client.chat.completions.create(**STREAM)
            next(stream)
            ask(client)
            live.say(chunk("lo"))
            with pytest.raises(SpendingLimitReached) as caught:
                next(stream)
        self.assert_cut(user, live, caught.value)
        assert caught.value.kind == "block"

    def test_of_an_async_client_is_cut(self, user: Any, live: Upstream) -> None:
        async def main() -> SpendingLimitReached:
            with spending_limit(credits=30):
                client = async_openai_client(user)
                live.say(chunk("Hel"))
                stream = await client.chat.completions.create(**STREAM)
                await anext(stream)
                await aask(client)
                live.say(chunk("lo"))
                with pytest.raises(SpendingLimitReached) as caught:
                    await anext(stream)
                return caught.value

        self.assert_cut(user, live, run_async(main()))

    def test_is_cut_by_the_limit_of_its_request(
        self, user: Any, live: Upstream, settings: Any
    ) -> None:
        settings.QUOTA_SPENDING_LIMITS = {"request": 30}
        live.say(chunk("Hel"))
        with during_request(user):
            client = openai_client(user)
            stream = client.chat.completions.create(**STREAM)
            next(stream)
            ask(client)
        live.say(chunk("lo"))
        with pytest.raises(SpendingLimitReached) as caught:
            next(stream)
        self.assert_cut(user, live, caught.value)

    def test_is_cut_by_the_limit_of_the_day(
        self, user: Any, live: Upstream, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.QUOTA_SPENDING_LIMITS = {"user_day": 30}
        monkeypatch.setattr(limits, "LOOK_EVERY", 0)
        live.say(chunk("Hel"))
        stream = openai_client(user).chat.completions.create(**STREAM)
        next(stream)
        spend_elsewhere(user)
        live.say(chunk("lo"))
        with (
            CaptureQueriesContext(connection) as queries,
            pytest.raises(SpendingLimitReached) as caught,
        ):
            next(stream)
        self.assert_cut(user, live, caught.value)
        assert not [each for each in queries if "SUM(" in each["sql"]]

    def test_of_an_async_client_is_cut_by_the_limit_of_the_day(
        self, user: Any, live: Upstream, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.QUOTA_SPENDING_LIMITS = {"user_day": 30}
        monkeypatch.setattr(limits, "LOOK_EVERY", 0)

        async def main() -> SpendingLimitReached:
            live.say(chunk("Hel"))
            stream = await async_openai_client(user).chat.completions.create(**STREAM)
            await anext(stream)
            await asyncio.to_thread(spend_elsewhere, user)
            live.say(chunk("lo"))
            with pytest.raises(SpendingLimitReached) as caught:
                await anext(stream)
            return caught.value

        self.assert_cut(user, live, run_async(main()))

    def test_looks_into_the_cache_no_more_than_once_in_its_time(
        self, user: Any, live: Upstream, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.QUOTA_SPENDING_LIMITS = {"user_day": 30}
        monkeypatch.setattr(limits, "LOOK_EVERY", 3600)
        live.say(chunk("Hel"))
        stream = openai_client(user).chat.completions.create(**STREAM)
        next(stream)
        spend_elsewhere(user)
        looked: list[str] = []
        monkeypatch.setattr(caching, "get", looked.append)
        live.say(chunk("l"), chunk("o"))
        next(stream)
        next(stream)
        assert looked == []
        monkeypatch.undo()
        stream.close()

    def test_that_has_told_its_price_is_not_cut(self, user: Any, live: Upstream) -> None:
        with spending_limit(credits=30):
            client = openai_client(user)
            live.say(chunk("Hel"))
            stream = client.chat.completions.create(**STREAM)
            next(stream)
            ask(client)
            live.say(last(credits_used=7, balance_after=1))
            live.end()
            assert [each.choices[0].finish_reason for each in stream] == ["stop"]
        assert user.quota_usage.filter(credits_used=7, complete=True).exists()

    def test_outside_of_a_limit_goes_on(self, user: Any, live: Upstream) -> None:
        live.say(chunk("Hel"))
        stream = openai_client(user).chat.completions.create(**STREAM)
        next(stream)
        with spending_limit(credits=30):
            ask(openai_client(user))
        live.say(chunk("lo"))
        assert next(stream)
        stream.close()

    def test_read_as_lines_is_cut(self, user: Any, live: Upstream) -> None:
        """As a framework reads it, without the SDK's models."""
        with spending_limit(credits=30):
            client = openai_client(user)
            live.say(chunk("Hel"))
            with client.chat.completions.with_streaming_response.create(**STREAM) as response:
                lines = response.iter_lines()
                next(lines)
                ask(client)
                live.say(chunk("lo"))
                with pytest.raises(SpendingLimitReached) as caught:
                    list(lines)
        self.assert_cut(user, live, caught.value)

    def test_of_a_reader_who_closes_nothing_is_closed(self, user: Any, live: Upstream) -> None:
        client = httpx.Client(base_url=get_settings().base_url, auth=WalletAuth(user))
        with spending_limit(credits=30):
            live.say(chunk("Hel"))
            response = client.send(client.build_request("POST", CHAT, json=STREAM), stream=True)
            body: Any = response.stream
            parts = iter(body)
            next(parts)
            ask(openai_client(user))
            live.say(chunk("lo"))
            with pytest.raises(SpendingLimitReached) as caught:
                next(parts)
        self.assert_cut(user, live, caught.value)
        client.close()

    def test_of_an_async_reader_who_closes_nothing_is_closed(
        self, user: Any, live: Upstream
    ) -> None:
        async def main() -> None:
            client = httpx.AsyncClient(base_url=get_settings().base_url, auth=WalletAuth(user))
            with spending_limit(credits=30):
                live.say(chunk("Hel"))
                request = client.build_request("POST", CHAT, json=STREAM)
                response = await client.send(request, stream=True)
                body: Any = response.stream
                parts = aiter(body)
                await anext(parts)
                await aask(async_openai_client(user))
                live.say(chunk("lo"))
                with pytest.raises(SpendingLimitReached):
                    await anext(parts)
            assert await asyncio.to_thread(live.hung_up.wait, 20)
            assert await sync_to_async(user.quota_usage.filter(complete=False).exists)()
            await client.aclose()

        run_async(main())


def test_call_after_a_renewal_is_checked_once(
    user: Any, server: TinyServer, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """The second attempt after a 401 sums nothing up again."""
    settings.QUOTA_SPENDING_LIMITS = {"user_day": 10**6}
    sums: list[str] = []
    real = limits._bill_of_day

    def bill_of_day(*args: Any) -> Any:
        sums.append("sum")
        return real(*args)

    monkeypatch.setattr(limits, "_bill_of_day", bill_of_day)
    token = access.get_access_token(user)
    monkeypatch.setattr("django_quota.ai.auth.get_access_token", lambda user, rejected=None: token)
    server.on(CHAT, json_answer({"error": {}}, status=401), PricedAnswers(PRICE))
    ask(openai_client(user))
    assert (len(server.seen(CHAT)), sums) == (2, ["sum"])


def test_sync_client_on_an_event_loop_is_a_mistake_that_is_explained(
    user: Any, server: TinyServer, settings: Any
) -> None:
    settings.QUOTA_SPENDING_LIMITS = {"user_day": 50}

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="a user's day uses the database"):
            ask(openai_client(user))

    run_async(main())
