"""The names that README and docs give to projects. Changing one of these lists breaks somebody's
site, and needs a line in the changelog."""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands
from django.dispatch import Signal
from django.template import engines
from django.urls import NoReverseMatch, reverse

import django_quota
from django_quota import exceptions, signals
from django_quota.backends import QuotaBackend
from django_quota.conf import Settings
from django_quota.models import UsageRecord
from django_quota.templatetags.quota import register
from django_quota.urls import app_name, urlpatterns
from django_quota.wallet.usage import Usage
from django_quota.web.current import CurrentQuota
from tests.helpers import programs
from tests.helpers.sources import parsed

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {
    "client_id": "",
    "client_secret": (),
    "api_key": None,
    "base_url": "https://api.usequota.ai",
    "issuer": None,
    "scopes": ("openid", "profile", "email", "credits.read", "credits.spend"),
    "connect_scopes": ("credits.read", "credits.spend"),
    "redirect_uri": None,
    "post_logout_redirect_uri": None,
    "error_url": "django_quota:error",
    "timeout": (3.05, 10.0),
    "deadline": 20.0,
    "refresh_leeway": 30,
    "clock_skew": 60,
    "balance_ttl": 30,
    "topup_url": "https://usequota.ai",
    "low_balance": 100_000,
    "record_usage": True,
    "spending_limits": None,
    "webhook_secret": (),
    "create_user": True,
    "link_by_email": False,
    "allow_duplicate_email": False,
    "allowed_next_hosts": (),
    "connect_signs_in": False,
    "impersonation": None,
    "allow_impersonated_billing": False,
    "allow_http": False,
}
URLS = {
    "start": "/auth/quota/start",
    "callback": "/auth/quota/callback",
    "logout": "/auth/quota/logout",
    "connect": "/auth/quota/connect",
    "disconnect": "/auth/quota/disconnect",
    "me": "/auth/quota/me",
    "status": "/auth/quota/status",
    "balance": "/auth/quota/balance",
    "packages": "/auth/quota/packages",
    "checkout": "/auth/quota/checkout",
    "webhook": "/auth/quota/webhook",
    "error": "/auth/quota/error",
    "usage": "/auth/quota/usage",
}
TAGS = [
    "quota_sign_in",
    "quota_connect",
    "quota_sign_out",
    "quota_balance",
    "quota_buy_credits",
    "quota_error",
    "quota_cost",
]
#: What README and docs tell projects to import. All else in the package may change at any time.
NAMES = {
    "ai": [
        "WalletAuth",
        "anthropic_client",
        "async_anthropic_client",
        "async_developer_client",
        "async_openai_client",
        "developer_client",
        "openai_client",
    ],
    "backends": ["QuotaBackend"],
    "tokens.bulk": ["refresh_expiring"],
    "decorators": ["quota_required"],
    "contrib.crewai": ["llm"],
    "contrib.haystack": ["chat_generator"],
    "contrib.langchain": ["chat_model"],
    "contrib.llama_index": ["llm"],
    "contrib.pydantic_ai": ["model"],
    "contrib.drf": ["HasQuotaWallet", "WalletDenied", "exception_handler"],
    "exceptions": [
        "ConfigurationError",
        "GrantUnconfirmed",
        "IdempotencyKeyRefused",
        "ImpersonationRefused",
        "InsufficientCredits",
        "InsufficientScope",
        "IssuerMismatch",
        "NotConnected",
        "ProviderUnavailable",
        "QuotaError",
        "RateLimited",
        "ReauthenticationRequired",
        "RefreshRefused",
        "RefreshImpossibleHere",
        "RequestRefused",
        "SignInFailed",
        "SpendingLimitReached",
        "TokenUnreadable",
    ],
    "middleware": ["QuotaMiddleware"],
    "tokens.payer": ["aget_payer", "get_payer"],
    "tokens.reencryption": ["reencrypt"],
    "tokens.revocation": ["prune"],
    "signals": [
        "account_linked",
        "balance_low",
        "credits_granted",
        "sign_in_failed",
        "signed_in",
        "usage_recorded",
        "wallet_connected",
        "wallet_disconnected",
        "webhook_received",
    ],
    "streaming": ["stream_response"],
    "testing": ["renewals_in_this_transaction"],
    "tokens": ["aget_access_token", "get_access_token"],
    "wallet": [
        "Balance",
        "Grant",
        "Package",
        "acreate_checkout",
        "aget_balance",
        "aget_packages",
        "agrant_credits",
        "arecord_usage",
        "billed_for",
        "create_checkout",
        "get_balance",
        "get_packages",
        "grant_credits",
        "record_usage",
        "spending_limit",
    ],
    "web.usage_page": ["usage"],
}
#: What a subclass of QuotaBackend may override.
EXTENSION_POINTS = [
    "verify_claims",
    "filter_users_by_claims",
    "create_user",
    "get_username",
    "update_user",
]
#: What `request.quota` has.
REQUEST_QUOTA = [
    "account",
    "connected",
    "balance",
    "balance_state",
    "login_url",
    "connect_url",
    "topup_url",
    "aaccount",
    "aconnected",
    "abalance",
]
ERROR_CODES = {
    "QuotaError": "quota_error",
    "ConfigurationError": "not_configured",
    "IssuerMismatch": "issuer_mismatch",
    "ProviderUnavailable": "provider_unavailable",
    "GrantUnconfirmed": "provider_unavailable",
    "RateLimited": "rate_limited",
    "ImpersonationRefused": "impersonation_refused",
    "NotConnected": "not_connected",
    "ReauthenticationRequired": "reauthentication_required",
    "RefreshRefused": "provider_unavailable",
    "InsufficientScope": "insufficient_scope",
    "InsufficientCredits": "insufficient_credits",
    "SpendingLimitReached": "spending_limit_reached",
    "RequestRefused": "request_refused",
    "IdempotencyKeyRefused": "request_refused",
    "TokenUnreadable": "token_unreadable",
    "RefreshImpossibleHere": "refresh_impossible_here",
}
COMMANDS = [
    "quota_check",
    "quota_prune",
    "quota_reencrypt_tokens",
    "quota_refresh_tokens",
    "quota_register_app",
    "quota_sandbox",
]


