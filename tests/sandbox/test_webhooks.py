"""Webhooks: their endpoints, the events, and retries of failed deliveries."""

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


def create_webhook(
    sandbox: Sandbox, app: App, listener: TinyServer, **options: Any
) -> dict[str, Any]:
    body = {"url": f"{listener.origin}/hook"} | options
    reply = sandbox.post("/v1/webhooks", app.session_token, json=body)
    assert reply.status_code == 201, reply.text
    return dict(reply.json())


def received_events(listener: TinyServer) -> list[dict[str, Any]]:
    return [json.loads(seen.body) for seen in listener.seen("/hook")]


def received_types(listener: TinyServer) -> list[str]:
    return [event["type"] for event in received_events(listener)]


def is_signed(seen: Seen, secret: str) -> bool:
    expected = hmac.new(secret.encode(), seen.body, hashlib.sha256).hexdigest()
    return seen.headers["x-quota-signature"] == expected


def test_call_sends_signed_events(
    sandbox: Sandbox, app: App, user: dict[str, Any], tokens: dict[str, Any], listener: TinyServer
) -> None:
    created = create_webhook(sandbox, app, listener, low_balance_threshold=1_000_000)
    reply = sandbox.post("/v1/chat/completions", tokens["access_token"], json=CHAT).json()

    wait_until(lambda: len(listener.requests) >= 3)

    assert created["secret"].startswith("whsec_")
    assert all(is_signed(seen, created["secret"]) for seen in listener.requests)
    data_by_type = {event["type"]: event["data"] for event in received_events(listener)}
    assert data_by_type["balance.updated"] == {
        "user_id": user["id"],
        "new_balance": reply["quota"]["balance_after"],
        "amount_spent": reply["quota"]["credits_used"],
        "model": "gpt-4o-mini",
        "endpoint": "/v1/chat/completions",
    }
    assert data_by_type["usage.completed"]["total_tokens"] == reply["usage"]["total_tokens"]
    assert data_by_type["balance.low"]["threshold"] == 1_000_000


def test_sign_in_sends_user_connected(
    sandbox: Sandbox, app: App, user: dict[str, Any], listener: TinyServer
) -> None:
    create_webhook(sandbox, app, listener)
    sandbox.sign_in(app, user["email"])
    wait_until(lambda: "user.connected" in received_types(listener))


def test_webhook_receives_only_its_events(
    sandbox: Sandbox, app: App, user: dict[str, Any], tokens: dict[str, Any], listener: TinyServer
) -> None:
    create_webhook(sandbox, app, listener, events=["usage.completed"])
    for _ in range(2):
        sandbox.post("/v1/chat/completions", tokens["access_token"], json=CHAT)
    wait_until(lambda: len(listener.requests) >= 2)
    assert set(received_types(listener)) == {"usage.completed"}


def test_rejected_delivery_is_retried_with_the_same_body(
    sandbox: Sandbox, app: App, tokens: dict[str, Any], listener: TinyServer
) -> None:
    create_webhook(sandbox, app, listener, events=["usage.completed"])
    listener.on("/hook", answer(status=500), answer())
    sandbox.post("/v1/chat/completions", tokens["access_token"], json=CHAT)
    wait_until(lambda: len(listener.requests) >= 2)
    assert listener.requests[0].body == listener.requests[1].body


def test_knob_sends_copies(
    sandbox: Sandbox, app: App, tokens: dict[str, Any], listener: TinyServer
) -> None:
    create_webhook(sandbox, app, listener, events=["usage.completed"])
    sandbox.set(webhook_copies=3)
    sandbox.post("/v1/chat/completions", tokens["access_token"], json=CHAT)
    wait_until(lambda: len(listener.requests) >= 3)


def test_secret_is_only_in_the_first_reply_and_webhook_can_be_deleted(
    sandbox: Sandbox, app: App, listener: TinyServer
) -> None:
    created = create_webhook(sandbox, app, listener)
    (listed,) = sandbox.get("/v1/webhooks", app.session_token).json()["webhooks"]
    assert listed == {name: value for name, value in created.items() if name != "secret"}
    deleted = sandbox.http.delete(
        f"{sandbox.url}/v1/webhooks/{created['id']}",
        headers={"Authorization": f"Bearer {app.session_token}"},
    )
    assert deleted.status_code == 204
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
def test_invalid_webhook_returns_400(sandbox: Sandbox, app: App, body: dict[str, Any]) -> None:
    assert sandbox.post("/v1/webhooks", app.session_token, json=body).status_code == 400


def test_webhooks_need_the_session_token_of_a_developer(
    sandbox: Sandbox, tokens: dict[str, Any]
) -> None:
    body = {"url": "https://example.com/hook"}
    for token in ("", tokens["access_token"], "sess_unknown"):
        assert sandbox.post("/v1/webhooks", token, json=body).status_code == 401


def test_receiver_that_answers_nonsense_ends_no_delivery(
    sandbox: Sandbox, app: App, tokens: dict[str, Any], listener: TinyServer
) -> None:
    """requests raises a plain ValueError for this Location."""
    listener.on("/hook", answer(status=302, Location="http://["))
    create_webhook(sandbox, app, listener, events=["usage.completed"])
    for _ in range(2):
        sandbox.post("/v1/chat/completions", tokens["access_token"], json=CHAT)
    wait_until(lambda: len({seen.body for seen in listener.requests}) == 2)
