"""Journeys in a real Chromium, where a browser's own ways matter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from django.core.signals import request_started
from pytest_django.fixtures import Settings

from tests.browser import Chromium, live_site, shot, sign_in_at_quota
from tests.helpers.concurrency import wait_until
from tests.sandbox_client import Sandbox, query_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]


@pytest.fixture
def site(sandbox: Sandbox, settings: Settings) -> Iterator[str]:
    settings.ROOT_URLCONF = "tests.urls_circles"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django_quota.middleware.QuotaMiddleware"]
    with live_site(sandbox, settings) as url:
        yield url


@pytest.fixture
def page(chromium: Chromium, site: str) -> Iterator[Any]:
    problems: list[str] = []
    with chromium.opened_page(problems) as page:
        yield page


def test_who_lacks_a_permission_signs_in_as_somebody_else(
    page: Any, site: str, sandbox: Sandbox
) -> None:
    person, other = sandbox.person(), sandbox.person(name="Grace Hopper")
    page.goto(f"{site}/boss")
    sign_in_at_quota(page, person)
    page.get_by_role("heading", name="This page is not open to this account").wait_for()
    page.get_by_text(person.email).wait_for()
    shot(page, "not-permitted")

    page.get_by_role("link", name="Sign in as somebody else").click()
    sign_in_at_quota(page, other)
    page.get_by_text(other.email).wait_for()

    page.get_by_role("link", name="Back to the home page").click()
    page.wait_for_url(f"{site}/")


@pytest.fixture
def asked() -> Iterator[list[tuple[str, str]]]:
    """What the site was asked: each path, and for what purpose."""
    noted: list[tuple[str, str]] = []

    def note(environ: dict[str, str], **said: Any) -> None:
        noted.append((environ["PATH_INFO"], environ.get("HTTP_SEC_PURPOSE", "")))

    request_started.connect(note)
    yield noted
    request_started.disconnect(note)


def test_double_click_on_a_package_sends_one_form(
    page: Any, site: str, sandbox: Sandbox, asked: list[tuple[str, str]]
) -> None:
    """Going back, the button works again."""
    page.goto(f"{site}/auth/quota/packages")
    sign_in_at_quota(page, sandbox.person())
    page.goto(f"{site}/auth/quota/packages")
    sandbox.set(latency={"/api/payments/checkout": 0.5})
    asked.clear()

    page.get_by_role("button", name="$5.00").evaluate(
        "button => { button.click(); setTimeout(() => button.click(), 100) }"
    )
    page.get_by_role("button", name="Pay").wait_for()
    assert [path for path, _ in asked].count("/auth/quota/checkout") == 1

    page.go_back()
    page.get_by_role("button", name="$5.00").click()
    page.get_by_role("button", name="Pay").wait_for()


def test_who_stops_loading_the_payment_page_can_click_again(
    page: Any, site: str, sandbox: Sandbox
) -> None:
    """The browser stays on the page, and does not say so."""
    page.goto(f"{site}/auth/quota/packages")
    sign_in_at_quota(page, sandbox.person())
    browser = page.context.new_cdp_session(page)
    page.clock.install(time=0)
    page.goto(f"{site}/auth/quota/packages")
    page.clock.pause_at(3_600)  # from here on, only the test moves the page's clock
    button = page.get_by_role("button", name="$5.00")
    held: list[Any] = []  # requests that reach no server
    page.route("**/auth/quota/checkout", lambda route: held.append(route))
    with page.expect_request("**/auth/quota/checkout"):
        button.evaluate("button => button.click()")
    with page.expect_event("requestfailed"):
        browser.send("Page.stopLoading")
    page.unroute("**/auth/quota/checkout")
    assert len(held) == 1

    page.clock.fast_forward(4_999)
    assert button.is_disabled()
    page.clock.fast_forward(1)
    button.click()
    page.get_by_role("button", name="Pay").wait_for()


@pytest.mark.parametrize("how", ["link", "prefetch", "prerender"])
def test_what_chromium_has_fetched_ahead_is_asked_for_again(
    page: Any, site: str, sandbox: Sandbox, how: str, asked: list[tuple[str, str]]
) -> None:
    """First the link that signs in, then Quota's link back, which has the code."""
    person = sandbox.person()

    def fetches_ahead(path: str) -> None:
        def is_fetched() -> bool:
            page.wait_for_timeout(20)  # lets the browser's events come in
            return any(where == path.partition("?")[0] and purpose for where, purpose in asked)

        asked.clear()
        page.goto(f"{site}/ahead?{urlencode({'how': how, 'to': path})}")
        wait_until(is_fetched)

    fetches_ahead("/auth/quota/start?next=/mine")
    page.get_by_role("link", name="Go on").click()
    page.get_by_label("E-mail").wait_for()
    back = urlsplit(person.at_quota(page.evaluate("location.origin") + next_of(page.url)))
    fetches_ahead(f"{back.path}?{back.query}")
    page.get_by_role("link", name="Go on").click()
    page.wait_for_url(f"{site}/mine")
    assert page.get_by_text("here").is_visible()
    shot(page, f"fetched-ahead-{how}")


def next_of(url: str) -> str:
    return query_of(url)["next"]


def test_who_disconnects_leaves_nothing_to_the_next_person(
    page: Any, site: str, sandbox: Sandbox
) -> None:
    """At a computer that several people use."""
    page.goto(f"{site}/account")
    sign_in_at_quota(page, sandbox.person())
    page.get_by_role("button", name="Disconnect").click()
    page.get_by_text("Your wallet is disconnected.").wait_for()
    shot(page, "disconnected")
    page.get_by_role("link", name="Sign out of Quota").click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{site}/")

    page.goto(f"{site}/auth/quota/start?next=/account")
    page.get_by_label("Password").wait_for()


def test_who_signs_out_after_a_disconnect_is_signed_out_at_quota(
    page: Any, site: str, sandbox: Sandbox
) -> None:
    page.goto(f"{site}/account")
    sign_in_at_quota(page, sandbox.person())
    page.get_by_role("button", name="Disconnect").click()
    page.get_by_text("Your wallet is disconnected.").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign out of Quota?").wait_for()
    shot(page, "signing-out-after-a-disconnect")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name="Sign in with Quota").click()
    page.get_by_label("Password").wait_for()
