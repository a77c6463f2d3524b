"""Signs out of this site and of Quota.

If the session at Quota stayed open, the next person at this browser could sign in as the first one
without a password.
"""

import logging

from django.conf import settings
from django.contrib import auth
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_variables
from mozilla_django_oidc.views import OIDCLogoutView

from django_quota.conf import get_settings
from django_quota.exceptions import QuotaError
from django_quota.oidc import endpoints
from django_quota.tokens import storing
from django_quota.tokens.payer import refuse_if_acting, user_of

from . import outcomes
from .redirects import redirect_browser, site_url, url_for_script
from .requests import expects_redirect
from .responses import personal_view

logger = logging.getLogger("django_quota.sign_in")


@sensitive_variables()
def url_at_quota(request: HttpRequest, id_token: str = "") -> str | None:
    """Return the URL where this browser signs out of Quota, which then redirects to this site.

    `id_token` names the person. Without one, as after a disconnect, the URL names this app, if a
    sign-in has begun this session. None if there is neither, or if Quota has no such page.

    Raises the errors of `endpoints.end_session_url`.
    """
    if not id_token and not outcomes.has_been_at_quota(request.session):
        return None
    return endpoints.end_session_url(
        id_token_hint=id_token,
        post_logout_redirect_uri=get_settings().post_logout_redirect_uri
        or request.build_absolute_uri(site_url(settings.LOGOUT_REDIRECT_URL)),
    )


@method_decorator(personal_view, name="dispatch")
class LogoutView(OIDCLogoutView):  # type: ignore[misc]
    """POST logout: sign out of this site, then of Quota (the recipe, "Sign out cleanly").

    A form is redirected; a fetch() gets `{"logout_url": ...}`, where the script sends the browser.
    """

    http_method_names = ["post"]

    def post(self, request: HttpRequest) -> HttpResponseBase:
        url = self.redirect_url  # before the logout, as it needs the user
        auth.logout(request)
        if expects_redirect(request):
            return redirect_browser(request, url)
        return JsonResponse({"logout_url": url_for_script(request, url)})

    @property
    @sensitive_variables()
    def redirect_url(self) -> str:
        """Quota's end_session_endpoint, or a page of this site if that cannot be used."""
        home = None
        try:
            home = get_settings().post_logout_redirect_uri
            # A person who acts as the user must not get the user's id_token.
            refuse_if_acting(self.request)
            hint = storing.newest_id_token(user_of(self.request))
            url = url_at_quota(self.request, hint)
        except QuotaError as error:
            # The sign-out of this site must work while Quota is down.
            logger.warning("signed out of this site only, not of Quota: %s", error)
            url = None
        return url or home or site_url(settings.LOGOUT_REDIRECT_URL)
