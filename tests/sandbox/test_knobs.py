"""The knobs, and the other views under /sandbox."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest

from django_quota.sandbox.state import SandboxState

from .client import App, Sandbox, Visitor, read_claims

DEFAULTS = {
    "access_token_lifetime": 3600,
    "id_token_lifetime": 3600,
    "refresh_grace_seconds": 0,
    "rotate_refresh_tokens": True,
    "reuse_detection": True,
    "access_token_survives_refresh": False,
    "token_error_shape": "rfc6749",
    "id_token_overrides": {},
    "omit_id_token": False,
    "issuer": None,
    "fail": None,
    "latency": {},
    "stream_delay": 0.02,
    "stream_breaks_after": None,
    "webhook_copies": 1,
    "keep_funding_refusals": True,
}


def test_defaults_change_and_reset(sandbox: Sandbox) -> None:
    assert sandbox.get("/sandbox/settings").json() == DEFAULTS
    changed = sandbox.set(access_token_lifetime=5, latency={"/v1/balance": 0.5})
    assert changed == DEFAULTS | {
        "access_token_lifetime": 5,
        "latency": {"/v1/balance": 0.5},
    }
    assert sandbox.post("/sandbox/settings/reset").json() == DEFAULTS
    assert sandbox.get("/sandbox/settings").json() == DEFAULTS


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"access_token_lifetime": -1},
        {"access_token_lifetime": 1.5},
        {"access_token_lifetime": True},
        {"access_token_lifetime": 10**30},
        {"refresh_grace_seconds": "1"},
        {"rotate_refresh_tokens": 1},
        {"reuse_detection": None},
        {"token_error_shape": "xml"},
        {"token_error_shape": ["quota"]},
        {"id_token_overrides": []},
        {"issuer": 7},
        {"latency": {"/x": -1}},
        {"latency": {"/x": 1e9}},
        {"latency": [1]},
        {"stream_delay": None},
        {"stream_breaks_after": -1},
        {"stream_breaks_after": True},
        {"fail": "yes"},
        {"fail": {"path": "/x"}},
        {"fail": {"path": "/x", "status": 200}},
        {"fail": {"path": "/x", "status": 503, "times": 0}},
        {"fail": {"path": "/x", "status": 503, "times": 1, "more": 1}},
        {"fail": {"path": "/x", "status": 503, "after": 1}},
        {"keep_funding_refusals": 0},
    ],
)
def test_invalid_value_changes_no_knob(sandbox: Sandbox, change: dict[str, Any]) -> None:
    body = {"omit_id_token": True} | change
    reply = sandbox.call("PATCH", "/sandbox/settings", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")
    assert sandbox.get("/sandbox/settings").json() == DEFAULTS


def test_id_token_lifetime(sandbox: Sandbox, app: App, user: dict[str, Any]) -> None:
    sandbox.set(id_token_lifetime=7)
    claims = read_claims(sandbox.sign_in(app, user["email"])["id_token"])
    assert claims["exp"] - claims["iat"] == 7


def test_id_token_overrides(sandbox: Sandbox, app: App, user: dict[str, Any]) -> None:
    overrides = {"aud": "another", "exp": 1, "email": None, "jti": None, "kid": 7}
    sandbox.set(id_token_overrides=overrides)
    claims = read_claims(sandbox.sign_in(app, user["email"])["id_token"])
    assert claims["aud"] == "another"
    assert claims["exp"] == 1
    assert claims["kid"] == 7
    assert not claims.keys() & {"email", "jti"}
    assert claims["sub"] == user["id"]


def test_omit_id_token(sandbox: Sandbox, app: App, user: dict[str, Any]) -> None:
    sandbox.set(omit_id_token=True)
    assert "id_token" not in sandbox.sign_in(app, user["email"])


def test_issuer_is_in_discovery_and_id_token(
    sandbox: Sandbox, app: App, user: dict[str, Any]
) -> None:
    sandbox.set(issuer="https://usequota.ai")
    document = sandbox.get("/.well-known/openid-configuration").json()
    assert document["issuer"] == "https://usequota.ai"
    assert document["token_endpoint"] == f"{sandbox.url}/oauth/token"
    claims = read_claims(sandbox.sign_in(app, user["email"])["id_token"])
    assert claims["iss"] == "https://usequota.ai"


def test_fail_counts_the_requests(sandbox: Sandbox) -> None:
    failure = {"path": "/v1/packages", "status": 503, "times": 2, "retry_after": 9, "body": None}
    assert sandbox.set(fail=failure)["fail"] == failure | {"after": False}
    for left in (1, None):
        assert sandbox.get("/.well-known/jwks.json").status_code == 200
        reply = sandbox.get("/v1/packages")
        assert reply.status_code == 503
        assert reply.headers["Retry-After"] == "9"
        assert reply.json()["error"]["code"] == "provider_unavailable"
        now = sandbox.get("/sandbox/settings").json()["fail"]
        assert (now and now["times"]) == left
    assert sandbox.get("/v1/packages").status_code == 200


def test_fail_with_a_body_returns_it(sandbox: Sandbox) -> None:
    sandbox.set(fail={"path": "/oauth/token", "status": 502, "body": "<h1>Bad gateway</h1>"})
    reply = sandbox.post("/oauth/token", data={})
    assert (reply.status_code, reply.text) == (502, "<h1>Bad gateway</h1>")


def test_latency_delays_the_answer(sandbox: Sandbox) -> None:
    sandbox.set(latency={"/v1/packages": 0.3})
    start = time.monotonic()
    sandbox.get("/v1/packages")
    assert time.monotonic() - start >= 0.3


def test_latency_that_changes_counts_for_a_request_that_is_waiting() -> None:
    state = SandboxState()
    state.update_knobs({"latency": {"/v1/packages": 60}})
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(state.wait_out_latency, "/v1/packages")
        assert wait([waiting], timeout=0.05).not_done
        state.update_knobs({"latency": {}})
        waiting.result(timeout=30)
        waiting = pool.submit(state.wait_out_latency, "/v1/balance")
        waiting.result(timeout=30)


def test_request_in_progress_is_not_in_a_log_that_begins_meanwhile() -> None:
    """Otherwise a test would find a request of the test before it, whose client gave up waiting."""
    state = SandboxState()
    log = state.request_log
    state.clear_requests()
    state.log_request(log, "GET", "/v1/balance", 200)
    assert state.requests() == []
    state.log_request(state.request_log, "GET", "/v1/packages", 200)
    assert [request["path"] for request in state.requests()] == ["/v1/packages"]


def test_request_log_has_no_query_and_no_sandbox_requests(sandbox: Sandbox, app: App) -> None:
    sandbox.call("DELETE", "/sandbox/requests")
    sandbox.get("/v1/packages?secret=1")
    sandbox.post("/oauth/token", data=app.credentials)
    sandbox.get("/sandbox/users")
    assert sandbox.get("/sandbox/requests").json() == {
        "requests": [
            {"method": "GET", "path": "/v1/packages", "status": 200},
            {"method": "POST", "path": "/oauth/token", "status": 400},
        ]
    }
    assert sandbox.call("DELETE", "/sandbox/requests").json() == {"requests": []}


def test_users_are_listed_created_and_updated(sandbox: Sandbox, app: App) -> None:
    demo = {
        "ada@example.com": "Ada Lovelace",
        "grace@example.com": "Grace Hopper",
        "bob@example.com": "Bob Broke",
    }
    listed = {user["email"]: user for user in sandbox.get("/sandbox/users").json()["users"]}
    assert {email: listed[email]["name"] for email in demo} == demo
    assert all(listed[email]["email_verified"] for email in demo)

    user = sandbox.add_user(balance=7, name="Emmy", password="emmy's own")
    change = {"email": user["email"].upper(), "balance": 9, "email_verified": False}
    reply = sandbox.post("/sandbox/users", json=change)
    assert reply.status_code == 200
    assert reply.json()["user"] == user | {"balance": 9, "email_verified": False}
    with Visitor(sandbox.url, password="emmy's own") as browser:
        assert browser.authorize(app, user["email"])


@pytest.mark.parametrize(
    "change",
    [
        {"email": None},
        {"email": "nonsense"},
        {"email": "x" * 300 + "@example.com"},
        {"balance": "7"},
        {"balance": 1.5},
        {"balance": True},
        {"balance": 10**18},
        {"name": 7},
        {"name": "x" * 300},
        {"password": 7},
        {"password": ""},
        {"email_verified": "yes"},
    ],
)
def test_invalid_user_is_rejected(sandbox: Sandbox, change: dict[str, Any]) -> None:
    body = {"email": "new@example.com", "name": "New", "balance": 1}
    reply = sandbox.post("/sandbox/users", json=body | change)
    assert reply.status_code == 400
    assert "new@example.com" not in sandbox.get("/sandbox/users").text


def test_request_from_a_page_of_another_site_is_rejected(sandbox: Sandbox) -> None:
    headers = {"Origin": "https://evil.example"}
    reply = sandbox.post("/sandbox/users", json={"email": "x@example.com"}, headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "forbidden")
    own = sandbox.get("/sandbox/settings", headers={"Origin": sandbox.url})
    assert own.status_code == 200


def test_other_host_name_is_rejected(sandbox: Sandbox) -> None:
    reply = sandbox.get("/sandbox/users", headers={"Host": "evil.example"})
    assert reply.status_code == 400


def test_overview_shows_everything_but_secrets(
    sandbox: Sandbox, browser: Visitor, app: App
) -> None:
    sandbox.get("/v1/packages")
    webhook_url = "http://localhost:1/hook"
    hook = {"url": webhook_url, "events": ["balance.low"]}
    sandbox.post("/v1/webhooks", app.session_token, json=hook)
    page = browser.get("/sandbox")
    assert page.status_code == 200
    for text in ("ada@example.com", app.client_id, "/v1/packages", sandbox.url, webhook_url):
        assert text in page.text
    assert app.client_secret not in page.text
    for name in DEFAULTS:
        assert f"<code>{name}</code>" in page.text
    assert "<code>3600</code>" in page.text
    assert browser.get("/").headers["Location"] == "/sandbox"
