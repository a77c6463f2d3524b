"""django_quota.discovery: whom we take for Quota, what we keep of it, and for how long."""

from __future__ import annotations

import dataclasses
import threading
from contextlib import suppress
from typing import Any

import pytest
from django.conf import Settings as ProjectSettings

from django_quota.exceptions import (
    ConfigurationError,
    IssuerMismatch,
    ProviderUnavailable,
    SignInFailed,
)
from django_quota.oidc import cached_document, discovery
from tests.helpers.concurrency import wait_until
from tests.shown import refusal
from tests.signing import jwk, rsa_key, sign
from tests.tiny_server import HANG_UP, Answer, Seen, TinyServer, answer, json_answer

DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/.well-known/jwks.json"
HTML = answer(b"<!doctype html><title>quota_token_hush</title>", Content_Type="text/html")


@pytest.fixture
def no_cool_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_document, "COOL_DOWN", 0)


@pytest.fixture
def stale_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is old at the next look."""
    monkeypatch.setattr(cached_document, "MIN_AGE", 0)
    monkeypatch.setattr(cached_document, "MAX_AGE", 0)


def discover(server: TinyServer, **document: Any) -> discovery.Metadata:
    server.on(DISCOVERY, json_answer({"issuer": server.origin} | document))
    return discovery.metadata()


class TestDiscovery:
    def test_names_the_endpoints(self, server: TinyServer) -> None:
        paths = {
            "authorization_endpoint": "/a",
            "token_endpoint": "/b",
            "userinfo_endpoint": "/c",
            "jwks_uri": "/d",
            "revocation_endpoint": "/e",
            "end_session_endpoint": "/f",
        }
        named = {name: server.origin + path for name, path in paths.items()}

        found = discover(server, **named, unknown_field=[1])

        rest = {
            "issuer": server.origin,
            "sends_iss": False,
            "scopes_supported": (),
            "token_by_basic": False,
            "revocation_by_basic": False,
        }
        assert dataclasses.asdict(found) == named | rest

    def test_falls_back_to_the_recipes_paths(self, server: TinyServer) -> None:
        found = discover(server)

        assert dataclasses.asdict(found) == {
            "issuer": server.origin,
            "authorization_endpoint": f"{server.origin}/oauth/authorize",
            "token_endpoint": f"{server.origin}/oauth/token",
            "userinfo_endpoint": f"{server.origin}/oauth/userinfo",
            "jwks_uri": f"{server.origin}/.well-known/jwks.json",
            "revocation_endpoint": None,
            "end_session_endpoint": None,
            "token_by_basic": False,
            "revocation_by_basic": False,
            "sends_iss": False,
            "scopes_supported": (),
        }

    def test_fallbacks_are_on_base_url_though_the_issuer_is_elsewhere(
        self, server: TinyServer, settings: ProjectSettings
    ) -> None:
        settings.QUOTA_ISSUER = "https://usequota.ai"

        found = discover(server, issuer="https://usequota.ai")

        assert found.issuer == "https://usequota.ai"
        assert found.token_endpoint == f"{server.origin}/oauth/token"

    @pytest.mark.parametrize(
        ("methods", "by_basic"),
        [
            (["client_secret_basic"], True),
            (["client_secret_basic", "private_key_jwt"], True),
            (["client_secret_basic", "client_secret_post"], False),
            (["client_secret_post"], False),
            (["none"], False),
            ([], False),
            (None, False),
            ("client_secret_basic", False),
            ({"client_secret_basic": 1}, False),
            ([["client_secret_basic"], 7], False),
        ],
    )
    def test_says_how_the_client_shows_its_secret(
        self, methods: Any, by_basic: bool, server: TinyServer
    ) -> None:
        found = discover(server, token_endpoint_auth_methods_supported=methods)
        assert (found.token_by_basic, found.revocation_by_basic) == (by_basic, by_basic)

        discovery.forget()
        found = discover(server, revocation_endpoint_auth_methods_supported=methods)
        assert (found.token_by_basic, found.revocation_by_basic) == (False, by_basic)

    @pytest.mark.parametrize(("value", "meant"), [(True, True), ("true", False), (1, False)])
    def test_says_whether_quota_names_itself(
        self, value: Any, meant: bool, server: TinyServer
    ) -> None:
        found = discover(server, authorization_response_iss_parameter_supported=value)
        assert found.sends_iss is meant

    @pytest.mark.parametrize(
        "name",
        [
            "authorization_endpoint",
            "token_endpoint",
            "userinfo_endpoint",
            "jwks_uri",
            "revocation_endpoint",
            "end_session_endpoint",
        ],
    )
    @pytest.mark.parametrize(
        "url",
        [
            "https://evil.example/",
            "http://127.0.0.1:1/",
            "http://127.0.0.1",
            "//evil.example/",
            "/oauth/token",
            "javascript:alert(1)",
            "",
            7,
            ["https://api.usequota.ai/"],
            "http://[",
        ],
    )
    def test_with_a_foreign_endpoint_is_refused(
        self, name: str, url: Any, server: TinyServer
    ) -> None:
        error = refusal(lambda: discover(server, **{name: url}), ConfigurationError)

        assert f"Discovery puts {name} on an origin" in str(error)
        assert "evil" not in str(error)

    @pytest.mark.parametrize("suffix", [".evil.example/", "@evil.example/", "\\@evil.example/"])
    def test_with_a_lookalike_endpoint_is_refused(self, suffix: str, server: TinyServer) -> None:
        url = server.origin + suffix
        refusal(lambda: discover(server, token_endpoint=url), ConfigurationError)

    def test_with_an_endpoint_without_tls_under_tls_is_refused(
        self, settings: ProjectSettings
    ) -> None:
        settings.QUOTA_BASE_URL = "https://api.usequota.ai"
        document = {
            "issuer": "https://api.usequota.ai",
            "token_endpoint": "http://api.usequota.ai/oauth/token",
        }
        with pytest.raises(ConfigurationError, match="token_endpoint"):
            discovery._checked_metadata(document)

    def test_allows_endpoints_on_the_issuers_origin(
        self, server: TinyServer, settings: ProjectSettings
    ) -> None:
        settings.QUOTA_ISSUER = "https://usequota.ai/oidc"
        url = "https://usequota.ai/authorize"

        assert discover(server, authorization_endpoint=url).authorization_endpoint == url


class TestIssuer:
    @pytest.mark.parametrize(
        "issuer",
        ["https://usequota.ai", "https://usequota.ai/", "https://usequota.ai/oidc"],
    )
    def test_the_line_to_paste_works(
        self, issuer: str, server: TinyServer, settings: ProjectSettings
    ) -> None:
        error = refusal(lambda: discover(server, issuer=issuer), IssuerMismatch)
        line = str(error).split("add this line to your settings: ")[1]
        assert line == f'QUOTA_ISSUER = "{issuer}"'

        pasted: dict[str, Any] = {}
        exec(line, pasted)
        settings.QUOTA_ISSUER = pasted["QUOTA_ISSUER"]
        assert discovery.metadata().issuer == issuer

    def test_with_a_slash_more_than_base_url_is_mended_by_the_line_to_paste(
        self, server: TinyServer, settings: ProjectSettings
    ) -> None:
        error = refusal(lambda: discover(server, issuer=f"{server.origin}/"), IssuerMismatch)
        assert f'QUOTA_ISSUER = "{server.origin}/"' in str(error)

        settings.QUOTA_ISSUER = f"{server.origin}/"
        assert discovery.metadata().issuer == f"{server.origin}/"

    def test_of_base_url_is_accepted_beside_a_set_one(
        self, server: TinyServer, settings: ProjectSettings
    ) -> None:
        settings.QUOTA_ISSUER = "https://usequota.ai"

        assert discover(server).issuer == server.origin

    @pytest.mark.parametrize(
        "issuer",
        [
            None,
            "",
            7,
            ["https://usequota.ai"],
            "usequota",
            "javascript:alert(1)",
            "https://usequota.ai\nFAKE LOG LINE",
            "https://usequota.ai/" + "a" * 200,
            "https://user:hush@usequota.ai",
        ],
    )
    def test_that_is_none_is_not_repeated(self, issuer: Any, server: TinyServer) -> None:
        error = refusal(lambda: discover(server, issuer=issuer), IssuerMismatch)

        assert str(error).endswith("names no usable issuer; check QUOTA_BASE_URL.")

    def test_missing(self, server: TinyServer) -> None:
        server.on(DISCOVERY, json_answer({}))
        error = refusal(discovery.metadata, ProviderUnavailable)
        assert "no discovery document" in str(error) and "QUOTA_BASE_URL" in str(error)

    @pytest.mark.parametrize(
        "issuer",
        ['https://usequota.ai/"; import os; "', "https://usequota.ai/\\", "https://usequota.ai/ x"],
    )
    def test_the_line_to_paste_is_nothing_but_a_string(
        self, issuer: str, server: TinyServer
    ) -> None:
        """It comes from the network, and ends in somebody's settings.py."""
        error = refusal(lambda: discover(server, issuer=issuer), IssuerMismatch)

        line = str(error).partition("add this line to your settings: ")[2]
        pasted: dict[str, Any] = {}
        exec(line, pasted)
        assert "os" not in pasted
        assert pasted.get("QUOTA_ISSUER", issuer) == issuer

    def test_without_tls_is_not_recommended(self, server: TinyServer) -> None:
        """QUOTA_ISSUER would refuse it."""
        error = refusal(lambda: discover(server, issuer="http://usequota.ai"), IssuerMismatch)

        assert "add this line" not in str(error)


