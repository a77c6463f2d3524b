"""Explains an error to the person, with one of the texts of `error_texts`.

The page gets the code in its URL (`?quota_error=<code>`), and a reference that is in the log, too
(`quota_ref`). It shows nothing else about the error.
"""

import re
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from django_quota.exceptions import REFERENCE_LETTERS, QuotaError, SpendingLimitReached

from . import outcomes
from .error_texts import DAY_LIMIT, SIGN_IN_ERRORS, UNKNOWN, VIEW_ERRORS, ErrorText, Text
from .redirects import safe_next, site_login_url, site_url, url_with
from .requests import query_value
from .signed_scopes import read_scope

_REFERENCE = re.compile(f"[{REFERENCE_LETTERS}]{{8}}")
#: Another sign-in with Quota would end in the same error.
_NOT_BY_QUOTA = ("email_known", "wallet_only")
_TEXTS = {**SIGN_IN_ERRORS, **VIEW_ERRORS}


def code_of(error: QuotaError) -> str:
    """The code of the text for `error`: its own if there is a text for it."""
    if isinstance(error, SpendingLimitReached) and error.kind == "user_day":
        return DAY_LIMIT
    return error.code if error.code in _TEXTS else "provider_unavailable"


def error_body(error: QuotaError, reference: str) -> dict[str, Any]:
    """`error` in the shape of Quota's errors (quota-protocol section 9), with our text.

    A spending limit has the members `kind`, `limit` and `spent`, too.
    """
    text = _TEXTS[code_of(error)]
    body: dict[str, Any] = {
        "code": error.code,
        "message": str(text.message),
        "hint": str(text.action),
    }
    if isinstance(error, SpendingLimitReached):
        body |= {"kind": error.kind, "limit": error.limit, "spent": error.spent}
    return body | ({"reference": reference} if reference else {})


def describe(code: str | None) -> ErrorText | None:
    """The text for a code from a URL: None without a code, UNKNOWN for an unknown one."""
    return _TEXTS.get(code, UNKNOWN) if code else None


def explain(request: HttpRequest) -> dict[str, Any]:
    """Return the template context for the error that the page's URL names.

    `error` is None if it names none. Anybody can make up a URL, so only our own texts are shown.
    """
    error = describe(request.GET.get("quota_error"))
    if error is not None:
        outcomes.forget_failure(request)
    reference = query_value(request, "quota_ref") or ""
    retry_url, retry_text = _retry(request, error.code if error else "")
    return {
        "error": error,
        "reference": reference if _REFERENCE.fullmatch(reference) else "",
        "retry_url": retry_url,
        "retry_text": retry_text,
    }


def _retry(request: HttpRequest, code: str) -> tuple[str, Text]:
    """The URL and the text of the link that leads on from an error."""
    back = safe_next(request, query_value(request, "next"))
    if code in _NOT_BY_QUOTA:
        connects = code == "email_known"
        onward = url_with("django_quota:connect", next=back) if connects else back
        if login_url := site_login_url(request, onward):
            return login_url, _("Sign in as usual")
    retry = query_value(request, "quota_retry")
    if retry == "page":  # it was not a sign-in that failed
        return back or site_url(), _("Go back") if code == DAY_LIMIT else _("Try again")
    scope = query_value(request, "scope") or ""
    view = "django_quota:connect" if retry == "connect" else "django_quota:start"
    as_other = code == "not_permitted" or code in _NOT_BY_QUOTA
    url = url_with(
        view,
        scope=scope if read_scope(scope) else "",
        # Without the prompt, Quota would sign in the same person at once.
        prompt="login" if as_other else "",
        next=back,
    )
    return url, _("Sign in as somebody else") if as_other else _("Try again")
