"""The provider's pages for people: authorize (sign-in, consent) and end_session."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from oauth2_provider.exceptions import (
    ClientIdMissmatch,
    FatalClientError,
    InvalidIDTokenError,
    InvalidOIDCClientError,
    InvalidOIDCRedirectURIError,
    LogoutDenied,
    OAuthToolkitError,
    OIDCError,
)
from oauth2_provider.views import AuthorizationView, RPInitiatedLogoutView
from oauthlib.common import add_params_to_uri
from oauthlib.oauth2.rfc6749 import errors

from .models import Application
from .scopes import SCOPES
from .signing import find_id_token
from .state import state

__all__ = ["AuthorizeView", "EndSessionView"]

CONSENTS_KEY = "consents"
"""Session key: client id -> scopes agreed to in this browser session."""


class AuthorizeView(AuthorizationView):  # type: ignore[misc]  # the library is untyped
    """Sign-in, consent, and the way back to the app with a code.

    The parameters stay in the query string, also while the consent form is posted, so that
    they are validated afresh each time and no hidden field is trusted.
    """

    template_name = "quota_sandbox/consent.html"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Go straight back if this was agreed to before, else ask."""
        try:
            scopes, credentials = self.validate_authorization_request(request)
        except OAuthToolkitError as error:
            return self.error_response(error, None)
        prompt = set(request.GET.get("prompt", "").split())
        if "login" in prompt or "select_account" in prompt:
            return self._sign_in_again()
        application = Application.objects.get(client_id=credentials["client_id"])
        agreed = request.session.get(CONSENTS_KEY, {}).get(application.client_id, [])
        if "consent" not in prompt and set(scopes) <= set(agreed):
            return self._answer(application, scopes, credentials, allow=True)
        if "none" in prompt:
            required = errors.ConsentRequired(state=credentials["state"])
            return self._refuse(required, application, credentials)
        context = {
            "application": application,
            "scopes": [(scope, SCOPES[scope]) for scope in scopes],
            "return_host": urlsplit(credentials["redirect_uri"]).netloc,
        }
        return render(request, self.template_name, context)

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Take the person's answer."""
        try:
            scopes, credentials = self.validate_authorization_request(request)
        except OAuthToolkitError as error:
            return self.error_response(error, None)
        application = Application.objects.get(client_id=credentials["client_id"])
        allow = request.POST.get("decision") == "allow"
        if allow:
            consents = request.session.get(CONSENTS_KEY, {})
            agreed = set(consents.get(application.client_id, [])) | set(scopes)
            request.session[CONSENTS_KEY] = consents | {application.client_id: sorted(agreed)}
        return self._answer(application, scopes, credentials, allow=allow)

    def handle_no_permission(self) -> HttpResponse:
        """Check the request before asking anybody to sign in for it."""
        try:
            self.validate_authorization_request(self.request)
        except OAuthToolkitError as error:
            return self.error_response(error, None)
        response: HttpResponse = super().handle_no_permission()
        return response

    def _sign_in_again(self) -> HttpResponse:
        # The library takes all of `prompt` out of the URL it returns to.
        response: HttpResponse = self.handle_prompt_login()
        return response

    def _answer(
        self,
        application: Application,
        scopes: list[str],
        credentials: dict[str, Any],
        *,
        allow: bool,
    ) -> HttpResponse:
        try:
            uri, _, _, _ = self.create_authorization_response(
                self.request, " ".join(scopes), credentials, allow
            )
        except OAuthToolkitError as error:
            return self.error_response(error, application)
        return self.redirect(uri, application)

    def _refuse(
        self, error: errors.OAuth2Error, application: Application, credentials: dict[str, Any]
    ) -> HttpResponse:
        wrapped = OAuthToolkitError(error=error, redirect_uri=credentials["redirect_uri"])
        return self.error_response(wrapped, application)

    def redirect(self, redirect_to: str, application: Application | None) -> HttpResponse:
        """Send the browser back, naming the issuer (RFC 9207), in refusals too."""
        uri = add_params_to_uri(redirect_to, [("iss", state.issuer)])
        response: HttpResponse = super().redirect(uri, application)
        return response

    def error_response(
        self, error: OAuthToolkitError, application: Application | None, **kwargs: Any
    ) -> HttpResponse:
        """Redirect with the error, unless it is about where to redirect to."""
        # A few of oauthlib's errors do not say where they may be sent to.
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
        context = {
            "code": "invalid_redirect_uri",
            "title": "This app sent an address that Quota does not know",
            "message": (
                "The redirect_uri of this request is not registered for the app, so you were "
                "not sent back to it."
            ),
            "details": [("redirect_uri sent", redirect_uri or "(none)"), ("client_id", client_id)],
            "action": (
                "If you are the developer: register exactly this URI, with the same scheme, "
                "host, port and path, at PATCH /developers/apps/:id, or send one that is "
                "registered."
            ),
        }
    elif isinstance(error, errors.InvalidClientIdError | errors.MissingClientIdError):
        context = {
            "code": "invalid_client",
            "title": "Quota does not know this app",
            "message": "The client_id of this request does not belong to any app.",
            "details": [("client_id sent", client_id or "(none)")],
            "action": (
                "If you are the developer: check QUOTA_CLIENT_ID, and that the app was "
                "registered at this Quota (POST /developers/apps)."
            ),
        }
    else:
        context = {
            "code": "invalid_request",
            "title": "This sign-in request cannot be read",
            "message": error.description or "The request is malformed.",
            "details": [("client_id", client_id or "(none)")],
            "action": "If you are the developer: compare the request with the documentation.",
        }
    return render(request, "quota_sandbox/error.html", context, status=400)


