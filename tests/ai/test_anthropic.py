"""`anthropic_client` and `WalletAuth`: other ways to have the user pay than the OpenAI SDK's."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser

from django_quota.ai import WalletAuth, anthropic_client, async_anthropic_client
from django_quota.ai.sdk_http import httpx
from django_quota.exceptions import (
    ConfigurationError,
    InsufficientCredits,
    NotConnected,
    ProviderUnavailable,
    ReauthenticationRequired,
    RequestRefused,
)
from django_quota.models import QuotaToken
from tests.helpers.concurrency import run_async
from tests.sandbox_client import Person, Sandbox
from tests.tiny_server import TinyServer, answer, json_answer

pytestmark = pytest.mark.django_db(transaction=True)

is_on_other_library = int(importlib.metadata.version("openai").partition(".")[0]) < 3
needs_same_library = pytest.mark.skipif(
    is_on_other_library, reason="the Anthropic SDK is built on httpx2, this OpenAI SDK on httpx"
)

HELLO: Any = {
    "model": "anthropic/claude-sonnet-4",
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "Hello"}],
}


def read_whole(user: Any) -> str:
    message = anthropic_client(user).messages.create(**HELLO)
    return message.content[0].text


def read_events(user: Any) -> str:
    events = anthropic_client(user).messages.create(**HELLO, stream=True)
    return "".join(e.delta.text for e in events if e.type == "content_block_delta")


def read_stream(user: Any) -> str:
    with anthropic_client(user).with_options(timeout=20).messages.stream(**HELLO) as stream:
        return stream.get_final_text()


def aread_whole(user: Any) -> str:
    async def main() -> str:
        message = await async_anthropic_client(user).messages.create(**HELLO)
        return message.content[0].text

    return run_async(main())


def aread_stream(user: Any) -> str:
    async def main() -> str:
        async with async_anthropic_client(user).messages.stream(**HELLO) as stream:
            return await stream.get_final_text()

    return run_async(main())


WAYS = [read_whole, read_events, read_stream, aread_whole, aread_stream]


@needs_same_library
class TestAnthropicClient:
    @pytest.mark.parametrize("way", WAYS)
    def test_user_pays_and_the_call_is_recorded(
        self, user: Any, person: Person, sandbox: Sandbox, way: Any
    ) -> None:
        assert way(user)
        row = user.quota_usage.get()
        assert row.credits_used == 1_000_000 - sandbox.balance_of(person.email)
        assert row.model == "anthropic/claude-sonnet-4"
        assert row.prompt_tokens and row.completion_tokens and row.complete

    @pytest.mark.parametrize("way", WAYS)
    def test_environment_is_not_used(
        self, user: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, way: Any
    ) -> None:
        """The developer would pay, or somebody else's server would get the token."""
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-developer")
        monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "developer")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "Authorization: Bearer developer")
        assert way(user)
        assert user.quota_usage.count() == 1

    @pytest.mark.parametrize("way", WAYS)
    def test_refused_token_is_renewed_once(self, user: Any, sandbox: Sandbox, way: Any) -> None:
        QuotaToken.objects.update(access_token="spent-long-ago")
        assert way(user)
        assert sandbox.requests().count("POST /oauth/token") == 1
        assert user.quota_usage.count() == 1

    @pytest.mark.parametrize("way", WAYS)
    def test_empty_wallet_is_our_error(
        self, user: Any, person: Person, sandbox: Sandbox, way: Any
    ) -> None:
        empty = {"email": person.email, "name": person.name, "balance": 0}
        sandbox.call("POST", "/sandbox/users", empty)
        with pytest.raises(InsufficientCredits):
            way(user)

    @pytest.mark.parametrize("way", [read_whole, aread_whole])
    @pytest.mark.parametrize(
        ("reply", "error"),
        [
            (json_answer({"error": {"code": "x"}}, status=401), ReauthenticationRequired),
            (json_answer({"error": {"code": "x", "message": "m"}}, status=400), RequestRefused),
            (json_answer({}, status=503), ProviderUnavailable),
            (answer(b"<p>Busy</p>"), ProviderUnavailable),
            (json_answer([1]), ProviderUnavailable),
        ],
    )
    def test_error_of_quota_is_ours(
        self, user: Any, settings: Any, way: Any, reply: Any, error: type[Exception]
    ) -> None:
        with TinyServer() as server:
            server.on("/v1/messages", reply)
            server.on("/oauth/token", json_answer({}, status=500))
            settings.QUOTA_BASE_URL = server.origin
            if error is ReauthenticationRequired:
                error = ProviderUnavailable  # as the token cannot be renewed here
            with pytest.raises(error):
                way(user)

    @pytest.mark.parametrize("way", WAYS)
    def test_prompt_does_not_follow_a_redirect(self, user: Any, settings: Any, way: Any) -> None:
        with TinyServer() as quota, TinyServer() as other:
            moved = answer(status=307, Location=f"{other.origin}/")
            quota.on("/v1/messages", moved)
            settings.QUOTA_BASE_URL = quota.origin
            with pytest.raises(ProviderUnavailable):
                way(user)
            assert other.requests == []

    @pytest.mark.slow
    @pytest.mark.parametrize("nobody", [None, AnonymousUser()])
    def test_nobody_cannot_pay(self, nobody: Any) -> None:
        with pytest.raises(NotConnected):
            anthropic_client(nobody)

    def test_copy_bills_the_same_user(self, user: Any, sandbox: Sandbox) -> None:
        client = anthropic_client(user).copy(timeout=9).with_options(max_retries=1)
        client.messages.create(**HELLO)
        assert user.quota_usage.count() == 1


