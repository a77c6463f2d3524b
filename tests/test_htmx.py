"""A page of htmx in real Chromium: what stands between a person and the answer, and back again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from django_quota.ai import openai_client
from django_quota.decorators import quota_required
from tests.browser import opened_page
from tests.sandbox_client import PASSWORD, Person, Sandbox
from tests.urls import urlpatterns as ours

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.example]


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
    live = LiveServer("localhost")
    callback = f"{live.url}/auth/quota/callback"
    app = sandbox.register_app(redirect_uris=[callback], post_logout_redirect_uris=[f"{live.url}/"])
    settings.QUOTA_CLIENT_ID = app["client_id"]
    settings.QUOTA_CLIENT_SECRET = app["client_secret"]
    yield str(live.url)
    live.stop()


@pytest.fixture
def page(site: str) -> Iterator[Any]:
    """Opened after the site: Django's connections of a thread with Playwright's loop are others."""
    problems: list[str] = []
    with opened_page(problems) as page:
        yield page
        # The browser notes each answer of 401 and 402.
        problems[:] = [said for said in problems if "Failed to load resource" not in said]


def sign_in(page: Any, person: Person) -> None:
    page.get_by_label("E-mail").fill(person.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Allow").click()


@pytest.mark.parametrize("version", [2, 4])
def test_signing_in_and_buying_on_the_way(
    page: Any, site: str, sandbox: Sandbox, version: int
) -> None:
    person = sandbox.person(balance=0)
    here = f"{site}/htmx-{version}"
    page.goto(here)

    page.get_by_role("button", name="Ask").click()  # 401
    sign_in(page, person)
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
    sign_in(page, person)
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
