"""The end session endpoint: signs the browser out of Quota."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect
from oauth2_provider.exceptions import (
    ClientIdMissmatch,
    InvalidIDTokenError,
    InvalidOIDCClientError,
    InvalidOIDCRedirectURIError,
    LogoutDenied,
    OIDCError,
)
from oauth2_provider.views import RPInitiatedLogoutView

from .models import Application
from .pages import error_page
from .signing import find_id_token

__all__ = ["EndSessionView"]


class EndSessionView(RPInitiatedLogoutView):  # type: ignore[misc]  # the library is untyped
    """Ends the browser's session at Quota (OpenID Connect RP-Initiated Logout)."""

    template_name = "quota_sandbox/end_session.html"

    def validate_logout_request_user(
        self, id_token_hint: str | None, client_id: str | None
    ) -> Any | None:
        """Return the IDToken row of the hint. The hint may have expired or have an old key."""
        if not id_token_hint:
            return None
        id_token = find_id_token(id_token_hint)
        if id_token is None:
            raise InvalidIDTokenError
        if client_id and id_token.application.client_id != client_id:
            raise ClientIdMissmatch
        return id_token

    def get_request_application(self, id_token: Any, client_id: str | None) -> Application | None:
        """Return the app that sent the user here, found by the hint or by ``client_id``."""
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
        """Show an error page, or the overview if the user chose to stay signed in."""
        if isinstance(error, LogoutDenied):
            return redirect("overview")
        sent = self.request.GET.get("post_logout_redirect_uri", "")
        if isinstance(error, InvalidOIDCRedirectURIError):
            return error_page(
                self.request,
                code="invalid_post_logout_redirect_uri",
                title="This return address is not registered",
                message=(
                    "The post_logout_redirect_uri of this request is not registered for the app, "
                    "so you were neither signed out nor sent back to the app."
                ),
                details=[("post_logout_redirect_uri sent", sent)],
                advice=(
                    "If you are the developer: add exactly this URI to the app's "
                    "post_logout_redirect_uris (manage.py quota_register_app --client-id, or PATCH "
                    "/developers/apps/:id)."
                ),
            )
        return error_page(
            self.request,
            code=error.error,
            title="This sign-out request is invalid",
            message=error.description,
            details=[("post_logout_redirect_uri sent", sent)] if sent else [],
            advice=(
                "If you are the developer: send the id_token that /oauth/token returned as "
                "id_token_hint."
            ),
        )
