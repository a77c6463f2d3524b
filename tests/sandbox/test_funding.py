"""API keys, and the funding of users from a developer's wallet."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.helpers.concurrency import begin_together, wait_until
from tests.tiny_server import TinyServer, answer

from .client import Sandbox

PATH = "/v1/funding/oauth_user"


@pytest.fixture
def session(sandbox: Sandbox) -> str:
    """The session token of a developer with 1,000,000 credits."""
    return sandbox.register_developer()


@pytest.fixture
def key(sandbox: Sandbox, session: str) -> str:
    """An API key of the developer."""
    reply = sandbox.post("/developers/keys", session, json={"name": "Site"})
    assert (reply.status_code, reply.json()["name"]) == (201, "Site")
    key: str = reply.json()["key"]
    return key


def fund(
    sandbox: Sandbox, key: str, user: dict[str, Any], *, once: str = "k-1", **changes: Any
) -> Any:
    """Send a valid request with ``changes``."""
    body = {"user_id": user["id"], "amount": 5, "description": "trial"} | changes
    return sandbox.post(PATH, key, json=body, headers={"Idempotency-Key": once})


def balance_of_developer(sandbox: Sandbox, session: str) -> int:
    """The balance of the developer's wallet."""
    balance: int = sandbox.get("/auth/me", session).json()["user"]["balance"]
    return balance


def test_credits_move_to_the_user(
    sandbox: Sandbox, session: str, key: str, user: dict[str, Any]
) -> None:
    assert key.startswith("sk-quota-")
    reply = fund(sandbox, key, user).json()
    assert reply.pop("ledger_id").startswith("led_")
    assert reply == {
        "success": True,
        "user_id": user["id"],
        "amount": 5,
        "balance_after": 1_000_005,
    }
    assert sandbox.user(user["email"])["balance"] == 1_000_005
    assert balance_of_developer(sandbox, session) == 999_995


def test_same_key_gets_the_same_answer(
    sandbox: Sandbox, session: str, key: str, user: dict[str, Any]
) -> None:
    first = fund(sandbox, key, user)
    again = fund(sandbox, key, user, description="other words")
    assert (again.status_code, again.json()) == (200, first.json())
    assert balance_of_developer(sandbox, session) == 999_995


def test_same_key_at_once_credits_once(
    sandbox: Sandbox, session: str, key: str, user: dict[str, Any]
) -> None:
    replies = begin_together([lambda: fund(sandbox, key, user).text] * 4)
    assert len(set(replies)) == 1
    assert balance_of_developer(sandbox, session) == 999_995


def test_same_key_for_another_request_returns_409(
    sandbox: Sandbox, key: str, user: dict[str, Any]
) -> None:
    fund(sandbox, key, user)
    reply = fund(sandbox, key, user, amount=6)
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "idempotency_conflict")


def test_same_key_of_another_developer_is_another_key(
    sandbox: Sandbox, key: str, user: dict[str, Any]
) -> None:
    fund(sandbox, key, user)
    other = sandbox.post("/developers/keys", sandbox.register_developer(), json={"name": "Other"})
    assert fund(sandbox, other.json()["key"], user).status_code == 200
    assert sandbox.user(user["email"])["balance"] == 1_000_010


@pytest.mark.parametrize("kept", [True, False])
def test_refusal_is_kept_with_the_key_if_the_knob_says_so(
    sandbox: Sandbox, session: str, key: str, user: dict[str, Any], kept: bool
) -> None:
    sandbox.set(keep_funding_refusals=kept)
    email = sandbox.get("/auth/me", session).json()["user"]["email"]
    sandbox.post("/sandbox/users", json={"email": email, "balance": 4})
    reply = fund(sandbox, key, user)
    assert (reply.status_code, reply.json()["error"]["code"]) == (402, "insufficient_credits")
    sandbox.post("/sandbox/users", json={"email": email, "balance": 5})
    assert fund(sandbox, key, user).status_code == (402 if kept else 200)
    assert balance_of_developer(sandbox, session) == (5 if kept else 0)


@pytest.mark.parametrize("user_id", ["unknown", "00000000-0000-0000-0000-000000000000"])
def test_unknown_user_returns_404(sandbox: Sandbox, key: str, user_id: str) -> None:
    reply = fund(sandbox, key, {"id": user_id})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "user_not_found")


@pytest.mark.parametrize(
    "changes",
    [
        {"user_id": None},
        {"user_id": 5},
        {"amount": 0},
        {"amount": -5},
        {"amount": True},
        {"amount": 5.0},
        {"amount": "5"},
        {"amount": 2**63},
        {"description": None},
        {"once": ""},
        {"once": "k" * 201},
    ],
)
def test_malformed_request_returns_400(
    sandbox: Sandbox, key: str, user: dict[str, Any], changes: dict[str, Any]
) -> None:
    reply = fund(sandbox, key, user, **changes)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")


def test_only_an_api_key_may_fund(
    sandbox: Sandbox, session: str, tokens: dict[str, Any], user: dict[str, Any]
) -> None:
    for bearer in ("", session, tokens["access_token"], "sk-quota-unknown"):
        reply = fund(sandbox, bearer, user)
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")


def test_only_a_developer_gets_an_api_key(sandbox: Sandbox, key: str) -> None:
    for bearer in ("", key):
        assert sandbox.post("/developers/keys", bearer, json={"name": "x"}).status_code == 401


def test_answer_is_lost_after_the_credits_have_moved(
    sandbox: Sandbox, session: str, key: str, user: dict[str, Any]
) -> None:
    sandbox.set(fail={"path": PATH, "status": 504, "after": True})
    assert fund(sandbox, key, user).status_code == 504
    assert balance_of_developer(sandbox, session) == 999_995
    assert fund(sandbox, key, user).status_code == 200
    assert balance_of_developer(sandbox, session) == 999_995


def test_webhook_of_the_developer_is_told(
    sandbox: Sandbox, session: str, key: str, user: dict[str, Any]
) -> None:
    with TinyServer() as server:
        server.on("/hook", answer())
        hook = {"url": f"{server.origin}/hook", "events": ["balance.updated"]}
        made = sandbox.post("/v1/webhooks", session, json=hook)
        assert made.status_code == 201
        assert fund(sandbox, key, user).status_code == 200
        wait_until(lambda: server.requests)
        # Or the sandbox would send the events of later tests to a server that is gone.
        sandbox.call("DELETE", f"/v1/webhooks/{made.json()['id']}", session)
    event = json.loads(server.requests[0].body)
    assert event["type"] == "balance.updated"
    assert event["data"] == {"user_id": user["id"], "new_balance": 1_000_005}
