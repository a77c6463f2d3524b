"""Chat completions: answers, streams and charges."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any

import pytest
import requests
from openai import APIStatusError, OpenAI

from tests.helpers.concurrency import GIVE_UP_AFTER, begin_together, wait_until

from .client import App, Sandbox

QUESTION = "How do I brew good tea?"


def request_chat(sandbox: Sandbox, token: str, **changes: Any) -> requests.Response:
    """Request a chat completion."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": QUESTION}]}
    return sandbox.post("/v1/chat/completions", token, json=body | changes)


def read_chunks(reply: requests.Response) -> list[dict[str, Any]]:
    """Return the chunks of a stream, which must end with ``[DONE]``."""
    lines = [line for line in reply.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


class TestModels:
    def test_list(self, sandbox: Sandbox, tokens: dict[str, Any]) -> None:
        reply = sandbox.get("/v1/models", tokens["access_token"]).json()
        assert reply["object"] == "list"
        assert "gpt-4o-mini" in [model["id"] for model in reply["data"]]


class TestPlain:
    def test_answer_quotes_the_question_and_is_charged(
        self, sandbox: Sandbox, user: dict[str, Any], tokens: dict[str, Any]
    ) -> None:
        reply = request_chat(sandbox, tokens["access_token"]).json()
        assert reply["object"] == "chat.completion"
        assert reply["model"] == "gpt-4o-mini"
        choice = reply["choices"][0]
        assert choice["finish_reason"] == "stop"
        assert QUESTION in choice["message"]["content"]
        usage, quota = reply["usage"], reply["quota"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        used = usage["prompt_tokens"] * 5 + usage["completion_tokens"] * 20
        assert 1_000 < used < 10_000
        assert quota == {
            "credits_used": used,
            "balance_before": 1_000_000,
            "balance_after": 1_000_000 - used,
            "billing_mode": "user",
        }
        assert sandbox.user(user["email"])["balance"] == 1_000_000 - used

    def test_max_tokens_limits_the_answer(self, sandbox: Sandbox, tokens: dict[str, Any]) -> None:
        for name in ("max_tokens", "max_completion_tokens"):
            reply = request_chat(sandbox, tokens["access_token"], **{name: 3}).json()
            assert reply["usage"]["completion_tokens"] == 3
            assert reply["choices"][0]["finish_reason"] == "length"

    def test_content_parts_and_other_roles(self, sandbox: Sandbox, tokens: dict[str, Any]) -> None:
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "tool", "content": "42", "tool_call_id": "x"},
        ]
        reply = request_chat(sandbox, tokens["access_token"], messages=messages).json()
        assert QUESTION in reply["choices"][0]["message"]["content"]

    def test_any_model_name_is_accepted(self, sandbox: Sandbox, tokens: dict[str, Any]) -> None:
        for model in ("gpt-5-nano", "anthropic/claude-opus-9", "google/gemini-2.0-flash"):
            reply = request_chat(sandbox, tokens["access_token"], model=model)
            assert reply.json()["model"] == model


