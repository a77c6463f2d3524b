"""AI calls through the real OpenAI SDK: billed to the user who makes them, and to nobody else."""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import OperationalError
from django.test import RequestFactory
from django.utils import timezone
from django.views.debug import ExceptionReporter

from django_quota.ai import clients, factory
from django_quota.ai.auth import BearerAuth, WalletKey, _signed
from django_quota.ai.sdk_http import httpx
from django_quota.exceptions import (
    ConfigurationError,
    InsufficientCredits,
    InsufficientScope,
    NotConnected,
    ProviderUnavailable,
    RateLimited,
    ReauthenticationRequired,
    RefreshImpossibleHere,
    RequestRefused,
)
from django_quota.models import QuotaToken
from django_quota.wallet import caching, purchases
from django_quota.wallet.balances import _key, kept_balance
from django_quota.wallet.usage import record_usage
from tests.helpers.balances import cache_balance
from tests.helpers.concurrency import run_async
from tests.helpers.replies import record_now, reply
from tests.sandbox_client import Person, Sandbox
from tests.tiny_server import TinyServer, answer, json_answer
from tests.upstream import Upstream, chunk, last

pytestmark = pytest.mark.django_db(transaction=True)

HELLO: Any = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 50,
}


CHUNK = (
    b'{"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", '
    b'"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": null}]}'
)
COMPLETION: Any = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini",
    "choices": [],
}


def run(work: Any, user: Any) -> Any:
    """`work` with an async client, in an event loop of its own."""

    async def main() -> Any:
        return await work(factory.async_openai_client(user))

    return run_async(main())


def pools() -> Any:
    """The pools of async clients, by their event loop."""
    client: Any = factory._async_client()
    return client._client._transport.pools


def cost_of(completion: Any) -> int:
    return int(completion.model_extra["quota"]["credits_used"])


def test_a_traceback_does_not_show_the_token() -> None:
    """Whatever fails where it is written into a request: to admins, say, by e-mail."""
    bearer = BearerAuth("quota_token_hush", None)
    try:
        _signed(SimpleNamespace(), bearer._token)  # type: ignore[arg-type]
    except AttributeError:
        report = ExceptionReporter(RequestFactory().get("/"), *sys.exc_info())
    (frame,) = [f for f in report.get_traceback_frames() if f["function"] == "_signed"]
    assert frame["vars"] and "hush" not in str(frame["vars"])


