"""django_quota.oidc.wallet_api: the balance, the packages, the checkout and the funding."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from django_quota.exceptions import (
    ConfigurationError,
    IdempotencyKeyRefused,
    InsufficientScope,
    ProviderUnavailable,
    RateLimited,
    RequestRefused,
)
from django_quota.oidc import wallet_api
from django_quota.oidc.time_limit import within
from tests.shown import refusal
from tests.tiny_server import TinyServer, json_answer


class TestBalance:
    def ask(self, server: TinyServer, body: Any, **options: Any) -> wallet_api.BalanceReply:
        server.on("/v1/balance", json_answer(body, **options))
        return wallet_api.fetch_balance("quota_token_hush")

    def test_is_asked_for_with_the_token(self, server: TinyServer) -> None:
        found = self.ask(server, {"wallet": "oauth_user", "balance": 998_800, "user_id": "u-1"})

        assert found == wallet_api.BalanceReply(credits=998_800, user_id="u-1")
        (seen,) = server.requests
        assert seen.target == "/v1/balance"
        assert seen.headers["authorization"] == "Bearer quota_token_hush"

    @pytest.mark.parametrize("credits", [0, -50_000, 2**63 - 1, None])
    def test_may_be(self, credits: int | None, server: TinyServer) -> None:
        found = self.ask(server, {"wallet": "oauth_user", "balance": credits})
        assert found == wallet_api.BalanceReply(credits=credits, user_id="")

    def test_may_leave_out_which_wallet_it_is(self, server: TinyServer) -> None:
        assert self.ask(server, {"balance": 5}).credits == 5

    @pytest.mark.parametrize("credits", [True, False, "998800", "1.00", 1.5, [1], {"a": 1}])
    def test_is_a_whole_number_and_nothing_else(self, credits: Any, server: TinyServer) -> None:
        """An older Quota counted in dollars: a guess would be wrong by a million."""
        body = {"wallet": "oauth_user", "balance": credits}
        refusal(lambda: self.ask(server, body), ProviderUnavailable)

    @pytest.mark.parametrize("wallet", ["developer", "", None, 7, ["oauth_user"]])
    def test_of_another_wallet_is_not_shown(self, wallet: Any, server: TinyServer) -> None:
        body = {"wallet": wallet, "developer_balance": 5, "balance": 5}
        refusal(lambda: self.ask(server, body), ProviderUnavailable)

    @pytest.mark.parametrize("user_id", [None, 7, ["u"]])
    def test_user_id_that_is_none(self, user_id: Any, server: TinyServer) -> None:
        assert self.ask(server, {"balance": 5, "user_id": user_id}).user_id == ""

    def test_without_the_scope(self, server: TinyServer) -> None:
        body = {"error": {"code": "insufficient_scope"}}
        refusal(lambda: self.ask(server, body, status=403), InsufficientScope)

    def test_with_a_token_that_is_no_longer_good(self, server: TinyServer) -> None:
        body = {"error": {"code": "invalid_token"}}
        assert refusal(lambda: self.ask(server, body, status=401), RequestRefused).status == 401

    def test_too_often(self, server: TinyServer) -> None:
        refusal(lambda: self.ask(server, {}, status=429), RateLimited)

    def test_ends_within_the_callers_deadline(self, server: TinyServer) -> None:
        server.on("/v1/balance", json_answer({"balance": 5}, delay=1))
        with within(0.2):
            refusal(lambda: wallet_api.fetch_balance("hush"), ProviderUnavailable)


class TestPackages:
    def ask(self, server: TinyServer, offers: Any) -> tuple[wallet_api.Package, ...]:
        server.on("/v1/packages", json_answer({"packages": offers}))
        return wallet_api.fetch_packages()

    def test_are_listed_in_order_and_for_everybody(self, server: TinyServer) -> None:
        five = {"id": "p5", "name": "Five", "price_cents": 500, "balance_display": "$5.00"}
        ten = {"id": "p10", "name": "Ten", "price_cents": 1000, "balance_display": "$10.00"}

        found = self.ask(server, [five, ten | {"unknown": 1}])

        assert [dataclasses.asdict(offer) for offer in found] == [five, ten]
        assert "authorization" not in server.requests[0].headers

    @pytest.mark.parametrize("value", [..., None, ["x"]])
    @pytest.mark.parametrize("name", ["name", "balance_display"])
    def test_without_words_have_none(self, name: str, value: Any, server: TinyServer) -> None:
        """ "None" is no name."""
        offer = {"id": "p5", "name": "Five", "price_cents": 500, "balance_display": "$5.00"}
        offer = {k: v for k, v in (offer | {name: value}).items() if v is not ...}

        assert getattr(self.ask(server, [offer])[0], name) == ""

    def test_with_endless_words_are_cut(self, server: TinyServer) -> None:
        (found,) = self.ask(server, [{"id": "p5", "price_cents": 500, "name": "n" * 10_000}])
        assert found.name == "n" * 100

    @pytest.mark.parametrize(
        "garbage",
        [
            None,
            7,
            "p5",
            [],
            {},
            {"id": "p5"},
            {"price_cents": 500},
            {"id": 5, "price_cents": 500},
            {"id": "p5", "price_cents": "500"},
            {"id": "p5", "price_cents": 5.0},
            {"id": "p5", "price_cents": True},
            {"id": "p5", "price_cents": None},
        ],
    )
    def test_that_cannot_be_sold_are_left_out(self, garbage: Any, server: TinyServer) -> None:
        good = {"id": "p10", "name": "Ten", "price_cents": 1000, "balance_display": "$10.00"}
        assert [offer.id for offer in self.ask(server, [garbage, good])] == ["p10"]

    @pytest.mark.parametrize("offers", [None, {}, "packages", 7, []])
    def test_that_are_no_list(self, offers: Any, server: TinyServer) -> None:
        assert self.ask(server, offers) == ()


class TestCheckout:
    def ask(self, server: TinyServer, body: Any) -> str:
        server.on("/api/payments/checkout", json_answer(body))
        return wallet_api.create_checkout(
            "quota_token_hush",
            package_id="p5",
            success_url="http://localhost/ok",
            cancel_url="http://localhost/no",
        )

    def test_is_as_documented(self, server: TinyServer) -> None:
        url = self.ask(server, {"checkout_url": "https://checkout.stripe.example/c/1"})

        assert url == "https://checkout.stripe.example/c/1"
        (seen,) = server.requests
        assert (seen.method, seen.headers["authorization"]) == ("POST", "Bearer quota_token_hush")
        assert seen.body == (
            b'{"package_id": "p5", "success_url": "http://localhost/ok", '
            b'"cancel_url": "http://localhost/no"}'
        )

    @pytest.mark.parametrize("name", ["checkout_url", "url"])
    def test_may_call_the_address_either_way(self, name: str, server: TinyServer) -> None:
        assert self.ask(server, {name: "https://pay.example/1"}) == "https://pay.example/1"

    def test_may_be_on_a_local_quota_without_tls(self, server: TinyServer) -> None:
        url = f"{server.origin}/checkout/1"
        assert self.ask(server, {"checkout_url": url}) == url

    @pytest.mark.parametrize(
        "url",
        [
            None,
            "",
            7,
            ["https://pay.example"],
            "http://pay.example/1",
            "//pay.example/1",
            "/checkout/1",
            "javascript:alert(1)",
            "data:text/html,x",
            "JAVASCRIPT:alert(1)",
            "ftp://pay.example",
            "https:/pay.example",
            "https://",
        ],
    )
    def test_elsewhere_is_refused(self, url: Any, server: TinyServer) -> None:
        refusal(lambda: self.ask(server, {"checkout_url": url}), ProviderUnavailable)


class TestFunding:
    reply: dict[str, Any] = {
        "success": True,
        "user_id": "u-1",
        "amount": 5,
        "balance_after": 105,
        "ledger_id": "led_1",
    }

    def ask(self, server: TinyServer, body: Any, **options: Any) -> wallet_api.FundingReply:
        server.on("/v1/funding/oauth_user", json_answer(body, **options))
        return wallet_api.fund_user(
            "sk-quota-hush",
            user_id="u-1",
            amount=5,
            description="free trial",
            idempotency_key="trial-1",
        )

    def test_is_as_documented(self, server: TinyServer) -> None:
        found = self.ask(server, self.reply)

        assert found == wallet_api.FundingReply(ledger_id="led_1", balance_after=105)
        (seen,) = server.requests
        assert (seen.method, seen.target) == ("POST", "/v1/funding/oauth_user")
        assert seen.headers["authorization"] == "Bearer sk-quota-hush"
        assert seen.headers["idempotency-key"] == "trial-1"
        assert seen.body == b'{"user_id": "u-1", "amount": 5, "description": "free trial"}'

    @pytest.mark.parametrize("name", ["user_id", "amount"])
    def test_may_leave_out_what_was_asked(self, name: str, server: TinyServer) -> None:
        body = {key: value for key, value in self.reply.items() if key != name}
        assert self.ask(server, body).ledger_id == "led_1"

    @pytest.mark.parametrize("balance", [None, "1.00", 1.5, True, 1 << 63])
    def test_balance_that_is_no_number_of_credits(self, balance: Any, server: TinyServer) -> None:
        assert self.ask(server, self.reply | {"balance_after": balance}).balance_after is None

    @pytest.mark.parametrize("ledger_id", [None, 7, "\x00"])
    def test_ledger_id_that_is_none(self, ledger_id: Any, server: TinyServer) -> None:
        assert self.ask(server, self.reply | {"ledger_id": ledger_id}).ledger_id == ""

    @pytest.mark.parametrize("success", [False, None, 1, "true", ...])
    def test_without_success_is_unknown(self, success: Any, server: TinyServer) -> None:
        body = {k: v for k, v in (self.reply | {"success": success}).items() if v is not ...}
        error = refusal(lambda: self.ask(server, body), ProviderUnavailable)
        assert error.request_sent

    @pytest.mark.parametrize("other", [{"user_id": "u-2"}, {"amount": 6}, {"amount": "5"}])
    def test_answer_about_another_funding(self, other: dict[str, Any], server: TinyServer) -> None:
        body = self.reply | other
        refusal(lambda: self.ask(server, body), IdempotencyKeyRefused)

    @pytest.mark.parametrize(
        ("status", "code", "kind"),
        [
            (400, "bad_request", RequestRefused),
            (401, "invalid_api_key", ConfigurationError),
            (402, "insufficient_credits", ConfigurationError),
            (402, "insufficient_balance", ConfigurationError),
            (403, "insufficient_scope", ConfigurationError),
            (404, "user_not_found", RequestRefused),
            (409, "", IdempotencyKeyRefused),
            (422, "", RequestRefused),
            (429, "rate_limit_exceeded", RateLimited),
            (302, "", ProviderUnavailable),
            (408, "", ProviderUnavailable),
            (425, "", ProviderUnavailable),
            (500, "", ProviderUnavailable),
            (503, "provider_unavailable", ProviderUnavailable),
        ],
    )
    def test_refusals(self, status: int, code: str, kind: Any, server: TinyServer) -> None:
        """None of them sends the user to a page of Quota: only the developer can do something."""
        refusal(lambda: self.ask(server, {"error": {"code": code}}, status=status), kind)
