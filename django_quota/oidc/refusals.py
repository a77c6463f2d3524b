"""The errors that the statuses of Quota's API mean (quota-protocol section 9)."""

from django_quota.exceptions import (
    InsufficientCredits,
    InsufficientScope,
    ProviderUnavailable,
    QuotaError,
    RateLimited,
    RequestRefused,
)


def error_for(
    status: int | None, code: str, retry_after: int | None, *, scope: str = "", reason: str = ""
) -> QuotaError:
    """Return the error that a failed request to Quota's API means (quota-protocol section 9).

    `status` is the HTTP status, None if there was no answer; `code` Quota's error code, `scope` the
    scope that the request needs, and `reason` why the network failed; "" if unknown.
    """
    if status == 429:
        return RateLimited("Quota is limiting our rate; try again later.", retry_after=retry_after)
    if status == 402:
        return InsufficientCredits("The wallet cannot cover this; let the user buy credits.")
    if status == 403 and code == "insufficient_scope":
        advice = "The user's token lacks a scope; let them sign in again."
        return InsufficientScope(advice, scope=scope)
    if status is not None and 400 <= status < 500:
        return RequestRefused(
            f"Quota refused the request: {f'HTTP {status} {code}'.rstrip()}.",
            status=status,
            provider_code=code,
        )
    known = reason or (f"HTTP {status}" if status else "")
    details = f" ({known})" if known else ""
    return ProviderUnavailable(
        f"Quota gave no usable answer{details}; try again later.", status=status
    )
