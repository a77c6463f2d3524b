"""The signed-in user's wallet over HTTP: who they are, the balance, and how to disconnect.

A browser's navigation gets a page or a redirect, a fetch() gets JSON. No cache keeps a response.
"""

import logging

from django.contrib import messages as django_messages
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET, require_POST

from django_quota import accounts, connecting
from django_quota.exceptions import QuotaError
from django_quota.models import QuotaToken
from django_quota.oidc.time_limit import within
from django_quota.tokens import revocation
from django_quota.tokens.payer import get_payer, user_of
from django_quota.wallet import balances, purchases

from . import sign_out
from .redirects import redirect_browser, safe_next, user_home_url
from .requests import expects_redirect, form_value
from .responses import personal_view
from .wallet_view import wallet_view

logger = logging.getLogger("django_quota.wallet")

#: Seconds for which `disconnect` waits for Quota to revoke the tokens.
REVOKE_WAIT_SECONDS = 3
_STILL_LINKED = _(
    "Your wallet is disconnected. You can still sign in with Quota, because your account on this "
    "site has no password."
)
_UNLINKED = _("Your wallet is disconnected, and Quota does not sign you in here any more.")
_STILL_AT_QUOTA = _(
    "This browser may still be signed in at Quota. If others use it, sign out there, too:"
)


@require_GET
@personal_view
def me(request: HttpRequest) -> HttpResponseBase:
    """GET me: `{"user": {sub, email, name, picture} | null}`, the user's Quota account."""
    account = accounts.account_of(user_of(request)) if user_of(request).is_authenticated else None
    user = account and {
        "sub": account.external_id,
        "email": account.email,
        "name": account.name,
        "picture": account.picture,
    }
    return JsonResponse({"user": user})


@require_GET
@personal_view
def status(request: HttpRequest) -> HttpResponseBase:
    """GET status: `{"connected": bool, "needs_sign_in": bool, "scopes": [...]}`, without asking
    Quota."""
    row = QuotaToken.objects.for_user(user_of(request)).first()
    return JsonResponse(
        {
            "connected": row is not None and not row.needs_sign_in,
            "needs_sign_in": row is not None and row.needs_sign_in,
            "scopes": row.scope.split() if row else [],
        }
    )


@require_GET
@wallet_view
def balance(request: HttpRequest) -> HttpResponseBase:
    """GET balance: `{"connected", "balance", "display", "state"}`, for scripts that update the
    balance on a page. `balance` is in credits, null if no wallet is linked."""
    found = purchases.get_balance(user_of(request))
    return JsonResponse(
        {
            "connected": True,
            "balance": found.credits,
            "display": found.display,
            "state": found.state,
        }
    )


@require_POST
@wallet_view
def disconnect(request: HttpRequest) -> HttpResponseBase:
    """POST disconnect (next): wipe the user's tokens here, have Quota revoke them, and unlink the
    account, unless the user could not sign in any more.

    `linked` in the JSON, or a message on the next page, says whether the account is still linked.
    Both offer to sign out of Quota, too (`logout_url`), if this browser may be signed in there:
    else the next person at this browser who clicks "Sign in" is signed in as this user.
    """
    user = get_payer(request)
    linked = connecting.disconnect(user)
    balances.forget_balance(user)
    with within(REVOKE_WAIT_SECONDS):
        revocation.revoke_pending(limit=3)  # quota_prune revokes what is left
    logout_url = _logout_url_at_quota(request)
    if expects_redirect(request):
        text = format_html("{}", _STILL_LINKED if linked else _UNLINKED)
        if logout_url:
            link = format_html('<a href="{}">{}</a>', logout_url, _("Sign out of Quota"))
            text = format_html("{} {} {}", text, _STILL_AT_QUOTA, link)
        django_messages.info(request, text, fail_silently=True)
        next_url = safe_next(request, form_value(request, "next"))
        return redirect_browser(request, next_url or user_home_url())
    return JsonResponse({"connected": False, "linked": linked, "logout_url": logout_url})


def _logout_url_at_quota(request: HttpRequest) -> str | None:
    """Where this browser signs out of Quota; None if it cannot."""
    try:
        return sign_out.url_at_quota(request)
    except QuotaError as error:
        logger.warning("no link to sign out of Quota is offered: %s", error)
        return None
