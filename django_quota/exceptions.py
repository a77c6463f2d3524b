"""The exceptions of django_quota, each with what to do about it.

::

    QuotaError                        the base class; never raised itself
    |-- ConfigurationError            the developer: fix the settings (also ImproperlyConfigured)
    |   `-- IssuerMismatch            ... QUOTA_ISSUER, with the line to paste
    |-- ProviderUnavailable           try later; every token is kept
    |   |-- RateLimited               ... after `retry_after` seconds
    |   |-- RefreshRefused            ... or let the user sign in again
    |   `-- GrantUnconfirmed          ... with the same `idempotency_key`
    |-- ImpersonationRefused          stop acting as the user, or allow it by a setting
    |-- NotConnected                  the user has no Quota wallet here: let them sign in
    |-- ReauthenticationRequired      Quota ended this connection: let the user sign in again
    |-- InsufficientScope             ask the user's consent for `scope`
    |-- InsufficientCredits           let the user buy credits
    |-- SpendingLimitReached          a limit of this site: end the task, or set a higher limit
    |-- RequestRefused                Quota refused this request: see `provider_code`
    |   `-- IdempotencyKeyRefused     ... of a grant: see the message
    |-- SignInFailed                  a sign-in was refused; the page shows `code`
    |-- TokenUnreadable               a stored token cannot be decrypted: restore the key
    `-- RefreshImpossibleHere         refresh before the transaction, or on another database

The message is for the developer's log. It says what to do next, and never contains a token, a code,
a secret or text from the network.
"""

from django.core.exceptions import ImproperlyConfigured
from django.utils.crypto import get_random_string

__all__ = [
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
    "RefreshImpossibleHere",
    "RefreshRefused",
    "RequestRefused",
    "SignInFailed",
    "SpendingLimitReached",
    "TokenUnreadable",
]

#: Without 0 and O, 1 and I, which are easily confused on the telephone.
REFERENCE_LETTERS = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"

#: No framework wraps an exception more often; a chain of causes may be a circle.
MAX_WRAPPERS = 20
#: Frameworks that raise their exception while they handle ours, and do not name it as the cause. Of
#: any other exception, that would be a mistake in the code that handles an error.
RAISED_WHILE_HANDLING = ("litellm",)


def new_reference() -> str:
    """Return a random reference of 8 letters for one failure.

    The page and the log line both show it: a person quotes it, and support finds the log line.
    """
    return get_random_string(8, REFERENCE_LETTERS)


class QuotaError(Exception):
    """The base class of this package's exceptions.

    `code` (str) is stable, machine readable and safe to show. `http_status` (int) is the status of
    our response to a request that raised it. `provider_code` (str) is Quota's own code, "" if it
    gave none; `retry_after` (int) is in seconds, None if unknown.
    """

    code = "quota_error"
    http_status = 502
    provider_code = ""
    retry_after: int | None = None


def find_quota_error(error: BaseException | None) -> QuotaError | None:
    """Return the error of this package that `error` is, or that an AI framework has wrapped in it.

    Most frameworks name what they wrap as the cause; those of RAISED_WHILE_HANDLING do not. An
    exception of Django or Django REST framework, such as Http404, was raised on purpose.
    """
    for _depth in range(MAX_WRAPPERS):
        if error is None or isinstance(error, QuotaError):
            return error
        package = type(error).__module__.partition(".")[0]
        if package in ("django", "rest_framework"):
            return None
        is_sloppy = package in RAISED_WHILE_HANDLING and not error.__suppress_context__
        handled = error.__context__ if is_sloppy else None
        error = error.__cause__ or handled
    return None


class ConfigurationError(QuotaError, ImproperlyConfigured):
    """A setting is missing or wrong; the message names it and how to get a value."""

    code = "not_configured"
    http_status = 503


class IssuerMismatch(ConfigurationError):
    """The discovery document names an issuer that is neither its own origin nor QUOTA_ISSUER.

    OpenID Connect Discovery 1.0 section 4.3; the recipe's "OIDC issuer in production".
    """

    code = "issuer_mismatch"


