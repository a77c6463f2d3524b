"""Webhooks of the sandbox: who may make one, what is sent, and that it is sent again."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.concurrency import wait_until
from tests.tiny_server import Seen, TinyServer, answer

from .client import App, Sandbox

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}


@pytest.fixture
def listener() -> Iterator[TinyServer]:
    with TinyServer() as server:
        server.on("/hook", answer())
        yield server


def hook(sandbox: Sandbox, app: App, listener: TinyServer, **options: Any) -> dict[str, Any]:
    body = {"url": f"{listener.origin}/hook"} | options
    reply = sandbox.post("/v1/webhooks", app.session_token, json=body)
    assert reply.status_code == 201, reply.text
    return dict(reply.json())


def events(listener: TinyServer) -> list[dict[str, Any]]:
    return [json.loads(seen.body) for seen in listener.seen("/hook")]


def kinds(listener: TinyServer) -> list[str]:
    return [event["type"] for event in events(listener)]


def is_signed(seen: Seen, secret: str) -> bool:
    expected = hmac.new(secret.encode(), seen.body, hashlib.sha256).hexdigest()
    return seen.headers["x-quota-signature"] == expected


def test_a_call_is_told_with_a_signature(
    sandbox: Sandbox, app: App, user: dict[str, Any], tokens: dict[str, Any], listener: TinyServer
) -> None:
    made = hook(sandbox, app, listener, low_balance_threshold=1_000_000)
    reply = sandbox.post("/v1/chat/completions", tokens["access_token"], json=CHAT).json()

    wait_until(lambda: len(listener.requests) >= 3)

    assert made["secret"].startswith("whsec_")
    assert all(is_signed(seen, made["secret"]) for seen in listener.requests)
    told = {event["type"]: event["data"] for event in events(listener)}
    assert told["balance.updated"] == {
        "user_id": user["id"],
        "new_balance": reply["quota"]["balance_after"],
        "amount_spent": reply["quota"]["credits_used"],
        "model": "gpt-4o-mini",
        "endpoint": "/v1/chat/completions",
    }
    assert told["usage.completed"]["total_tokens"] == reply["usage"]["total_tokens"]
    assert told["balance.low"]["threshold"] == 1_000_000


def test_connecting_is_told(
    sandbox: Sandbox, app: App, user: dict[str, Any], listener: TinyServer
) -> None:
    hook(sandbox, app, listener)
    sandbox.sign_in(app, user["email"])
    wait_until(lambda: "user.connected" in kinds(listener))


def test_only_the_events_that_were_asked_for(
    sandbox: Sandbox, app: App, user: dict[str, Any], tokens: dict[str, Any], listener: TinyServer
) -> None:
    hook(sandbox, app, listener, events=["usage.completed"])
    for _ in range(2):
        sandbox.post("/v1/chat/completions", tokens["access_token"], json=CHAT)
    wait_until(lambda: len(listener.requests) == 2)
    assert set(kinds(listener)) == {"usage.completed"}


def test_what_is_refused_is_sent_again_byte_for_byte(
    sandbox: Sandbox, app: App, tokens: dict[str, Any], listener: TinyServer
) -> None:
    hook(sandbox, app, listener, events=["usage.completed"])
    listener.on("/hook", answer(status=500), answer())
    sandbox.post("/v1/chat/completions", tokens["access_token"], json=CHAT)
    wait_until(lambda: len(listener.requests) == 2)
    assert listener.requests[0].body == listener.requests[1].body


def test_copies(sandbox: Sandbox, app: App, tokens: dict[str, Any], listener: TinyServer) -> None:
    hook(sandbox, app, listener, events=["usage.completed"])
    sandbox.set(webhook_copies=3)
    sandbox.post("/v1/chat/completions", tokens["access_token"], json=CHAT)
    wait_until(lambda: len(listener.requests) == 3)


def test_the_secret_is_shown_once_and_a_webhook_can_go(
    sandbox: Sandbox, app: App, listener: TinyServer
) -> None:
    made = hook(sandbox, app, listener)
    (listed,) = sandbox.get("/v1/webhooks", app.session_token).json()["webhooks"]
    assert listed == {name: value for name, value in made.items() if name != "secret"}
    gone = sandbox.http.delete(
        f"{sandbox.url}/v1/webhooks/{made['id']}",
        headers={"Authorization": f"Bearer {app.session_token}"},
    )
    assert gone.status_code == 204
    assert sandbox.get("/v1/webhooks", app.session_token).json() == {"webhooks": []}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": 7},
        {"url": "http://example.com/hook"},
        {"url": "https://example.com/hook", "events": []},
        {"url": "https://example.com/hook", "events": ["no.such"]},
        {"url": "https://example.com/hook", "events": "usage.completed"},
        {"url": "https://example.com/hook", "low_balance_threshold": -1},
        {"url": "https://example.com/hook", "low_balance_threshold": 1.5},
    ],
)
def test_bad_input(sandbox: Sandbox, app: App, body: dict[str, Any]) -> None:
    assert sandbox.post("/v1/webhooks", app.session_token, json=body).status_code == 400


def test_needs_a_developers_session(sandbox: Sandbox, tokens: dict[str, Any]) -> None:
    body = {"url": "https://example.com/hook"}
    for token in ("", tokens["access_token"], "sess_unknown"):
        assert sandbox.post("/v1/webhooks", token, json=body).status_code == 401
