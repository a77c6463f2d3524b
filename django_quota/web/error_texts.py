"""The texts of the error pages: one for each of a fixed set of codes."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

Text = str | Promise

#: The code, on the page, of a SpendingLimitReached that ends with the day.
DAY_LIMIT = "day_limit_reached"


@dataclass(frozen=True)
class ErrorText:
    """The text for one code: what happened, and what to do next."""

    code: str
    title: Text
    message: Text
    action: Text


def _by_code(*texts: ErrorText) -> Mapping[str, ErrorText]:
    return MappingProxyType({text.code: text for text in texts})


_START_OVER = _("Please sign in again.")
_LATER = _("Please try again in a moment.")
_OWNER = _("Please try again later, or tell the people who run this site.")

SIGN_IN_ERRORS = _by_code(
    # Codes of the recipe.
    ErrorText(
        "state_mismatch",
        _("This sign-in has expired"),
        _("It was started too long ago, or in another browser."),
        _("Please sign in again, and allow cookies for this site."),
    ),
    ErrorText(
        "token_exchange_failed",
        _("Quota did not confirm the sign-in"),
        _("The sign-in could not be completed with Quota."),
        _START_OVER,
    ),
    ErrorText(
        "invalid_id_token",
        _("Your identity could not be verified"),
        _("What Quota sent could not be verified, so nobody was signed in."),
        _START_OVER,
    ),
    # Errors of the authorization endpoint (RFC 6749 section 4.1.2.1).
    ErrorText(
        "access_denied",
        _("You cancelled the sign-in"),
        _("Quota was not allowed to share anything with this site."),
        _("If you change your mind, try again."),
    ),
    ErrorText(
        "invalid_scope",
        _("This site asks for too much"),
        _("This site asks Quota for a permission that it is not registered for."),
        _OWNER,
    ),
    ErrorText(
        "authorization_failed",
        _("Quota did not accept the sign-in"),
        _("Quota could not carry out this request."),
        _START_OVER,
    ),
    ErrorText(
        "insufficient_scope",
        _("A permission is missing"),
        _("Quota was not allowed to give this site what it needs."),
        _("Sign in again and allow it."),
    ),
    # Errors before the redirect to Quota, and of the configuration.
    ErrorText(
        "provider_unavailable",
        _("Quota cannot be reached"),
        _("Quota does not answer right now."),
        _LATER,
    ),
    ErrorText(
        "issuer_mismatch",
        _("Sign-in is not set up correctly"),
        _("This site and Quota do not agree on who Quota is."),
        _OWNER,
    ),
    ErrorText(
        "not_configured",
        _("Sign-in is not set up yet"),
        _("A setting of this site is missing or wrong."),
        _OWNER,
    ),
    # Sign-ins that this site refuses.
    ErrorText(
        "account_inactive",
        _("This account is switched off"),
        _("You cannot sign in with it."),
        _OWNER,
    ),
    ErrorText(
        "account_conflict",
        _("There is an account like yours already"),
        _("An account of this site that is not connected to Quota uses your e-mail."),
        _("Sign in to that account as before, then connect Quota from there."),
    ),
    ErrorText(
        "email_known",
        _("You already have an account here"),
        _("An account of this site has your e-mail address."),
        _("Sign in to it as usual, then connect your wallet from there."),
    ),
    ErrorText(
        "email_required",
        _("Your e-mail address is missing"),
        _("This site needs an e-mail address that Quota has verified."),
        _("Verify yours at Quota, then sign in again and allow this site to see it."),
    ),
    ErrorText(
        "wallet_only",
        _("Sign in as usual"),
        _("This wallet is connected to an account that has a password here."),
        _("Sign in to that account as before: your wallet is connected to it."),
    ),
    ErrorText(
        "sign_up_closed",
        _("No new accounts"),
        _("This site does not accept new accounts at the moment."),
        _("If you have an account, sign in as before and connect Quota from there."),
    ),
    ErrorText(
        "sign_in_refused",
        _("You cannot sign in here"),
        _("This site does not accept your Quota account."),
        _OWNER,
    ),
    # Connect Wallet.
    ErrorText(
        "account_in_use",
        _("This wallet belongs to somebody else here"),
        _("Another account of this site is connected to it."),
        _("Sign in with Quota to use that account, or connect another wallet."),
    ),
    ErrorText(
        "wallet_already_connected",
        _("You have a wallet connected already"),
        _("It was not replaced."),
        _("Connect again and confirm that you want to replace it."),
    ),
)

#: More codes, of errors that a project's view raises (`django_quota.web.answers`).
VIEW_ERRORS = _by_code(
    ErrorText(
        "not_connected",
        _("No wallet is connected"),
        _("You have no Quota wallet connected here, so nothing can pay for this."),
        _("Sign in with Quota, or connect your wallet."),
    ),
    ErrorText(
        "reauthentication_required",
        _("Please sign in again"),
        _("Quota has ended this site's access to your wallet."),
        _("Sign in with Quota to go on."),
    ),
    ErrorText(
        "insufficient_credits",
        _("Out of credits"),
        _("Your credits do not cover this."),
        _("Buy credits, then try again."),
    ),
    ErrorText(
        "spending_limit_reached",
        _("A spending limit was reached"),
        _("This task has spent as much of your credits as this site allows for one task."),
        _("Nothing more was spent. Try again with a smaller task."),
    ),
    ErrorText(
        DAY_LIMIT,
        _("Today's spending limit is reached"),
        _("You have spent as much of your credits as this site allows in a day."),
        _("Nothing more is spent today. You can go on tomorrow."),
    ),
    ErrorText(
        "impersonation_refused",
        _("You are acting as somebody else"),
        _("While you act as them, their wallet pays for nothing and cannot be changed."),
        _("Stop acting as them, then try again."),
    ),
    ErrorText(
        "not_permitted",
        _("This page is not open to this account"),
        _("The account lacks the permission that the page asks for."),
        _("Sign in with another account, or ask the people who run this site for access."),
    ),
    ErrorText(
        "rate_limited",
        _("Too much at once"),
        _("Quota takes no more requests for the moment."),
        _LATER,
    ),
    ErrorText(
        "refresh_impossible_here",
        _("Your wallet is busy"),
        _("The access to it could not be renewed just now."),
        _LATER,
    ),
    ErrorText(
        "request_refused",
        _("Quota refused this"),
        _("Quota did not accept what this site has asked for."),
        _OWNER,
    ),
    ErrorText(
        "token_unreadable",
        _("Your wallet cannot be used"),
        _("This site cannot read its key to your wallet."),
        _("Sign in with Quota again, or tell the people who run this site."),
    ),
)

UNKNOWN = ErrorText("unknown", _("Sign-in failed"), _("Something went wrong."), _START_OVER)
