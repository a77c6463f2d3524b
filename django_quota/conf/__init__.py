"""The package's settings: one frozen, typed object, read lazily from Django's settings.

The other modules read `QUOTA_*` settings here, not in `django.conf.settings`. Nothing is read from
the environment, which is the project's task.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, TypeVar

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from django_quota.exceptions import ConfigurationError

from . import values
from .origins import origin
from .spending import LimitsSetting, spending_limits

T = TypeVar("T")

REQUIRED = ("QUOTA_CLIENT_ID", "QUOTA_CLIENT_SECRET")
REQUIRED_HELP = (
    "Register an OAuth app with Quota (dashboard /dashboard/sign-in-with-quota, or `manage.py "
    "quota_register_app`) and set it in your settings."
)


def _setting(default: T, read: Callable[[str, Any], T], *, is_secret: bool = False) -> T:
    """A field of Settings, whose values `read` checks and normalises."""
    found: T = field(default=default, repr=not is_secret, metadata={"read": read})
    return found


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every `QUOTA_*` setting, normalised. Each field is the setting of that name."""

    #: The OAuth app's public id, `quota_client_...`. Required.
    client_id: str = _setting("", values.text)
    #: Its secret, `quota_secret_...`; a list, newest first, during a rotation. Required.
    client_secret: tuple[str, ...] = _setting((), values.secrets, is_secret=True)
    #: The developer's API key, `sk-quota-...`. `grant_credits` sends it, and nothing else does.
    api_key: str | None = _setting(None, values.optional_api_key, is_secret=True)
    #: Base URL of Quota's API and of its discovery document; may have the path of a gateway.
    base_url: str = _setting("https://api.usequota.ai", values.base_url)
    #: An accepted issuer besides the base URL, or None.
    issuer: str | None = _setting(None, values.optional_url)
    #: Scopes that a sign-in requests.
    scopes: tuple[str, ...] = _setting(
        ("openid", "profile", "email", "credits.read", "credits.spend"), values.sign_in_scopes
    )
    #: Scopes that Connect Wallet requests.
    connect_scopes: tuple[str, ...] = _setting(("credits.read", "credits.spend"), values.scopes)
    #: A fixed callback URL; None derives it from each request.
    redirect_uri: str | None = _setting(None, values.optional_url)
    #: Where Quota sends the browser after sign-out; None is LOGOUT_REDIRECT_URL or "/".
    post_logout_redirect_uri: str | None = _setting(None, values.optional_url)
    #: Hosts, besides the request's own, that `next` may lead to; written as in ALLOWED_HOSTS.
    allowed_next_hosts: tuple[str, ...] = _setting((), values.hosts)
    #: The page for a failed sign-in, with `?quota_error=<code>`: a URL name or a path.
    error_url: str = _setting("django_quota:error", values.text)
    #: Time-outs, in seconds, to connect and for each wait for data.
    timeout: tuple[float, float] = _setting((3.05, 10.0), values.timeout)
    #: Seconds that one whole exchange with Quota may take.
    deadline: float = _setting(20.0, values.positive_seconds)
    #: Seconds before its expiry at which an access token is renewed.
    refresh_leeway: int = _setting(30, values.seconds)
    #: Seconds of clock difference accepted for exp, iat and nbf.
    clock_skew: int = _setting(60, values.seconds)
    #: Seconds for which a page may show a cached balance.
    balance_ttl: int = _setting(30, values.seconds)
    #: Quota's own page for buying credits, for apps without a checkout.
    topup_url: str = _setting("https://usequota.ai", values.url)
    #: A balance of fewer credits is low for `{% quota_balance %}` and the signal.
    low_balance: int = _setting(100_000, values.credits)
    #: Whether the clients of `django_quota.ai` record the usage of each call.
    record_usage: bool = _setting(True, values.flag)
    #: What AI calls may spend: limits, a function of a user that returns them, or its dotted path.
    spending_limits: LimitsSetting = _setting(None, spending_limits)  # noqa: RUF009
    #: Webhook secrets, `whsec_...`, newest first; without one the webhook is off.
    webhook_secret: tuple[str, ...] = _setting((), values.optional_secrets, is_secret=True)
    #: Whether a first sign-in creates a user.
    create_user: bool = _setting(True, values.flag)
    #: Whether a first sign-in may be linked to a non-staff user with the same verified e-mail.
    link_by_email: bool = _setting(False, values.flag)
    #: Whether a first sign-in may create a second user with the e-mail address of another user.
    allow_duplicate_email: bool = _setting(False, values.flag)
    #: Whether a user who has a password may sign in with the wallet that they have connected.
    connect_signs_in: bool = _setting(False, values.flag)
    #: Dotted path of a function that takes a request and returns the person who acts as its user,
    #: or None.
    impersonation: str | None = _setting(None, values.optional_path)
    #: Whether a person who acts as a user may bill, fill and disconnect that user's wallet.
    allow_impersonated_billing: bool = _setting(False, values.flag)
    #: Whether URLs may use http to other machines. For development with containers, with DEBUG.
    allow_http: bool = _setting(False, values.flag)

    @property
    def client(self) -> tuple[str, tuple[str, ...]]:
        """The client id and the secrets to try. Raises ConfigurationError if one is missing."""
        if not self.client_id or not self.client_secret:
            missing = "QUOTA_CLIENT_SECRET" if self.client_id else "QUOTA_CLIENT_ID"
            raise ConfigurationError(f"{missing} is missing. {REQUIRED_HELP}")
        return self.client_id, self.client_secret

    @property
    def funding_key(self) -> str:
        """The API key that grants are paid with. Raises ConfigurationError if it is missing."""
        if self.api_key is None:
            raise ConfigurationError(
                "QUOTA_API_KEY is missing. Grants are paid from your own wallet: create an API key "
                "in Quota's dashboard (docs/sandbox.rst: at the local Quota) and set it in your "
                "settings."
            )
        return self.api_key

    @property
    def trusted_origins(self) -> frozenset[str]:
        """The origins allowed for Quota's endpoints: QUOTA_BASE_URL's and QUOTA_ISSUER's."""
        return frozenset(origin(url) for url in (self.base_url, self.issuer) if url)


