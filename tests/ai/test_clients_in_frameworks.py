"""What AI frameworks do to the clients that they are given, without the frameworks.

DSPy copies its model, litellm assigns `max_retries`, pydantic-ai runs an event loop of its own, and
several make a client from the environment where they got none. tests/frameworks has the real ones.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from django_quota.ai import anthropic_client, async_anthropic_client, factory
from django_quota.ai.sdk_http import httpx
from django_quota.exceptions import ConfigurationError, ProviderUnavailable
from tests.helpers.concurrency import run_async
from tests.sandbox_client import Person, Sandbox
from tests.tiny_server import TinyServer, answer, json_answer

pytestmark = pytest.mark.django_db(transaction=True)

HELLO: Any = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 50,
}
COMPLETION: Any = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini",
    "choices": [],
}
CHAT = "/v1/chat/completions"
COPIES = [copy.copy, copy.deepcopy]


async def async_client(user: Any) -> Any:
    return factory.async_openai_client(user)


async def acall(client: Any) -> int:
    completion = await client.chat.completions.create(**HELLO)
    return int(completion.model_extra["quota"]["credits_used"])


@pytest.fixture
def busy(settings: Any) -> Any:
    """A Quota that answers each chat call with 503, and asks to be called again at once."""
    with TinyServer() as quota:
        quota.on(CHAT, answer(b"{}", status=503, Retry_After_Ms="1"))
        settings.QUOTA_BASE_URL = quota.origin
        yield quota


class TestCopies:
    @pytest.mark.parametrize("copied", COPIES)
    def test_copy_of_a_client_is_the_client(self, user: Any, copied: Callable[[Any], Any]) -> None:
        """It holds the connection pool of all clients, which cannot be copied, and no state."""
        client = factory.openai_client(user)
        assert copied(client) is client
        assert copied({"model": client})["model"] is client

    @pytest.mark.parametrize("copied", COPIES)
    def test_copy_of_an_async_client_is_the_client(
        self, user: Any, copied: Callable[[Any], Any]
    ) -> None:
        client = run_async(async_client(user))
        assert copied(client) is client

    @pytest.mark.parametrize("copied", COPIES)
    def test_copy_of_an_anthropic_client_is_the_client(
        self, user: Any, copied: Callable[[Any], Any]
    ) -> None:
        if httpx.__name__ == "httpx":
            pytest.skip("the Anthropic SDK needs release 3 of the OpenAI SDK")
        client = anthropic_client(user)
        assert copied(client) is client

    def test_copy_of_what_holds_a_part_of_a_client_bills_the_same_user(self, user: Any) -> None:
        """LangChain keeps `client.chat.completions`."""
        part = copy.deepcopy({"client": factory.openai_client(user).chat.completions})["client"]
        assert part._client.payer == user


class TestRetries:
    def test_assignment_of_max_retries_sends_no_call_again(
        self, user: Any, busy: TinyServer
    ) -> None:
        client = factory.openai_client(user)
        client.max_retries = 2
        with pytest.raises(ProviderUnavailable):
            client.chat.completions.create(**HELLO)
        assert len(busy.seen(CHAT)) == 1

    def test_assignment_to_an_async_client_sends_no_call_again(
        self, user: Any, busy: TinyServer
    ) -> None:
        async def call() -> None:
            client = factory.async_openai_client(user)
            client.max_retries = 2
            await client.chat.completions.create(**HELLO)

        with pytest.raises(ProviderUnavailable):
            run_async(call())
        assert len(busy.seen(CHAT)) == 1

    def test_with_options_allows_them(self, user: Any, busy: TinyServer) -> None:
        client = factory.openai_client(user).with_options(max_retries=2)
        client.max_retries = 0
        with pytest.raises(ProviderUnavailable):
            client.with_options(timeout=9).chat.completions.create(**HELLO)
        assert len(busy.seen(CHAT)) == 3


class TestEventLoops:
    def test_client_of_an_ended_loop_gets_the_pool_of_the_running_one(
        self, user: Any, person: Person, sandbox: Sandbox
    ) -> None:
        """A framework keeps the client that it was given in an earlier request."""
        client = run_async(async_client(user))
        costs = [run_async(acall(client)), async_to_sync(acall)(client), run_async(acall(client))]
        assert sandbox.balance_of(person.email) == 1_000_000 - sum(costs)

    def test_used_in_several_loops_it_leaves_no_socket_open(self, user: Any, settings: Any) -> None:
        async def call() -> None:
            await client.chat.completions.create(**HELLO)

        with TinyServer() as quota:
            quota.on(CHAT, json_answer(COMPLETION))
            settings.QUOTA_BASE_URL = quota.origin
            client = run_async(async_client(user))
            for number in range(3):
                run_async(call())
                quota.wait_until_closed()
                assert (quota.connections, client._client._transport.pools) == (number + 1, {})


class TestPlaceOfAClient:
    def test_async_client_without_a_loop_says_how_to_get_one(self, user: Any) -> None:
        """ "Use openai_client" is no help where a framework wants an async client."""
        for make, payer in (
            (factory.async_openai_client, user),
            (async_anthropic_client, user),
            (factory.async_developer_client, "sk-quota-x"),
        ):
            with pytest.raises(ConfigurationError, match="async_to_sync"):
                make(payer)

    def test_synchronous_client_on_a_loop_says_how_to_leave_it(self, user: Any) -> None:
        async def call() -> None:
            factory.openai_client(user).chat.completions.create(**HELLO)

        with pytest.raises(ConfigurationError, match="async_to_sync"):
            run_async(call())


class TestDeveloperKeyInTheEnvironment:
    LOGGER = "django_quota.openai_clients"

    @pytest.fixture(autouse=True)
    def new_process(self) -> None:
        factory._warn_of_developer_key.cache_clear()

    def warnings_of(self, caplog: pytest.LogCaptureFixture) -> list[str]:
        return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]

    def test_is_warned_of_once(
        self, user: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-hush")
        for _ in range(3):
            factory.openai_client(user)
            run_async(async_client(user))
        (warning,) = self.warnings_of(caplog)
        assert "OPENAI_API_KEY" in warning and "SILENCED_SYSTEM_CHECKS" in warning
        assert "sk-hush" not in caplog.text

    def test_is_not_warned_of_where_the_check_is_silenced(
        self,
        user: Any,
        settings: Any,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-hush")
        settings.SILENCED_SYSTEM_CHECKS = ["django_quota.W015"]
        factory.openai_client(user)
        assert self.warnings_of(caplog) == []

    @pytest.mark.parametrize("value", [None, ""])
    def test_is_not_warned_of_where_there_is_none(
        self,
        user: Any,
        value: str | None,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        if value is not None:
            monkeypatch.setenv("OPENAI_API_KEY", value)
        factory.openai_client(user)
        assert self.warnings_of(caplog) == []