def test_settings_and_their_defaults() -> None:
    assert {field.name: field.default for field in fields(Settings)} == SETTINGS


def test_url_names_and_their_paths() -> None:
    assert app_name == "django_quota"
    assert sorted(str(pattern.name) for pattern in urlpatterns) == sorted(URLS)
    assert {name: reverse(f"django_quota:{name}") for name in URLS} == URLS


def test_urls_are_not_reversed_without_the_namespace() -> None:
    with pytest.raises(NoReverseMatch):
        reverse("callback")


def test_template_tags_and_filters_are_those_listed() -> None:
    assert sorted(register.tags) == sorted(TAGS)
    assert sorted(register.filters) == ["credits_as_exact_usd", "credits_as_usd"]


def test_template_library_is_loaded_as_quota() -> None:
    template = engines["django"].from_string("{% load quota %}{{ 998800|credits_as_usd }}")
    assert template.render() == "$0.9988"


@pytest.mark.parametrize(
    ("value", "shown", "exact"),
    [
        (1_000_000, "$1.00", "$1.00"),
        (998_849, "$0.9988", "$0.998849"),
        (-50_000, "-$0.05", "-$0.05"),
        (None, "", ""),
        ("1", "", ""),
        (1.5, "", ""),
        (True, "", ""),
    ],
)
def test_filters_show_whole_credits_only(value: Any, shown: str, exact: str) -> None:
    template = engines["django"].from_string(
        "{% load quota %}{{ value|credits_as_usd }}|{{ value|credits_as_exact_usd }}"
    )
    assert template.render({"value": value}) == f"{shown}|{exact}"


@pytest.mark.parametrize(
    "usage",
    [4_213, Usage(credits_used=4_213, balance_after=None), UsageRecord(credits_used=4_213)],
    ids=["credits", "Usage", "UsageRecord"],
)
def test_tag_quota_cost_shows_an_amount_and_the_exact_one_as_its_title(usage: Any) -> None:
    template = engines["django"].from_string("{% load quota %}It cost {% quota_cost usage %}.")
    amount = '<data class="quota-amount" value="4213" title="$0.004213" dir="ltr">$0.0042</data>'
    assert template.render({"usage": usage}) == f"It cost {amount}."


@pytest.mark.parametrize("usage", [None, UsageRecord(credits_used=None), "4213", True])
def test_tag_quota_cost_shows_nothing_if_the_cost_is_unknown(usage: Any) -> None:
    template = engines["django"].from_string("{% load quota %}{% quota_cost usage %}")
    assert template.render({"usage": usage}) == ""


FROZEN = [
    *(f"QUOTA_{name.upper()}" for name in SETTINGS),
    *URLS,
    *TAGS,
    *(name for names in NAMES.values() for name in names),
    *EXTENSION_POINTS,
    *REQUEST_QUOTA,
    *ERROR_CODES.values(),
    *COMMANDS,
]