class TestStream:
    def test_stream_quotes_the_question_and_is_charged(
        self, sandbox: Sandbox, user: dict[str, Any], tokens: dict[str, Any]
    ) -> None:
        sandbox.set(stream_delay=0)
        reply = request_chat(sandbox, tokens["access_token"], stream=True)
        assert reply.headers["Content-Type"] == "text/event-stream"
        chunks = read_chunks(reply)
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        assert len({chunk["id"] for chunk in chunks}) == 1
        first, last = chunks[0], chunks[-1]
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
        assert QUESTION in text
        assert last["choices"][0] == {
            "index": 0,
            "delta": {},
            "logprobs": None,
            "finish_reason": "stop",
        }
        assert not any("quota" in chunk for chunk in chunks[:-1])
        quota = last["quota"]
        assert quota["balance_before"] - quota["balance_after"] == quota["credits_used"]
        assert sandbox.user(user["email"])["balance"] == quota["balance_after"]

    def test_stream_costs_the_same_as_a_plain_answer(
        self, sandbox: Sandbox, tokens: dict[str, Any]
    ) -> None:
        sandbox.set(stream_delay=0)
        plain = request_chat(sandbox, tokens["access_token"]).json()
        last = read_chunks(request_chat(sandbox, tokens["access_token"], stream=True))[-1]
        assert last["usage"] == plain["usage"]
        assert last["quota"]["credits_used"] == plain["quota"]["credits_used"]

    def test_arrives_piece_by_piece(
        self, sandbox: Sandbox, user: dict[str, Any], tokens: dict[str, Any]
    ) -> None:
        sandbox.set(stream_delay=1)
        body = {
            "model": "gpt-4o-mini",
            "stream": True,
            "max_tokens": 10,
            "messages": [{"role": "user", "content": QUESTION}],
        }
        reply = sandbox.post("/v1/chat/completions", tokens["access_token"], json=body, stream=True)
        lines = filter(None, reply.iter_lines())
        assert b"delta" in next(lines)
        assert sandbox.user(user["email"])["reserved"] > 0  # the rest is still to come
        sandbox.set(stream_delay=0)
        assert list(lines)[-1] == b"data: [DONE]"

    def test_broken_stream_is_charged_for_the_tokens_sent(
        self, sandbox: Sandbox, user: dict[str, Any], tokens: dict[str, Any]
    ) -> None:
        sandbox.set(stream_delay=0, stream_breaks_after=3)
        before = sandbox.user(user["email"])["balance"]
        reply = request_chat(sandbox, tokens["access_token"], stream=True)
        *chunks, error = [json.loads(line[6:]) for line in reply.text.split("\n\n") if line]
        assert len(chunks) == 1 + 3
        assert error["error"]["code"] == "upstream_error"
        after = sandbox.user(user["email"])
        assert after["reserved"] == 0
        assert after["balance"] < before

    def test_client_that_disconnects_is_charged_for_the_tokens_sent(
        self, sandbox: Sandbox, user: dict[str, Any], tokens: dict[str, Any]
    ) -> None:
        sandbox.set(stream_delay=0.2)
        body = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "x"}]}
        with requests.post(
            f"{sandbox.url}/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {tokens['access_token']}"},
            stream=True,
            timeout=10,
        ) as reply:
            lines = reply.iter_lines()
            for _ in range(8):
                next(lines)
            assert sandbox.user(user["email"])["reserved"] > 0
        wait_until(lambda: sandbox.user(user["email"])["reserved"] == 0)
        charged = 1_000_000 - sandbox.user(user["email"])["balance"]
        assert 0 < charged < 3_000