class EndSessionView(RPInitiatedLogoutView):  # type: ignore[misc]  # the library is untyped
    """OpenID Connect RP-Initiated Logout: ends the browser's session at Quota."""

    template_name = "quota_sandbox/end_session.html"

    def validate_logout_request_user(
        self, id_token_hint: str | None, client_id: str | None
    ) -> Any | None:
        """Return the IDToken of the hint, which may have expired or been signed by an old key."""
        if not id_token_hint:
            return None
        id_token = find_id_token(id_token_hint)
        if id_token is None:
            raise InvalidIDTokenError
        if client_id and id_token.application.client_id != client_id:
            raise ClientIdMissmatch
        return id_token

    def get_request_application(self, id_token: Any, client_id: str | None) -> Application | None:
        """Return the app that asks, from the hint or from ``client_id``."""
        if id_token is not None:
            application: Application = id_token.application
            return application
        if not client_id:
            return None
        found: Application | None = Application.objects.filter(client_id=client_id).first()
        if found is None:
            raise InvalidOIDCClientError
        return found

    def error_response(self, error: OIDCError) -> HttpResponse:
        """Say what is wrong, on a page of Quota's; staying signed in is not wrong."""
        if isinstance(error, LogoutDenied):
            return redirect("overview")
        sent = self.request.GET.get("post_logout_redirect_uri", "")
        if isinstance(error, InvalidOIDCRedirectURIError):
            context = {
                "code": "invalid_post_logout_redirect_uri",
                "title": "This app sent an address that Quota does not know",
                "message": (
                    "The post_logout_redirect_uri of this request is not registered for the "
                    "app, so you were not signed out and not sent back to it."
                ),
                "details": [("post_logout_redirect_uri sent", sent)],
                "action": (
                    "If you are the developer: add exactly this URI to the app's "
                    "post_logout_redirect_uris with PATCH /developers/apps/:id."
                ),
            }
        else:
            context = {
                "code": error.error,
                "title": "This sign-out request cannot be followed",
                "message": error.description,
                "details": [("post_logout_redirect_uri sent", sent)] if sent else [],
                "action": (
                    "If you are the developer: send the id_token that /oauth/token returned as "
                    "id_token_hint."
                ),
            }
        return render(self.request, "quota_sandbox/error.html", context, status=400)