class TestBilling:
    def test_the_user_pays_what_the_reply_says(
        self, user: Any, person: Person, sandbox: Sandbox
    ) -> None:
        completion = factory.openai_client(user).chat.completions.create(**HELLO)
        usage = record_usage(user, completion)

        assert usage is not None and usage.credits_used is not None and usage.credits_used > 0
        assert sandbox.balance_of(person.email) == 1_000_000 - usage.credits_used
        assert purchases.get_balance(user).credits == usage.balance_after

    @pytest.mark.slow
    def test_a_stream_bills_in_its_last_chunk(
        self, user: Any, person: Person, sandbox: Sandbox
    ) -> None:
        chunks = list(factory.openai_client(user).chat.completions.create(**HELLO, stream=True))
        usages = [u for chunk in chunks if (u := record_usage(user, chunk))]

        assert len(chunks) > 3
        assert len(usages) == 1
        assert sandbox.balance_of(person.email) == usages[0].balance_after

    @pytest.mark.parametrize("way", ["whole", "stream", "async", "async stream"])
    def test_the_balance_is_that_after_the_last_of_two_calls_at_once(
        self, user: Any, way: str
    ) -> None:
        async def main() -> Any:
            reply = await factory.async_openai_client(user).chat.completions.create(**asked)
            return [chunk async for chunk in reply][-1] if asked.get("stream") else reply

        def call() -> Any:
            if "async" in way:
                return run_async(main())
            reply: Any = factory.openai_client(user).chat.completions.create(**asked)
            return list(reply)[-1] if asked.get("stream") else reply

        asked = HELLO | ({"stream": True} if "stream" in way else {})
        first, last = call(), call()
        assert (
            first.model_extra["quota"]["balance_after"] > last.model_extra["quota"]["balance_after"]
        )
        assert kept_balance(user) is None  # Quota is asked
        assert purchases.get_balance(user).credits == last.model_extra["quota"]["balance_after"]

    def test_the_balance_is_not_that_of_a_stream_that_was_read_late(
        self, user: Any, upstream: Upstream
    ) -> None:
        """Its last chunk waits in the socket, while other calls begin and end."""
        upstream.say(chunk("Hello"), last(credits_used=1, balance_after=9))
        upstream.end()
        stream = factory.openai_client(user).chat.completions.create(**HELLO, stream=True)
        next(stream)
        record_now(user, reply("chatcmpl-2", credits_used=4, balance_after=5))
        caching.forget(f"{_key(user)}.call")  # that is a while ago
        list(stream)
        assert kept_balance(user) is None

    def test_reply_that_is_recorded_again_later_leaves_the_balance(self, user: Any) -> None:
        """A worker may get it as JSON; here, credits were bought meanwhile."""
        completion = factory.openai_client(user).chat.completions.create(**HELLO)
        sent = completion.model_dump_json()
        cache_balance(user, 6_000_000)
        record_usage(user, type(completion).model_validate_json(sent))
        assert kept_balance(user) == purchases.Balance(credits=6_000_000)

    def test_two_users_share_a_pool_and_no_wallet(
        self, user: Any, person: Person, sandbox: Sandbox
    ) -> None:
        grace = sandbox.person(balance=5_000_000)
        grace.sign_in()
        other = get_user_model().objects.exclude(pk=user.pk).get()
        one, two = factory.openai_client(user), factory.openai_client(other)

        first = cost_of(one.chat.completions.create(**HELLO))
        second = cost_of(two.chat.completions.create(**HELLO))
        third = cost_of(one.with_options(timeout=9).chat.completions.create(**HELLO))

        assert sandbox.balance_of(person.email) == 1_000_000 - first - third
        assert sandbox.balance_of(grace.email) == 5_000_000 - second
        assert one._client is two._client  # the connection pool

    def test_the_key_is_asked_for_at_every_call(self, user: Any, sandbox: Sandbox) -> None:
        client = factory.openai_client(user)
        client.chat.completions.create(**HELLO)
        QuotaToken.objects.update(expires_at=timezone.now())
        client.chat.completions.create(**HELLO)
        call = "POST /v1/chat/completions"
        assert [r for r in sandbox.requests() if r.startswith("POST")] == [
            call,
            "POST /oauth/token",
            call,
        ]

    def test_async_twin(self, user: Any, person: Person, sandbox: Sandbox) -> None:
        async def call() -> int:
            client = factory.async_openai_client(user)
            cost = cost_of(await client.chat.completions.create(**HELLO))
            return cost

        cost = run_async(call())

        assert sandbox.balance_of(person.email) == 1_000_000 - cost

    def test_a_call_of_it_starts_no_thread_of_the_sdks(
        self, user: Any, person: Person, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As each copy of an async client does at its first call, for a header."""
        started: list[Any] = []
        monkeypatch.setattr("asyncio.to_thread", started.append)

        async def call() -> Any:
            return await factory.async_openai_client(user).chat.completions.create(**HELLO)

        assert cost_of(run_async(call())) > 0
        assert started == []

    def test_each_event_loop_has_its_own_pool(self, user: Any, sandbox: Sandbox) -> None:
        async def pool() -> Any:
            client: Any = factory.async_openai_client(user)
            await client.models.list()
            return client._client._transport.pools[asyncio.get_running_loop()]

        assert run_async(pool()) is not run_async(pool())

    @pytest.mark.parametrize("end", ["asyncio.run", "async_to_sync", "loop.close"])
    def test_a_pool_ends_with_its_event_loop(self, user: Any, settings: Any, end: str) -> None:
        """A task or a view of its own loop each time would leave a socket behind each time."""

        async def call() -> None:
            await factory.async_openai_client(user).chat.completions.create(**HELLO)

        with TinyServer() as quota:
            quota.on("/v1/chat/completions", json_answer(COMPLETION))
            settings.QUOTA_BASE_URL = quota.origin
            for number in range(3):
                if end == "asyncio.run":
                    run_async(call())
                elif end == "async_to_sync":
                    async_to_sync(call)()
                else:  # as nobody should: then the next one forgets it
                    loop = asyncio.new_event_loop()
                    loop.run_until_complete(call())
                    loop.run_until_complete(loop.shutdown_asyncgens())
                    loop.close()
                quota.wait_until_closed()
                assert (quota.connections, pools()) == (number + 1, {})

    def test_a_loop_that_is_just_closed_is_forgotten(self, user: Any) -> None:
        async def open_pool() -> None:
            client: Any = factory.async_openai_client(user)
            client._client._transport._pool()

        loop = asyncio.new_event_loop()
        loop.run_until_complete(open_pool())
        loop.close()
        assert len(pools()) == 1
        run_async(open_pool())
        assert pools() == {}

    def test_no_cookie_goes_from_one_person_to_another(self, user: Any, settings: Any) -> None:
        """Quota's `quota_session` is a credential, and the pool is everybody's."""

        async def twice(client: Any) -> None:
            for _ in range(2):
                await client.chat.completions.create(**HELLO)

        with TinyServer() as quota:
            cookie = "quota_session=sess_hush; Path=/"
            quota.on("/v1/chat/completions", json_answer(COMPLETION, Set_Cookie=cookie))
            settings.QUOTA_BASE_URL = quota.origin
            for _ in range(2):
                factory.openai_client(user).chat.completions.create(**HELLO)
            run(twice, user)
            assert [request.headers.get("cookie") for request in quota.requests] == [None] * 4

    def test_a_forked_process_has_a_pool_of_its_own(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pool = factory.openai_client(user)._client
        monkeypatch.setattr(factory.os, "getpid", lambda: -1)
        assert factory.openai_client(user)._client is not pool

    def test_closing_one_client_closes_no_others(self, user: Any) -> None:
        with factory.openai_client(user) as client:
            client.chat.completions.create(**HELLO)
        client.close()
        assert factory.openai_client(user).chat.completions.create(**HELLO)

    def test_nor_does_an_async_one(self, user: Any) -> None:
        async def work(client: Any) -> Any:
            async with client.with_options(timeout=9) as one:
                await one.chat.completions.create(**HELLO)
            await client.close()
            return await client.chat.completions.create(**HELLO)

        assert run(work, user)

    @pytest.mark.parametrize("nobody", [None, AnonymousUser()])
    def test_nobody_cannot_pay(self, nobody: Any) -> None:
        with pytest.raises(NotConnected):
            factory.openai_client(nobody)

    def test_each_client_has_its_place(self, user: Any) -> None:
        """Else Python's error or Django's would say nothing of the other one."""
        with pytest.raises(ConfigurationError, match="use openai_client"):
            factory.async_openai_client(user)
        with pytest.raises(ConfigurationError, match="use openai_client or developer_client"):
            factory.async_developer_client("sk-quota-x")

        async def on_the_loop() -> None:
            factory.openai_client(user).chat.completions.create(**HELLO)

        with pytest.raises(ConfigurationError, match="async_openai_client"):
            run_async(on_the_loop())

    def test_a_user_without_a_wallet_cannot_pay(self, sandbox: Sandbox) -> None:
        stranger = get_user_model().objects.create(username="x")
        with pytest.raises(NotConnected):
            factory.openai_client(stranger).chat.completions.create(**HELLO)

    def test_a_failed_call_is_not_sent_again(self, user: Any, sandbox: Sandbox) -> None:
        sandbox.set(fail={"path": "/v1/chat/completions", "status": 500, "times": 9})
        with pytest.raises(ProviderUnavailable):
            factory.openai_client(user).chat.completions.create(**HELLO)
        assert sandbox.requests() == ["POST /v1/chat/completions"]


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def developers_own(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        """What a developer's machine may have lying about, each able to bill somebody else."""
        monkeypatch.setenv("OPENAI_API_KEY", "sk-quota-developer")
        monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin")
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        monkeypatch.setenv("OPENAI_ORG_ID", "org-developer")
        monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-developer")
        monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", "whsec_developer")
        monkeypatch.setenv(
            "OPENAI_CUSTOM_HEADERS", "Authorization: Bearer sk-quota-developer\nX-Theirs: 1"
        )
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login developer password sk-quota-developer\n")
        monkeypatch.setenv("NETRC", str(netrc))
        factory._shared_client.cache_clear()

    def assert_clean(self, client: Any) -> None:
        sent: list[Any] = []
        client._client.event_hooks = {"request": [sent.append]}
        client.models.list()
        client._client.event_hooks = {"request": []}
        headers = {name.lower(): value for name, value in sent[0].headers.items()}
        assert "x-theirs" not in headers
        assert "openai-organization" not in headers
        assert "openai-project" not in headers
        assert headers["authorization"].startswith("Bearer quota_token_")
        assert "developer" not in str(headers) and "sk-" not in str(headers)
        assert str(client.base_url).startswith("http://127.0.0.1:")
        assert not str(client.base_url).startswith("http://127.0.0.1:9/")
        assert client.webhook_secret is None
        assert client.admin_api_key is None

    def test_is_never_used(self, user: Any, person: Person, sandbox: Sandbox) -> None:
        client = factory.openai_client(user)
        self.assert_clean(client)
        self.assert_clean(client.with_options(timeout=5))
        cost = cost_of(client.chat.completions.create(**HELLO))
        assert sandbox.balance_of(person.email) == 1_000_000 - cost

    def test_nor_for_the_balance(self, user: Any) -> None:
        assert purchases.get_balance(user).credits == 1_000_000

    def test_nor_by_the_async_client(self, user: Any, person: Person, sandbox: Sandbox) -> None:
        async def call() -> int:
            client = factory.async_openai_client(user).with_options(timeout=5)
            assert client.organization is None and client.project is None
            return cost_of(await client.chat.completions.create(**HELLO))

        cost = run_async(call())
        assert sandbox.balance_of(person.email) == 1_000_000 - cost

    def test_what_the_caller_asks_for_is_kept(self, user: Any) -> None:
        client = factory.openai_client(user).with_options(
            organization="mine", default_headers={"X-Mine": "1"}
        )
        assert client.with_options(timeout=1).organization == "mine"
        assert client.with_options(timeout=1).default_headers["X-Mine"] == "1"


class TestErrors:
    """Only ours: what a view has to catch is one tree, and QuotaMiddleware answers it."""

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (400, RequestRefused),
            (402, InsufficientCredits),
            (403, InsufficientScope),
            (404, RequestRefused),
            (429, RateLimited),
            (500, ProviderUnavailable),
            (503, ProviderUnavailable),
        ],
    )
    def test_by_status(
        self, user: Any, sandbox: Sandbox, status: int, expected: type[Exception]
    ) -> None:
        sandbox.set(fail={"path": "/v1/chat/completions", "status": status, "times": 2})
        with pytest.raises(expected) as caught:
            factory.openai_client(user).chat.completions.create(**HELLO)
        assert type(caught.value) is expected
        assert "quota_token_" not in repr(caught.value)
        with pytest.raises(expected):
            run(lambda client: client.chat.completions.create(**HELLO), user)

    def test_a_refused_request_says_what_quota_says_of_it(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        with pytest.raises(RequestRefused) as caught:
            factory.openai_client(user).chat.completions.create(**{**HELLO, "temperature": 9})
        assert (caught.value.status, caught.value.provider_code) == (400, "bad_request")
        assert "temperature" in str(caught.value.__cause__)

    @pytest.mark.parametrize("code", ["quota_token_Ab1", "x" * 65, "Über"])
    def test_a_code_that_does_not_look_like_one_is_not_repeated(
        self, user: Any, settings: Any, code: str
    ) -> None:
        """The log and the `provider_code` must not show what the network says."""
        refusal = json_answer({"error": {"code": code, "message": "x"}}, status=400)
        with TinyServer() as quota:
            quota.on("/v1/chat/completions", refusal)
            settings.QUOTA_BASE_URL = quota.origin
            with pytest.raises(RequestRefused) as caught:
                factory.openai_client(user).chat.completions.create(**HELLO)
        assert (caught.value.provider_code, code in str(caught.value)) == ("", False)

    def test_a_403_for_another_reason_is_no_missing_scope(self, user: Any, settings: Any) -> None:
        """quota-protocol section 9: asking for consent again would lead here again."""
        with TinyServer() as quota:
            refusal = b'{"error": {"code": "forbidden", "message": "x"}}'
            quota.on("/v1/chat/completions", answer(refusal, status=403))
            settings.QUOTA_BASE_URL = quota.origin
            with pytest.raises(RequestRefused) as caught:
                factory.openai_client(user).chat.completions.create(**HELLO)
        assert (caught.value.status, caught.value.provider_code) == (403, "forbidden")

    def test_missing_scope_is_named(self, user: Any, settings: Any) -> None:
        """So that the person is asked for it."""
        with TinyServer() as quota:
            refusal = b'{"error": {"code": "insufficient_scope", "message": "x"}}'
            quota.on("/v1/chat/completions", answer(refusal, status=403))
            settings.QUOTA_BASE_URL = quota.origin
            with pytest.raises(InsufficientScope) as caught:
                factory.openai_client(user).chat.completions.create(**HELLO)
        assert caught.value.scope == "credits.spend"

    def test_retry_after_is_kept(self, user: Any, settings: Any) -> None:
        with TinyServer() as quota:
            quota.on("/v1/chat/completions", answer(b"{}", status=429, Retry_After="7"))
            settings.QUOTA_BASE_URL = quota.origin
            with pytest.raises(RateLimited) as caught:
                factory.openai_client(user).chat.completions.create(**HELLO)
        assert caught.value.retry_after == 7

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_a_redirect_is_not_followed(self, user: Any, settings: Any, status: int) -> None:
        """What the user asks for is for Quota alone, wherever a broken proxy points."""
        with TinyServer() as quota, TinyServer() as elsewhere:
            target = f"{elsewhere.origin}/v1/chat/completions"
            quota.on("/v1/chat/completions", answer(status=status, Location=target))
            settings.QUOTA_BASE_URL = quota.origin
            with pytest.raises(ProviderUnavailable):
                factory.openai_client(user).chat.completions.create(**HELLO)
            with pytest.raises(ProviderUnavailable):
                run(lambda client: client.chat.completions.create(**HELLO), user)
            assert len(quota.requests) == 2
            assert elsewhere.requests == []

    @pytest.mark.parametrize("error", [OperationalError("away"), RefreshImpossibleHere("tenant")])
    def test_no_answer_and_a_balance_that_cannot_be_forgotten(
        self, user: Any, settings: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def fail(payer: Any) -> None:
            raise error

        monkeypatch.setattr(clients, "forget_balance", fail)
        settings.QUOTA_BASE_URL = "http://127.0.0.1:9"
        with pytest.raises(ProviderUnavailable):
            factory.openai_client(user).chat.completions.create(**HELLO)
        with pytest.raises(ProviderUnavailable):
            run(lambda client: client.chat.completions.create(**HELLO), user)

    def test_no_answer(self, user: Any, settings: Any) -> None:
        settings.QUOTA_BASE_URL = "http://127.0.0.1:9"
        with pytest.raises(ProviderUnavailable):
            factory.openai_client(user).chat.completions.create(**HELLO)

    def test_mistake_in_an_http_client_is_no_outage(self, user: Any) -> None:
        """The SDK's release 2 says "Connection error." of it; trying later would be of no use."""

        def misfit(request: Any) -> Any:
            raise TypeError("Invalid argument")

        transport = httpx.MockTransport(misfit)
        client = factory.openai_client(user)
        client = client.with_options(http_client=httpx.Client(transport=transport))
        with pytest.raises(TypeError, match="Invalid argument"):
            client.chat.completions.create(**HELLO)
        with pytest.raises(TypeError, match="Invalid argument"):
            run(
                lambda client: client.with_options(
                    http_client=httpx.AsyncClient(transport=transport)
                ).chat.completions.create(**HELLO),
                user,
            )

    @pytest.mark.parametrize(
        ("event", "expected"),
        [
            (b'{"error": {"code": "upstream_error", "message": "m"}}', ProviderUnavailable),
            (b'{"error": {"code": "insufficient_credits", "message": "m"}}', InsufficientCredits),
            (b'{"error": {"code": "rate_limit", "message": "m"}}', RateLimited),
            (b'{"error": {"code": 402, "message": "m"}}', InsufficientCredits),
            (b'{"error": {"code": 429, "message": "m"}}', RateLimited),
            (b'{"error": {"code": 502, "message": "m"}}', ProviderUnavailable),
            (b'{"error": {"code": [402], "message": "m"}}', ProviderUnavailable),
        ],
    )
    def test_in_the_middle_of_a_stream(
        self, user: Any, settings: Any, event: bytes, expected: type[Exception]
    ) -> None:
        body = b"data: " + CHUNK + b"\n\ndata: " + event + b"\n\n"
        with TinyServer() as quota:
            quota.on("/v1/chat/completions", answer(body, Content_Type="text/event-stream"))
            settings.QUOTA_BASE_URL = quota.origin
            chunks = factory.openai_client(user).chat.completions.create(**HELLO, stream=True)
            assert next(chunks).id == "chatcmpl-1"
            with pytest.raises(expected):
                next(chunks)

            async def read(client: Any) -> None:
                async for _chunk in await client.chat.completions.create(**HELLO, stream=True):
                    pass

            with pytest.raises(expected):
                run(read, user)

            async def read_raw(client: Any) -> None:
                raw = await client.chat.completions.with_raw_response.create(**HELLO, stream=True)
                async for _chunk in raw.parse():
                    pass

            with pytest.raises(expected):
                run(read_raw, user)
            completions = factory.openai_client(user).chat.completions
            with pytest.raises(expected):
                list(completions.with_raw_response.create(**HELLO, stream=True).parse())
            streaming = completions.with_streaming_response
            with streaming.create(**HELLO, stream=True) as raw, pytest.raises(expected):
                list(raw.parse())

    def test_a_stream_that_is_cut(self, user: Any, settings: Any) -> None:
        body = b"data: " + CHUNK + b"\n\n"
        whole = answer(body, Content_Type="text/event-stream", Content_Length="9999")
        cut = replace(whole, keep=False)
        with TinyServer() as quota:
            quota.on("/v1/chat/completions", cut)
            settings.QUOTA_BASE_URL = quota.origin
            with pytest.raises(ProviderUnavailable):
                list(factory.openai_client(user).chat.completions.create(**HELLO, stream=True))


REFUSED = {"path": "/v1/chat/completions", "status": 401, "times": 1}
CALL, RENEWAL = "POST /v1/chat/completions", "POST /oauth/token"
WAYS: Any = {
    "a plain call": lambda client: client.chat.completions.create(**HELLO),
    "a stream": lambda client: list(client.chat.completions.create(**HELLO, stream=True)),
    "with_options": lambda client: client.with_options(timeout=9).chat.completions.create(**HELLO),
    "with_raw_response": lambda client: client.chat.completions.with_raw_response.create(**HELLO),
}


class TestARefusedToken:
    @pytest.mark.parametrize("way", WAYS)
    def test_is_renewed_once_and_the_call_repeated(
        self, user: Any, person: Person, sandbox: Sandbox, way: str
    ) -> None:
        before = QuotaToken.objects.get().version
        sandbox.set(fail=REFUSED)
        assert WAYS[way](factory.openai_client(user))
        assert [r for r in sandbox.requests() if r.startswith("POST")] == [CALL, RENEWAL, CALL]
        assert QuotaToken.objects.get().version == before + 1
        assert sandbox.balance_of(person.email) < 1_000_000

    def test_by_the_async_client(self, user: Any, sandbox: Sandbox) -> None:
        sandbox.set(fail=REFUSED)
        assert run(lambda client: client.chat.completions.create(**HELLO), user)
        assert [r for r in sandbox.requests() if r.startswith("POST")] == [CALL, RENEWAL, CALL]

    def test_is_not_renewed_again_for_the_same_call(self, user: Any, sandbox: Sandbox) -> None:
        sandbox.set(fail=REFUSED | {"times": 9})
        with pytest.raises(ReauthenticationRequired):
            factory.openai_client(user).chat.completions.create(**HELLO)
        assert [r for r in sandbox.requests() if r.startswith("POST")] == [CALL, RENEWAL, CALL]

    def test_nor_where_somebody_else_has_renewed_it(self, user: Any, sandbox: Sandbox) -> None:
        key = WalletKey(user)
        stale = key()
        key(rejected=stale)
        sandbox.forget_requests()
        assert key(rejected=stale) != stale
        assert sandbox.requests() == []

    def test_that_cannot_be_renewed_says_why(self, user: Any, sandbox: Sandbox) -> None:
        row = QuotaToken.objects.get()
        row.refresh_token = "quota_refresh_unknown"
        row.save(update_fields=["refresh_token"])
        sandbox.set(fail=REFUSED)
        with pytest.raises(ReauthenticationRequired, match="no longer accepts"):
            factory.openai_client(user).chat.completions.create(**HELLO)

    def test_while_quota_cannot_renew_is_an_outage(self, user: Any, settings: Any) -> None:
        with TinyServer() as quota:
            quota.on("/.well-known/openid-configuration", json_answer({"issuer": quota.origin}))
            quota.on("/v1/chat/completions", answer(b"{}", status=401))
            quota.on("/oauth/token", answer(b"{}", status=503))
            settings.QUOTA_BASE_URL = quota.origin
            with pytest.raises(ProviderUnavailable):
                factory.openai_client(user).chat.completions.create(**HELLO)
            with pytest.raises(ProviderUnavailable):
                run(lambda client: client.chat.completions.create(**HELLO), user)

    def test_a_key_of_the_callers_own_is_theirs_to_renew(self, user: Any, sandbox: Sandbox) -> None:
        token = WalletKey(user)()
        sandbox.set(fail=REFUSED)
        with pytest.raises(ConfigurationError):
            factory.openai_client(user).with_options(api_key=token).chat.completions.create(**HELLO)
        assert RENEWAL not in sandbox.requests()


class TestDevelopersOwnClient:
    @pytest.fixture
    def quota(self, settings: Any) -> Iterator[TinyServer]:
        with TinyServer() as running:
            settings.QUOTA_BASE_URL = running.origin
            running.on("/v1/chat/completions", json_answer(COMPLETION))
            yield running

    def test_is_paid_by_the_key_that_it_was_given(self, quota: TinyServer) -> None:
        assert factory.developer_client("sk-quota-mine").chat.completions.create(**HELLO)

        async def call() -> None:
            client = factory.async_developer_client("sk-quota-mine")
            await client.chat.completions.create(**HELLO)
            await client._client.aclose()

        run_async(call())
        bearers = [request.headers["authorization"] for request in quota.requests]
        assert bearers == ["Bearer sk-quota-mine"] * 2

    @pytest.mark.parametrize("key", ["", None, "quota_token_of_somebody", "sess_x", "sk-openai"])
    def test_takes_nothing_but_a_developers_key(self, key: Any) -> None:
        with pytest.raises(ConfigurationError, match="sk-quota-"):
            factory.developer_client(key)

    @pytest.mark.parametrize("status", [401, 402, 403])
    def test_what_only_the_developer_can_mend_is_no_state_of_the_user(
        self, quota: TinyServer, status: int
    ) -> None:
        quota.on("/v1/chat/completions", answer(b"{}", status=status))
        with pytest.raises(ConfigurationError):
            factory.developer_client("sk-quota-mine").chat.completions.create(**HELLO)

    def test_a_users_client_never_falls_back_to_it(self, quota: TinyServer) -> None:
        stranger = get_user_model().objects.create(username="x")
        factory.developer_client("sk-quota-mine").chat.completions.create(**HELLO)
        with pytest.raises(NotConnected):
            factory.openai_client(stranger).chat.completions.create(**HELLO)
        assert len(quota.requests) == 1
