"""Each call through a user's client is recorded once, however its reply is read."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import IntegrityError, connection, transaction
from django.http import HttpRequest
from django.test.utils import CaptureQueriesContext

from django_quota.ai import developer_client, recording
from django_quota.ai.auth import WalletKey
from django_quota.ai.factory import async_openai_client, openai_client
from django_quota.exceptions import ProviderUnavailable
from django_quota.models import QuotaToken, UsageRecord
from django_quota.signals import usage_recorded
from django_quota.tokens.payer import during
from django_quota.wallet import billed_for, purchases, record_usage
from django_quota.wallet.balances import kept_balance
from django_quota.wallet.pending_record import PendingRecord
from tests.helpers.concurrency import closes_connections, run_async, wait_until
from tests.helpers.databases import needs_second_connection
from tests.sandbox_client import Person, Sandbox
from tests.shown import listening
from tests.tiny_server import Answer, TinyServer, answer, json_answer
from tests.upstream import Upstream, chunk, last

pytestmark = pytest.mark.django_db(transaction=True)

HELLO: Any = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 500,
}
STREAM: Any = {**HELLO, "stream": True}


def read_whole(client: Any) -> None:
    client.chat.completions.create(**HELLO)


def read_stream(client: Any) -> None:
    for _ in client.chat.completions.create(**STREAM):
        pass


def use_stream_helper(client: Any) -> None:
    with client.chat.completions.stream(**HELLO) as stream:
        stream.get_final_completion()


def read_raw(client: Any) -> None:
    """As LangChain and litellm do."""
    client.chat.completions.with_raw_response.create(**HELLO).parse()


def ignore_raw(client: Any) -> None:
    client.chat.completions.with_raw_response.create(**HELLO)


def read_raw_stream(client: Any) -> None:
    for _ in client.chat.completions.with_raw_response.create(**STREAM).parse():
        pass


def read_lines(client: Any) -> None:
    with client.chat.completions.with_streaming_response.create(**HELLO) as response:
        list(response.iter_lines())


def post(client: Any) -> None:
    client.post("/chat/completions", cast_to=object, body=HELLO)


WAYS: list[Callable[[Any], None]] = [
    read_whole,
    read_stream,
    use_stream_helper,
    read_raw,
    ignore_raw,
    read_raw_stream,
    read_lines,
    post,
]


async def aread_whole(client: Any) -> None:
    await client.chat.completions.create(**HELLO)


async def aread_stream(client: Any) -> None:
    async for _ in await client.chat.completions.create(**STREAM):
        pass


async def aread_raw(client: Any) -> None:
    (await client.chat.completions.with_raw_response.create(**HELLO)).parse()


async def aread_lines(client: Any) -> None:
    async with client.chat.completions.with_streaming_response.create(**HELLO) as response:
        _ = [line async for line in response.iter_lines()]


ASYNC_WAYS: list[Any] = [aread_whole, aread_stream, aread_raw, aread_lines]


def said(body: bytes, kind: str, headers: dict[str, str] | None = None) -> Answer:
    all_headers: Any = {"Content-Type": kind, **(headers or {})}
    return answer(body, **all_headers)


def call_async(way: Any, user: Any) -> None:
    async def main() -> None:
        await way(async_openai_client(user))

    run_async(main())


def assert_recorded_once(user: Any, person: Person, sandbox: Sandbox) -> None:
    row = user.quota_usage.get()
    balance = sandbox.balance_of(person.email)
    assert row.complete and row.model and row.prompt_tokens and row.completion_tokens
    assert (row.credits_used, row.balance_after) == (1_000_000 - balance, balance)
    sandbox.forget_requests()
    assert purchases.get_balance(user).credits == balance
    assert sandbox.requests() == []  # the reply has said it


class TestEveryWayToReadAReply:
    @pytest.mark.parametrize("way", WAYS)
    def test_records_the_call_once_and_makes_the_balance_right(
        self, user: Any, person: Person, sandbox: Sandbox, way: Callable[[Any], None]
    ) -> None:
        way(openai_client(user))
        assert_recorded_once(user, person, sandbox)

    @pytest.mark.parametrize("way", ASYNC_WAYS)
    def test_records_an_async_call_once_and_makes_the_balance_right(
        self, user: Any, person: Person, sandbox: Sandbox, way: Any
    ) -> None:
        call_async(way, user)
        assert_recorded_once(user, person, sandbox)

    def test_record_usage_adds_no_second_record(self, user: Any, sandbox: Sandbox) -> None:
        completion = openai_client(user).chat.completions.create(**HELLO)
        usage = record_usage(user, completion)
        row = user.quota_usage.get()
        assert usage is not None and usage.credits_used == row.credits_used

    def test_final_completion_of_the_stream_helper_has_a_cost(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        """The SDK drops Quota's block from it."""
        with openai_client(user).chat.completions.stream(**HELLO) as stream:
            usage = record_usage(user, stream.get_final_completion())
        assert usage is not None and usage.credits_used == user.quota_usage.get().credits_used

    def test_call_that_is_sent_again_after_a_401_is_recorded_once(
        self, user: Any, person: Person, sandbox: Sandbox
    ) -> None:
        QuotaToken.objects.update(access_token="spent-long-ago")
        openai_client(user).chat.completions.create(**HELLO)
        assert_recorded_once(user, person, sandbox)


