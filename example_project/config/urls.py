"""The URLs of the example project: its own pages, the admin, and one line for Quota."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("chat.urls")),
    path("auth/quota/", include("django_quota.urls")),
    path("admin/", admin.site.urls),
]