class TestCharges:
    def test_empty_wallet_returns_402(self, sandbox: Sandbox, app: App) -> None:
        token = sandbox.sign_in(app, "bob@example.com")["access_token"]
        for stream in (False, True):
            reply = request_chat(sandbox, token, stream=stream)
            error = reply.json()["error"]
            assert (reply.status_code, error["code"]) == (402, "insufficient_credits")
            assert "max_tokens" in error["hint"]
        assert sandbox.user("bob@example.com")["balance"] == 0

    def test_negative_balance_returns_402(self, sandbox: Sandbox, app: App) -> None:
        user = sandbox.add_user(balance=-5)
        token = sandbox.sign_in(app, user["email"])["access_token"]
        assert sandbox.get("/v1/balance", token).json()["balance"] == -5
        assert request_chat(sandbox, token, max_tokens=1).status_code == 402

    def test_max_tokens_limits_the_reservation(self, sandbox: Sandbox, app: App) -> None:
        user = sandbox.add_user(balance=3_000)
        token = sandbox.sign_in(app, user["email"])["access_token"]
        assert request_chat(sandbox, token).status_code == 402
        assert sandbox.user(user["email"])["balance"] == 3_000
        assert request_chat(sandbox, token, max_tokens=50).status_code == 200

    def test_same_credits_are_not_reserved_twice(self, sandbox: Sandbox, app: App) -> None:
        # An answer of 100 tokens reserves about 2,000 credits: enough for two, but not for three.
        user = sandbox.add_user(balance=5_000)
        token = sandbox.sign_in(app, user["email"])["access_token"]
        sandbox.set(stream_delay=1)  # a minute and a half, until the last of the others is refused
        refused = threading.Semaphore(0)

        def ask() -> int:
            body = {
                "model": "gpt-4o-mini",
                "max_tokens": 100,
                "stream": True,
                "messages": [{"role": "user", "content": QUESTION}],
            }
            headers = {"Authorization": f"Bearer {token}"}
            url = f"{sandbox.url}/v1/chat/completions"
            status = requests.post(url, json=body, headers=headers, timeout=30).status_code
            if status == 402:
                refused.release()
            return status

        def end_the_answers() -> int:
            for _ in range(6):
                assert refused.acquire(timeout=GIVE_UP_AFTER)
            sandbox.set(stream_delay=0)
            return 0

        statuses = begin_together([*[ask] * 8, end_the_answers])

        assert Counter(statuses) == {200: 2, 402: 6, 0: 1}
        after = sandbox.user(user["email"])
        assert after["reserved"] == 0
        assert 0 < after["balance"] < 2_000

    def test_concurrent_charges_add_up(
        self, sandbox: Sandbox, user: dict[str, Any], tokens: dict[str, Any]
    ) -> None:
        def ask() -> int:
            with requests.Session() as http:
                client = Sandbox(sandbox.url, http)
                replies = [
                    request_chat(client, tokens["access_token"], max_tokens=50) for _ in range(5)
                ]
            return sum(reply.json()["quota"]["credits_used"] for reply in replies)

        charges = begin_together([ask] * 6)
        assert sandbox.user(user["email"])["balance"] == 1_000_000 - sum(charges)

    def test_token_without_the_scope_returns_403(
        self, sandbox: Sandbox, app: App, user: dict[str, Any]
    ) -> None:
        token = sandbox.sign_in(app, user["email"], scope="openid credits.read")["access_token"]
        reply = request_chat(sandbox, token)
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize(
    "changes",
    [
        {"model": None},
        {"model": ""},
        {"model": 7},
        {"model": "a b"},
        {"model": "unknown-vendor/model"},
        {"model": "x" * 500},
        {"messages": None},
        {"messages": []},
        {"messages": {}},
        {"messages": "hello"},
        {"messages": [7]},
        {"messages": [{}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": [7]}]},
        {"messages": [{"role": "user", "content": [{"text": 7}]}]},
        {"messages": [{"role": ["user"], "content": "x"}]},
        {"messages": [{"role": "nobody", "content": "x"}]},
        {"messages": [{"role": "user", "content": "a\0b"}]},
        {"messages": [{"role": "user", "content": "x"}] * 1_001},
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"max_tokens": "10"},
        {"max_tokens": 10**30},
        {"temperature": 3},
        {"temperature": "hot"},
        {"temperature": True},
        {"stream": "yes"},
    ],
)
def test_invalid_request_returns_400(
    sandbox: Sandbox, tokens: dict[str, Any], changes: dict[str, Any]
) -> None:
    reply = request_chat(sandbox, tokens["access_token"], **changes)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (400, "bad_request")
    assert error["message"]
    assert error["docs_url"] == "https://usequota.ai/docs/errors#bad_request"


class TestOpenAI:
    """The replies, as parsed by OpenAI's client library."""

    @pytest.fixture
    def client(self, sandbox: Sandbox, tokens: dict[str, Any]) -> Any:
        sandbox.set(stream_delay=0)
        base_url = f"{sandbox.url}/v1"
        with OpenAI(api_key=tokens["access_token"], base_url=base_url, max_retries=0) as client:
            yield client

    def test_plain(self, client: OpenAI) -> None:
        reply = client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": QUESTION}]
        )
        assert QUESTION in (reply.choices[0].message.content or "")
        assert reply.model_extra is not None
        assert reply.model_extra["quota"]["balance_after"] < 1_000_000

    def test_stream(self, client: OpenAI) -> None:
        stream = client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        chunks = list(stream)
        assert QUESTION in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert chunks[-1].usage is not None
        assert chunks[-1].model_extra is not None
        assert chunks[-1].model_extra["quota"]["credits_used"] > 0

    def test_models(self, client: OpenAI) -> None:
        assert "gpt-4o-mini" in [model.id for model in client.models.list()]

    def test_errors(self, client: OpenAI) -> None:
        with pytest.raises(APIStatusError) as caught:
            client.chat.completions.create(
                model="gpt-4o",
                max_tokens=1_000_000,
                messages=[{"role": "user", "content": QUESTION}],
            )
        assert caught.value.status_code == 402
        assert caught.value.code == "insufficient_credits"