class TestWhatIsNotRecorded:
    def test_list_of_models(self, user: Any, sandbox: Sandbox) -> None:
        purchases.get_balance(user)
        openai_client(user).models.list()
        assert not UsageRecord.objects.exists()
        assert kept_balance(user) is not None

    def test_call_paid_by_the_developer(self, user: Any, settings: Any) -> None:
        with TinyServer() as server:
            settings.QUOTA_BASE_URL = server.origin
            server.on("/v1/chat/completions", json_answer(completion()))
            developer_client("sk-quota-1").chat.completions.create(**HELLO)
        assert not UsageRecord.objects.exists()

    def test_any_call_where_the_setting_is_off(
        self, user: Any, sandbox: Sandbox, settings: Any
    ) -> None:
        settings.QUOTA_RECORD_USAGE = False
        purchases.get_balance(user)
        reply = openai_client(user).chat.completions.create(**HELLO)
        assert not UsageRecord.objects.exists()
        assert kept_balance(user) is None  # the next page asks Quota
        assert record_usage(user, reply) and user.quota_usage.count() == 1

    def test_upload_of_a_file(self, user: Any, settings: Any) -> None:
        with TinyServer() as server:
            settings.QUOTA_BASE_URL = server.origin
            server.on("/v1/files", json_answer({"id": "file-1", "object": "file"}))
            openai_client(user).post("/files", cast_to=object, body={})
        assert not UsageRecord.objects.exists()


class TestAnswerThatEndsEarly:
    def test_stream_that_is_closed_is_recorded_without_a_price(
        self, user: Any, upstream: Upstream
    ) -> None:
        purchases_before = kept_balance(user)
        upstream.say(chunk("Hello"))
        stream = openai_client(user).chat.completions.create(**STREAM)
        next(stream)
        stream.close()
        row = user.quota_usage.get()
        assert (row.call_id, row.credits_used, row.complete) == ("chatcmpl-1", None, False)
        assert purchases_before is None and kept_balance(user) is None

    def test_stream_that_breaks_off_is_recorded_without_a_price(
        self, user: Any, upstream: Upstream
    ) -> None:
        upstream.say(chunk("Hello"))
        upstream.cut()
        with pytest.raises(ProviderUnavailable):
            list(openai_client(user).chat.completions.create(**STREAM))
        assert not user.quota_usage.get().complete

    def test_stream_that_stops_without_its_last_event_is_not_complete(
        self, user: Any, upstream: Upstream
    ) -> None:
        upstream.say(chunk("Hello"))
        upstream.cease()
        list(openai_client(user).chat.completions.create(**STREAM))
        assert not user.quota_usage.get().complete

    def test_stream_without_a_price_is_complete(self, user: Any, upstream: Upstream) -> None:
        upstream.say(chunk("Hello"), chunk(finish="stop"))
        upstream.end()
        list(openai_client(user).chat.completions.create(**STREAM))
        row = user.quota_usage.get()
        assert (row.credits_used, row.complete) == (None, True)

    def test_task_that_is_cancelled_leaves_a_record(self, user: Any, upstream: Upstream) -> None:
        upstream.say(chunk("Hello"))

        async def read(has_begun: asyncio.Event) -> None:
            stream = await async_openai_client(user).chat.completions.create(**STREAM)
            async for _ in stream:
                has_begun.set()

        async def main() -> None:
            has_begun = asyncio.Event()
            task = asyncio.ensure_future(read(has_begun))
            await has_begun.wait()
            task.cancel()
            await asyncio.wait({task})

        run_async(main())
        wait_until(user.quota_usage.exists)
        assert not user.quota_usage.get().complete

    def test_page_in_place_of_a_reply_forgets_the_balance(self, user: Any, settings: Any) -> None:
        purchases.get_balance(user)
        with TinyServer() as server:
            settings.QUOTA_BASE_URL = server.origin
            server.on("/v1/chat/completions", said(b"<p>", "text/html"))
            with pytest.raises(ProviderUnavailable):
                openai_client(user).chat.completions.create(**HELLO)
        assert kept_balance(user) is None and not UsageRecord.objects.exists()


