"""A project whose pages send people to sign in who are signed in already."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import (
    login_not_required,
    login_required,
    permission_required,
    user_passes_test,
)
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import path

from django_quota.decorators import quota_required
from tests.urls import urlpatterns as ours

#: The page that `counts` sends a browser to next.
_numbers = iter(range(1_000_000))


def page(request: HttpRequest, **which: Any) -> HttpResponse:
    return HttpResponse("here")


def without_next(request: HttpRequest) -> HttpResponse:
    """As a decorator of the project's own may do it."""
    return redirect("django_quota:start")


def counts(request: HttpRequest, number: int) -> HttpResponse:
    """Another page each time."""
    return HttpResponseRedirect(f"/auth/quota/start?next=/counts/{next(_numbers)}")


def ahead(request: HttpRequest) -> HttpResponse:
    """Has Chromium fetch the link of `to` before anybody clicks on it."""
    return render(request, "ahead.html", {"to": request.GET["to"], "how": request.GET["how"]})


def account(request: HttpRequest) -> HttpResponse:
    return render(request, "account.html")


@login_not_required
def says_why(request: HttpRequest) -> HttpResponse:
    return render(request, "home.html")


urlpatterns = [
    *ours,
    path("mine", login_required(page)),
    path("boss", permission_required("auth.delete_user")(page)),
    path("test", user_passes_test(lambda user: user.is_staff)(page)),
    path("without-next", without_next),
    path("counts/<int:number>", counts),
    path("account", login_required(account)),
    path("ahead", ahead),
    path("says-why", says_why),
    path("billed", quota_required(page)),
]
