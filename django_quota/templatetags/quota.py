"""`{% load quota %}`: tags to sign in and out, show balances and costs, and buy credits.

Each tag renders a template in django_quota/tags/, which a project may override.
"""

from typing import Any

from django import template
from django.contrib.auth.models import AnonymousUser
from django.template.context import Context
from django.urls import reverse
from django.utils.translation import gettext as _

from django_quota import money
from django_quota.models import QuotaToken
from django_quota.web import messages
from django_quota.web.current import CurrentQuota
from django_quota.web.redirects import url_with

register = template.Library()


def _user(context: Context) -> Any:
    """The request's user; AnonymousUser without a request, as on Django's own 500 page."""
    return getattr(context.get("request"), "user", None) or AnonymousUser()


def _link(view: str, next: str | None, text: str, css_class: str) -> dict[str, Any]:
    return {"url": url_with(view, next=next or ""), "text": text, "css_class": css_class}


@register.inclusion_tag("django_quota/tags/sign_in.html")
def quota_sign_in(
    text: str | None = None, next: str | None = None, css_class: str = ""
) -> dict[str, Any]:
    """A "Sign in with Quota" button; `next` is the page after the sign-in."""
    return _link("django_quota:start", next, text or _("Sign in with Quota"), css_class)


@register.inclusion_tag("django_quota/tags/connect.html", takes_context=True)
def quota_connect(
    context: Context, text: str | None = None, next: str | None = None, css_class: str = ""
) -> dict[str, Any]:
    """A "Connect your Quota wallet" button for a user without a connected wallet, or "Connect
    another wallet"."""
    user = _user(context)
    connected = user.is_authenticated and QuotaToken.objects.for_user(user).exists()
    text = text or (_("Connect another wallet") if connected else _("Connect your Quota wallet"))
    return {**_link("django_quota:connect", next, text, css_class), "connected": connected}


@register.inclusion_tag("django_quota/tags/sign_out.html", takes_context=True)
def quota_sign_out(
    context: Context, text: str | None = None, css_class: str = ""
) -> dict[str, Any]:
    """A form that signs out of this site and of Quota."""
    link = _link("django_quota:logout", None, text or _("Sign out"), css_class)
    return {**link, "csrf_token": context.get("csrf_token")}


@register.inclusion_tag("django_quota/tags/balance.html", takes_context=True)
def quota_balance(context: Context) -> dict[str, Any]:
    """The user's balance, and whether it is low (QUOTA_LOW_BALANCE); nothing if no wallet is
    connected; "unavailable" while Quota is down. No cache keeps the page of a signed-in user."""
    request = context.get("request")
    if request is None or not hasattr(request, "user"):
        return {"state": ""}
    current = getattr(request, "quota", None)  # an async view may have awaited its balance already
    if not isinstance(current, CurrentQuota):
        current = CurrentQuota(request)
    url = reverse("django_quota:balance")
    return {"state": current.balance_state, "balance": current.balance, "url": url}


@register.inclusion_tag("django_quota/tags/buy_credits.html")
def quota_buy_credits(
    text: str | None = None, next: str | None = None, css_class: str = ""
) -> dict[str, Any]:
    """A link to the credit packages on offer."""
    return _link("django_quota:packages", next, text or _("Buy credits"), css_class)


@register.inclusion_tag("django_quota/tags/cost.html")
def quota_cost(usage: Any) -> dict[str, Any]:
    """An amount of credits in dollars, with the exact amount as its title.

    `usage` is what `record_usage` returned, a UsageRecord, or an int of credits. Nothing is shown
    if the cost is unknown (None).
    """
    return {"credits": money.whole_number(getattr(usage, "credits_used", usage))}


@register.inclusion_tag("django_quota/tags/error.html", takes_context=True)
def quota_error(context: Context) -> dict[str, Any]:
    """The text for `?quota_error=<code>` in the URL of this page; nothing without a code."""
    request = context.get("request")
    return messages.explain(request) if request is not None else {"error": None}


@register.filter
def credits_as_usd(credits: int | None) -> str:
    """`{{ credits|credits_as_usd }}`: 998849 is "$0.9988"; "" for any value but an int."""
    return money.format_usd(credits) if type(credits) is int else ""


@register.filter
def credits_as_exact_usd(credits: int | None) -> str:
    """`{{ credits|credits_as_exact_usd }}`: 998849 is "$0.998849"; "" for any value but an int."""
    return money.format_exact_usd(credits) if type(credits) is int else ""
