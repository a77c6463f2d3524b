"""django_quota.messages: what a person is told when a sign-in fails."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from django.test import RequestFactory
from django.utils.functional import Promise
from django.utils.translation import override, trans_real

import django_quota
from django_quota import exceptions
from django_quota.exceptions import new_reference
from django_quota.web.error_texts import SIGN_IN_ERRORS, UNKNOWN, VIEW_ERRORS, ErrorText
from django_quota.web.messages import code_of, describe, error_body, explain
from django_quota.web.signed_scopes import sign_scope
from tests.helpers.sources import parsed
from tests.sandbox_client import query_of

PACKAGE = Path(django_quota.__file__).parent
CODES = [
    "state_mismatch",
    "token_exchange_failed",
    "invalid_id_token",
    "access_denied",
    "invalid_scope",
    "authorization_failed",
    "insufficient_scope",
    "provider_unavailable",
    "issuer_mismatch",
    "not_configured",
    "account_inactive",
    "account_conflict",
    "email_known",
    "email_required",
    "wallet_only",
    "sign_up_closed",
    "sign_in_refused",
    "account_in_use",
    "wallet_already_connected",
]
IN_A_VIEW = [
    "not_connected",
    "reauthentication_required",
    "insufficient_credits",
    "spending_limit_reached",
    "day_limit_reached",
    "impersonation_refused",
    "not_permitted",
    "rate_limited",
    "refresh_impossible_here",
    "request_refused",
    "token_unreadable",
]
WORDS = {**SIGN_IN_ERRORS, **VIEW_ERRORS}


def codes_raised() -> set[str]:
    """The first argument of every `SignInFailed(...)` in the package."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(parsed(path)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "SignInFailed"
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(str(node.args[0].value))
    return found


def test_codes_are_a_closed_set() -> None:
    assert list(SIGN_IN_ERRORS) == CODES
    assert list(VIEW_ERRORS) == IN_A_VIEW


def test_every_error_that_is_answered_has_words() -> None:
    """SignInFailed has the code that it is raised with; QuotaError is never raised itself."""
    others = {"SignInFailed", "QuotaError"}
    codes = {getattr(exceptions, n).code for n in exceptions.__all__ if n not in others}
    assert {"insufficient_scope", "rate_limited"} <= codes, "the search finds nothing any more"
    assert codes <= set(WORDS)


def test_every_code_that_is_raised_has_words() -> None:
    raised = codes_raised()

    assert {"invalid_id_token", "state_mismatch"} <= raised, "the search finds nothing any more"
    assert raised <= set(SIGN_IN_ERRORS)


@pytest.mark.parametrize(
    "error",
    [exceptions.ProviderUnavailable, exceptions.ConfigurationError, exceptions.IssuerMismatch],
)
def test_errors_that_a_sign_in_may_meet_have_words(error: type[exceptions.QuotaError]) -> None:
    assert error.code in SIGN_IN_ERRORS


@pytest.mark.parametrize("code", WORDS)
def test_words_say_what_happened_and_what_to_do(code: str) -> None:
    words = WORDS[code]

    assert words.code == code
    for text in (words.title, words.message, words.action):
        assert isinstance(text, Promise), "must be translated for each reader"
        assert str(text).strip() == str(text) != ""
    assert not str(words.title).endswith(".")
    assert str(words.message).endswith(".")
    assert str(words.action).endswith(".")


@pytest.mark.parametrize("code", WORDS)
def test_words_do_not_show_the_code(code: str) -> None:
    words = WORDS[code]
    assert "_" not in f"{words.title} {words.message} {words.action}"


def test_nobody_can_add_words() -> None:
    for words in (SIGN_IN_ERRORS, VIEW_ERRORS):
        with pytest.raises(TypeError):
            words["mine"] = UNKNOWN  # type: ignore[index]


@pytest.mark.parametrize("code", [None, ""])
def test_without_a_code_there_is_nothing_to_say(code: str | None) -> None:
    assert describe(code) is None


@pytest.mark.parametrize("code", WORDS)
def test_describe_finds_the_words(code: str) -> None:
    assert describe(code) is WORDS[code]


