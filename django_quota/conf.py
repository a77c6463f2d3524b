"""The package's settings: one frozen, typed object, read lazily from Django's settings.

Nobody else in the package asks `django.conf.settings` for a `QUOTA_*` name, and nothing here is
read from the environment: that is the project's own business.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from .exceptions import ConfigurationError

__all__ = [
    "Settings",
    "get_settings",
    "is_acceptable",
    "is_missing",
    "origin",
    "problems",
    "unknown_names",
]

REQUIRED = ("QUOTA_CLIENT_ID", "QUOTA_CLIENT_SECRET")
REQUIRED_HELP = (
    "Register an OAuth app with Quota (dashboard /dashboard/sign-in-with-quota, or `manage.py "
    "quota_register_app`) and set it in your settings."
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every `QUOTA_*` setting, normalised. Each field is the setting of that name."""

    #: The OAuth app's public id, `quota_client_...`. Required.
    client_id: str = ""
    #: Its secret, `quota_secret_...`; a list, newest first, while it is rotated. Required.
    client_secret: tuple[str, ...] = field(default=(), repr=False)
    #: Origin of Quota's API and of its discovery document.
    base_url: str = "https://api.usequota.ai"
    #: The issuer to accept where it differs from that origin; else None.
    issuer: str | None = None
    #: Scopes asked for at sign-in.
    scopes: tuple[str, ...] = ("openid", "profile", "email", "credits.read", "credits.spend")
    #: Scopes asked for by Connect Wallet.
    connect_scopes: tuple[str, ...] = ("credits.read", "credits.spend")
    #: A fixed callback URL; None derives it from each request.
    redirect_uri: str | None = None
    #: Where Quota sends the browser after sign-out; None is the request's origin and "/".
    post_logout_redirect_uri: str | None = None
    #: Where a failed sign-in lands, with `?quota_error=<code>`: a URL name or a path.
    error_url: str = "django_quota:error"
    #: Connect and read time-outs of one wait, in seconds.
    timeout: tuple[float, float] = (3.05, 10.0)
    #: The most that any one exchange with Quota may take as a whole, in seconds.
    deadline: float = 20.0
    #: Seconds before its expiry at which an access token is renewed.
    refresh_leeway: int = 30
    #: Seconds of clock difference accepted for exp, iat and nbf.
    clock_skew: int = 60
    #: Seconds a balance may be shown from the cache.
    balance_ttl: int = 30
    #: Quota's own page for buying credits, for where the app has no checkout.
    topup_url: str = "https://usequota.ai"
    #: Credits below which a balance is low: `{% quota_balance %}` and the signal say so.
    low_balance: int = 100_000
    #: Webhook secrets, `whsec_...`, newest first; empty switches the webhook off.
    webhook_secret: tuple[str, ...] = field(default=(), repr=False)
    #: May a first sign-in create a User?
    create_user: bool = True
    #: May a first sign-in be linked to a non-staff user with the same verified e-mail?
    link_by_email: bool = False

    @property
    def client(self) -> tuple[str, tuple[str, ...]]:
        """The client id and the secrets to try. Raises ConfigurationError where one is missing."""
        if not self.client_id or not self.client_secret:
            missing = "QUOTA_CLIENT_SECRET" if self.client_id else "QUOTA_CLIENT_ID"
            raise ConfigurationError(f"{missing} is missing. {REQUIRED_HELP}")
        return self.client_id, self.client_secret

    @property
    def trusted_origins(self) -> frozenset[str]:
        """The origins an endpoint of Quota may be on: QUOTA_BASE_URL's and QUOTA_ISSUER's."""
        return frozenset(origin(url) for url in (self.base_url, self.issuer) if url)


def is_acceptable(url: str) -> bool:
    """Could `url` be a setting: well-formed, and https unless it is on this machine?"""
    try:
        _url("", url)
    except ConfigurationError:
        return False
    return True


