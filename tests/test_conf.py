"""django_quota.conf: what is accepted in the project's settings, and what is said of the rest."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest
from django.conf import Settings as ProjectSettings
from django.test import override_settings

from django_quota.conf import Settings, get_settings, problems, unknown_names
from django_quota.conf.origins import origin
from django_quota.exceptions import ConfigurationError

SECONDS = ["REFRESH_LEEWAY", "CLOCK_SKEW", "BALANCE_TTL"]
URLS = ["BASE_URL", "ISSUER", "REDIRECT_URI", "POST_LOGOUT_REDIRECT_URI"]


def refusal(name: str, value: Any) -> str:
    """What is said of a malformed setting; the same by the check and by the first use."""
    with override_settings(**{name: value}):
        wrong = problems()
        assert list(wrong) == [name], wrong
        with pytest.raises(ConfigurationError) as raised:
            get_settings()
        assert str(raised.value) == str(wrong[name])
        assert str(raised.value).startswith(name)
        return str(raised.value)


def test_what_is_not_set_has_the_documented_default() -> None:
    settings = get_settings()

    assert settings == Settings(client_id="quota_client_test", client_secret=("quota_secret_test",))


def test_settings_are_read_when_they_are_used(settings: ProjectSettings) -> None:
    before = get_settings().deadline
    settings.QUOTA_DEADLINE = 7

    assert (before, get_settings().deadline) == (20.0, 7)


def test_override_settings_ends_with_its_block() -> None:
    with override_settings(QUOTA_CLOCK_SKEW=5):
        assert get_settings().clock_skew == 5
    assert get_settings().clock_skew == 60


def test_settings_are_read_once() -> None:
    assert get_settings() is get_settings()


def test_another_apps_setting_does_not_cost_a_second_reading() -> None:
    first = get_settings()
    with override_settings(LANGUAGE_CODE="de"):
        assert get_settings() is first


def test_a_failure_is_not_remembered(settings: ProjectSettings) -> None:
    settings.QUOTA_DEADLINE = "soon"
    with pytest.raises(ConfigurationError):
        get_settings()
    settings.QUOTA_DEADLINE = 3

    assert get_settings().deadline == 3


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_settings().client_id = "other"  # type: ignore[misc]


def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUOTA_BASE_URL", "https://elsewhere.example")
    assert os.environ["QUOTA_BASE_URL"]
    with override_settings(QUOTA_DEADLINE=20):
        assert get_settings().base_url == "https://api.usequota.ai"


@override_settings(
    QUOTA_CLIENT_SECRET="quota_secret_hush",
    QUOTA_WEBHOOK_SECRET="whsec_hush",
    QUOTA_API_KEY="sk-quota-hush",
)
def test_repr_holds_no_secret() -> None:
    assert "hush" not in repr(get_settings())
    assert "quota_client_test" in repr(get_settings())


class TestClient:
    def test_is_the_id_and_the_secrets(self) -> None:
        with override_settings(QUOTA_CLIENT_SECRET=["new", "old"]):
            assert get_settings().client == ("quota_client_test", ("new", "old"))

    @pytest.mark.parametrize("name", ["QUOTA_CLIENT_ID", "QUOTA_CLIENT_SECRET"])
    @pytest.mark.parametrize("value", [None, "", ()])
    def test_missing_is_an_error_only_where_it_is_needed(self, name: str, value: Any) -> None:
        with override_settings(**{name: value}):
            settings = get_settings()
            with pytest.raises(ConfigurationError) as raised:
                _ = settings.client
        assert str(raised.value).startswith(f"{name} is missing. ")
        assert "quota_register_app" in str(raised.value)

    @pytest.mark.parametrize("name", ["QUOTA_CLIENT_ID", "QUOTA_CLIENT_SECRET"])
    def test_absent_is_a_problem_that_names_it(self, name: str, settings: Any) -> None:
        delattr(settings, name)

        assert {key: str(error) for key, error in problems().items()} == {
            name: f"{name} is missing."
        }

    def test_without_both_the_id_is_asked_for_first(self) -> None:
        with (
            override_settings(QUOTA_CLIENT_ID=None, QUOTA_CLIENT_SECRET=None),
            pytest.raises(ConfigurationError, match=r"^QUOTA_CLIENT_ID is missing"),
        ):
            _ = get_settings().client

    def test_white_space_around_is_cut(self) -> None:
        with override_settings(QUOTA_CLIENT_ID=" id\n", QUOTA_CLIENT_SECRET=" s1\n"):
            assert get_settings().client == ("id", ("s1",))

    @pytest.mark.parametrize("value", ["   ", 7, b"bytes", ["a", "b"]])
    def test_id_that_is_no_text(self, value: Any) -> None:
        assert "non-empty string" in refusal("QUOTA_CLIENT_ID", value)

    @pytest.mark.parametrize("value", [7, {"new": "old"}, [""], ["new", ""], ["new", None], b"x"])
    def test_secret_that_is_none(self, value: Any) -> None:
        assert "string" in refusal("QUOTA_CLIENT_SECRET", value)

    def test_what_is_wrong_with_a_secret_does_not_show_it(self) -> None:
        assert "hush" not in refusal("QUOTA_CLIENT_SECRET", ["hush", 7])


class TestURLs:
    @pytest.mark.parametrize("name", URLS)
    @pytest.mark.parametrize(
        "value",
        [
            "api.usequota.ai",
            "//api.usequota.ai",
            "ftp://api.usequota.ai",
            "javascript:alert(1)",
            "https://",
            "https:///path",
            "https://user@api.usequota.ai",
            "https://user:password@api.usequota.ai",
            "https://api.usequota.ai:port",
            "https://api.usequota.ai:99999",
            "https://[::1",
        ],
    )
    def test_that_are_none(self, name: str, value: str) -> None:
        assert "must be a URL such as https://api.usequota.ai" in refusal(f"QUOTA_{name}", value)

    @pytest.mark.parametrize("name", URLS)
    @pytest.mark.parametrize("value", ["", "  ", 7, b"https://api.usequota.ai", ["https://a.b"]])
    def test_that_are_no_text(self, name: str, value: Any) -> None:
        assert "non-empty string" in refusal(f"QUOTA_{name}", value)

    @pytest.mark.parametrize("name", URLS)
    @pytest.mark.parametrize(
        "value", ["http://api.usequota.ai", "http://192.168.0.1", "http://localhost.example"]
    )
    def test_without_tls_elsewhere_than_here(self, name: str, value: str) -> None:
        assert "must use https" in refusal(f"QUOTA_{name}", value)

    @pytest.mark.parametrize("name", URLS)
    def test_without_tls_in_another_container(self, name: str) -> None:
        value = "http://quota:5281"
        assert "set QUOTA_ALLOW_HTTP = True; DEBUG has to be on" in refusal(f"QUOTA_{name}", value)
        with override_settings(QUOTA_ALLOW_HTTP=True, DEBUG=True, **{f"QUOTA_{name}": value}):
            assert problems() == {}
            assert getattr(get_settings(), name.lower()) == value
            with override_settings(DEBUG=False):
                assert f"QUOTA_{name} must use https" in str(problems()[f"QUOTA_{name}"])
                with pytest.raises(ConfigurationError, match="must use https"):
                    get_settings()

    @pytest.mark.parametrize("allow", [False, None, "True", 1, ["quota"]])
    def test_without_tls_elsewhere_takes_a_plain_true(self, allow: Any) -> None:
        with override_settings(
            QUOTA_ALLOW_HTTP=allow, DEBUG=True, QUOTA_BASE_URL="http://quota:5281"
        ):
            assert "must use https" in str(problems()["QUOTA_BASE_URL"])

    def test_without_tls_elsewhere_needs_more_than_debug(self) -> None:
        with override_settings(DEBUG=True):
            assert "must use https" in refusal("QUOTA_BASE_URL", "http://quota:5281")

    @pytest.mark.parametrize("value", ["HTTP://api.usequota.ai", "Http://192.168.0.1"])
    def test_without_tls_in_capitals(self, value: str) -> None:
        assert "must use https" in refusal("QUOTA_BASE_URL", value)

    @pytest.mark.parametrize("name", URLS)
    @pytest.mark.parametrize(
        "value", ["http://localhost:5281", "http://127.0.0.1:5281", "http://[::1]:5281"]
    )
    def test_without_tls_on_this_machine(self, name: str, value: str) -> None:
        with override_settings(**{f"QUOTA_{name}": value}):
            assert getattr(get_settings(), name.lower()) == value

    @pytest.mark.parametrize(
        "value",
        [
            "https://api.usequota.ai?a=b",
            "https://api.usequota.ai#top",
            "https://gateway.example/quota?a=b",
            "https://gateway.example/quota;a=b",
            "https://gateway.example/quota/../admin",
            "https://gateway.example/./quota",
            "https://gateway.example/quota//v1",
            "https://gateway.example/%2e%2e/quota",
            "https://gateway.example/my quota",
            "https://gateway.example/qu\u00f6ta",
            "https://gateway.example/quota\\@evil.example",
        ],
    )
    def test_base_url_has_no_more_than_a_path(self, value: str) -> None:
        assert "QUOTA_BASE_URL" in refusal("QUOTA_BASE_URL", value)

    @pytest.mark.parametrize(
        "value",
        [
            "https://api.usequota.ai/v1",
            "https://api.usequota.ai/v1/",
            "https://gateway.example/quota/v1",
        ],
    )
    def test_base_url_that_ends_in_v1_says_what_to_leave_out(self, value: str) -> None:
        assert "must not end in /v1" in refusal("QUOTA_BASE_URL", value)

    @pytest.mark.parametrize("end", ["", "/"])
    def test_base_url_may_have_the_path_of_a_gateway(self, end: str) -> None:
        url = "https://gateway.example:8443/apis/quota-2.0_eu"
        with override_settings(QUOTA_BASE_URL=url + end):
            assert get_settings().base_url == url

    def test_base_url_may_end_in_a_slash(self) -> None:
        with override_settings(QUOTA_BASE_URL="https://api.usequota.ai/"):
            assert get_settings().base_url == "https://api.usequota.ai"

    def test_issuer_is_kept_to_the_letter(self) -> None:
        """It is compared with `iss` as a string, and many issuers end in a slash."""
        with override_settings(QUOTA_ISSUER="https://usequota.ai/"):
            assert get_settings().issuer == "https://usequota.ai/"

    @pytest.mark.parametrize("name", ["redirect_uri", "post_logout_redirect_uri"])
    def test_redirect_uris_are_kept_to_the_letter(self, name: str) -> None:
        """Quota compares them as exact strings."""
        value = "https://App.example:443/auth/quota/callback/?a=b/"
        with override_settings(**{f"QUOTA_{name.upper()}": value}):
            assert getattr(get_settings(), name) == value

    @pytest.mark.parametrize("name", ["issuer", "redirect_uri", "post_logout_redirect_uri"])
    def test_white_space_around_is_cut(self, name: str) -> None:
        """With it they could never match what is registered, and nobody would see why."""
        with override_settings(**{f"QUOTA_{name.upper()}": " https://app.example/callback\n"}):
            assert getattr(get_settings(), name) == "https://app.example/callback"

    @pytest.mark.parametrize("name", ["ISSUER", "REDIRECT_URI", "POST_LOGOUT_REDIRECT_URI"])
    def test_none_is_as_good_as_absent(self, name: str) -> None:
        with override_settings(**{f"QUOTA_{name}": None}):
            assert problems() == {}
            assert getattr(get_settings(), name.lower()) is None


class TestScopes:
    @pytest.mark.parametrize("name", ["SCOPES", "CONNECT_SCOPES"])
    @pytest.mark.parametrize("value", ["openid  email", ["openid", "email"], ("openid", "email")])
    def test_text_or_list(self, name: str, value: Any) -> None:
        with override_settings(**{f"QUOTA_{name}": value}):
            assert getattr(get_settings(), name.lower()) == ("openid", "email")

    @pytest.mark.parametrize("name", ["SCOPES", "CONNECT_SCOPES"])
    @pytest.mark.parametrize(
        "value",
        [
            "",
            " ",
            [],
            None,
            {"openid"},
            7,
            ["openid", 7],
            [""],
            "openid,email",
            ["openid", " email"],
        ],
    )
    def test_that_are_none(self, name: str, value: Any) -> None:
        refusal(f"QUOTA_{name}", value)

    def test_of_a_sign_in_without_openid(self) -> None:
        refusal("QUOTA_SCOPES", "profile email")


class TestSeconds:
    @pytest.mark.parametrize("name", SECONDS)
    @pytest.mark.parametrize("value", [0, 1, 86400])
    def test_whole_numbers(self, name: str, value: int) -> None:
        with override_settings(**{f"QUOTA_{name}": value}):
            assert getattr(get_settings(), name.lower()) == value

    @pytest.mark.parametrize("name", SECONDS)
    @pytest.mark.parametrize("value", [-1, 86401, 1.5, True, "30", None, float("nan")])
    def test_other_things(self, name: str, value: Any) -> None:
        assert "whole number of seconds" in refusal(f"QUOTA_{name}", value)

    @pytest.mark.parametrize("value", [0.5, 1, 86399])
    def test_deadline(self, value: float) -> None:
        with override_settings(QUOTA_DEADLINE=value):
            assert get_settings().deadline == value

    @pytest.mark.parametrize("value", [0, -1, 86400, True, "20", None, float("nan"), float("inf")])
    def test_no_deadline(self, value: Any) -> None:
        assert "number of seconds above 0" in refusal("QUOTA_DEADLINE", value)

    @pytest.mark.parametrize(
        ("value", "pair"), [(5, (5, 5)), ((3.05, 10), (3.05, 10)), ([1, 2], (1, 2))]
    )
    def test_timeout(self, value: Any, pair: tuple[float, float]) -> None:
        with override_settings(QUOTA_TIMEOUT=value):
            assert get_settings().timeout == pair

    @pytest.mark.parametrize(
        "value", [0, None, "5", (), (1,), (1, 2, 3), (1, None), (0, 1), (1, float("inf")), True]
    )
    def test_no_timeout(self, value: Any) -> None:
        assert "seconds" in refusal("QUOTA_TIMEOUT", value)


class TestTheRest:
    @pytest.mark.parametrize("name", ["CREATE_USER", "LINK_BY_EMAIL"])
    @pytest.mark.parametrize("value", [True, False])
    def test_flags(self, name: str, value: bool) -> None:
        with override_settings(**{f"QUOTA_{name}": value}):
            assert getattr(get_settings(), name.lower()) is value

    @pytest.mark.parametrize("name", ["CREATE_USER", "LINK_BY_EMAIL"])
    @pytest.mark.parametrize("value", ["False", 0, 1, None])
    def test_flags_are_not_guessed(self, name: str, value: Any) -> None:
        """The text "False" from an environment variable must not switch anything on."""
        assert "must be True or False" in refusal(f"QUOTA_{name}", value)

    @pytest.mark.parametrize(
        ("value", "secrets"), [("a", ("a",)), (["a", "b"], ("a", "b")), (None, ())]
    )
    def test_webhook_secrets(self, value: Any, secrets: tuple[str, ...]) -> None:
        with override_settings(QUOTA_WEBHOOK_SECRET=value):
            assert get_settings().webhook_secret == secrets

    @pytest.mark.parametrize("value", ["", [], [None], 7])
    def test_no_webhook_secrets(self, value: Any) -> None:
        refusal("QUOTA_WEBHOOK_SECRET", value)

    @pytest.mark.parametrize("value", ["sk-quota-x", " sk-quota-x\n"])
    def test_api_key(self, value: str) -> None:
        with override_settings(QUOTA_API_KEY=value):
            assert get_settings().api_key == get_settings().funding_key == "sk-quota-x"

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "sk-hush",
            "quota_secret_hush",
            "sk-quota-",
            "sk-quota-a b",
            "sk-quota-\u00fc",
            b"x",
            5,
        ],
    )
    def test_no_api_key(self, value: Any) -> None:
        assert "hush" not in refusal("QUOTA_API_KEY", value)

    def test_api_key_is_needed_for_grants_only(self) -> None:
        assert get_settings().api_key is None
        with pytest.raises(ConfigurationError, match="QUOTA_API_KEY is missing"):
            _ = get_settings().funding_key

    @pytest.mark.parametrize("value", ["", None, 7])
    def test_no_error_url(self, value: Any) -> None:
        refusal("QUOTA_ERROR_URL", value)

    def test_every_problem_is_reported_at_once(self) -> None:
        with override_settings(QUOTA_DEADLINE=0, QUOTA_SCOPES=[], QUOTA_CLIENT_ID=""):
            assert set(problems()) == {"QUOTA_DEADLINE", "QUOTA_SCOPES", "QUOTA_CLIENT_ID"}

    def test_a_misspelt_name_is_noticed(self) -> None:
        with override_settings(QUOTA_TIMOUT=3, QUOTA_TIMEOUT=3):
            assert unknown_names() == ["QUOTA_TIMOUT"]

    def test_all_our_names_are_known(self) -> None:
        fields = {f"QUOTA_{field.name.upper()}": None for field in dataclasses.fields(Settings)}
        with override_settings(**fields):
            assert unknown_names() == []


class TestOrigin:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("https://api.usequota.ai", "https://api.usequota.ai"),
            ("https://api.usequota.ai/a?b#c", "https://api.usequota.ai"),
            ("HTTPS://API.UseQuota.AI/", "https://api.usequota.ai"),
            ("https://api.usequota.ai:443/", "https://api.usequota.ai"),
            ("https://api.usequota.ai:/", "https://api.usequota.ai"),
            ("http://api.usequota.ai:80", "http://api.usequota.ai"),
            ("http://api.usequota.ai:443", "http://api.usequota.ai:443"),
            ("https://api.usequota.ai:80", "https://api.usequota.ai:80"),
            ("https://api.usequota.ai:8443", "https://api.usequota.ai:8443"),
            ("http://[::1]:5281/a", "http://[::1]:5281"),
        ],
    )
    def test_of_a_url(self, url: str, expected: str) -> None:
        assert origin(url) == expected

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "api.usequota.ai",
            "//api.usequota.ai",
            "/path",
            "ftp://api.usequota.ai",
            "javascript://api.usequota.ai",
            "https:///nowhere",
            "https://api.usequota.ai@evil.example",
            "https://evil.example\\@api.usequota.ai",
            "https://@api.usequota.ai",
            "https://api.usequota.ai:0x1bb",
            "https://api.usequota.ai:70000",
            "https://[::1",
        ],
    )
    def test_of_what_has_none(self, url: str) -> None:
        with pytest.raises(ValueError):
            origin(url)

    @pytest.mark.parametrize(
        "url",
        [
            "https://api.usequota.ai.evil.example",
            "https://api.usequota.ai\\.evil.example",
            "https://evil.example/https://api.usequota.ai",
            "https://evil.example?https://api.usequota.ai",
            "https://evil.example#api.usequota.ai",
            "http://api.usequota.ai",
            "https://api.usequota.ai:444",
            "https://api.usequota.ai.",
        ],
    )
    def test_of_a_lookalike_is_another(self, url: str) -> None:
        assert origin(url) != "https://api.usequota.ai"

    def test_trusted_are_base_url_and_issuer(self) -> None:
        with override_settings(QUOTA_ISSUER="https://usequota.ai/oidc"):
            assert get_settings().trusted_origins == {
                "https://api.usequota.ai",
                "https://usequota.ai",
            }

    def test_trusted_is_only_base_url_without_an_issuer(self) -> None:
        assert get_settings().trusted_origins == {"https://api.usequota.ai"}
