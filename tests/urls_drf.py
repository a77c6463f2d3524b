"""A project with an API by Django REST framework that bills a wallet."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.urls import path
from rest_framework.exceptions import ValidationError
from rest_framework.permissions import IsAdminUser
from rest_framework.response import Response
from rest_framework.views import APIView

from django_quota import exceptions
from django_quota.drf import HasQuotaWallet
from tests.urls import urlpatterns as ours


class Plain(APIView):  # type: ignore[misc]
    permission_classes = [HasQuotaWallet]

    def get(self, request: Any) -> Response:
        return Response({"user": request.user.pk})

    def post(self, request: Any) -> Response:
        return Response({"user": request.user.pk})


class Spends(Plain):
    quota_scopes = ["credits.spend"]


class AdminOr(Plain):
    permission_classes = [IsAdminUser | HasQuotaWallet]


class Raises(APIView):  # type: ignore[misc]
    """Writes, then meets what a view may meet in the middle of its work."""

    def get(self, request: Any, name: str) -> Response:
        User.objects.filter(pk=request.user.pk).update(last_name="seen")
        if name == "ValidationError":
            raise ValidationError("of DRF's own")
        if name == "RateLimited":
            raise exceptions.RateLimited("for the log", retry_after=7)
        raise getattr(exceptions, name)("for the log")


urlpatterns = [
    *ours,
    path("plain", Plain.as_view()),
    path("not-atomic", transaction.non_atomic_requests(Plain.as_view())),
    path("spends", Spends.as_view()),
    path("admin-or", AdminOr.as_view()),
    path("raises/<name>", Raises.as_view()),
]