class TestKeeping:
    def test_is_asked_for_once(self, server: TinyServer) -> None:
        assert discovery.metadata() == discovery.metadata()
        assert len(server.requests) == 1

    def test_is_asked_for_once_by_many_threads(self, server: TinyServer) -> None:
        server.on(DISCOVERY, json_answer({"issuer": server.origin}, delay=0.1))
        threads = [threading.Thread(target=discovery.metadata) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(server.requests) == 1

    def test_a_failure_is_shared_by_those_who_waited_for_it(
        self, server: TinyServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rather than each of them waiting for a time-out of its own, one after the other."""
        callers: list[int] = []
        get = cached_document.get_settings

        def counted() -> Any:  # each caller reads the settings once it has looked at the clock
            callers.append(threading.get_ident())
            return get()

        def when_all_have_asked(request: Seen) -> Answer:
            wait_until(lambda: len(set(callers)) == 5)
            return answer(status=503)

        monkeypatch.setattr(cached_document, "get_settings", counted)
        server.on(DISCOVERY, when_all_have_asked)
        failures: list[str] = []

        def ask() -> None:
            with pytest.raises(ProviderUnavailable):
                discovery.metadata()
            failures.append("failed")

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert (len(failures), len(server.requests)) == (5, 1)

    def test_a_failure_is_not_kept(self, server: TinyServer) -> None:
        server.on(DISCOVERY, answer(status=503), json_answer({"issuer": server.origin}))

        refusal(discovery.metadata, ProviderUnavailable)

        assert discovery.metadata().issuer == server.origin

    def test_a_wrong_issuer_is_not_kept(self, server: TinyServer) -> None:
        refusal(lambda: discover(server, issuer="https://usequota.ai"), IssuerMismatch)

        assert discover(server).issuer == server.origin

    def test_other_settings_are_asked_for_anew(
        self, server: TinyServer, settings: ProjectSettings
    ) -> None:
        discovery.metadata()
        with TinyServer() as other:
            settings.QUOTA_BASE_URL = other.origin
            assert discover(other).issuer == other.origin

    def test_another_issuer_is_checked_anew(
        self, server: TinyServer, settings: ProjectSettings
    ) -> None:
        settings.QUOTA_ISSUER = "https://usequota.ai"
        discover(server, issuer="https://usequota.ai")
        settings.QUOTA_ISSUER = None

        refusal(discovery.metadata, IssuerMismatch)

    @pytest.mark.usefixtures("stale_at_once", "no_cool_down")
    def test_ends_after_its_age(self, server: TinyServer) -> None:
        discovery.metadata()
        discovery.metadata()

        assert len(server.requests) == 2

    @pytest.mark.parametrize("age", ["max-age=0", "max-age=1", "no-store", ""])
    def test_is_for_minutes_at_least(self, age: str, server: TinyServer) -> None:
        server.on(DISCOVERY, json_answer({"issuer": server.origin}, Cache_Control=age))
        discovery.metadata()
        discovery.metadata()

        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            ("max-age=7200", 7200),
            ("", 3600),
            ("max-age=0", 300),
            ("max-age=999999999", 86_400),
        ],
    )
    def test_is_for_as_long_as_quota_says_within_bounds(
        self,
        header: str,
        seconds: int,
        server: TinyServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        clock = _Clock(monkeypatch)
        server.on(DISCOVERY, json_answer({"issuer": server.origin}, Cache_Control=header))
        discovery.metadata()

        clock.forward(seconds - 1)
        discovery.metadata()
        assert len(server.requests) == 1
        clock.forward(2)
        discovery.metadata()
        assert len(server.requests) == 2

    @pytest.mark.usefixtures("stale_at_once", "no_cool_down")
    @pytest.mark.parametrize("trouble", [HANG_UP, HTML, answer(status=503), answer(status=404)])
    def test_goes_on_while_quota_is_down(self, trouble: Answer, server: TinyServer) -> None:
        kept = discovery.metadata()
        server.on(DISCOVERY, trouble)

        assert discovery.metadata() == kept
        assert len(server.requests) == 2

    @pytest.mark.usefixtures("stale_at_once")
    def test_while_quota_is_down_it_is_not_asked_each_time(self, server: TinyServer) -> None:
        discovery.metadata()
        server.on(DISCOVERY, answer(status=503))
        for _ in range(5):
            discovery.metadata()

        assert len(server.requests) == 2

    @pytest.mark.parametrize("trouble", [HANG_UP, HTML, answer(status=503), answer(status=404)])
    def test_without_anything_kept_trouble_is_told(
        self, trouble: Answer, server: TinyServer
    ) -> None:
        server.on(DISCOVERY, trouble)
        refusal(discovery.metadata, ProviderUnavailable)

    @pytest.mark.parametrize(
        "trouble",
        [
            answer(status=401),
            json_answer({"error": {"code": "insufficient_credits"}}, status=402),
            json_answer({"error": {"code": "insufficient_scope"}}, status=403),
        ],
    )
    def test_a_refusal_of_a_public_document_is_no_matter_of_the_user(
        self, trouble: Answer, server: TinyServer
    ) -> None:
        """Who gets InsufficientCredits here would send people to buy some."""
        server.on(DISCOVERY, trouble)
        refusal(discovery.metadata, ProviderUnavailable)

    def test_a_missing_document_says_which_setting_to_check(self, server: TinyServer) -> None:
        server.on(DISCOVERY, answer(status=404))
        error = refusal(discovery.metadata, ProviderUnavailable)

        assert "check QUOTA_BASE_URL" in str(error)
        assert error.status == 404

    def test_forget_starts_anew(self, server: TinyServer) -> None:
        discovery.metadata()
        discovery.forget()
        discovery.metadata()

        assert len(server.requests) == 2


class _Clock:
    """The process's clock, to be moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        real = cached_document.time.monotonic
        monkeypatch.setattr(cached_document.time, "monotonic", lambda: real() + self._ahead)

    def forward(self, seconds: float) -> None:
        self._ahead += seconds


class TestSigningKeys:
    def ids(self, kid: str | None) -> list[str | None]:
        with suppress(SignInFailed):
            discovery.verified_claims(sign(kid=kid))
        return [key.key_id for key in discovery.published_keys()]

    def test_are_asked_for_once(self, server: TinyServer) -> None:
        server.on(JWKS, json_answer({"keys": [jwk("a"), jwk("b")]}))

        assert self.ids("a") == self.ids("b") == ["a", "b"]
        assert len(server.seen(JWKS)) == 1

    def test_are_where_discovery_says(self, server: TinyServer) -> None:
        server.on("/keys", json_answer({"keys": [jwk("a")]}))
        discover(server, jwks_uri=f"{server.origin}/keys")

        assert self.ids("a") == ["a"]
        assert server.seen(JWKS) == []

    def test_rotated_are_fetched_for_a_new_kid(self, server: TinyServer) -> None:
        server.on(
            JWKS,
            json_answer({"keys": [jwk("old")]}),
            json_answer({"keys": [jwk("old"), jwk("new")]}),
        )
        assert self.ids("old") == ["old"]

        assert self.ids("new") == ["old", "new"]
        assert self.ids("new") == ["old", "new"]
        assert len(server.seen(JWKS)) == 2

    def test_are_fetched_once_in_a_while_for_unknown_kids(self, server: TinyServer) -> None:
        """Anybody can send us tokens with an invented kid."""
        server.on(JWKS, json_answer({"keys": [jwk("a")]}))
        self.ids("a")
        for number in range(5):
            assert self.ids(f"invented-{number}") == ["a"]

        assert len(server.seen(JWKS)) == 2

    def test_of_an_unknown_kid_in_a_new_process_are_fetched_once(self, server: TinyServer) -> None:
        server.on(JWKS, json_answer({"keys": [jwk("a")]}))

        assert self.ids("invented") == ["a"]
        assert len(server.seen(JWKS)) == 1

    def test_with_the_same_kid_as_a_rotated_key_are_fetched(self, server: TinyServer) -> None:
        server.on(
            JWKS,
            json_answer({"keys": [jwk("a")]}),
            json_answer({"keys": [jwk("a", name="second")]}),
        )
        self.ids("a")
        assert discovery.verified_claims(sign(kid="a", key="second"))
        (key,) = discovery.published_keys()

        assert key.key.public_numbers() == rsa_key("second").public_key().public_numbers()

    def test_for_text_that_is_no_jwt_are_not_fetched(self, server: TinyServer) -> None:
        with pytest.raises(SignInFailed):
            discovery.verified_claims("hush")

        assert server.requests == []

    def test_are_fetched_again_for_an_unknown_kid_after_the_cool_down(
        self, server: TinyServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = _Clock(monkeypatch)
        server.on(JWKS, json_answer({"keys": [jwk("a")]}))
        self.ids("a")
        self.ids("b")
        clock.forward(cached_document.COOL_DOWN - 1)
        self.ids("b")
        assert len(server.seen(JWKS)) == 2
        clock.forward(2)
        self.ids("b")
        assert len(server.seen(JWKS)) == 3

    def test_are_kept_when_a_refetch_fails(self, server: TinyServer) -> None:
        server.on(JWKS, json_answer({"keys": [jwk("a")]}), answer(status=503))
        self.ids("a")

        assert self.ids("b") == ["a"]
        assert self.ids("a") == ["a"]

    @pytest.mark.parametrize(
        "document", [{}, {"keys": []}, {"keys": [{"kty": "EC"}]}, {"keys": [jwk(use="enc")]}]
    )
    def test_are_kept_when_a_refetch_brings_none(self, document: Any, server: TinyServer) -> None:
        server.on(JWKS, json_answer({"keys": [jwk("a")]}), json_answer(document))
        self.ids("a")

        assert self.ids("b") == ["a"]

    @pytest.mark.parametrize("trouble", [HANG_UP, HTML, answer(status=404), json_answer({})])
    def test_that_cannot_be_had(self, trouble: Answer, server: TinyServer) -> None:
        server.on(JWKS, trouble)
        refusal(lambda: discovery.verified_claims(sign(kid="a")), ProviderUnavailable)

    def test_that_could_not_be_had_are_asked_for_again(self, server: TinyServer) -> None:
        server.on(JWKS, answer(status=503), json_answer({"keys": [jwk("a")]}))
        refusal(lambda: discovery.verified_claims(sign(kid="a")), ProviderUnavailable)

        assert self.ids("a") == ["a"]
