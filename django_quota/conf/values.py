"""Checks and normalisation of the values of settings, one function for each kind of value.

Each function takes the setting's name and its value, returns the normalised value, and raises
ConfigurationError, with the setting's name in the message, for a malformed value.
"""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings as django_settings

from django_quota.exceptions import ConfigurationError
from django_quota.secret import Secret

from .origins import origin

_HOST = re.compile(r"\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*|\[[0-9A-Fa-f:]+\]")


def text(name: str, value: Any) -> str:
    """A string that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} must be a non-empty string.")
    return value.strip()


def url(name: str, value: Any) -> str:
    """An https URL; http for this machine, or with QUOTA_ALLOW_HTTP.

    It is not normalised: issuers and redirect URIs are compared as exact strings.
    """
    string = text(name, value)
    try:
        origin(string)
    except ValueError:
        raise ConfigurationError(
            f"{name} must be a URL such as https://api.usequota.ai (https://, or http:// on this "
            "machine only)."
        ) from None
    parts = urlsplit(string)
    is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme == "http" and not is_local and not _is_http_allowed():
        raise ConfigurationError(
            f"{name} must use https: tokens and the client secret travel to it. Only in "
            "development, for a local Quota in another container, set QUOTA_ALLOW_HTTP = True; "
            "DEBUG has to be on."
        )
    return string


def _is_http_allowed() -> bool:
    return django_settings.DEBUG and getattr(django_settings, "QUOTA_ALLOW_HTTP", None) is True


def optional_url(name: str, value: Any) -> str | None:
    """A URL as in `url`, or None."""
    return None if value is None else url(name, value)


def base_url(name: str, value: Any) -> str:
    """The URL of an API, perhaps with a path, without a slash at its end."""
    string = url(name, value).rstrip("/")
    parts = urlsplit(string)
    if parts.query or parts.fragment or not re.fullmatch(r"(/[\w.~-]*\w)*", parts.path, re.ASCII):
        raise ConfigurationError(
            f"{name} must be a URL such as https://api.usequota.ai or "
            "https://gateway.example/quota, without query, fragment and special characters."
        )
    if parts.path.endswith("/v1"):
        raise ConfigurationError(
            f"{name} must not end in /v1: the package adds /v1 to the URLs that need it, and "
            "the URL of the discovery document does not."
        )
    return string


def optional_path(name: str, value: Any) -> str | None:
    """A dotted path, which the code that uses it imports, or None."""
    if value is None:
        return None
    path = text(name, value)
    if not all(part.isidentifier() for part in path.split(".")) or "." not in path:
        raise ConfigurationError(f"{name} must be a dotted path, such as 'web.staff.who_acts'.")
    return path


def secrets(name: str, value: Any) -> tuple[str, ...]:
    """A secret, or a list of secrets."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, Sequence) or not values:
        raise ConfigurationError(f"{name} must be a string, or a list of strings, newest first.")
    return tuple(Secret(text(name, item)) for item in values)


def optional_secrets(name: str, value: Any) -> tuple[str, ...]:
    """Secrets as in `secrets`; none for None."""
    return () if value is None else secrets(name, value)


def optional_api_key(name: str, value: Any) -> str | None:
    """A developer's API key (quota-protocol section 1), or None."""
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"sk-quota-[!-~]+", value.strip()):
        raise ConfigurationError(
            f"{name} must be an API key of the developer, which begins with sk-quota-."
        )
    return Secret(value.strip())


def scopes(name: str, value: Any) -> tuple[str, ...]:
    """Scope names, as a list or in a string with spaces."""
    names = value.split() if isinstance(value, str) else value
    # Stricter than RFC 6749 section 3.3, to find commas and quotes, which are frequent mistakes.
    is_well_formed = isinstance(names, Sequence) and all(
        isinstance(scope, str) and re.fullmatch(r"[A-Za-z0-9._:/-]+", scope) for scope in names
    )
    if not is_well_formed or not names:
        raise ConfigurationError(
            f"{name} must be scope names, such as 'openid profile email credits.read'."
        )
    return tuple(names)


def sign_in_scopes(name: str, value: Any) -> tuple[str, ...]:
    """Scope names with openid."""
    names = scopes(name, value)
    if "openid" not in names:
        raise ConfigurationError(
            f"{name} must contain openid: without it, Quota does not say which person signs in."
        )
    return names


def hosts(name: str, value: Any) -> tuple[str, ...]:
    """Host names in lower case; none for None.

    "*" is refused: a `next` to any host is an open redirector (RFC 9700 section 4.11).
    """
    names = () if value is None else value
    is_well_formed = not isinstance(names, str) and isinstance(names, Sequence)
    if not is_well_formed or not all(isinstance(h, str) and _HOST.fullmatch(h) for h in names):
        raise ConfigurationError(
            f"{name} must be a list of host names without scheme and port, such as "
            "['app.example.com'], or ['.example.com'] for all of its subdomains; '*' is refused."
        )
    return tuple(host.lower() for host in names)


def positive_seconds(name: str, value: Any) -> float:
    """Seconds above 0, which may have a fraction."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 86400:
        raise ConfigurationError(
            f"{name} must be a number of seconds above 0 and below 86400 (a day)."
        )
    return value


def seconds(name: str, value: Any) -> int:
    """Whole seconds from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 86400:
        raise ConfigurationError(
            f"{name} must be a whole number of seconds from 0 to 86400 (a day)."
        )
    return value


def timeout(name: str, value: Any) -> tuple[float, float]:
    """Seconds to connect and to read, from one number or a pair."""
    pair = value if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise ConfigurationError(f"{name} must be seconds, or (connect, read) seconds.")
    return positive_seconds(name, pair[0]), positive_seconds(name, pair[1])


def credits(name: str, value: Any) -> int:
    """A whole number of credits."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise ConfigurationError(f"{name} must be a whole number of credits (1,000,000 are $1.00).")
    return value


def flag(name: str, value: Any) -> bool:
    """True or False. Not "False", the text of an environment variable, which is true in Python."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False.")
    return value
