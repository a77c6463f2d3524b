"""django_quota.oidc.endpoints: the requests to Quota, and the meaning of its answers."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from django.conf import Settings as ProjectSettings

from django_quota.exceptions import (
    ConfigurationError,
    ProviderUnavailable,
    RateLimited,
    ReauthenticationRequired,
    RefreshRefused,
    SignInFailed,
)
from django_quota.oidc import discovery, endpoints, wallet_api
from tests.shown import refusal
from tests.tiny_server import HANG_UP, Answer, Seen, TinyServer, answer, json_answer

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
        return endpoints.authorization_url(**(arguments | changes))

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
        return endpoints.end_session_url(
            id_token_hint="head.hush.sig", post_logout_redirect_uri="http://localhost/"
        )

    def test_is_as_in_the_recipe(self, server: TinyServer) -> None:
        discover(server, end_session_endpoint=f"{server.origin}/bye")

        assert self.url() == (
            f"{server.origin}/bye?id_token_hint=head.hush.sig"
            "&post_logout_redirect_uri=http%3A%2F%2Flocalhost%2F&client_id=quota_client_test"
        )

    def test_is_none_without_an_endpoint(self, server: TinyServer) -> None:
        assert self.url() is None

    def test_keeps_the_endpoints_own_query(self, server: TinyServer) -> None:
        discover(server, end_session_endpoint=f"{server.origin}/bye?a=b")

        assert str(self.url()).startswith(f"{server.origin}/bye?a=b&id_token_hint=")


def exchange_code() -> endpoints.TokenReply:
    return endpoints.exchange_code(
        code="hush-code", redirect_uri="http://localhost/cb", code_verifier="hush-verifier"
    )


def basic(seen: Seen) -> str:
    """The user and the password in an Authorization header."""
    scheme, _, pair = seen.headers["authorization"].partition(" ")
    assert scheme == "Basic"
    return base64.b64decode(pair, validate=True).decode()


def refresh() -> endpoints.TokenReply:
    return endpoints.refresh("quota_refresh_hush0")


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

    def test_and_all_others_are_under_the_path_of_a_gateway(
        self, server: TinyServer, settings: ProjectSettings
    ) -> None:
        settings.QUOTA_BASE_URL = f"{server.origin}/eu/quota/"
        server.on("/eu/quota" + DISCOVERY, json_answer({"issuer": f"{server.origin}/eu/quota"}))
        server.on("/eu/quota/oauth/token", json_answer(TOKENS))
        server.on("/eu/quota/v1/balance", json_answer({"balance": 7, "user_id": "ada"}))

        assert exchange_code().access_token == TOKENS["access_token"]
        assert wallet_api.fetch_balance("quota_token_hush").credits == 7
        assert discovery.metadata().jwks_uri == f"{server.origin}/eu/quota/.well-known/jwks.json"
        assert [seen.target for seen in server.requests if "/eu/quota/" not in seen.target] == []

    @pytest.mark.parametrize("ask", [exchange_code, refresh])
    def test_shows_the_secret_by_basic_where_nothing_else_is_taken(
        self, ask: Callable[[], Any], server: TinyServer, settings: ProjectSettings
    ) -> None:
        """RFC 6749 section 2.3.1: both parts are encoded as in a form, and only there."""
        settings.QUOTA_CLIENT_ID = "id:with colon"
        settings.QUOTA_CLIENT_SECRET = ["new+ä", "old"]
        discover(server, token_endpoint_auth_methods_supported=["client_secret_basic"])
        server.on(
            "/oauth/token",
            json_answer({"error": "invalid_client"}, status=401),
            json_answer(TOKENS),
        )

        assert ask().access_token == TOKENS["access_token"]

        seen = server.seen("/oauth/token")
        assert [basic(one) for one in seen] == [
            "id%3Awith+colon:new%2B%C3%A4",
            "id%3Awith+colon:old",
        ]
        assert all({"client_id", "client_secret"}.isdisjoint(one.form) for one in seen)

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

    @pytest.mark.slow
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

    @pytest.mark.slow
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
    def reply(self, server: TinyServer, **changes: Any) -> endpoints.TokenReply:
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

    def test_id_token_of_the_greatest_length(self, server: TinyServer) -> None:
        """It is longer than a token that is sent: with groups or roles in it, some are."""
        longest = "x" * 65_536
        assert self.reply(server, id_token=longest).id_token == longest
        assert self.reply(server, id_token=longest + "x").id_token is None

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
    @pytest.mark.parametrize("status", [200, 400, 401])
    @pytest.mark.parametrize("code", ["invalid_grant", "invalid_token"])
    @pytest.mark.parametrize("shape", ["rfc6749", "quota"])
    def test_that_ends_the_connection(
        self, status: int, code: str, shape: str, server: TinyServer
    ) -> None:
        error = code if shape == "rfc6749" else {"code": code, "message": "quota_refresh_hush0"}
        server.on("/oauth/token", json_answer({"error": error}, status=status))

        assert refusal(refresh, ReauthenticationRequired).provider_code == code

    @pytest.mark.parametrize("status", [200, 400, 401, 403])
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
            answer(b"<html>hush", status=400),
            json_answer({"error": "invalid_grant"}, status=403),
            json_answer({"error_description": "invalid_grant"}, status=400),
        ],
    )
    def test_that_is_a_refusal_without_a_reason(self, planned: Answer, server: TinyServer) -> None:
        server.on("/oauth/token", planned)

        assert refusal(refresh, RefreshRefused).status is not None

    @pytest.mark.parametrize(
        "planned",
        [
            HTML,
            json_answer({"error": "invalid_grant"}, status=404),
            json_answer({"error": "invalid_grant"}, status=500),
            json_answer({"error": "invalid_grant"}, status=503),
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
    @pytest.fixture(autouse=True)
    def offered(self, server: TinyServer) -> None:
        discover(server, revocation_endpoint=f"{server.origin}/oauth/revoke")

    def test_is_as_rfc_7009_says(self, server: TinyServer) -> None:
        server.on("/oauth/revoke", answer())

        assert endpoints.revoke("quota_refresh_hush0", "refresh_token") is True

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
        refusal(lambda: endpoints.revoke("hush", "refresh_token"), ProviderUnavailable)

    def test_that_is_the_developers(self, server: TinyServer) -> None:
        server.on("/oauth/revoke", json_answer({"error": "invalid_client"}, status=401))

        error = refusal(lambda: endpoints.revoke("hush", "refresh_token"), ConfigurationError)
        assert "check QUOTA_CLIENT_ID" in str(error)

    def test_that_is_not_offered_sends_nothing(self, server: TinyServer) -> None:
        discovery.forget()
        discover(server)

        assert endpoints.revoke("hush", "refresh_token") is False
        assert {seen.method for seen in server.requests} == {"GET"}

    def test_by_basic_where_nothing_else_is_taken(self, server: TinyServer) -> None:
        discovery.forget()
        discover(
            server,
            revocation_endpoint=f"{server.origin}/oauth/revoke",
            token_endpoint_auth_methods_supported=["client_secret_post"],
            revocation_endpoint_auth_methods_supported=["client_secret_basic"],
        )
        server.on("/oauth/revoke", answer())

        assert endpoints.revoke("quota_refresh_hush0", "refresh_token") is True

        (seen,) = server.seen("/oauth/revoke")
        assert basic(seen) == "quota_client_test:quota_secret_hush"
        assert seen.form == {"token": "quota_refresh_hush0", "token_type_hint": "refresh_token"}


class TestUserinfo:
    def test_is_asked_for_with_the_token(self, server: TinyServer) -> None:
        server.on("/oauth/userinfo", json_answer({"sub": "ada"}))

        assert endpoints.fetch_userinfo("quota_token_hush") == {"sub": "ada"}
        (seen,) = server.seen("/oauth/userinfo")
        assert seen.headers["authorization"] == "Bearer quota_token_hush"