class TestWalletAuth:
    def test_user_pays_for_any_request(self, user: Any, person: Person, sandbox: Sandbox) -> None:
        url = f"{sandbox.origin}/v1/messages"
        with httpx.Client(auth=WalletAuth(user), headers={"X-Api-Key": "developer"}) as client:
            assert client.post(url, json=HELLO).is_success
        used = user.quota_usage.get().credits_used
        assert used == 1_000_000 - sandbox.balance_of(person.email)

    def test_user_pays_for_an_async_request(self, user: Any, sandbox: Sandbox) -> None:
        async def main() -> Any:
            async with httpx.AsyncClient(auth=WalletAuth(user)) as client:
                return await client.post(f"{sandbox.origin}/v1/messages", json=HELLO)

        assert run_async(main()).is_success
        assert user.quota_usage.get().credits_used

    @pytest.mark.parametrize("is_async", [False, True])
    def test_refused_token_is_renewed_once(
        self, user: Any, sandbox: Sandbox, is_async: bool
    ) -> None:
        QuotaToken.objects.update(access_token="spent-long-ago")
        if is_async:
            self.test_user_pays_for_an_async_request(user, sandbox)
        else:
            with httpx.Client(auth=WalletAuth(user)) as client:
                assert client.get(f"{sandbox.origin}/v1/balance").json()["wallet"] == "oauth_user"
        assert sandbox.requests().count("POST /oauth/token") == 1

    @pytest.mark.parametrize("is_async", [False, True])
    def test_token_goes_to_no_other_host(self, user: Any, sandbox: Sandbox, is_async: bool) -> None:
        async def main(url: str) -> None:
            async with httpx.AsyncClient(auth=WalletAuth(user)) as client:
                await client.get(url)

        with TinyServer() as server:
            with pytest.raises(ConfigurationError, match="QUOTA_BASE_URL only"):
                if is_async:
                    run_async(main(f"{server.origin}/v1/messages"))
                else:
                    httpx.Client(auth=WalletAuth(user)).get(f"{server.origin}/v1/messages")
            assert server.requests == []

    def test_token_does_not_follow_a_redirect_to_another_host(
        self, user: Any, settings: Any
    ) -> None:
        with TinyServer() as quota, TinyServer() as other:
            other.on("/", json_answer({}))
            quota.on("/v1/x", answer(status=307, Location=f"{other.origin}/"))
            settings.QUOTA_BASE_URL = quota.origin
            with httpx.Client(auth=WalletAuth(user), follow_redirects=True) as client:
                client.get(f"{quota.origin}/v1/x")
            assert "authorization" not in other.requests[0].headers

    def test_nobody_cannot_pay(self) -> None:
        with pytest.raises(NotConnected):
            WalletAuth(AnonymousUser())

    def test_repr_shows_no_token(self, user: Any) -> None:
        token = QuotaToken.objects.get().access_token.reveal()
        assert token not in repr(WalletAuth(user))
