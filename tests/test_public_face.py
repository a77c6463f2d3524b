"""The names that projects rely on. Changing one of these lists breaks somebody's site."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands
from django.dispatch import Signal
from django.template import engines
from django.urls import NoReverseMatch, reverse

import django_quota
from django_quota import exceptions, signals
from django_quota.conf import Settings
from django_quota.templatetags.quota import register
from django_quota.urls import app_name, urlpatterns

SETTINGS = {
    "client_id": "",
    "client_secret": (),
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
    "webhook_secret": (),
    "create_user": True,
    "link_by_email": False,
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
}
TAGS = [
    "quota_sign_in",
    "quota_connect",
    "quota_sign_out",
    "quota_balance",
    "quota_buy_credits",
    "quota_error",
]
NAMES = {
    "tokens": [
        "aget_access_token",
        "get_access_token",
        "newest_id_token",
        "renew",
        "renew_unless_taken",
        "store",
    ],
    "bulk": ["Refreshed", "refresh_expiring"],
    "leases": [
        "SAVE_PATIENCE",
        "LateOwner",
        "bounds",
        "is_taken",
        "leaves_time",
        "longest",
        "take",
        "wait_time",
    ],
    "lookup": ["token_row"],
    "reencryption": ["Census", "reencrypt", "sample", "unreadable_columns"],
    "revocation": [
        "EVENT_PERIOD",
        "Pruned",
        "prune",
        "queue",
        "queue_deleted",
        "queue_unless_kept",
        "readable",
        "revoke_pending",
    ],
    "wallet": [
        "Balance",
        "Package",
        "acreate_checkout",
        "aget_balance",
        "aget_packages",
        "balance_for_page",
        "create_checkout",
        "forget_balance",
        "forget_packages",
        "get_balance",
        "get_packages",
        "keep_balance",
    ],
    "balances": ["Balance", "forget_balance", "keep_balance", "kept_balance"],
    "usage": ["Usage", "arecord_usage", "record_unpriced", "record_usage"],
    "webhooks": ["MAX_AGE", "MAX_BYTES", "verify", "webhook"],
    "streaming": ["EventStreamResponse", "stream_response"],
    "caching": ["change", "claim", "forget", "get", "keep", "once"],
    "ai": ["async_developer_client", "async_openai_client", "developer_client", "openai_client"],
    "exceptions": [
        "ConfigurationError",
        "InsufficientCredits",
        "InsufficientScope",
        "IssuerMismatch",
        "NotConnected",
        "ProviderUnavailable",
        "QuotaError",
        "RateLimited",
        "ReauthenticationRequired",
        "RefreshImpossibleHere",
        "RequestRefused",
        "SignInFailed",
        "TokenUnreadable",
    ],
    "signals": [
        "balance_low",
        "sign_in_failed",
        "signed_in",
        "usage_recorded",
        "wallet_connected",
        "wallet_disconnected",
        "webhook_received",
    ],
    "testing": ["renewals_in_this_transaction"],
    "middleware": ["QuotaMiddleware"],
    "decorators": ["quota_required"],
    "answers": ["ErrorAnswer", "answer", "error_answer"],
    "current": ["CurrentQuota"],
    "required": ["arequire_wallet", "require_wallet"],
    "drf": ["HasQuotaWallet", "WalletDenied", "exception_handler"],
}
ERROR_CODES = {
    "QuotaError": "quota_error",
    "ConfigurationError": "not_configured",
    "IssuerMismatch": "issuer_mismatch",
    "ProviderUnavailable": "provider_unavailable",
    "RateLimited": "rate_limited",
    "NotConnected": "not_connected",
    "ReauthenticationRequired": "reauthentication_required",
    "InsufficientScope": "insufficient_scope",
    "InsufficientCredits": "insufficient_credits",
    "RequestRefused": "request_refused",
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


def test_urls() -> None:
    assert app_name == "django_quota"
    assert sorted(str(pattern.name) for pattern in urlpatterns) == sorted(URLS)
    assert {name: reverse(f"django_quota:{name}") for name in URLS} == URLS


def test_urls_are_only_in_the_namespace() -> None:
    with pytest.raises(NoReverseMatch):
        reverse("callback")


def test_tags_and_filter() -> None:
    assert sorted(register.tags) == sorted(TAGS)
    assert sorted(register.filters) == ["credits_as_usd"]


def test_tags_are_loaded_by_the_name_quota() -> None:
    template = engines["django"].from_string("{% load quota %}{{ 998800|credits_as_usd }}")
    assert template.render() == "$0.9988"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1_000_000, "$1.00"), (-50_000, "-$0.05"), (None, ""), ("1", ""), (1.5, ""), (True, "")],
)
def test_filter_takes_whole_credits_only(value: Any, text: str) -> None:
    template = engines["django"].from_string("{% load quota %}{{ value|credits_as_usd }}")
    assert template.render({"value": value}) == text


@pytest.mark.parametrize("module", NAMES)
def test_modules_offer_these_names(module: str) -> None:
    found = importlib.import_module(f"django_quota.{module}")

    assert found.__all__ == NAMES[module]
    assert all(getattr(found, name) for name in NAMES[module])


def test_exceptions_are_all_in_the_list() -> None:
    defined = {
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and value.__module__ == exceptions.__name__
    }
    assert defined == set(NAMES["exceptions"])


def test_exceptions_are_all_quota_errors() -> None:
    for name in NAMES["exceptions"]:
        assert issubclass(getattr(exceptions, name), exceptions.QuotaError)


def test_exceptions_have_these_codes() -> None:
    assert {name: getattr(exceptions, name).code for name in ERROR_CODES} == ERROR_CODES


def test_the_tree_of_exceptions_is_as_drawn() -> None:
    """Who catches the upper one gets the lower one."""
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


def test_signals_are_signals() -> None:
    assert all(isinstance(getattr(signals, name), Signal) for name in NAMES["signals"])


def test_commands() -> None:
    ours = [name for name, app in get_commands().items() if app == "django_quota"]
    assert sorted(ours) == COMMANDS


def test_the_package_is_typed() -> None:
    assert (Path(django_quota.__file__).parent / "py.typed").exists()


def test_importing_the_package_needs_no_django() -> None:
    """So that its version and name can be read by tools, before any settings."""
    program = "import sys, django_quota; print('django' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(django_quota.__file__).parent.parent,
    )
    assert done.stdout == "False\n"


def test_setting_up_does_not_import_openai() -> None:
    """370 ms and 27 MB that a project which never calls it should not pay."""
    program = (
        "import os, sys, django\n"
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'\n"
        "django.setup()\n"
        "import django_quota.ai, django_quota.urls\n"
        "print('openai' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(django_quota.__file__).parent.parent,
    )
    assert done.stdout == "False\n"
