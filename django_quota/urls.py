"""Include as `path("auth/quota/", include("django_quota.urls"))`.

No trailing slashes: Quota compares redirect URIs as exact strings, and its documents use these.
"""

from django.urls import path

from .web import checkout, connect, error_page, sign_in, sign_out, usage_page, wallet, webhooks

app_name = "django_quota"

urlpatterns = [
    path("start", sign_in.StartView.as_view(), name="start"),
    path("callback", sign_in.CallbackView.as_view(), name="callback"),
    path("logout", sign_out.LogoutView.as_view(), name="logout"),
    path("connect", connect.ConnectView.as_view(), name="connect"),
    path("error", error_page.ErrorView.as_view(), name="error"),
    path("disconnect", wallet.disconnect, name="disconnect"),
    path("me", wallet.me, name="me"),
    path("status", wallet.status, name="status"),
    path("balance", wallet.balance, name="balance"),
    path("packages", checkout.packages, name="packages"),
    path("checkout", checkout.CheckoutView.as_view(), name="checkout"),
    path("usage", usage_page.usage, name="usage"),
    path("webhook", webhooks.webhook, name="webhook"),
]
