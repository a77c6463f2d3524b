"""Include as `path("auth/quota/", include("django_quota.urls"))`.

No trailing slashes: Quota compares redirect URIs as exact strings, and its documents use these.
"""

from django.urls import path

from . import views, wallet_views, webhooks

app_name = "django_quota"

urlpatterns = [
    path("start", views.StartView.as_view(), name="start"),
    path("callback", views.CallbackView.as_view(), name="callback"),
    path("logout", views.LogoutView.as_view(), name="logout"),
    path("connect", views.ConnectView.as_view(), name="connect"),
    path("error", views.ErrorView.as_view(), name="error"),
    path("disconnect", wallet_views.disconnect, name="disconnect"),
    path("me", wallet_views.me, name="me"),
    path("status", wallet_views.status, name="status"),
    path("balance", wallet_views.balance, name="balance"),
    path("packages", wallet_views.packages, name="packages"),
    path("checkout", wallet_views.checkout, name="checkout"),
    path("webhook", webhooks.webhook, name="webhook"),
]
