"""The checks of `manage.py quota_check`: the settings, the database, and Quota's answers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from django.db import DatabaseError, connections, router, transaction

from . import conf
from .ai import factory
from .exceptions import ConfigurationError, QuotaError, TokenUnreadable
from .fields import crypter
from .models import QuotaToken
from .oidc import discovery, endpoints
from .tokens import locking, reencryption


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check. `detail` describes it or, if not `ok`, says what to do."""

    what: str
    ok: bool
    detail: str


def find_problems() -> Iterator[Finding]:
    """Check the settings, then contact Quota with them. Yields a finding for each check.

    If Quota cannot be reached with these settings, the checks after that are left out. Raises no
    QuotaError: it becomes a finding.
    """
    for what, check in _CHECKS.items():
        try:
            yield Finding(what=what, ok=True, detail=check())
        except QuotaError as error:
            yield Finding(what=what, ok=False, detail=str(error))
            if what not in _LOCAL_CHECKS:
                return


def _settings() -> str:
    for name, error in conf.problems().items():
        help_ = conf.REQUIRED_HELP if name in conf.REQUIRED else ""
        raise ConfigurationError(f"{error} {help_}".rstrip())
    return f"QUOTA_BASE_URL is {conf.get_settings().base_url}"


def _encryption_key() -> str:
    crypter()
    return "FIELD_ENCRYPTION_KEY is set"


def _transactions() -> str:
    alias = router.db_for_write(QuotaToken)
    try:
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        locking.require_transactions(error)
        raise ConfigurationError(
            "The database cannot begin a transaction. Check that it is running and that DATABASES "
            "is right."
        ) from None
    return "the database can begin one"


def _stored_tokens() -> str:
    all_rows = "`manage.py quota_reencrypt_tokens --dry-run` checks all"
    try:
        report = reencryption.sample()
    except DatabaseError:
        raise ConfigurationError(
            "The tables cannot be read. Check that the database is running, and run `manage.py "
            "migrate`."
        ) from None
    checked = report.newest + report.older + report.unreadable
    if report.unreadable:
        raise TokenUnreadable(
            f"{report.unreadable} of the {checked} oldest and newest cannot be decrypted (such "
            f"as {report.examples[0]}); {all_rows}. Put the key that they were encrypted with back "
            "into FIELD_ENCRYPTION_KEY, or let these users sign in again."
        )
    return f"the {checked} oldest and newest can be decrypted; {all_rows}"


def _discovery() -> str:
    return f"the issuer is {discovery.metadata().issuer}"


def _signing_keys() -> str:
    return f"{len(discovery.published_keys())} usable"


def _client() -> str:
    # Revoke a token that does not exist: Quota authenticates the client first, and then has
    # nothing to revoke (RFC 7009 sections 2.1 and 2.2).
    if not endpoints.revoke("quota_check", "access_token"):
        return (
            "Quota offers no revocation (its discovery document names no revocation_endpoint), so "
            "this was not checked; a sign-in shows whether Quota accepts QUOTA_CLIENT_ID and "
            "QUOTA_CLIENT_SECRET"
        )
    return "Quota accepts QUOTA_CLIENT_ID and QUOTA_CLIENT_SECRET"


def _ai_calls() -> str:
    if find_spec("openai") is None:
        return "not checked, because the OpenAI SDK is not installed"
    factory.find_models()
    return "Quota answers the OpenAI SDK"


_CHECKS: dict[str, Callable[[], str]] = {
    "settings": _settings,
    "encryption key": _encryption_key,
    "transactions": _transactions,
    "stored tokens": _stored_tokens,
    "discovery": _discovery,
    "signing keys": _signing_keys,
    "client": _client,
    "AI calls": _ai_calls,
}
#: Quota can be reached although one of these fails.
_LOCAL_CHECKS = ("encryption key", "transactions", "stored tokens")