class TestErrorBody:
    """quota-protocol section 9, in words of ours: what the error says is for the log."""

    def test_of_a_state(self) -> None:
        error = exceptions.InsufficientCredits("for the log")
        assert error_body(error, "") == {
            "code": "insufficient_credits",
            "message": "Your credits do not cover this.",
            "hint": "Buy credits, then try again.",
        }

    def test_with_a_reference(self) -> None:
        error = exceptions.RateLimited("for the log")
        assert error_body(error, "7K3M9QXT")["reference"] == "7K3M9QXT"

    def test_of_an_error_of_the_projects_own(self) -> None:
        """Its code is for scripts that know it; a person hears that it did not work."""

        class Ours(exceptions.QuotaError):
            code = "ours"

        body = error_body(Ours("for the log"), "")
        assert code_of(Ours("")) == "provider_unavailable"
        assert body["code"] == "ours"
        assert body["message"] == str(SIGN_IN_ERRORS["provider_unavailable"].message)

    def test_in_the_language_of_the_reader(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Read at each answer, not when the process has started."""
        catalog = trans_real.translation("de")._catalog
        monkeypatch.setitem(catalog._catalogs[0], "Your credits do not cover this.", "Zu wenig.")
        error = exceptions.InsufficientCredits("for the log")
        with override("de"):
            assert error_body(error, "")["message"] == "Zu wenig."
        assert error_body(error, "")["message"] == "Your credits do not cover this."


@pytest.mark.parametrize(
    "code", ["strange", "STATE_MISMATCH", " ", "<script>alert(1)</script>", "__class__", "a" * 9999]
)
def test_a_strange_code_is_not_repeated(code: str) -> None:
    words = describe(code)

    assert words is UNKNOWN
    assert isinstance(words, ErrorText)
    assert words.code == "unknown"


class TestExplain:
    def page(self, **query: str) -> dict[str, Any]:
        return explain(RequestFactory().get("/", query))

    def test_of_an_address_that_names_nothing(self) -> None:
        assert self.page() == {
            "error": None,
            "reference": "",
            "retry_url": "/auth/quota/start",
            "retry_text": "Try again",
        }

    def test_shows_a_reference(self) -> None:
        reference = new_reference()
        assert self.page(quota_ref=reference)["reference"] == reference

    @pytest.mark.parametrize(
        "text", ["call 555-0100", "ABCDEFG", "ABCDEFGHI", "ABCDEFG\n", "abcdefgh"]
    )
    def test_shows_no_words_of_a_strangers(self, text: str) -> None:
        assert self.page(quota_ref=text)["reference"] == ""

    def test_references_differ(self) -> None:
        assert len({new_reference() for _ in range(100)}) == 100

    def test_tries_again_where_it_failed(self) -> None:
        assert self.page(quota_retry="connect", next="/a")["retry_url"] == (
            "/auth/quota/connect?next=%2Fa"
        )

    @pytest.mark.parametrize(("back", "url"), [("/a", "/a"), ("", "/"), ("//evil.example", "/")])
    def test_tries_the_page_again_where_no_sign_in_has_failed(self, back: str, url: str) -> None:
        assert self.page(quota_retry="page", next=back)["retry_url"] == url

    def test_asks_for_the_same_scope_again(self) -> None:
        scope = sign_scope("credits.spend")
        assert query_of(self.page(scope=scope)["retry_url"]) == {"scope": scope}

    def test_asks_for_no_scope_of_a_strangers(self) -> None:
        assert self.page(scope="credits.spend")["retry_url"] == "/auth/quota/start"

    @pytest.mark.parametrize("retry", ["logout", "//evil.example", ""])
    def test_tries_nothing_else(self, retry: str) -> None:
        assert self.page(quota_retry=retry)["retry_url"] == "/auth/quota/start"

    def test_who_may_not_open_a_page_signs_in_as_somebody_else(self) -> None:
        url = self.page(quota_error="not_permitted", next="/a")["retry_url"]
        assert url == "/auth/quota/start?prompt=login&next=%2Fa"

    def test_keeps_only_a_next_of_this_site(self) -> None:
        assert self.page(next="//evil.example")["retry_url"] == "/auth/quota/start"

    @pytest.mark.parametrize(
        ("code", "onward"),
        [("email_known", "/auth/quota/connect?next=%2Fa"), ("wallet_only", "/a")],
    )
    def test_person_who_cannot_sign_in_with_quota_is_sent_to_the_sites_own_sign_in(
        self, settings: Any, code: str, onward: str
    ) -> None:
        settings.LOGIN_URL = "/login/"

        page = self.page(quota_error=code, next="/a")

        assert page["retry_url"].startswith("/login/?")
        assert query_of(page["retry_url"]) == {"next": onward}
        assert page["retry_text"] == "Sign in as usual"

    @pytest.mark.parametrize("code", ["email_known", "wallet_only"])
    def test_person_who_cannot_sign_in_with_quota_may_choose_another_account_there(
        self, code: str
    ) -> None:
        page = self.page(quota_error=code, next="/a")

        assert page["retry_url"] == "/auth/quota/start?prompt=login&next=%2Fa"
        assert page["retry_text"] == "Sign in as somebody else"
