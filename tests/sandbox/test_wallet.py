"""The balance, the packages and the payment page."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from tests.helpers.concurrency import begin_together

from .client import App, Sandbox, SandboxProcess, Visitor

SUCCESS_URL = "http://localhost:5280/credits/bought"
CANCEL_URL = "http://localhost:5280/credits"
CHECKOUT = {"package_id": "starter", "success_url": SUCCESS_URL, "cancel_url": CANCEL_URL}


class TestBalance:
    def test_reply(self, sandbox: Sandbox, user: dict[str, Any], tokens: dict[str, Any]) -> None:
        assert sandbox.get("/v1/balance", tokens["access_token"]).json() == {
            "wallet": "oauth_user",
            "balance": 1_000_000,
            "plan": "free",
            "user_id": user["id"],
            "billing_mode": "user",
        }

    def test_token_without_the_scope_returns_403(
        self, sandbox: Sandbox, app: App, user: dict[str, Any]
    ) -> None:
        token = sandbox.sign_in(app, user["email"], scope="openid credits.spend")["access_token"]
        for path in ("/v1/balance", "/v1/models"):
            reply = sandbox.get(path, token)
            error = reply.json()["error"]
            assert (reply.status_code, error["code"]) == (403, "insufficient_scope")
            assert "credits.read" in error["message"]
            assert "credits.read" in error["hint"]

    @pytest.mark.parametrize(
        ("header", "code"),
        [
            (None, "invalid_api_key"),
            ("", "invalid_api_key"),
            ("Bearer", "invalid_api_key"),
            ("Basic eDp5", "invalid_api_key"),
            ("Bearer sess_x", "invalid_api_key"),
            ("Bearer sk-quota-x", "invalid_api_key"),
            ("Bearer quota_token_a quota_token_b", "invalid_api_key"),
            ("Bearer quota_token_unknown", "invalid_token"),
        ],
    )
    def test_invalid_bearer_token_returns_401(
        self, sandbox: Sandbox, header: str | None, code: str
    ) -> None:
        headers = {} if header is None else {"Authorization": header}
        reply = sandbox.get("/v1/balance", headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, code)
        assert reply.headers["WWW-Authenticate"].startswith("Bearer")

    def test_expired_token_returns_401(
        self, sandbox: Sandbox, sandbox_process: SandboxProcess, app: App, user: dict[str, Any]
    ) -> None:
        sandbox.set(access_token_lifetime=600)
        tokens = sandbox.sign_in(app, user["email"])
        assert tokens["expires_in"] == 600
        sandbox_process.execute(
            "UPDATE oauth2_provider_accesstoken SET expires = datetime(expires, '-601 seconds')"
            " WHERE id = (SELECT max(id) FROM oauth2_provider_accesstoken)"
        )
        reply = sandbox.get("/v1/balance", tokens["access_token"])
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_token")
        assert sandbox.refresh(app, tokens["refresh_token"]).status_code == 200

    def test_token_in_the_query_is_rejected(self, sandbox: Sandbox, tokens: dict[str, Any]) -> None:
        query = f"/v1/balance?access_token={tokens['access_token']}"
        assert sandbox.get(query).status_code == 401


def test_packages_are_public(sandbox: Sandbox) -> None:
    packages = sandbox.get("/v1/packages").json()["packages"]
    assert [package["price_cents"] for package in packages] == [500, 1_000, 2_500, 5_000]
    assert packages[0] == {
        "id": "starter",
        "name": "Starter",
        "price_cents": 500,
        "credits": 5_000_000,
        "balance_display": "$5.00",
    }


class TestCheckout:
    @pytest.fixture
    def checkout_url(self, sandbox: Sandbox, tokens: dict[str, Any]) -> str:
        """The URL of the payment page for the package of five dollars."""
        reply = sandbox.post("/api/payments/checkout", tokens["access_token"], json=CHECKOUT)
        assert reply.status_code == 200
        url: str = reply.json()["checkout_url"]
        assert url.startswith(f"{sandbox.url}/checkout/")
        return url

    def test_payment_adds_the_credits(
        self, sandbox: Sandbox, user: dict[str, Any], browser: Visitor, checkout_url: str
    ) -> None:
        page = browser.get(checkout_url)
        assert "$5.00" in page.text
        assert user["email"] in page.text
        reply = browser.submit(page, decision="pay")
        assert reply.headers["Location"] == SUCCESS_URL
        assert sandbox.user(user["email"])["balance"] == 6_000_000

    def test_concurrent_payments_add_the_credits_once(
        self, sandbox: Sandbox, user: dict[str, Any], browser: Visitor, checkout_url: str
    ) -> None:
        page = browser.get(checkout_url)

        def pay() -> str:
            with Visitor(sandbox.url) as other:
                other.http.cookies = browser.http.cookies
                return other.submit(page, decision="pay").headers["Location"]

        assert begin_together([pay] * 6) == [SUCCESS_URL] * 6
        assert sandbox.user(user["email"])["balance"] == 6_000_000
        assert "paid once" in browser.get(checkout_url).text
        reply = browser.submit(page, decision="cancel")
        assert reply.headers["Location"] == SUCCESS_URL

    def test_cancel_is_final(
        self, sandbox: Sandbox, user: dict[str, Any], browser: Visitor, checkout_url: str
    ) -> None:
        page = browser.get(checkout_url)
        assert browser.submit(page, decision="cancel").headers["Location"] == CANCEL_URL
        assert browser.submit(page, decision="pay").headers["Location"] == CANCEL_URL
        assert "cancelled" in browser.get(checkout_url).text
        assert sandbox.user(user["email"])["balance"] == 1_000_000

    def test_payment_form_needs_a_csrf_token(
        self, sandbox: Sandbox, user: dict[str, Any], browser: Visitor, checkout_url: str
    ) -> None:
        reply = browser.http.post(checkout_url, data={"decision": "pay"}, timeout=10)
        assert reply.status_code == 403
        assert sandbox.user(user["email"])["balance"] == 1_000_000

    @pytest.mark.parametrize(
        "url",
        [
            "https://evil.example/",
            "http://localhost:5281/",
            "https://localhost:5280/",
            "http://localhost:5280@evil.example/",
            "//localhost:5280/",
            "/credits",
            "javascript:alert(1)",
            "http://localhost:x/",
            "http://localhost:5280/\r\nX: y",
            "",
            None,
            7,
            ["http://localhost:5280/"],
        ],
    )
    @pytest.mark.parametrize("field", ["success_url", "cancel_url"])
    def test_return_url_of_another_origin_is_rejected(
        self, sandbox: Sandbox, tokens: dict[str, Any], field: str, url: Any
    ) -> None:
        body = CHECKOUT | {field: url}
        reply = sandbox.post("/api/payments/checkout", tokens["access_token"], json=body)
        error = reply.json()["error"]
        assert (reply.status_code, error["code"]) == (400, "bad_request")
        assert field in error["message"]

    @pytest.mark.parametrize("package_id", ["nonsense", None, 5, ["starter"], {}])
    def test_unknown_package_is_rejected(
        self, sandbox: Sandbox, tokens: dict[str, Any], package_id: Any
    ) -> None:
        body = CHECKOUT | {"package_id": package_id}
        reply = sandbox.post("/api/payments/checkout", tokens["access_token"], json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")

    def test_checkout_needs_a_user_token(self, sandbox: Sandbox, app: App) -> None:
        assert sandbox.post("/api/payments/checkout", json=CHECKOUT).status_code == 401
        reply = sandbox.post("/api/payments/checkout", app.session_token, json=CHECKOUT)
        assert reply.status_code == 401

    def test_unknown_checkout_returns_404(self, browser: Visitor) -> None:
        for path in ("/checkout/00000000-0000-0000-0000-000000000000", "/checkout/nonsense"):
            page = browser.get(path)
            assert page.status_code == 404
            assert "Page not found" in page.text


def test_every_balance_is_the_sum_of_its_ledger(sandbox_process: SandboxProcess) -> None:
    with sqlite3.connect(sandbox_process.data) as connection:
        wrong = connection.execute(
            "SELECT u.email, u.balance, coalesce(sum(l.amount), 0) AS total"
            " FROM quota_sandbox_user u LEFT JOIN quota_sandbox_ledgerentry l ON l.user_id = u.id"
            " GROUP BY u.id HAVING u.balance <> total OR u.reserved <> 0"
        ).fetchall()
    connection.close()
    assert wrong == []