def leave_half_read(user: Any, upstream: Upstream) -> None:
    upstream.say(chunk("Hello"))
    next(openai_client(user).chat.completions.create(**STREAM))


class TestCostOfRecording:
    def test_nothing_is_asked_of_the_database_before_the_answer_but_the_token(
        self, user: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counts: list[int] = []
        real = recording.record_call

        def record(*what: Any) -> None:
            counts.append(len(queries))
            real(*what)

        monkeypatch.setattr(recording, "record_call", record)
        client = openai_client(user)
        with CaptureQueriesContext(connection) as queries:
            client.chat.completions.create(**HELLO)
        assert counts == [1]

    def test_a_call_is_one_insert(self, user: Any, sandbox: Sandbox) -> None:
        client = openai_client(user)
        with CaptureQueriesContext(connection) as queries:
            client.chat.completions.create(**HELLO)
        written = [q["sql"] for q in queries if q["sql"].startswith(("INSERT", "UPDATE"))]
        assert len(written) == 1 and "django_quota_usagerecord" in written[0]

    def test_error_of_the_record_does_not_reach_the_caller(
        self,
        user: Any,
        sandbox: Sandbox,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def broken(record: PendingRecord) -> bool:
            raise LookupError

        monkeypatch.setattr(PendingRecord, "_insert", broken)
        assert openai_client(user).chat.completions.create(**HELLO).choices
        call_async(aread_stream, user)
        assert caplog.text.count("the usage of a call was not recorded: LookupError") == 2

    def test_transaction_that_is_lost_leaves_the_record(
        self, user: Any, upstream: Upstream
    ) -> None:
        """On SQLite it is written after the rollback."""
        upstream.say(chunk("Hello"))
        stream = openai_client(user).chat.completions.create(**STREAM)
        next(stream)
        with pytest.raises(IntegrityError), transaction.atomic(), stream:
            get_user_model().objects.create(username=user.username)
        wait_until(user.quota_usage.exists)

    @needs_second_connection
    @pytest.mark.parametrize("way", [read_whole, read_stream])
    def test_rollback_leaves_the_record(
        self, user: Any, sandbox: Sandbox, way: Callable[[Any], None]
    ) -> None:
        with pytest.raises(ValueError, match="view"), transaction.atomic():
            way(openai_client(user))
            raise ValueError("the view fails")
        assert user.quota_usage.get().credits_used


class TestAnotherThread:
    def test_that_reads_the_stream_sends_the_signal_once(
        self, user: Any, upstream: Upstream
    ) -> None:
        upstream.say(chunk("Hello"), last(credits_used=1, balance_after=9))
        upstream.end()
        stream = openai_client(user).chat.completions.create(**STREAM)
        with listening(usage_recorded) as heard:
            thread = threading.Thread(target=closes_connections(partial(list, stream)))
            thread.start()
            thread.join()
        assert [said["usage"].credits_used for said in heard] == [1]

    def test_that_collects_an_abandoned_stream_keeps_its_connection_out_of_it(
        self, user: Any, upstream: Upstream
    ) -> None:
        """The garbage collector closes a stream that nobody closed, in the thread that it
        interrupts, whatever that thread is doing with the database."""
        gc.collect()
        leave_half_read(user, upstream)

        @closes_connections
        def work() -> None:
            with transaction.atomic():
                UsageRecord.objects.count()
                with CaptureQueriesContext(connection) as queries:
                    gc.collect()
                assert not queries.captured_queries
                transaction.set_rollback(True)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        wait_until(user.quota_usage.exists)

    def test_that_reads_the_stream_records_it(self, user: Any, upstream: Upstream) -> None:
        upstream.say(chunk("Hello"), last(credits_used=1, balance_after=9))
        upstream.end()
        stream = openai_client(user).chat.completions.create(**STREAM)
        thread = threading.Thread(target=closes_connections(partial(list, stream)))
        thread.start()
        thread.join()
        wait_until(user.quota_usage.exists)
        assert user.quota_usage.get().credits_used == 1

    def test_writes_nothing_for_a_user_who_is_another_person_there(
        self, user: Any, upstream: Upstream, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As in a thread whose connection is in another tenant's schema: the key is the same, and
        the row differs."""
        upstream.say(chunk("Hello"), last(credits_used=1, balance_after=9))
        upstream.end()
        stream = openai_client(user).chat.completions.create(**STREAM)
        get_user_model().objects.filter(pk=user.pk).update(username="somebody else")
        thread = threading.Thread(target=closes_connections(partial(list, stream)))
        thread.start()
        thread.join()
        assert "usage not recorded yet: Elsewhere" in caplog.text
        assert not user.quota_usage.exists()


def completion(**changes: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [],
        "usage": {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46},
        "quota": {"credits_used": 5, "balance_after": 95},
        **changes,
    }


DETAILS = {
    "prompt_tokens_details": {"cached_tokens": 7},
    "completion_tokens_details": {"reasoning_tokens": 8},
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt-5",
    "usage": {
        "input_tokens": 12,
        "output_tokens": 34,
        "input_tokens_details": {"cached_tokens": 7},
        "output_tokens_details": {"reasoning_tokens": 8},
    },
    "quota": {"credits_used": 5, "balance_after": 95},
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "model": "anthropic/claude",
    "usage": {"input_tokens": 3, "output_tokens": 34, "cache_read_input_tokens": 7},
    "quota": {"credits_used": 5, "balance_after": 95},
}


def events(*data: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\r\n\r\n" for each in data)


SHAPES: dict[str, tuple[bytes | str, tuple[Any, ...]]] = {
    "chat": (
        json.dumps(completion(usage={"prompt_tokens": 12, "completion_tokens": 34} | DETAILS)),
        ("chatcmpl-1", 12, 34, 7, 8),
    ),
    "response": (json.dumps(RESPONSE), ("resp_1", 12, 34, 7, 8)),
    "response events": (
        events(
            {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-5"}},
            {"type": "response.output_text.delta", "delta": "Hi"},
            {"type": "response.completed", "response": RESPONSE},
        ),
        ("resp_1", 12, 34, 7, 8),
    ),
    "message": (json.dumps(MESSAGE), ("msg_1", 10, 34, 7, 0)),
    "message events": (
        events(
            {"type": "message_start", "message": {**MESSAGE, "quota": None}},
            {"type": "message_delta", "usage": {"output_tokens": 34}},
            {"type": "message_stop"},
            {"type": "quota_usage", "credits_used": 5, "balance_after": 95},
        ),
        ("msg_1", 10, 34, 7, 0),
    ),
}


@pytest.fixture
def server(user: Any, settings: Any) -> Iterator[TinyServer]:
    with TinyServer() as server:
        settings.QUOTA_BASE_URL = server.origin
        yield server


class TestShapes:
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_token_counts_and_price_are_read(
        self, user: Any, server: TinyServer, shape: str, packed: bool
    ) -> None:
        body, expected = SHAPES[shape]
        kind = "text/event-stream" if "events" in shape else "application/json"
        body = body if isinstance(body, bytes) else body.encode()
        headers = {"X-Request-Id": "req_7"}
        if packed:
            body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
        server.on("/v1/anything", said(body, kind, headers))
        with openai_client(user)._client.stream(
            "POST", f"{server.origin}/v1/anything", json={}, auth=bearer(user)
        ) as response:
            response.read()
        row = user.quota_usage.get()
        counts = row.prompt_tokens, row.completion_tokens, row.cached_tokens, row.reasoning_tokens
        assert (row.call_id, *counts) == expected
        assert (row.credits_used, row.balance_after, row.request_id) == (5, 95, "req_7")
        assert row.complete

    @pytest.mark.parametrize(
        "body",
        [b"", b"[]", b"null", b"{", b"7", b'"text"', b"\xff", b"[" * 100_000, b'{"id": []}'],
        ids=str,
    )
    @pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
    def test_odd_body_is_no_call(
        self, user: Any, server: TinyServer, kind: str, body: bytes
    ) -> None:
        if "event" in kind:
            body = b"data: " + body + b"\n\n"
        server.on("/v1/anything", said(body, kind))
        client = openai_client(user)
        client._client.post(f"{server.origin}/v1/anything", json={}, auth=bearer(user))
        assert not user.quota_usage.exists()


def bearer(user: Any) -> Any:
    return WalletKey(user).begin("POST")


class TestBilledFor:
    def test_names_purpose_and_object(self, user: Any, sandbox: Sandbox) -> None:
        with billed_for(purpose="summary", object=user) as bill:
            openai_client(user).chat.completions.create(**HELLO)
        row = user.quota_usage.get()
        assert (row.purpose, row.object_type, row.object_id) == (
            "summary",
            user._meta.label_lower,
            str(user.pk),
        )
        assert (bill.calls, bill.credits_used) == (1, row.credits_used)

    def test_block_that_a_request_has_left_open_is_not_that_of_the_next(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        """As by a generator that holds it, in a thread that serves one request after another."""
        with during(HttpRequest()):
            left_open = billed_for(purpose="of the first")
            left_open.__enter__()
        with during(HttpRequest()):
            openai_client(user).chat.completions.create(**HELLO)
        left_open.__exit__(None, None, None)
        assert user.quota_usage.get().purpose == ""

    def test_ends_with_the_block(self, user: Any, sandbox: Sandbox) -> None:
        with billed_for(purpose="summary"):
            client = openai_client(user)
        client.chat.completions.create(**HELLO)
        assert user.quota_usage.get().purpose == ""

    def test_inner_block_changes_what_it_names_and_adds_to_both_bills(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        with billed_for(purpose="agent", object=user) as outer:
            with billed_for(purpose="step") as inner:
                openai_client(user).chat.completions.create(**HELLO)
            openai_client(user).chat.completions.create(**HELLO)
        rows = list(user.quota_usage.order_by("pk").values_list("purpose", "object_id"))
        assert rows == [("step", str(user.pk)), ("agent", str(user.pk))]
        assert (outer.calls, inner.calls) == (2, 1)
        assert outer.credits_used > inner.credits_used > 0

    def test_tasks_inherit_it(self, user: Any, sandbox: Sandbox) -> None:
        async def main() -> None:
            client = async_openai_client(user)
            with billed_for(purpose="both"):
                await asyncio.gather(aread_whole(client), aread_stream(client))

        run_async(main())
        assert list(user.quota_usage.values_list("purpose", flat=True)) == ["both", "both"]

    def test_block_of_a_generator_may_end_in_another_context(self) -> None:
        """As a generator that sends an answer under ASGI: each step has a context of its own."""

        def answer() -> Iterator[str]:
            with billed_for(purpose="answer"):
                yield "Hello"

        steps = answer()
        assert copy_context().run(next, steps) == "Hello"
        assert list(steps) == []

    def test_threads_inherit_that_of_their_client(self, user: Any, sandbox: Sandbox) -> None:
        with billed_for(purpose="both") as bill:
            client = openai_client(user)
            work = closes_connections(lambda: read_stream(client))
            threads = [threading.Thread(target=work) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        wait_until(lambda: user.quota_usage.count() == 2)
        assert list(user.quota_usage.values_list("purpose", flat=True)) == ["both", "both"]
        assert bill.calls == 2

    @pytest.mark.parametrize(
        ("given", "error"),
        [
            ({"purpose": "x" * 101}, ValueError),
            ({"object": 7}, TypeError),
            ({"object": QuotaToken()}, ValueError),
        ],
    )
    def test_bad_argument_is_refused(self, given: Any, error: type[Exception]) -> None:
        with pytest.raises(error), billed_for(**given):
            pass


class TestRawResponse:
    @pytest.mark.parametrize(
        "reply",
        [said(b"<p>Busy</p>", "text/html"), json_answer([1]), answer(b"{")],
    )
    def test_parse_of_what_is_no_model_raises_our_error(
        self, user: Any, server: TinyServer, reply: Any
    ) -> None:
        server.on("/v1/chat/completions", reply)
        raw = openai_client(user).chat.completions.with_raw_response.create(**HELLO)
        with pytest.raises(ProviderUnavailable):
            raw.parse()
        with (
            openai_client(user).chat.completions.with_streaming_response.create(**HELLO) as raw2,
            pytest.raises(ProviderUnavailable),
        ):
            raw2.parse()

        async def main() -> None:
            calls = async_openai_client(user).chat.completions
            with pytest.raises(ProviderUnavailable):
                (await calls.with_raw_response.create(**HELLO)).parse()
            async with calls.with_streaming_response.create(**HELLO) as raw:
                with pytest.raises(ProviderUnavailable):
                    await raw.parse()

        run_async(main())
