"""The URLs of the sandbox. Like Quota's, they have no trailing slash."""

from __future__ import annotations

from pathlib import Path

from django.urls import path, re_path
from django.views.static import serve

from . import (
    accounts,
    authorize,
    control,
    developers,
    end_session,
    funding,
    inference,
    messages,
    oauth,
    pages,
    wallet,
    webhooks,
)

handler400 = pages.bad_request
handler404 = pages.not_found
handler500 = pages.server_error

STATIC_ROOT = Path(__file__).resolve().parent / "static"

urlpatterns = [
    path(".well-known/openid-configuration", oauth.discovery),
    path(".well-known/jwks.json", oauth.jwks),
    path("oauth/authorize", authorize.AuthorizeView.as_view()),
    path("oauth/token", oauth.QuotaTokenView.as_view()),
    path("oauth/userinfo", oauth.userinfo),
    path("oauth/revoke", oauth.RevokeView.as_view()),
    path("oauth/end_session", end_session.EndSessionView.as_view()),
    path("login", accounts.SignInView.as_view()),
    path("auth/register", accounts.register),
    path("auth/login", accounts.auth_login),
    path("auth/me", accounts.auth_me),
    path("auth/logout", accounts.auth_logout),
    path("developers/keys", funding.keys),
    path("developers/apps", developers.apps),
    path("developers/apps/<str:identifier>", developers.app_detail),
    path("v1/balance", wallet.balance),
    path("v1/packages", wallet.packages),
    path("v1/funding/oauth_user", funding.fund_user),
    path("v1/models", inference.models),
    path("v1/webhooks", webhooks.webhooks),
    path("v1/webhooks/<uuid:webhook_id>", webhooks.webhook_detail),
    path("v1/chat/completions", inference.chat_completions),
    path("v1/messages", messages.messages),
    path("api/payments/checkout", wallet.create_checkout),
    path("checkout/<uuid:checkout_id>", wallet.checkout_page),
    path("sandbox", control.overview, name="overview"),
    path("sandbox/settings", control.sandbox_settings),
    path("sandbox/settings/reset", control.reset_settings),
    path("sandbox/users", control.users),
    path("sandbox/requests", control.request_log),
    path("sandbox/rotate-keys", control.rotate_keys),
    path("", pages.home),
    re_path(r"^avatars/(?P<name>[a-z0-9_-]{1,64})\.svg$", pages.avatar),
    path("static/<path:path>", serve, {"document_root": STATIC_ROOT}),
]
