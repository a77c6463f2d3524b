"""What a person is told when something fails: a closed set of codes, each with words.

The code travels in the URL as `?quota_error=<code>`, and with it, as `quota_ref`, a reference that
also stands in the log; nothing else of a failure is shown.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from django.http import HttpRequest
from django.utils.crypto import get_random_string
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from .exceptions import QuotaError
from .web import read_scope, safe_next, single, url_with

__all__ = [
    "SIGN_IN_ERRORS",
    "UNKNOWN",
    "VIEW_ERRORS",
    "ErrorText",
    "code_of",
    "describe",
    "error_body",
    "explain",
    "new_reference",
]

Text = str | Promise

#: Read out over the telephone, so without 0 and O, 1 and I.
_REFERENCE_LETTERS = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
_REFERENCE = re.compile(f"[{_REFERENCE_LETTERS}]{{8}}")


@dataclass(frozen=True)
class ErrorText:
    """An error in words: what happened, and what to do next."""

    code: str
    title: Text
    message: Text
    action: Text


def _error(code: str, title: Text, message: Text, action: Text) -> tuple[str, ErrorText]:
    return code, ErrorText(code, title, message, action)


_START_OVER = _("Please sign in again.")
_LATER = _("Please try again in a moment.")
_OWNER = _("Please try again later, or tell the people who run this site.")

SIGN_IN_ERRORS: Mapping[str, ErrorText] = MappingProxyType(
    dict(
        [
            # The recipe's own codes.
            _error(
                "state_mismatch",
                _("This sign-in has expired"),
                _("It was started too long ago, or in another browser."),
                _("Please sign in again, and allow cookies for this site."),
            ),
            _error(
                "token_exchange_failed",
                _("Quota did not confirm the sign-in"),
                _("The sign-in could not be completed with Quota."),
                _START_OVER,
            ),
            _error(
                "invalid_id_token",
                _("Your identity could not be verified"),
                _("What Quota sent could not be verified, so nobody was signed in."),
                _START_OVER,
            ),
            # The provider's answer at the authorization endpoint (RFC 6749 section 4.1.2.1).
            _error(
                "access_denied",
                _("You cancelled the sign-in"),
                _("Quota was not allowed to share anything with this site."),
                _("If you change your mind, try again."),
            ),
            _error(
                "invalid_scope",
                _("This site asks for too much"),
                _("This site asks Quota for a permission that it is not registered for."),
                _OWNER,
            ),
            _error(
                "authorization_failed",
                _("Quota did not accept the sign-in"),
                _("Quota could not carry out this request."),
                _START_OVER,
            ),
            _error(
                "insufficient_scope",
                _("A permission is missing"),
                _("Quota was not allowed to give this site what it needs."),
                _("Sign in again and allow it."),
            ),
            # Before and around it.
            _error(
                "provider_unavailable",
                _("Quota cannot be reached"),
                _("Quota does not answer right now."),
                _LATER,
            ),
            _error(
                "issuer_mismatch",
                _("Sign-in is not set up correctly"),
                _("This site and Quota do not agree on who Quota is."),
                _OWNER,
            ),
            _error(
                "not_configured",
                _("Sign-in is not set up yet"),
                _("A setting of this site is missing or wrong."),
                _OWNER,
            ),
            # Who may sign in.
            _error(
                "account_inactive",
                _("This account is switched off"),
                _("You cannot sign in with it."),
                _OWNER,
            ),
            _error(
                "account_conflict",
                _("There is an account like yours already"),
                _("An account of this site that is not connected to Quota uses your e-mail."),
                _("Sign in to that account as before, then connect Quota from there."),
            ),
            _error(
                "email_required",
                _("Your e-mail address is missing"),
                _("This site needs an e-mail address that Quota has verified."),
                _("Verify yours at Quota, then sign in again and allow this site to see it."),
            ),
            _error(
                "sign_up_closed",
                _("No new accounts"),
                _("This site does not accept new accounts at the moment."),
                _("If you have an account, sign in as before and connect Quota from there."),
            ),
            _error(
                "sign_in_refused",
                _("You cannot sign in here"),
                _("This site does not accept your Quota account."),
                _OWNER,
            ),
            # Connect Wallet.
            _error(
                "account_in_use",
                _("This wallet belongs to somebody else here"),
                _("Another account of this site is connected to it."),
                _("Sign in with Quota to use that account, or connect another wallet."),
            ),
            _error(
                "wallet_already_connected",
                _("You have a wallet connected already"),
                _("It was not replaced."),
                _("Connect again and confirm that you want to replace it."),
            ),
        ]
    )
)

#: What may come up in the middle of a view, beside those (`django_quota.answers`).
VIEW_ERRORS: Mapping[str, ErrorText] = MappingProxyType(
    dict(
        [
            _error(
                "not_connected",
                _("No wallet is connected"),
                _("You have no Quota wallet connected here, so nothing can pay for this."),
                _("Sign in with Quota, or connect your wallet."),
            ),
            _error(
                "reauthentication_required",
                _("Please sign in again"),
                _("Quota has ended this site's access to your wallet."),
                _("Sign in with Quota to go on."),
            ),
            _error(
                "insufficient_credits",
                _("Out of credits"),
                _("Your credits do not cover this."),
                _("Buy credits, then try again."),
            ),
            _error(
                "rate_limited",
                _("Too much at once"),
                _("Quota takes no more requests for the moment."),
                _LATER,
            ),
            _error(
                "refresh_impossible_here",
                _("Your wallet is busy"),
                _("The access to it could not be renewed just now."),
                _LATER,
            ),
            _error(
                "request_refused",
                _("Quota refused this"),
                _("Quota did not accept what this site has asked for."),
                _OWNER,
            ),
            _error(
                "token_unreadable",
                _("Your wallet cannot be used"),
                _("This site cannot read its key to your wallet."),
                _("Sign in with Quota again, or tell the people who run this site."),
            ),
        ]
    )
)

UNKNOWN = ErrorText("unknown", _("Sign-in failed"), _("Something went wrong."), _START_OVER)


def code_of(error: QuotaError) -> str:
    """The code to show for `error`: its own if there are words for it."""
    return error.code if describe(error.code) is not UNKNOWN else "provider_unavailable"


def error_body(error: QuotaError, reference: str) -> dict[str, str]:
    """`error` in Quota's own shape (quota-protocol section 9), in our words."""
    words = describe(code_of(error)) or UNKNOWN
    body = {"code": error.code, "message": str(words.message), "hint": str(words.action)}
    return body | ({"reference": reference} if reference else {})


