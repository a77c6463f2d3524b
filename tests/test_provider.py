"""django_quota.provider: what is asked of Quota, and what its answers are taken to mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from django.conf import Settings as ProjectSettings

from django_quota import discovery, provider, transport
from django_quota.exceptions import (
    ConfigurationError,
    InsufficientScope,
    ProviderUnavailable,
    RateLimited,
    ReauthenticationRequired,
    RequestRefused,
    SignInFailed,
)
from tests.shown import refusal
from tests.tiny_server import HANG_UP, Answer, TinyServer, answer, json_answer

DISCOVERY = "/.well-known/openid-configuration"
HTML = answer(b"<!doctype html><title>quota_token_hush</title>", Content_Type="text/html")
TOKENS = {
    "access_token": "quota_token_hush1",
    "refresh_token": "quota_refresh_hush2",
    "id_token": "head.hush3.signature",
    "token_type": "Bearer",
    "expires_in": 3600,
    "scope": "openid email",
}


@pytest.fixture
def server(settings: ProjectSettings) -> Iterator[TinyServer]:
    with TinyServer() as running:
        settings.QUOTA_BASE_URL = running.origin
        settings.QUOTA_CLIENT_SECRET = "quota_secret_hush"
        running.on(DISCOVERY, json_answer({"issuer": running.origin}))
        yield running
    transport._session().close()


def discover(server: TinyServer, **document: Any) -> discovery.Metadata:
    server.on(DISCOVERY, json_answer({"issuer": server.origin} | document))
    return discovery.metadata()


class TestAuthorizationURL:
    def url(self, **changes: Any) -> str:
        arguments: dict[str, Any] = {
            "redirect_uri": "http://localhost/auth/quota/callback",
            "scopes": ("openid", "credits.read"),
            "state": "the-state",
            "nonce": "the-nonce",
            "code_challenge": "the-challenge",
            "extra": {},
        }
        return provider.authorization_url(**(arguments | changes))

    def test_asks_for_what_the_recipe_does(self, server: TinyServer) -> None:
        url = self.url()

        assert url.startswith(f"{server.origin}/oauth/authorize?")
        assert parse_qsl(urlsplit(url).query, strict_parsing=True) == [
            ("response_type", "code"),
            ("client_id", "quota_client_test"),
            ("redirect_uri", "http://localhost/auth/quota/callback"),
            ("scope", "openid credits.read"),
            ("state", "the-state"),
            ("nonce", "the-nonce"),
            ("code_challenge", "the-challenge"),
            ("code_challenge_method", "S256"),
        ]

    def test_carries_no_secret(self, server: TinyServer) -> None:
        assert "hush" not in self.url()

    def test_keeps_the_endpoints_own_query(self, server: TinyServer) -> None:
        discover(server, authorization_endpoint=f"{server.origin}/authorize?tenant=a")

        assert self.url().startswith(f"{server.origin}/authorize?tenant=a&response_type=code&")

    def test_extra_parameters_cannot_replace_ours(self, server: TinyServer) -> None:
        url = self.url(extra={"prompt": "login", "state": "evil", "response_type": "evil"})

        assert "prompt=login" in url
        assert "state=the-state" in url
        assert "evil" not in url

    def test_without_a_client_asks_nobody(
        self, server: TinyServer, settings: ProjectSettings
    ) -> None:
        settings.QUOTA_CLIENT_ID = ""
        refusal(self.url, ConfigurationError)
        assert server.requests == []


class TestEndSessionURL:
    def url(self) -> str | None:
        return provider.end_session_url(
            id_token_hint="head.hush.sig", post_logout_redirect_uri="http://localhost/"
        )

    def test_is_as_in_the_recipe(self, server: TinyServer) -> None:
        discover(server, end_session_endpoint=f"{server.origin}/bye")

        assert self.url() == (
            f"{server.origin}/bye?id_token_hint=head.hush.sig"
            "&post_logout_redirect_uri=http%3A%2F%2Flocalhost%2F"
        )

    def test_is_none_without_an_endpoint(self, server: TinyServer) -> None:
        assert self.url() is None

    def test_keeps_the_endpoints_own_query(self, server: TinyServer) -> None:
        discover(server, end_session_endpoint=f"{server.origin}/bye?a=b")

        assert str(self.url()).startswith(f"{server.origin}/bye?a=b&id_token_hint=")


def exchange_code() -> provider.TokenReply:
    return provider.exchange_code(
        code="hush-code", redirect_uri="http://localhost/cb", code_verifier="hush-verifier"
    )


def refresh() -> provider.TokenReply:
    return provider.refresh("quota_refresh_hush0")


class TestTokenRequest:
    def test_of_a_code_is_as_in_the_recipe(self, server: TinyServer) -> None:
        server.on("/oauth/token", json_answer(TOKENS))

        exchange_code()

        (seen,) = server.seen("/oauth/token")
        assert seen.method == "POST"
        assert "authorization" not in seen.headers
        assert seen.form == {
            "grant_type": "authorization_code",
            "code": "hush-code",
            "redirect_uri": "http://localhost/cb",
            "client_id": "quota_client_test",
            "client_secret": "quota_secret_hush",
            "code_verifier": "hush-verifier",
        }

    def test_of_a_refresh_is_as_in_the_recipe(self, server: TinyServer) -> None:
        server.on("/oauth/token", json_answer(TOKENS))

        refresh()

        (seen,) = server.seen("/oauth/token")
        assert seen.form == {
            "grant_type": "refresh_token",
            "refresh_token": "quota_refresh_hush0",
            "client_id": "quota_client_test",
            "client_secret": "quota_secret_hush",
        }

    @pytest.mark.parametrize("ask", [exchange_code, refresh])
    @pytest.mark.parametrize(
        "body",
        [{"error": "invalid_client"}, {"error": {"code": "invalid_client", "message": "no"}}],
    )
    def test_tries_the_next_secret_while_one_is_rotated(
        self, ask: Callable[[], Any], body: Any, server: TinyServer, settings: ProjectSettings
    ) -> None:
        settings.QUOTA_CLIENT_SECRET = ["new", "old"]
        server.on("/oauth/token", json_answer(body, status=401), json_answer(TOKENS))

        assert ask().access_token == TOKENS["access_token"]
        assert [seen.form["client_secret"] for seen in server.seen("/oauth/token")] == [
            "new",
            "old",
        ]

    def test_tries_no_next_secret_after_another_error(
        self, server: TinyServer, settings: ProjectSettings
    ) -> None:
        """The code or refresh token may be spent by then."""
        settings.QUOTA_CLIENT_SECRET = ["new", "old"]
        server.on("/oauth/token", json_answer({"error": "invalid_grant"}, status=400))

        refusal(refresh, ReauthenticationRequired)
        assert len(server.seen("/oauth/token")) == 1

    def test_is_not_made_without_a_secret(
        self, server: TinyServer, settings: ProjectSettings
    ) -> None:
        settings.QUOTA_CLIENT_SECRET = None
        refusal(refresh, ConfigurationError)
        assert server.seen("/oauth/token") == []

    @pytest.mark.parametrize("ask", [exchange_code, refresh])
    def test_as_a_whole_ends_within_the_deadline(
        self, ask: Callable[[], Any], server: TinyServer, settings: ProjectSettings
    ) -> None:
        """The lease on a token row ends shortly after QUOTA_DEADLINE: a renewal that takes longer
        would be repeated by somebody else, and the refresh token spent twice."""
        settings.QUOTA_DEADLINE = 0.5
        settings.QUOTA_CLIENT_SECRET = ["new", "old"]
        server.on(
            "/oauth/token",
            json_answer({"error": "invalid_client"}, status=401, delay=0.35),
            json_answer(TOKENS, delay=0.35),
        )

        refusal(ask, ProviderUnavailable)

    def test_with_discovery_before_it_ends_within_the_deadline(
        self, server: TinyServer, settings: ProjectSettings
    ) -> None:
        settings.QUOTA_DEADLINE = 0.5
        server.on(DISCOVERY, json_answer({"issuer": server.origin}, delay=0.35))
        server.on("/oauth/token", json_answer(TOKENS, delay=0.35))

        refusal(refresh, ProviderUnavailable)

    @pytest.mark.parametrize("ask", [exchange_code, refresh])
    def test_is_made_once_though_no_answer_comes(
        self, ask: Callable[[], Any], server: TinyServer
    ) -> None:
        server.on("/oauth/token", HANG_UP)

        error = refusal(ask, ProviderUnavailable)

        assert (error.request_sent, error.status) == (True, None)
        assert len(server.seen("/oauth/token")) == 1


class TestTokenReply:
    def reply(self, server: TinyServer, **changes: Any) -> provider.TokenReply:
        body = {name: value for name, value in (TOKENS | changes).items() if value is not ...}
        server.on("/oauth/token", json_answer(body))
        return refresh()

    def test_holds_what_came(self, server: TinyServer) -> None:
        found = self.reply(server)

        assert dataclasses.asdict(found) == {
            name: value for name, value in TOKENS.items() if name != "token_type"
        }

    def test_repr_shows_no_token(self, server: TinyServer) -> None:
        assert "hush" not in repr(self.reply(server))

    @pytest.mark.parametrize("value", ["Bearer", "bearer", "BEARER", ...])
    def test_token_type_is_bearer(self, value: Any, server: TinyServer) -> None:
        assert self.reply(server, token_type=value).access_token == TOKENS["access_token"]

    @pytest.mark.parametrize("value", ["DPoP", "mac", "", "Bearer ", None, 7, ["Bearer"]])
    def test_token_type_of_another_kind_is_refused(self, value: Any, server: TinyServer) -> None:
        """It could not be used as a bearer."""
        refusal(lambda: self.reply(server, token_type=value), ProviderUnavailable)

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            (3600, 3600),
            (60.9, 60),
            ("7200", 7200),
            (30 * 86_400, 30 * 86_400),
            (..., 3600),
            (None, 3600),
            (0, 3600),
            (-1, 3600),
            (10**12, 3600),
            (True, 3600),
            ("soon", 3600),
            ("-5", 3600),
            ("²", 3600),
            ("٣", 3600),
            ("9" * 5000, 3600),
            ("", 3600),
            ([3600], 3600),
            ({"s": 1}, 3600),
            (float("nan"), 3600),
            (float("inf"), 3600),
        ],
    )
    def test_lifetime(self, value: Any, seconds: int, server: TinyServer) -> None:
        assert self.reply(server, expires_in=value).expires_in == seconds

    @pytest.mark.parametrize("name", ["refresh_token", "id_token", "scope"])
    @pytest.mark.parametrize("value", [..., None])
    def test_may_leave_out(self, name: str, value: Any, server: TinyServer) -> None:
        assert getattr(self.reply(server, **{name: value}), name) is None

    @pytest.mark.parametrize(
        "value",
        ["", 7, ["a"], "a b", "a\nb", "a\r\nX: 1", "a\x00b", "a\tb", "ä", "\ud800", "x" * 16_385],
    )
    def test_access_token_that_is_none(self, value: Any, server: TinyServer) -> None:
        refusal(lambda: self.reply(server, access_token=value), ProviderUnavailable)

    def test_access_token_of_the_greatest_length(self, server: TinyServer) -> None:
        assert self.reply(server, access_token="x" * 16_384).access_token == "x" * 16_384

    @pytest.mark.parametrize("name", ["refresh_token", "id_token"])
    @pytest.mark.parametrize("value", ["", 7, ["a"], "a b", "a\nb", "a\x00b", "ä"])
    def test_other_token_that_is_none_does_not_cost_the_rest(
        self, name: str, value: Any, server: TinyServer
    ) -> None:
        found = self.reply(server, **{name: value})

        assert getattr(found, name) is None
        assert found.access_token == TOKENS["access_token"]

    @pytest.mark.parametrize("value", [7, ["openid"], "s" * 1001, "openid\x00email", "a\nb"])
    def test_scope_that_is_none(self, value: Any, server: TinyServer) -> None:
        """It is stored: a NUL would make PostgreSQL refuse the row, and the tokens with it."""
        assert self.reply(server, scope=value).scope is None


class TestExchangeFailure:
    @pytest.mark.parametrize(
        ("planned", "reason"),
        [
            (
                json_answer({"error": "invalid_grant"}, status=400),
                "The token endpoint answered HTTP 400 invalid_grant.",
            ),
            (
                json_answer({"error": {"code": "invalid_token"}}, status=401),
                "The token endpoint answered HTTP 401 invalid_token.",
            ),
            (
                json_answer({"error": "invalid_client"}, status=401),
                "Quota refused the client (invalid_client): check QUOTA_CLIENT_ID and "
                "QUOTA_CLIENT_SECRET.",
            ),
            (HTML, "The token endpoint gave no usable tokens (HTTP 200)."),
            (
                answer(b"hush", status=500),
                "The token endpoint gave no usable tokens (HTTP 500).",
            ),
            (
                json_answer({"error": "hush, this is prose"}, status=429),
                "The token endpoint gave no usable tokens (HTTP 429).",
            ),
            (
                json_answer(TOKENS, status=400),
                "The token endpoint gave no usable tokens (HTTP 400).",
            ),
        ],
    )
    def test_says_why_in_the_log_and_one_code_to_the_person(
        self, planned: Answer, reason: str, server: TinyServer
    ) -> None:
        server.on("/oauth/token", planned)

        error = refusal(exchange_code, SignInFailed)

        assert (error.code, str(error)) == ("token_exchange_failed", reason)

    def test_of_a_redirect_sends_the_secret_nowhere(self, server: TinyServer) -> None:
        server.on("/oauth/token", answer(status=307, Location=f"{server.origin}/elsewhere"))

        refusal(exchange_code, SignInFailed)
        assert server.seen("/elsewhere") == []


class TestRefreshFailure:
    @pytest.mark.parametrize("status", [400, 401])
    @pytest.mark.parametrize("code", ["invalid_grant", "invalid_token"])
    @pytest.mark.parametrize("shape", ["rfc6749", "quota"])
    def test_that_ends_the_connection(
        self, status: int, code: str, shape: str, server: TinyServer
    ) -> None:
        error = code if shape == "rfc6749" else {"code": code, "message": "quota_refresh_hush0"}
        server.on("/oauth/token", json_answer({"error": error}, status=status))

        assert refusal(refresh, ReauthenticationRequired).provider_code == code

    @pytest.mark.parametrize("status", [400, 401, 403])
    @pytest.mark.parametrize("code", ["invalid_client", "unauthorized_client"])
    def test_that_is_the_developers(self, status: int, code: str, server: TinyServer) -> None:
        server.on("/oauth/token", json_answer({"error": code}, status=status))

        assert "check QUOTA_CLIENT_ID" in str(refusal(refresh, ConfigurationError))

    @pytest.mark.parametrize(
        "planned",
        [
            json_answer({"error": "invalid_request"}, status=400),
            json_answer({"error": "invalid_scope"}, status=400),
            json_answer({"error": {"code": "invalid_api_key"}}, status=401),
            answer(status=401),
            HTML,
            answer(b"<html>hush", status=400),
            json_answer({"error": "invalid_grant"}, status=403),
            json_answer({"error": "invalid_grant"}, status=404),
            json_answer({"error": "invalid_grant"}, status=500),
            json_answer({"error": "invalid_grant"}, status=503),
            json_answer({"error": "invalid_grant"}, status=200),
            json_answer({"error_description": "invalid_grant"}, status=400),
            answer(status=302, Location="/elsewhere"),
            json_answer({}),
            json_answer([TOKENS]),
        ],
    )
    def test_that_keeps_the_token(self, planned: Answer, server: TinyServer) -> None:
        server.on("/oauth/token", planned)

        error = refusal(refresh, ProviderUnavailable)

        assert error.status is not None

    @pytest.mark.parametrize("code", ["rate_limit_exceeded", "invalid_grant"])
    @pytest.mark.parametrize(("given", "seconds"), [({"Retry_After": "7"}, 7), ({}, None)])
    def test_that_asks_for_time(
        self, code: str, given: dict[str, Any], seconds: int | None, server: TinyServer
    ) -> None:
        server.on("/oauth/token", json_answer({"error": code}, status=429, **given))

        assert refusal(refresh, RateLimited).retry_after == seconds


class TestRevoke:
    def test_is_as_rfc_7009_says(self, server: TinyServer) -> None:
        server.on("/oauth/revoke", answer())

        provider.revoke("quota_refresh_hush0", "refresh_token")

        (seen,) = server.seen("/oauth/revoke")
        assert seen.form == {
            "token": "quota_refresh_hush0",
            "token_type_hint": "refresh_token",
            "client_id": "quota_client_test",
            "client_secret": "quota_secret_hush",
        }

    @pytest.mark.parametrize(
        "planned",
        [
            answer(status=503),
            answer(status=429),
            answer(status=204),
            answer(status=302, Location="/"),
            HANG_UP,
        ],
    )
    def test_that_did_not_work_is_to_be_repeated(self, planned: Answer, server: TinyServer) -> None:
        server.on("/oauth/revoke", planned)
        refusal(lambda: provider.revoke("hush", "refresh_token"), ProviderUnavailable)

    def test_that_is_the_developers(self, server: TinyServer) -> None:
        server.on("/oauth/revoke", json_answer({"error": "invalid_client"}, status=401))

        error = refusal(lambda: provider.revoke("hush", "refresh_token"), ConfigurationError)
        assert "check QUOTA_CLIENT_ID" in str(error)


class TestUserinfo:
    def test_is_asked_for_with_the_token(self, server: TinyServer) -> None:
        server.on("/oauth/userinfo", json_answer({"sub": "ada"}))

        assert provider.userinfo("quota_token_hush") == {"sub": "ada"}
        (seen,) = server.seen("/oauth/userinfo")
        assert seen.headers["authorization"] == "Bearer quota_token_hush"


class TestBalance:
    def ask(self, server: TinyServer, body: Any, **options: Any) -> provider.BalanceReply:
        server.on("/v1/balance", json_answer(body, **options))
        return provider.balance("quota_token_hush")

    def test_is_asked_for_with_the_token(self, server: TinyServer) -> None:
        found = self.ask(server, {"wallet": "oauth_user", "balance": 998_800, "user_id": "u-1"})

        assert found == provider.BalanceReply(credits=998_800, user_id="u-1")
        (seen,) = server.requests
        assert seen.target == "/v1/balance"
        assert seen.headers["authorization"] == "Bearer quota_token_hush"

    @pytest.mark.parametrize("credits", [0, -50_000, 2**63 - 1, None])
    def test_may_be(self, credits: int | None, server: TinyServer) -> None:
        found = self.ask(server, {"wallet": "oauth_user", "balance": credits})
        assert found == provider.BalanceReply(credits=credits, user_id="")

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
        with transport.within(0.2):
            refusal(lambda: provider.balance("hush"), ProviderUnavailable)


class TestPackages:
    def ask(self, server: TinyServer, offers: Any) -> tuple[provider.Package, ...]:
        server.on("/v1/packages", json_answer({"packages": offers}))
        return provider.packages()

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
        return provider.create_checkout(
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


class TestSaveApp:
    def test_registers_with_the_developers_session(self, server: TinyServer) -> None:
        server.on("/developers/apps", json_answer({"client_id": "quota_client_1"}, status=201))

        found = provider.save_app("sess_hush", {"name": "Site"}, client_id=None)

        assert found == {"client_id": "quota_client_1"}
        (seen,) = server.requests
        assert (seen.method, seen.body) == ("POST", b'{"name": "Site"}')
        assert seen.headers["authorization"] == "Bearer sess_hush"

    def test_changes_the_app_that_is_named(self, server: TinyServer) -> None:
        server.on("/developers/apps/quota_client_1", json_answer({"client_id": "quota_client_1"}))

        provider.save_app("sess_hush", {"name": "Site"}, client_id="quota_client_1")

        assert server.requests[0].method == "PATCH"

    def test_without_any_client_configured(
        self, server: TinyServer, settings: ProjectSettings
    ) -> None:
        """It is how a project gets one."""
        settings.QUOTA_CLIENT_ID = settings.QUOTA_CLIENT_SECRET = ""
        server.on("/developers/apps", json_answer({"client_id": "quota_client_1"}))

        assert provider.save_app("sess_hush", {}, client_id=None)