@cache
def documented() -> str:
    """The code in README and docs: literals, imports, the table of settings, names in CamelCase."""
    pages = [ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))]
    text = "\n".join(page.read_text() for page in pages)
    kinds = (r"``[^`]+``", r"^ *from .* import .*", r"^QUOTA_\w+ ", r"\b(?:[A-Z][a-z]+){2,}\b")
    return "\n".join(re.findall("|".join(kinds), text, re.MULTILINE))


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_name_is_documented(name: str) -> None:
    assert re.search(rf"\b{name}\b", documented())


@pytest.mark.parametrize("module", NAMES)
def test_documented_names_are_in_all_of_their_module(module: str) -> None:
    found = importlib.import_module(f"django_quota.{module}")

    assert set(NAMES[module]) <= set(found.__all__)
    assert all(getattr(found, name) for name in NAMES[module])


def exported() -> list[str]:
    """What the modules of the package, without the sandbox, list in `__all__`."""
    names: list[str] = []
    package = Path(django_quota.__file__).parent
    for path in set(package.rglob("*.py")) - set(package.glob("sandbox/**/*.py")):
        for node in parsed(path).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names += ast.literal_eval(node.value)
    return names


def test_modules_export_no_more_than_95_names() -> None:
    """The documented ones, and those that the packages `models` and `checks` hand on."""
    assert len(exported()) <= 95


def test_extension_points_of_the_backend() -> None:
    assert set(EXTENSION_POINTS) <= set(vars(QuotaBackend))


def test_attributes_of_request_quota() -> None:
    public = [name for name in vars(CurrentQuota) if not name.startswith("_")]
    assert sorted(public) == sorted(REQUEST_QUOTA)


def test_exceptions_of_the_module_are_those_listed() -> None:
    defined = {
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and value.__module__ == exceptions.__name__
    }
    assert defined == set(NAMES["exceptions"])


def test_each_exception_is_a_quota_error() -> None:
    for name in NAMES["exceptions"]:
        assert issubclass(getattr(exceptions, name), exceptions.QuotaError)


def test_each_exception_has_its_code() -> None:
    assert {name: getattr(exceptions, name).code for name in ERROR_CODES} == ERROR_CODES


def test_tree_in_the_docstring_of_exceptions_is_that_of_the_classes() -> None:
    """A handler for the upper one also catches the lower one."""
    drawn = {}
    above = ["QuotaError"]
    for line in str(exceptions.__doc__).splitlines():
        branch, found, rest = line.partition("-- ")
        if found:
            depth = len(branch) // 4
            above[depth:] = [rest.split()[0]]
            drawn[above[depth]] = above[depth - 1]
    for name, parent in drawn.items():
        assert getattr(exceptions, parent) in getattr(exceptions, name).__bases__, name
    assert {*drawn, "QuotaError"} == set(NAMES["exceptions"])


def test_each_signal_is_a_django_signal() -> None:
    assert all(isinstance(getattr(signals, name), Signal) for name in NAMES["signals"])


def test_commands_are_those_listed() -> None:
    ours = [name for name, app in get_commands().items() if app == "django_quota"]
    assert sorted(ours) == COMMANDS


def test_package_is_marked_as_typed() -> None:
    assert (Path(django_quota.__file__).parent / "py.typed").exists()


@pytest.mark.process
def test_importing_the_package_does_not_import_django() -> None:
    """So that its version and name can be read by tools, before any settings."""
    assert programs.run("import_package") == "False\n"


@pytest.mark.process
def test_django_setup_does_not_import_openai() -> None:
    """370 ms and 27 MB that a project which never calls it should not pay."""
    loaded = programs.run("print_modules", "django_quota.ai", "django_quota.urls").split()
    assert "django_quota.ai" in loaded
    assert "openai" not in loaded


@pytest.mark.process
def test_start_of_django_imports_neither_an_http_library_nor_the_checks() -> None:
    """They take most of the time of a start, and a shell or a worker may need none of them."""
    apps = [f"django.contrib.{name}" for name in ("auth", "contenttypes", "sessions")]
    loaded = set(programs.run("print_modules", INSTALLED_APPS=[*apps, "django_quota"]).split())

    assert "django_quota.models" in loaded
    slow = {"requests", "httpx", "httpx2", "openai", "jwt", "mozilla_django_oidc"}
    assert not loaded & {*slow, "django_quota.checks"}


def test_name_that_is_not_in_tokens_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(importlib.import_module("django_quota.tokens"), "nothing")  # noqa: B009