def new_reference() -> str:
    """A name for one failure: the person is shown it, and the log line has it."""
    return get_random_string(8, _REFERENCE_LETTERS)


def describe(code: str | None) -> ErrorText | None:
    """The words for a code from a URL: None without one, general words for a strange one."""
    if not code:
        return None
    return SIGN_IN_ERRORS.get(code) or VIEW_ERRORS.get(code, UNKNOWN)


def explain(request: HttpRequest) -> dict[str, Any]:
    """What a page shows of the failure that its address names, as a template's context.

    `error` is None where it names none. Nothing is shown that is not ours: addresses are anybody's.
    """
    reference = single(request, "quota_ref") or ""
    return {
        "error": describe(request.GET.get("quota_error")),
        "reference": reference if _REFERENCE.fullmatch(reference) else "",
        "retry_url": _retry_url(request),
    }


def _retry_url(request: HttpRequest) -> str:
    """Where "Try again" leads: the page itself, where it was no sign-in that failed."""
    retry, back = single(request, "quota_retry"), safe_next(request, single(request, "next"))
    if retry == "page":
        return back or "/"
    scope = single(request, "scope") or ""
    view = "django_quota:connect" if retry == "connect" else "django_quota:start"
    return url_with(view, scope=scope if read_scope(scope) else "", next=back)
