"""The authorization endpoint: sign-in, consent, and the redirect back to the app."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from oauth2_provider.exceptions import FatalClientError, OAuthToolkitError
from oauth2_provider.views import AuthorizationView
from oauthlib.common import add_params_to_uri
from oauthlib.oauth2.rfc6749 import errors

from .models import Application
from .pages import error_page
from .scopes import SCOPES
from .state import state

__all__ = ["AuthorizeView"]

#: The session key for the scopes that the user has allowed in this session, by client id.
CONSENTS_KEY = "consents"


class AuthorizeView(AuthorizationView):  # type: ignore[misc]  # the library is untyped
    """Asks the user to sign in and to consent, and redirects to the app with a code.

    The consent form is posted to the URL with the original query string. Its parameters are
    validated again, so the form needs no hidden fields that a user could change.
    """

    template_name = "quota_sandbox/consent.html"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show the consent page, or redirect to the app if the user has consented before."""
        try:
            scopes, credentials = self.validate_authorization_request(request)
        except OAuthToolkitError as error:
            return self.error_response(error, None)
        prompt = set(request.GET.get("prompt", "").split())
        if "login" in prompt or "select_account" in prompt:
            # Removes prompt from the URL that the user returns to after signing in.
            response: HttpResponse = self.handle_prompt_login()
            return response
        application = credentials["request"].client
        allowed = request.session.get(CONSENTS_KEY, {}).get(application.client_id, [])
        if "consent" not in prompt and set(scopes) <= set(allowed):
            return self._redirect_to_app(application, scopes, credentials, allow=True)
        if "none" in prompt:
            required = errors.ConsentRequired(state=credentials["state"])
            wrapped = OAuthToolkitError(error=required, redirect_uri=credentials["redirect_uri"])
            return self.error_response(wrapped, application)
        context = {
            "application": application,
            "scopes": [(scope, SCOPES[scope]) for scope in scopes],
            "return_host": urlsplit(credentials["redirect_uri"]).netloc,
        }
        return render(request, self.template_name, context)

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Accept the consent form, and redirect to the app with a code or an error."""
        try:
            scopes, credentials = self.validate_authorization_request(request)
        except OAuthToolkitError as error:
            return self.error_response(error, None)
        application = credentials["request"].client
        allow = request.POST.get("decision") == "allow"
        if allow:
            consents = request.session.get(CONSENTS_KEY, {})
            allowed = set(consents.get(application.client_id, [])) | set(scopes)
            request.session[CONSENTS_KEY] = consents | {application.client_id: sorted(allowed)}
        return self._redirect_to_app(application, scopes, credentials, allow=allow)

    def handle_no_permission(self) -> HttpResponse:
        """Redirect to the sign-in page, but only if the request is valid."""
        try:
            self.validate_authorization_request(self.request)
        except OAuthToolkitError as error:
            return self.error_response(error, None)
        response: HttpResponse = super().handle_no_permission()
        return response

    def _redirect_to_app(
        self,
        application: Application,
        scopes: list[str],
        credentials: dict[str, Any],
        *,
        allow: bool,
    ) -> HttpResponse:
        credentials["client"] = application  # or the library loads it again
        try:
            uri, _, _, _ = self.create_authorization_response(
                self.request, " ".join(scopes), credentials, allow
            )
        except OAuthToolkitError as error:
            return self.error_response(error, application)
        return self.redirect(uri, application)

    def redirect(self, redirect_to: str, application: Application | None) -> HttpResponse:
        """Redirect to the app, with the issuer in the parameter ``iss`` (RFC 9207)."""
        uri = add_params_to_uri(redirect_to, [("iss", state.issuer)])
        response: HttpResponse = super().redirect(uri, application)
        return response

    def error_response(
        self, error: OAuthToolkitError, application: Application | None, **kwargs: Any
    ) -> HttpResponse:
        """Redirect to the app with the error, or show a page if it has no valid redirect URI."""
        # Some errors of oauthlib have no redirect_uri, so it is unknown whether it is valid.
        if isinstance(error, FatalClientError) or not error.oauthlib_error.redirect_uri:
            return _authorize_error_page(self.request, error.oauthlib_error)
        response: HttpResponse = super().error_response(error, application, **kwargs)
        return response


def _authorize_error_page(request: HttpRequest, error: errors.OAuth2Error) -> HttpResponse:
    client_id = request.GET.get("client_id", "")
    redirect_uri = request.GET.get("redirect_uri", "")
    if isinstance(
        error,
        errors.MismatchingRedirectURIError
        | errors.MissingRedirectURIError
        | errors.InvalidRedirectURIError,
    ):
        return error_page(
            request,
            code="invalid_redirect_uri",
            title="This return address is not registered",
            message=(
                "The redirect_uri of this request is not registered for the app, so you were not "
                "sent back to the app."
            ),
            details=[("redirect_uri sent", redirect_uri or "(none)"), ("client_id", client_id)],
            advice=(
                "If you are the developer: register exactly this URI, with the same scheme, host, "
                "port and path (manage.py quota_register_app --client-id, or PATCH "
                "/developers/apps/:id), or send a URI that is registered."
            ),
        )
    if isinstance(error, errors.InvalidClientIdError | errors.MissingClientIdError):
        return error_page(
            request,
            code="invalid_client",
            title="This app is not registered",
            message="The client_id of this request does not belong to any app.",
            details=[("client_id sent", client_id or "(none)")],
            advice=(
                "If you are the developer: check QUOTA_CLIENT_ID, and that the app is registered "
                "at this Quota (POST /developers/apps)."
            ),
        )
    return error_page(
        request,
        code="invalid_request",
        title="This sign-in request is invalid",
        message=error.description or "The request is malformed.",
        details=[("client_id", client_id or "(none)")],
        advice="If you are the developer: compare the request with the documentation.",
    )