#: Setting name -> field of Settings.
_FIELDS = {f"QUOTA_{one.name.upper()}": one for one in fields(Settings)}


def is_acceptable(url: str) -> bool:
    """True if a setting may have `url` as its value."""
    try:
        values.url("", url)
    except ConfigurationError:
        return False
    return True


def is_missing(name: str) -> bool:
    """True if a required setting is absent, or empty, as from an unset environment variable."""
    return name in REQUIRED and not getattr(django_settings, name, None)


def _read() -> tuple[dict[str, Any], dict[str, ConfigurationError]]:
    """Return the values of the project's settings by field, and the errors by setting name."""
    found: dict[str, Any] = {}
    errors: dict[str, ConfigurationError] = {}
    for name, setting in _FIELDS.items():
        if is_missing(name):
            errors[name] = ConfigurationError(f"{name} is missing.")
        elif hasattr(django_settings, name):
            try:
                found[setting.name] = setting.metadata["read"](name, getattr(django_settings, name))
            except ConfigurationError as error:
                errors[name] = error
    return found, errors


def problems() -> dict[str, ConfigurationError]:
    """Return the errors in the project's settings, by setting name. For `manage.py check`."""
    return _read()[1]


def unknown_names() -> list[str]:
    """Return the project's `QUOTA_*` settings that do not exist: probably misspelt ones."""
    return [
        name for name in dir(django_settings) if name.startswith("QUOTA_") and name not in _FIELDS
    ]


@cache
def get_settings() -> Settings:
    """Return the current settings.

    Raises ConfigurationError for the first malformed setting. The client's id and secret may be
    missing: `quota_register_app` needs the settings before there is an app. `Settings.client`
    requires them.
    """
    found, errors = _read()
    for name, error in errors.items():
        if not is_missing(name):
            raise error
    return Settings(**found)


def _reset(*, setting: str, **kwargs: Any) -> None:
    if setting.startswith("QUOTA_") or setting == "DEBUG":
        get_settings.cache_clear()


setting_changed.connect(_reset, dispatch_uid="django_quota.conf.reset")
