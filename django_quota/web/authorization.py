"""`SignInView`, the base of start, callback and connect: redirects to Quota, and answers failures.

RFC 6749 section 4.1.1, OpenID Connect Core 1.0 section 3.1.2.1.
"""

import logging
from collections.abc import Callable
from typing import Any

from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import NoReverseMatch, reverse
from django.utils.decorators import classonlymethod
from django.views.generic import View

from django_quota.conf import get_settings
from django_quota.exceptions import (
    ConfigurationError,
    ImpersonationRefused,
    QuotaError,
    new_reference,
)
from django_quota.oidc import endpoints
from django_quota.signals import sign_in_failed

from . import messages, outcomes, pending
from .answers import error_response
from .pending import PendingSignIn
from .redirects import redirect_browser, safe_next, site_url, url_with
from .requests import expects_redirect
from .responses import personal_view
from .signed_scopes import sign_scope

logger = logging.getLogger("django_quota.sign_in")


class SignInView(View):
    """Base of start, callback and connect. A failure is a redirect with an error code."""

    http_method_names = ["get"]
    request: HttpRequest
    #: The error that `login_failure` answers.
    error: QuotaError
    error_code: str
    reference: str

    @classonlymethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        """Return the view function, decorated once: `method_decorator` would do it anew for each
        request."""
        return personal_view(super().as_view(**initkwargs))

    def __init__(self, **kwargs: Any) -> None:
        # Skip the constructors of mozilla-django-oidc, which read OIDC_* settings.
        View.__init__(self, **kwargs)
        #: The page that the person wanted.
        self.next = ""
        #: What "Try again" repeats: "connect", or "" for a sign-in.
        self.retry_view = ""
        #: Scopes to ask for beyond those of the settings, separated by spaces.
        self.extra_scopes = ""
        #: True to let the person choose an account at Quota, even if they are signed in there.
        self.prompts_login = False

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return super().dispatch(request, *args, **kwargs)
        except QuotaError as error:
            self.error = error
            return self.login_failure()

    def login_failure(self) -> HttpResponseBase:
        """Log `self.error`, send `sign_in_failed` and redirect to the error page, all with the same
        reference."""
        error = self.error
        self.error_code = messages.code_of(error)
        self.reference = new_reference()
        level = logging.ERROR if isinstance(error, ConfigurationError) else logging.WARNING
        logger.log(level, "sign-in failed: %s: %s [%s]", self.error_code, error, self.reference)
        sign_in_failed.send(
            sender=type(self),
            request=self.request,
            code=self.error_code,
            reason=str(error),
            reference=self.reference,
        )
        if isinstance(error, ImpersonationRefused) and not expects_redirect(self.request):
            return error_response(self.request, error)  # a fetch() must not be redirected
        url = self.failure_url
        if not url.startswith(reverse("django_quota:error")):
            outcomes.record_failure(self.request, self.failure_query)
        return HttpResponseRedirect(url)

    @property
    def failure_query(self) -> dict[str, str]:
        """The query parameters of the page that shows the failure."""
        return {
            "quota_error": self.error_code,
            "quota_ref": self.reference,
            "quota_retry": self.retry_view,
            "scope": sign_scope(self.extra_scopes),
            "next": safe_next(self.request, self.next),
        }

    @property
    def failure_url(self) -> str:
        """QUOTA_ERROR_URL with `failure_query`."""
        try:
            target = get_settings().error_url
        except ConfigurationError:
            target = "django_quota:error"
        try:
            return url_with(site_url(target), **self.failure_query)
        except NoReverseMatch:  # `manage.py check` reports it; the person must not get a 500
            return url_with("django_quota:error", **self.failure_query)

    @property
    def success_url(self) -> str:
        """The page that the person wanted, else LOGIN_REDIRECT_URL."""
        # Check `next` again, as the session may have been filled under another host name.
        return safe_next(self.request, self.next) or site_url(django_settings.LOGIN_REDIRECT_URL)

    def send_to_quota(self, scopes: tuple[str, ...], **details: Any) -> HttpResponseBase:
        """Store this sign-in in the session, and redirect to Quota to ask for `scopes` and
        `self.extra_scopes`. `details` are more fields of PendingSignIn."""
        started = PendingSignIn(
            redirect_uri=get_settings().redirect_uri
            or self.request.build_absolute_uri(reverse("django_quota:callback")),
            next=self.next,
            extra_scopes=self.extra_scopes,
            **details,
        )
        url = endpoints.authorization_url(
            redirect_uri=started.redirect_uri,
            scopes=add_scopes(scopes, self.extra_scopes),
            state=started.state,
            nonce=started.nonce,
            code_challenge=started.code_challenge,
            extra=({"prompt": "login"} if self.prompts_login else {})
            | self.get_extra_params(self.request),
        )
        pending.save(self.request.session, started)
        return redirect_browser(self.request, url)

    def get_extra_params(self, request: HttpRequest) -> dict[str, str]:
        """Return more parameters for the authorization request, for subclasses."""
        return {}


def add_scopes(scopes: tuple[str, ...], extra_scopes: str) -> tuple[str, ...]:
    """Return `scopes` and those in `extra_scopes` (separated by spaces), each once."""
    return tuple(dict.fromkeys((*scopes, *extra_scopes.split())))
