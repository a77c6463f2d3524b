"""Everything django_quota raises. Each class says what its reader must do.

::

    QuotaError                        base; never raised itself
    |-- ConfigurationError            the developer: fix the settings (also ImproperlyConfigured)
    |   `-- IssuerMismatch            ... QUOTA_ISSUER, with the line to paste
    |-- ProviderUnavailable           try later; every token is kept
    |   `-- RateLimited               ... after `retry_after` seconds
    |-- NotConnected                  the user has no Quota wallet here: let them sign in
    |-- ReauthenticationRequired      Quota ended this connection: let the user sign in again
    |-- InsufficientScope             ask the user's consent for `scope`
    |-- InsufficientCredits           let the user buy credits
    |-- RequestRefused                Quota refused this request: see `provider_code`
    |-- SignInFailed                  a sign-in that must not go through; the page shows `code`
    |-- TokenUnreadable               a stored token cannot be decrypted: restore the key
    `-- RefreshImpossibleHere         refresh before the transaction, or on another database

The message is for the developer's log: it names what to do next, and never holds a token, a
code, a secret or text that came from the network.
"""

from django.core.exceptions import ImproperlyConfigured

__all__ = [
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
]


class QuotaError(Exception):
    """Base of all errors of this package.

    `code` (str) is stable, machine readable and safe to show.
    """

    code = "quota_error"


class ConfigurationError(QuotaError, ImproperlyConfigured):
    """A setting is missing or wrong; the message names it and how to get a value."""

    code = "not_configured"


class IssuerMismatch(ConfigurationError):
    """Discovery names an issuer that is neither the serving origin nor QUOTA_ISSUER.

    OpenID Connect Discovery 1.0 section 4.3; the recipe's "OIDC issuer in production".
    """

    code = "issuer_mismatch"


class ProviderUnavailable(QuotaError):
    """Quota could not be reached in time, or answered nonsense. No token was lost; try later.

    `request_sent` (bool) is False only when the request certainly never left this process, so
    that a single-use code or refresh token is known to be unspent. `status` is the HTTP status
    of an unusable answer, None when there was no answer.
    """

    code = "provider_unavailable"

    def __init__(
        self, message: str, *, request_sent: bool = True, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.request_sent = request_sent
        self.status = status


class RateLimited(ProviderUnavailable):
    """HTTP 429. `retry_after` is in seconds, None when Quota did not say (RFC 9110 10.2.3)."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message, status=429)
        self.retry_after = retry_after


class NotConnected(QuotaError):
    """The user has no Quota wallet connected here: send them to `django_quota:start`."""

    code = "not_connected"


class ReauthenticationRequired(QuotaError):
    """Quota no longer accepts this connection: send the user to `django_quota:start`.

    `provider_code` (str) is Quota's own code, such as `invalid_grant` (RFC 6749 section 5.2).
    """

    code = "reauthentication_required"

    def __init__(self, message: str, *, provider_code: str = "") -> None:
        super().__init__(message)
        self.provider_code = provider_code


class InsufficientScope(QuotaError):
    """The token lacks a scope (RFC 6750 section 3.1): sign in again with it in QUOTA_SCOPES.

    `scope` (str) names the missing one; empty when Quota did not say.
    """

    code = "insufficient_scope"

    def __init__(self, message: str, *, scope: str = "") -> None:
        super().__init__(message)
        self.scope = scope


class InsufficientCredits(QuotaError):
    """The wallet cannot cover the call (HTTP 402): send the user to `django_quota:packages`."""

    code = "insufficient_credits"


class RequestRefused(QuotaError):
    """Quota refused a request for a reason of its own; repeating it would not help.

    `status` is the HTTP status, `provider_code` Quota's error code (quota-protocol section 9).
    """

    code = "request_refused"

    def __init__(self, message: str, *, status: int, provider_code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.provider_code = provider_code


class SignInFailed(QuotaError):
    """A sign-in that must not go through.

    `code` is one of `django_quota.messages.SIGN_IN_ERRORS`, shown to the person as
    `?quota_error=<code>`; the message is the reason for the log.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class TokenUnreadable(QuotaError):
    """A stored token cannot be decrypted with any key of FIELD_ENCRYPTION_KEY.

    It was not sent and will not be overwritten by a refresh. Put the key it was encrypted with
    back into FIELD_ENCRYPTION_KEY (a list: newest first); else the user signs in again.
    """

    code = "token_unreadable"


class RefreshImpossibleHere(QuotaError):
    """A token must be renewed, but not from inside this transaction. Quota was not called.

    On SQLite a second connection cannot write while the caller's transaction is open; and no
    second connection sees a row that this transaction has created and not committed.
    """

    code = "refresh_impossible_here"