def origin(url: str) -> str:
    """Scheme, host and port of `url`, in lower case, without a default port (RFC 6454 section 4).

    Raises ValueError for a URL that has none, so that nothing malformed compares as equal.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not an http(s) URL with a host")
    default = {"http": 80, "https": 443}[parts.scheme]
    port = "" if parts.port in (None, default) else f":{parts.port}"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} must be a non-empty string.")
    return value.strip()


def _url(name: str, value: Any) -> str:
    """To the letter: issuers and redirect URIs are compared as exact strings."""
    text = _text(name, value)
    try:
        origin(text)
    except ValueError:
        raise ConfigurationError(
            f"{name} must be a URL such as https://api.usequota.ai (https://, or http:// on this "
            "machine only)."
        ) from None
    parts = urlsplit(text)
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ConfigurationError(
            f"{name} must use https: tokens and the client secret travel to it."
        )
    return text


def _base_url(name: str, value: Any) -> str:
    text = _url(name, value).rstrip("/")
    parts = urlsplit(text)
    if parts.path or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{name} must be an origin such as https://api.usequota.ai, without a path."
        )
    return text


def _optional_url(name: str, value: Any) -> str | None:
    return None if value is None else _url(name, value)


def _secrets(name: str, value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, Sequence) or not values:
        raise ConfigurationError(f"{name} must be a string, or a list of strings, newest first.")
    return tuple(_text(name, item) for item in values)


def _optional_secrets(name: str, value: Any) -> tuple[str, ...]:
    return () if value is None else _secrets(name, value)


def _scopes(name: str, value: Any) -> tuple[str, ...]:
    scopes = value.split() if isinstance(value, str) else value
    # Narrower than RFC 6749 section 3.3, so that a comma or a quote, a usual mistake, is found.
    well_formed = isinstance(scopes, Sequence) and all(
        isinstance(scope, str) and re.fullmatch(r"[A-Za-z0-9._:/-]+", scope) for scope in scopes
    )
    if not well_formed or not scopes:
        raise ConfigurationError(
            f"{name} must be scope names, such as 'openid profile email credits.read'."
        )
    return tuple(scopes)


def _sign_in_scopes(name: str, value: Any) -> tuple[str, ...]:
    scopes = _scopes(name, value)
    if "openid" not in scopes:
        raise ConfigurationError(f"{name} must have openid in it: it is what says who signs in.")
    return scopes


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 86400:
        raise ConfigurationError(
            f"{name} must be a number of seconds above 0 and below 86400 (a day)."
        )
    return value


def _seconds(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 86400:
        raise ConfigurationError(
            f"{name} must be a whole number of seconds from 0 to 86400 (a day)."
        )
    return value


def _credits(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise ConfigurationError(f"{name} must be a whole number of credits (1,000,000 are $1.00).")
    return value


def _timeout(name: str, value: Any) -> tuple[float, float]:
    pair = value if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise ConfigurationError(f"{name} must be seconds, or (connect, read) seconds.")
    return _number(name, pair[0]), _number(name, pair[1])


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False.")
    return value


_READERS = {
    "client_id": _text,
    "client_secret": _secrets,
    "base_url": _base_url,
    "issuer": _optional_url,
    "scopes": _sign_in_scopes,
    "connect_scopes": _scopes,
    "redirect_uri": _optional_url,
    "post_logout_redirect_uri": _optional_url,
    "error_url": _text,
    "timeout": _timeout,
    "deadline": _number,
    "refresh_leeway": _seconds,
    "clock_skew": _seconds,
    "balance_ttl": _seconds,
    "topup_url": _url,
    "low_balance": _credits,
    "webhook_secret": _optional_secrets,
    "create_user": _flag,
    "link_by_email": _flag,
}


def is_missing(name: str) -> bool:
    """Is a required setting not there, or empty as an unset variable of the environment is?"""
    return name in REQUIRED and not getattr(django_settings, name, None)


def _read() -> tuple[dict[str, Any], dict[str, ConfigurationError]]:
    """The values of all settings that are there, and setting name -> what is wrong with it."""
    values: dict[str, Any] = {}
    wrong: dict[str, ConfigurationError] = {}
    for attribute, reader in _READERS.items():
        name = f"QUOTA_{attribute.upper()}"
        if is_missing(name):
            wrong[name] = ConfigurationError(f"{name} is missing.")
        elif hasattr(django_settings, name):
            try:
                values[attribute] = reader(name, getattr(django_settings, name))
            except ConfigurationError as error:
                wrong[name] = error
    return values, wrong


def problems() -> dict[str, ConfigurationError]:
    """What is wrong, for `manage.py check`: setting name -> the error that names it."""
    return _read()[1]


def unknown_names() -> list[str]:
    """Names in the project's settings that look like ours and are none."""
    known = {f"QUOTA_{attribute.upper()}" for attribute in _READERS}
    return [
        name for name in dir(django_settings) if name.startswith("QUOTA_") and name not in known
    ]


@cache
def get_settings() -> Settings:
    """The current settings.

    Raises ConfigurationError, naming the first setting that is malformed. That the client's two
    are there is asked only where they are needed: the app has to be registered first.
    """
    values, wrong = _read()
    for name, error in wrong.items():
        if not is_missing(name):
            raise error
    return Settings(**values)


def _reset(*, setting: str, **kwargs: Any) -> None:
    if setting.startswith("QUOTA_"):
        get_settings.cache_clear()


setting_changed.connect(_reset, dispatch_uid="django_quota.conf.reset")
