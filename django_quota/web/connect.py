"""Connect Wallet: connects a wallet to a user who signs in without Quota."""

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse

from django_quota import accounts
from django_quota.conf import get_settings
from django_quota.models import QuotaToken
from django_quota.oidc.id_token import MAX_SUBJECT_LENGTH
from django_quota.tokens.payer import refuse_if_acting, user_of

from .authorization import SignInView
from .redirects import safe_next, url_on_this_host, user_home_url
from .requests import form_value, query_value
from .signed_scopes import read_scope, sign_scope


class ConnectView(SignInView):
    """GET connect: a page that asks whether to connect a wallet to the signed-in user, and whether
    to replace the wallet they have. POST: redirect to Quota.

    It needs a POST because this browser may be signed in at Quota as another person: a link would
    connect that person's identity, and they could then sign in as this user. It is refused while
    somebody acts as the user, whatever the settings allow, because the browser's session at Quota
    belongs to the person who acts.
    """

    http_method_names = ["get", "post"]
    template_name = "django_quota/connect_confirm.html"

    def get(self, request: HttpRequest) -> HttpResponseBase:
        self.retry_view = "connect"
        self.next = safe_next(request, query_value(request, "next"))
        if not user_of(request).is_authenticated:
            return redirect_to_login(request.get_full_path())
        refuse_if_acting(request)
        context = {
            "account": accounts.account_of(user_of(request)),
            "connected": _has_tokens(request),
            "allows_sign_in": accounts.connecting_allows_sign_in(user_of(request)),
            "connect_url": reverse("django_quota:connect"),
            "next": self.next,
            "home_url": user_home_url(),
            "scope": sign_scope(read_scope(query_value(request, "scope"))),
        }
        return render(request, self.template_name, context)

    def post(self, request: HttpRequest) -> HttpResponseBase:
        self.retry_view = "connect"
        self.next = safe_next(request, form_value(request, "next"))
        self.extra_scopes = read_scope(form_value(request, "scope"))
        if not user_of(request).is_authenticated:
            return redirect_to_login(reverse("django_quota:connect"))
        refuse_if_acting(request)
        self.next = url_on_this_host(request, self.success_url) or self.next
        # Else Quota would return the same wallet at once to a browser that is signed in there.
        self.prompts_login = _has_tokens(request)
        # The page showed the wallet that would be replaced, so posting the form is consent.
        return self.send_to_quota(
            get_settings().connect_scopes,
            user_pk=str(user_of(request).pk),
            replaces=form_value(request, "replaces")[:MAX_SUBJECT_LENGTH],
        )


def _has_tokens(request: HttpRequest) -> bool:
    """True if a wallet is connected. After a disconnect, only its account may be left."""
    return QuotaToken.objects.for_user(user_of(request)).exists()
