"""A page of htmx in real Chromium: what stands between a person and the answer, and back again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path
from pytest_django.fixtures import Settings

from django_quota.ai.factory import openai_client
from django_quota.decorators import quota_required
from tests.browser import Chromium, live_site, sign_in_at_quota
from tests.sandbox_client import Sandbox
from tests.urls import urlpatterns as ours

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]


def page_of(request: HttpRequest, version: int) -> HttpResponse:
    return render(request, "htmx.html", {"script": f"django_htmx/htmx-{version}.min.js"})


@quota_required
def ask(request: HttpRequest) -> HttpResponse:
    messages: Any = [{"role": "user", "content": "Hello"}]
    completion = openai_client(request.user).chat.completions.create(
        model="gpt-4o-mini", max_tokens=20, messages=messages
    )
    return HttpResponse(completion.choices[0].message.content)


urlpatterns = [*ours, path("htmx-<int:version>", page_of), path("ask", ask, name="ask")]


@pytest.fixture
def site(sandbox: Sandbox, settings: Settings) -> Iterator[str]:
    """This project, registered at Quota with its own address."""
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django_quota.middleware.QuotaMiddleware"]
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django_htmx"]
    with live_site(sandbox, settings) as url:
        yield url


@pytest.fixture
def page(chromium: Chromium, site: str) -> Iterator[Any]:
    """Opened after the site."""
    problems: list[str] = []
    with chromium.opened_page(problems) as page:
        yield page
        # The browser notes each answer of 401 and 402.
        problems[:] = [said for said in problems if "Failed to load resource" not in said]


@pytest.mark.parametrize("version", [2, 4])
def test_signing_in_and_buying_on_the_way(
    page: Any, site: str, sandbox: Sandbox, version: int
) -> None:
    person = sandbox.person(balance=0)
    here = f"{site}/htmx-{version}"
    page.goto(here)

    page.get_by_role("button", name="Ask").click()  # 401
    sign_in_at_quota(page, person)
    page.wait_for_url(here)

    page.get_by_role("button", name="Ask").click()  # 402
    page.get_by_role("button", name="$5.00").click()
    page.get_by_role("button", name="Pay").click()
    page.wait_for_url(here)

    page.get_by_role("button", name="Ask").click()
    page.get_by_text("Hello").wait_for()
    assert page.url == here
    assert sandbox.balance_of(person.email) < 5_000_000


@pytest.mark.parametrize("version", [2, 4])
def test_where_htmx_takes_over_every_link(
    page: Any, site: str, sandbox: Sandbox, version: int
) -> None:
    """hx-boost fetches what is linked to: a page of ours, but Quota's cannot be fetched."""
    person = sandbox.person()
    here = f"{site}/htmx-{version}"
    page.goto(here)

    page.get_by_role("link", name="Sign in with Quota").click()
    sign_in_at_quota(page, person)
    page.wait_for_url(here)
    page.evaluate("window.isBoosted = true")
    page.get_by_role("link", name="Buy credits").click()
    page.get_by_role("heading", name="Buy credits").wait_for()
    assert page.evaluate("window.isBoosted")
    page.get_by_role("button", name="$5.00").click()
    page.get_by_role("button", name="Pay").click()
    page.wait_for_url(here)
    page.get_by_text("$6.00").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name="Sign in with Quota").wait_for()
