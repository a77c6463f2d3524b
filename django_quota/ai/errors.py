"""Translates the errors of the AI SDKs into errors of `django_quota.exceptions`.

The Anthropic SDK has classes of its own, with the same attributes as the OpenAI SDK's.
"""

from typing import Any

from openai import APIError

from django_quota.exceptions import (
    ConfigurationError,
    ProviderUnavailable,
    QuotaError,
    ReauthenticationRequired,
)
from django_quota.oidc.network import fault
from django_quota.oidc.refusals import error_for
from django_quota.oidc.transport import plain_code, retry_after

from .sdk_http import httpx

#: What the SDK raises when a call fails, and lets through when a response breaks off.
CALL_ERRORS = (APIError, httpx.HTTPError)
#: What it raises, too, while it reads a malformed response: text that is not JSON, an endless
#: number, JSON that is nested too deep.
READING_ERRORS = (*CALL_ERRORS, ValueError, RecursionError)

#: The HTTP status that an error code in the middle of a stream stands for (quota-protocol section
#: 9). Gateways to several models send the status itself as the code.
_STATUS_OF_CODE = {
    "402": 402,
    "429": 429,
    "insufficient_credits": 402,
    "insufficient_balance": 402,
    "rate_limit": 429,
    "rate_limit_exceeded": 429,
}
_BAD_KEY = "Quota refuses this API key; check the developer's sk-quota-..."
#: What a refusal means for a call paid by the developer, which no user can fix.
_ADVICE_TO_DEVELOPER = {
    401: _BAD_KEY,
    402: "The developer's own wallet cannot cover this call; top it up.",
    403: _BAD_KEY,
}


def translate(error: Exception, *, user_pays: bool) -> Exception:
    """Return the error to raise in place of `error`, which is one of READING_ERRORS."""
    # Older releases of the SDK wrap every error raised while a call is sent into a "Connection
    # error.". Unwrap the errors of `BearerAuth`, and programming errors, such as an HTTP client
    # that does not fit the SDK: for these "Quota cannot be reached" would be wrong.
    if isinstance(error.__cause__, QuotaError | TypeError | AttributeError | ImportError):
        return error.__cause__
    if not _is_api_error(error):
        return ProviderUnavailable("Quota's answer cannot be read; try again later.")
    status, code = _status(error), plain_code(_code(error))
    if not user_pays and status in _ADVICE_TO_DEVELOPER:
        return ConfigurationError(_ADVICE_TO_DEVELOPER[status])
    if user_pays and status == 401:
        return ReauthenticationRequired(
            "Quota refuses even a token it has just renewed; let the user sign in again.",
            provider_code=code,
        )
    response = getattr(error, "response", None)
    seconds = None if response is None else retry_after(response.headers)
    return error_for(status, code, seconds, scope="credits.spend", reason=fault(error))


def cause_to_show(error: Exception) -> Exception | None:
    """Return `error` if its traceback helps the developer, else None.

    A 4xx says what is wrong with the request. Any other traceback shows only code of the SDK, and
    perhaps what Quota says about a token that it refuses.
    """
    if not _is_api_error(error):
        return None
    status = _status(error) or 0
    return error if 400 <= status < 500 and status not in (401, 402, 403, 429) else None


def _is_api_error(error: Exception) -> bool:
    """True for the SDKs' APIError, whose `body` is the JSON or the text of the response."""
    return hasattr(error, "body")


def _status(error: Any) -> int | None:
    """The HTTP status; for an error in the middle of a stream, the status its code stands for."""
    status: int | None = getattr(error, "status_code", None)
    # The response of a stream that fails in the middle has begun with a 200.
    if status is not None and status >= 400:
        return status
    return _STATUS_OF_CODE.get(str(_code(error)))


def _code(error: Any) -> Any:
    """The error code: the OpenAI SDK's `code`, else that in the body."""
    if (code := getattr(error, "code", None)) is not None:
        return code
    inner = error.body.get("error") if isinstance(error.body, dict) else None
    return inner.get("code") if isinstance(inner, dict) else None