class ProviderUnavailable(QuotaError):
    """Quota did not answer in time, or its answer is not usable. No token was lost; try later.

    `request_sent` (bool) is False only if the request certainly was not sent, so that a single-use
    code or refresh token is unspent. `status` (int) is the HTTP status of an unusable answer, None
    if there was no answer.
    """

    code = "provider_unavailable"
    http_status = 503

    def __init__(
        self, message: str, *, request_sent: bool = True, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.request_sent = request_sent
        self.status = status


class RefreshRefused(ProviderUnavailable):
    """Quota refused the refresh token, but did not say that it has ended. The token is kept.

    If Quota still refuses it a minute later, ReauthenticationRequired is raised instead. The user
    can sign in again at once.
    """


class GrantUnconfirmed(ProviderUnavailable):
    """Quota may have credited the user, or not: call `grant_credits` again with `idempotency_key`.

    `idempotency_key` (str) is the caller's own, or the generated one. Quota credits once for each.
    """

    def __init__(self, message: str, *, idempotency_key: str, status: int | None = None) -> None:
        super().__init__(message, status=status)
        self.idempotency_key = idempotency_key


class RateLimited(ProviderUnavailable):
    """HTTP 429. `retry_after` is in seconds, None if Quota gave none (RFC 9110 section 10.2.3)."""

    code = "rate_limited"
    http_status = 429

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message, status=429)
        self.retry_after = retry_after


class ImpersonationRefused(QuotaError):
    """Somebody acts as this user, so the user's wallet is not billed or changed.

    Stop acting as the user, or set QUOTA_ALLOW_IMPERSONATED_BILLING, which allows everything but
    Connect Wallet.
    """

    code = "impersonation_refused"
    http_status = 403


class NotConnected(QuotaError):
    """The user has no Quota wallet connected here: send them to `django_quota:start`."""

    code = "not_connected"
    http_status = 401


class ReauthenticationRequired(QuotaError):
    """Quota no longer accepts this connection: send the user to `django_quota:start`.

    `provider_code` (str) is Quota's own code, such as `invalid_grant` (RFC 6749 section 5.2).
    """

    code = "reauthentication_required"
    http_status = 401

    def __init__(self, message: str, *, provider_code: str = "") -> None:
        super().__init__(message)
        self.provider_code = provider_code


class InsufficientScope(QuotaError):
    """The token lacks a scope (RFC 6750 section 3.1): sign in again with it in QUOTA_SCOPES.

    `scope` (str) names the missing scope; "" if Quota did not say which.
    """

    code = "insufficient_scope"
    http_status = 403

    def __init__(self, message: str, *, scope: str = "") -> None:
        super().__init__(message)
        self.scope = scope


class InsufficientCredits(QuotaError):
    """The wallet cannot cover the call (HTTP 402): send the user to `django_quota:packages`."""

    code = "insufficient_credits"
    http_status = 402


class SpendingLimitReached(QuotaError):
    """The calls have spent what this site allows, so no more is sent: docs/limits.rst.

    `kind` (str) is "block" for `spending_limit`, "request" or "user_day" for QUOTA_SPENDING_LIMITS.
    `limit` and `spent` are in credits; `retry_after` is the rest of the day, for "user_day". It is
    not a 429, which clients repeat by themselves: the repetition could spend as much again.
    """

    code = "spending_limit_reached"
    http_status = 402

    def __init__(
        self,
        message: str,
        *,
        kind: str = "block",
        limit: int = 0,
        spent: int = 0,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.kind, self.limit, self.spent, self.retry_after = kind, limit, spent, retry_after


class RequestRefused(QuotaError):
    """Quota refused a request, and would refuse it again: see `provider_code`.

    `status` is the HTTP status, `provider_code` Quota's error code (quota-protocol section 9).
    """

    code = "request_refused"

    def __init__(self, message: str, *, status: int, provider_code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.provider_code = provider_code


class IdempotencyKeyRefused(RequestRefused):
    """The `idempotency_key` belongs to another grant, or is too old to be repeated safely.

    `status` is 409, also if Quota was not asked.
    """


class SignInFailed(QuotaError):
    """A sign-in was refused.

    `code` (str) is one of `django_quota.web.error_texts.SIGN_IN_ERRORS`, and is shown to the person
    as `?quota_error=<code>`. The message is the reason, for the log.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class TokenUnreadable(QuotaError):
    """A stored token cannot be decrypted with any key of FIELD_ENCRYPTION_KEY.

    It was not sent, and no renewal overwrites it. Put the key that it was encrypted with back into
    FIELD_ENCRYPTION_KEY (a list, newest first), or let the user sign in again.
    """

    code = "token_unreadable"


class RefreshImpossibleHere(QuotaError):
    """A token must be renewed, or a grant recorded, but cannot be inside this transaction.

    Quota was not called. Both use a second connection. On SQLite that cannot write while the
    caller's transaction is open. On any database it does not see a row that this transaction has
    not committed.
    """

    code = "refresh_impossible_here"
    http_status = 503
