"""The page that shows a failed sign-in."""

from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.views.generic import View

from django_quota import accounts
from django_quota.tokens.payer import user_of

from . import messages
from .error_texts import UNKNOWN
from .redirects import site_url
from .responses import personal_view


@method_decorator(personal_view, name="dispatch")
class ErrorView(View):
    """GET error?quota_error=<code>: explains the error, and links to another attempt."""

    http_method_names = ["get", "head"]
    template_name = "django_quota/error.html"

    def get(self, request: HttpRequest) -> HttpResponseBase:
        context = messages.explain(request)
        context["error"] = context["error"] or UNKNOWN
        context["home_url"] = site_url()
        if context["error"].code == "not_permitted":
            context["signed_in"] = _account_name(user_of(request))
        return render(request, self.template_name, context)


def _account_name(user: Any) -> str:
    """The e-mail address or name that the person knows their account by; "" for anonymous users."""
    if not user.is_authenticated:
        return ""
    account = accounts.account_of(user)
    return (account and (account.email or account.name)) or str(user.get_username())
