"""`manage.py quota_check`: is everything in place for a sign-in, and if not, what mends it?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.db import DatabaseError

from . import conf, discovery, provider, reencryption
from .exceptions import ConfigurationError, QuotaError, TokenUnreadable
from .fields import crypter

__all__ = ["Finding", "diagnose"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at: is it well, and what there is to know, or to do."""

    what: str
    ok: bool
    detail: str


def diagnose() -> Iterator[Finding]:
    """Look at the settings, then at Quota through them; what needs a broken thing is left out.

    Raises nothing of this package's: an error is a finding.
    """
    examinations: dict[str, Callable[[], str]] = {
        "settings": _settings,
        "encryption key": _encryption_key,
        "stored tokens": _stored_tokens,
        "discovery": _discovery,
        "signing keys": _signing_keys,
        "client": _client,
    }
    for what, examine in examinations.items():
        try:
            yield Finding(what=what, ok=True, detail=examine())
        except QuotaError as error:
            yield Finding(what=what, ok=False, detail=str(error))
            if what not in ("encryption key", "stored tokens"):  # not needed to reach Quota
                return


def _settings() -> str:
    for name, error in conf.problems().items():
        help_ = conf.REQUIRED_HELP if name in conf.REQUIRED else ""
        raise ConfigurationError(f"{error} {help_}".rstrip())
    return f"QUOTA_BASE_URL is {conf.get_settings().base_url}"


def _encryption_key() -> str:
    crypter()
    return "FIELD_ENCRYPTION_KEY is there"


def _stored_tokens() -> str:
    everything = "`manage.py quota_reencrypt_tokens --dry-run` looks at all"
    try:
        census = reencryption.sample()
    except DatabaseError:
        raise ConfigurationError(
            "The tables cannot be read: is the database there, and has `manage.py migrate` been "
            "run?"
        ) from None
    looked_at = census.newest + census.older + census.unreadable
    if census.unreadable:
        raise TokenUnreadable(
            f"{census.unreadable} of the {looked_at} oldest and newest cannot be decrypted (such "
            f"as {census.named[0]}); {everything}. Put the key that they were encrypted with back "
            "into FIELD_ENCRYPTION_KEY, or let these users sign in again."
        )
    return f"the {looked_at} oldest and newest can be decrypted; {everything}"


def _discovery() -> str:
    return f"the issuer is {discovery.metadata().issuer}"


def _signing_keys() -> str:
    return f"{len(discovery.published_keys())} usable"


def _client() -> str:
    # A token that cannot exist: Quota looks at the client, and then there is nothing to revoke
    # (RFC 7009 sections 2.1 and 2.2).
    provider.revoke("quota_check", "access_token")
    return "Quota accepts QUOTA_CLIENT_ID and QUOTA_CLIENT_SECRET"
