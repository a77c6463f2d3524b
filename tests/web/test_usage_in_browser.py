"""The usage page in a real Chromium: on a phone, in the dark, without scripts, from right to left.

The site's Content-Security-Policy allows its own files only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from django_quota.models import UsageRecord
from tests.browser import Chromium, shot

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]

URL = "/auth/quota/usage"
WIDER = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
MODELS = ["gpt-4o-mini", "gpt-4o", "anthropic/claude-sonnet-4", "google/gemini-2.0-flash"]
PURPOSES = ["chat", "summary", "title", ""]


def record_calls(user: Any, count: int = 400) -> None:
    """Calls over the last 40 days, the same in each run."""
    chance = random.Random(18)
    UsageRecord.objects.bulk_create(
        UsageRecord(
            user=user,
            call_id=f"chatcmpl-{number}",
            model=chance.choice(MODELS),
            purpose=chance.choice(PURPOSES),
            prompt_tokens=chance.randrange(20, 4_000),
            completion_tokens=chance.randrange(5, 900),
            credits_used=None if number % 17 == 3 else int(10 ** chance.uniform(1.5, 5.2)),
            complete=number % 17 != 3,
            acted_by="staff" if number % 23 == 5 else "",
            created_at=timezone.now() - timedelta(hours=chance.expovariate(1 / 200)),
        )
        for number in range(count)
    )


def record_long_names(user: Any) -> None:
    names = ["w" * 100, "تلخيص التقرير السنوي لقسم المبيعات", "a purpose of many words " * 4]
    for number, name in enumerate(names):
        UsageRecord.objects.create(
            user=user,
            call_id=f"long-{number}",
            model="m" * 100,
            purpose=name,
            prompt_tokens=10**9,
            credits_used=10**12,
        )


@pytest.fixture
def ada() -> Any:
    return get_user_model().objects.create_user("ada")


@pytest.fixture
def site(settings: Settings) -> Iterator[str]:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.helpers.csp.strict_csp"]
    live = LiveServer("localhost")
    yield str(live.url)
    live.stop()


@pytest.fixture
def cookie(ada: Any, site: str) -> dict[str, str]:
    """The cookie of Ada's session."""
    client = Client()
    client.force_login(ada, "django.contrib.auth.backends.ModelBackend")
    return {"name": "sessionid", "value": client.cookies["sessionid"].value, "url": site}


@pytest.fixture
def calls(ada: Any, request: pytest.FixtureRequest) -> None:
    """Ada's calls. They are made before the browser is opened: its event loop forbids it later."""
    make = getattr(request, "param", record_calls)
    make(ada)


@pytest.fixture
def page(chromium: Chromium, site: str, cookie: dict[str, str], calls: None) -> Iterator[Any]:
    with chromium.opened_page([]) as page:
        page.context.add_cookies([cookie])
        yield page


def test_page_fits_and_follows_the_color_scheme(page: Any, site: str) -> None:
    page.goto(site + URL)
    bar = page.locator(".quota-chart__bar").last
    for width, (scheme, color) in product(
        [390, 1280], [("light", "rgb(247, 247, 251)"), ("dark", "rgb(18, 19, 27)")]
    ):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)

        assert not page.evaluate(WIDER), (width, scheme)
        background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert background == color, (width, scheme)
        assert bar.evaluate("bar => getComputedStyle(bar).fill") != background
        shot(page, f"usage-{width}-{scheme}")


def test_table_behind_the_chart_opens_by_keyboard_without_scripts(
    page: Any, site: str, cookie: dict[str, str]
) -> None:
    context = page.context.browser.new_context(java_script_enabled=False)
    context.add_cookies([cookie])
    plain = context.new_page()
    plain.goto(site + URL)
    table = plain.get_by_role("table", name="Spending by day")
    assert not table.is_visible()

    plain.locator("summary").focus()
    plain.keyboard.press("Enter")

    table.wait_for()
    assert table.get_by_role("row").count() == 31
    shot(plain, "usage-table")


def test_chart_is_an_image_with_a_name_and_a_description(page: Any, site: str) -> None:
    page.goto(site + URL)

    image = page.get_by_role("img", name="Spending by day, from")

    assert image.count() == 1


def test_file_is_downloaded(page: Any, site: str) -> None:
    page.goto(site + URL)

    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()

    assert download.value.suggested_filename.startswith("usage-")
    with open(download.value.path(), "rb") as file:
        assert len(file.readlines()) == 401


@pytest.mark.parametrize("calls", [record_long_names], indirect=True)
def test_long_names_stay_within_a_phone(page: Any, site: str, settings: Settings) -> None:
    page.set_viewport_size({"width": 390, "height": 900})
    for language in ("en", "ar"):
        settings.LANGUAGE_CODE = language
        page.goto(site + URL)

        assert not page.evaluate(WIDER), language
        shot(page, f"usage-long-names-{language}")


def test_chart_begins_at_the_right_where_the_language_does(
    page: Any, site: str, settings: Settings
) -> None:
    settings.LANGUAGE_CODE = "ar"
    page.goto(site + URL)

    first, last = (page.locator(".quota-chart__day").nth(n).bounding_box() for n in (0, 29))

    assert first["x"] > last["x"]
    since, today = (page.locator(".quota-chart__axis span").nth(n).bounding_box() for n in (0, 1))
    assert since["x"] > today["x"]
    shot(page, "usage-right-to-left")


@pytest.mark.parametrize("calls", [lambda user: record_calls(user, 0)], indirect=True)
def test_page_of_a_user_without_calls(page: Any, site: str) -> None:
    page.goto(site + URL)

    assert "You have not used the AI yet." in page.get_by_role("main").inner_text()
    shot(page, "usage-empty")


@pytest.mark.parametrize("calls", [lambda user: record_calls(user, 1)], indirect=True)
def test_page_of_a_user_with_one_call(page: Any, site: str) -> None:
    page.goto(site + URL)

    assert page.get_by_role("table", name="Last calls").get_by_role("row").count() == 2
    shot(page, "usage-one-call")


@pytest.mark.parametrize("calls", [lambda user: record_calls(user, 10_000)], indirect=True)
def test_page_of_a_user_with_10000_calls(page: Any, site: str) -> None:
    page.goto(site + URL)

    assert page.get_by_role("table", name="Last calls").get_by_role("row").count() == 26
    shot(page, "usage-10000-calls")
